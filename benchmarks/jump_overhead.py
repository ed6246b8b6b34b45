"""What a jump costs beyond the module's own forward, beside the same loop written in Python.

The bar: gather, contract and scatter of 22 atoms on the Reference platform within 20 microseconds + 2 % of the
forward. Minimisation and velocity redraw are timed apart. `python benchmarks/jump_overhead.py`
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from results import write_results
from torch import Tensor, nn

from openmm_latent import LatentModel
from openmm_latent.bundle import export_bundle
from openmm_latent.model import ExplicitLatentModule
from openmm_latent.topology import describe_atoms, heavy_atoms

PDB = Path(__file__).parents[1] / "examples" / "data" / "adp.pdb"


class Stand(ExplicitLatentModule):
    """An autoencoder-shaped module: encoder and decoder MLPs around a latent of 12; output stays near the input."""

    def __init__(self, n_atoms: int, width: int) -> None:
        super().__init__()
        self.n_atoms, self.n_latent, self.n_slow = n_atoms, 12, 0
        self.n_propagate_noise, self.n_decode_noise = 12, 0
        self.encoder = nn.Sequential(nn.Linear(3 * n_atoms, width), nn.ReLU(), nn.Linear(width, 12))
        self.decoder = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3 * n_atoms))

    def encode(self, positions: Tensor) -> Tensor:
        centred = positions - positions.mean(1, keepdim=True)
        return self.encoder(centred.flatten(1))

    def propagate(self, latent: Tensor, state: list[Tensor], noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        return latent + 0.1 * noise, state

    def decode(self, latent: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        return positions + 1e-3 * self.decoder(latent).reshape(positions.shape)


def export(folder: Path, topology: app.Topology, positions: np.ndarray, width: int) -> Path:
    atoms = heavy_atoms(topology)
    everything = list(topology.atoms())
    return export_bundle(
        Stand(len(atoms), width),
        folder / "stand.latent.pt",
        family="benchmark",
        atoms=describe_atoms(topology, atoms),
        masses=[everything[i].element.mass._value for i in atoms],
        lag_time=1.0,
        config={"width": width},
        training={},
        reference_positions=positions[atoms],
    )


def time_plugin(model: LatentModel, topology, system, positions, platform, n_jumps: int) -> dict[str, np.ndarray]:
    """Seconds of each part of each jump."""
    relaxation = mm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator = model.createIntegrator(topology, relaxation, mode="exploratory")
    integrator.setThreshold("maxMinimizerIterations", 0)
    context = mm.Context(system, integrator, platform)
    context.setPositions(positions)
    for _ in range(200):
        integrator.jump()
    first = integrator.getNumJumps()
    wall = []
    for i in range(n_jumps):
        if i % 50 == 0:
            context.setPositions(positions)
        start = time.perf_counter()
        integrator.jump()
        wall.append(time.perf_counter() - start)
    records = list(integrator.getJumpRecords(first))
    parts = ("gather", "module", "scatter", "minimize", "velocity")
    seconds = {part: np.array([getattr(record, part + "Seconds") for record in records]) for part in parts}
    return seconds | {"whole": np.array(wall)}


def time_python_loop(model: LatentModel, topology, system, positions, platform, n_jumps: int) -> dict[str, np.ndarray]:
    """The same move with getState and setPositions, module included; constraints too, hydrogens left behind."""
    module = model._bundle.module
    atoms = model.modelAtoms(topology)
    context = mm.Context(system, mm.LangevinMiddleIntegrator(300, 1, 0.002), platform)
    seconds, forwards = [], []
    for i in range(n_jumps):
        if i % 50 == 0:
            context.setPositions(positions)
        start = time.perf_counter()
        frame = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        centred = frame[atoms] - frame[atoms].mean(axis=0)
        batch = torch.from_numpy(centred).float()[None]
        noise = torch.randn(1, model.manifest.noise_sizes["jump"])
        before = time.perf_counter()
        with torch.inference_mode():
            moved, _ = module.jump(batch, [], noise)
        forwards.append(time.perf_counter() - before)
        frame[atoms] += (moved - batch)[0].double().numpy()
        context.setPositions(frame)
        context.applyConstraints(1e-5)
        seconds.append(time.perf_counter() - start)
    return {"beyond_forward": np.array(seconds) - np.array(forwards)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", default="Reference")
    parser.add_argument("--jumps", type=int, default=5000)
    parser.add_argument("--width", type=int, default=256, help="hidden width of the stand-in module")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pdb = app.PDBFile(str(PDB))
    positions = np.array(pdb.positions.value_in_unit(unit.nanometer))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=app.HBonds)
    platform = mm.Platform.getPlatformByName(arguments.platform)
    with tempfile.TemporaryDirectory() as folder:
        model = LatentModel(export(Path(folder), pdb.topology, positions, arguments.width))
        case = (model, pdb.topology, system, positions, platform)
        plugin, loop = [], []
        for _ in range(5):  # interleaved, so that the machine's drift meets both
            plugin.append(time_plugin(*case, arguments.jumps // 5))
            loop.append(time_python_loop(*case, arguments.jumps // 5))
    seconds = {part: np.concatenate([run[part] for run in plugin]) for part in plugin[0]}
    beyond = {"plugin": seconds["gather"] + seconds["scatter"]}
    beyond["python_loop"] = np.concatenate([run["beyond_forward"] for run in loop])
    micro = {
        name: [round(1e6 * float(np.quantile(values, q)), 2) for q in (0.25, 0.5, 0.75)]
        for name, values in (seconds | {f"beyond_forward_{k}": v for k, v in beyond.items()}).items()
    }
    bar = 20 + 0.02 * micro["module"][1]
    for name, (low, median, high) in micro.items():
        print(f"{name:28s} median {median:8.2f} us   quartiles {low:8.2f} .. {high:8.2f}")
    overhead = micro["beyond_forward_plugin"][1]
    print(f"overhead {overhead:.2f} us, bar {bar:.2f} us: {'met' if overhead <= bar else 'NOT met'}")
    write_results(
        "jump_overhead_" + arguments.platform,
        {"microseconds_quartiles": micro, "bar_microseconds": bar, "n_atoms": len(positions), **vars(arguments)},
    )


if __name__ == "__main__":
    main()
