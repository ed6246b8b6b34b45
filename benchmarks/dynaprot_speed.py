"""What DynaProt costs at 271 residues on one core: parameters, forward passes, 1000 structures of the joint Gaussian.

python benchmarks/dynaprot_speed.py
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from results import write_results

from openmm_latent.models.dynaprot import CONFIGS, DynaProt
from openmm_latent.models.dynaprot.covariance import joint_covariance, sample, without_rigid_motions
from openmm_latent.models.dynaprot.surroundings import centred_structure

N_RESIDUES, N_STRUCTURES = 271, 1000


def seconds(function: Callable[[], object], n: int = 5) -> dict[str, float]:
    """Return median and least CPU time of some calls after a first one: one thread, so what a quiet core takes."""
    function()
    times = []
    for _ in range(n):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return {"median_s": float(np.median(times)), "least_s": float(min(times))}


def random_coil(seed: int) -> dict[str, torch.Tensor]:
    """Return what the networks take of a chain of Cα atoms 0.38 nm apart with random frames."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((N_RESIDUES, 3))
    steps *= 0.38 / np.linalg.norm(steps, axis=1, keepdims=True)
    turns, _ = np.linalg.qr(random.standard_normal((N_RESIDUES, 3, 3)))
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    return {
        "residue_types": torch.tensor(random.integers(0, 20, (1, N_RESIDUES))),
        "rotations": torch.tensor(turns[None], dtype=torch.float32),
        "positions": torch.tensor(np.cumsum(steps, axis=0)[None], dtype=torch.float32),
        "chains": torch.zeros(1, N_RESIDUES, dtype=torch.int64),
        "mask": torch.ones(1, N_RESIDUES, dtype=torch.bool),
    }


def main() -> None:
    torch.set_num_threads(1)
    inputs = random_coil(1)
    shape, found = centred_structure(**inputs), {}
    for name, config in CONFIGS.items():
        torch.manual_seed(1)
        model = DynaProt(config).eval()
        parts = {"M": model.marginal, "J": model.pair}
        found[name] = {f"parameters {part}": sum(p.numel() for p in net.parameters()) for part, net in parts.items()}
        with torch.no_grad():
            found[name] |= {f"forward {part}": seconds(lambda net=net: net(shape), 3) for part, net in parts.items()}
        print(name, found[name], flush=True)
    with torch.no_grad():
        cholesky, coupling = DynaProt(CONFIGS["tiny"]).eval()(**inputs)
    mean = inputs["positions"][0].double()
    covariance = without_rigid_motions(joint_covariance(cholesky[0], inputs["rotations"][0], coupling[0]), mean)
    found["1000 structures, assembly not counted"] = seconds(lambda: sample(mean, covariance, N_STRUCTURES, 1))
    found["assembly"] = seconds(
        lambda: without_rigid_motions(joint_covariance(cholesky[0], inputs["rotations"][0], coupling[0]), mean)
    )
    print(found)
    write_results("dynaprot_speed", {"residues": N_RESIDUES, **found})


if __name__ == "__main__":
    main()
