"""Part 6 of the suite: what a jump costs where several walkers, or several proposals of one, share a module call."""

import tempfile
from pathlib import Path
from typing import Any

import openmm as mm
import torch
from suite_systems import chain, with_untrained_bundle
from suite_timing import Case, in_own_process, interleave, quartiles

from openmm_latent import LatentIntegrator, LatentModel
from openmm_latent.compiling import compile_bundle

N_ATOMS = (22, 250)
N_TOGETHER = (1, 2, 4, 8, 16)


def measure(n_atoms: int, platform: str, n_rounds: int, seconds: float) -> dict[str, Any]:
    """Time jumps [microseconds a walker, or a proposal], by TorchScript and compiled."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        molecule = with_untrained_bundle(chain(n_atoms), Path(folder))
        compiled = Path(folder) / "compiled.latent.pt"
        compile_bundle(molecule.bundle, compiled)
        cases, kept = {}, []

        def integrator(runner: str, seed: int, **settings: Any) -> LatentIntegrator:
            model = LatentModel(compiled if runner == "aoti" else molecule.bundle)
            relaxation = mm.LangevinMiddleIntegrator(300, 1, 0.001)
            made = model.createIntegrator(
                molecule.topology, relaxation, jumpInterval=1, seed=seed, mode="exploratory", runner=runner, **settings
            )
            kept.append(molecule.context(made, platform))  # or the integrator would lose its Context
            return made

        for runner in ("torchscript", "aoti"):
            walkers = [integrator(runner, seed) for seed in range(1, N_TOGETHER[-1] + 1)]
            for n in N_TOGETHER:
                together = walkers[:n]
                cases[f"{runner}, walkers {n}"] = Case(lambda w=together: LatentIntegrator.jumpTogether(w), n)
                one = integrator(runner, 100 + n, nProposals=n)
                cases[f"{runner}, proposals {n}"] = Case(lambda i=one: i.jump(), n)
        found = interleave(cases, n_rounds, seconds)
    return {"n_atoms": n_atoms, "microseconds": {name: quartiles(values, 1e6) for name, values in found.items()}}


def run(platform: str, sizes: tuple[int, ...], n_rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Each size in a process of its own."""
    found = []
    for n_atoms in sizes:
        print(f"  jumps together, {n_atoms} atoms", flush=True)
        found.append(in_own_process(measure, n_atoms, platform, n_rounds, seconds))
    return found
