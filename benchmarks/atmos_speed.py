"""400 frames of a protein of 139 residues: seconds and peak memory of ATMOS, beside plain MD on the same core.

The protein is residues 1-139 of adenylate kinase. Weights are untrained, which changes no cost. Each part runs in a
process of its own, whose peak memory is its own. MD is timed over some steps and carried on to as long as the frames
last at one nanosecond each, as in the paper.

    python benchmarks/atmos_speed.py [key|filled|md]
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

N_RESIDUES, N_FRAMES, UPSAMPLING = 139, 400, 20  # of the paper: key frames 20 ns apart
FRAME_TIME = 1000.0  # [ps]
N_PARALLEL = 4  # intervals that are filled at once
N_TIMED = 300  # MD steps of 4 fs
TIMESTEP = 0.004  # [ps]


def structure():
    """Return topology and positions (n_atoms, 3) [nm] with hydrogens."""
    from openmm import app
    from results import shared_data

    read = app.PDBFile(str(shared_data("adk") / "adk_open.pdb"))
    modeller = app.Modeller(read.topology, read.positions)
    modeller.delete(
        [a for a in read.topology.atoms() if a.element.symbol == "H" or not 1 <= int(a.residue.id) <= N_RESIDUES]
    )
    folder = Path(__file__).parents[1] / "benchmark_output" / "atmos_small"
    cut = folder / "adk_139.pdb"
    with cut.open("w") as out:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, out)
    from openmm_latent.data.prepare import prepare

    made = prepare(cut, solvent="obc2", ph=7.0, seed=1, remove_heterogens=True)
    return made.topology, made.positions


def sampling(is_filled: bool) -> dict:
    """Time key frames alone, or key frames and what lies between."""
    from dataclasses import replace

    import torch
    from atmos_drawing import draw

    from openmm_latent.data.complex_tokens import read_tokens
    from openmm_latent.models.atmos import ATMOS, CONFIGS
    from openmm_latent.models.atmos.module import BoundComplex

    torch.set_num_threads(1)
    topology, positions = structure()
    tokens = read_tokens(topology)
    config = replace(CONFIGS["tiny"], upsampling=UPSAMPLING, data_scale=0.1, fine_data_scale=0.05)
    torch.manual_seed(1)
    reference = positions[tokens.atoms]
    module = BoundComplex(ATMOS(config, FRAME_TIME * UPSAMPLING, FRAME_TIME), tokens, reference).eval()
    before = _peak()
    began = time.process_time()
    n_frames = N_FRAMES if is_filled else N_FRAMES // UPSAMPLING
    frames = draw(module, reference[None], n_frames, is_filled, seed=1, n_parallel=N_PARALLEL)[0]
    return {
        "residues": len(tokens),
        "heavy atoms": tokens.n_atoms,
        "frames": len(frames) - 1,
        "CPU seconds": round(time.process_time() - began, 1),
        "peak memory [MB]": round(_peak()),
        "of it before the first frame [MB]": round(before),
        "finite": bool(np.isfinite(frames).all()),
    }


def md() -> dict:
    """Time MD and carry it on to all frames."""
    import openmm
    from openmm import app

    from openmm_latent.data.forcefields import build_system

    topology, positions = structure()
    system = build_system(topology, "obc2", hydrogen_mass=3.0)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, TIMESTEP)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(simulation.context, 10.0, 100)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    simulation.step(20)
    began = time.process_time()
    simulation.step(N_TIMED)
    simulation.context.getState(energy=True)
    each = (time.process_time() - began) / N_TIMED
    return {
        "atoms": topology.getNumAtoms(),
        "CPU seconds a step of 4 fs": each,
        "CPU seconds, carried on to 400 ns": round(each * N_FRAMES * FRAME_TIME / TIMESTEP),
        "peak memory [MB]": round(_peak()),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000.0


PARTS = {"key": lambda: sampling(False), "filled": lambda: sampling(True), "md": md}


def speed() -> dict:
    """Return all parts, each from a process of its own."""
    found = {}
    for name in PARTS:
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


STAGES = {"400 frames of 139 residues": speed}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]]() if len(sys.argv) > 1 else speed()))
