"""What the guard accepts of jumps that draw all side chains anew: CODLAD alone, and after DynaProt's Cα atoms.

Chignolin and villin, amber14 + OBC2 at 300 K. CODLAD is trained on the first four fifths of short MD of the protein
itself (`benchmarks/small_proteins.py`), unless --weights gives a trained one; DynaProt is the one that is shipped,
which learned from these proteins, too. Jumps start from the prepared structure after 2 ps of MD; the guard is the
default one. DynaProt with rigid bodies in place of a second stage stands beside them. Proteins may be run
one by one; outcomes are kept.

    python benchmarks/backmapped_jumps.py [--jumps 40] [--names chignolin villin] [--weights codlad.weights.pt]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from results import write_results
from small_proteins import OUT

from openmm_latent import LatentModel
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.residue_slots import frames_of
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.models.dynaprot.weights import SHIPPED_WEIGHTS
from openmm_latent.topology import describe_atoms, heavy_atoms
from openmm_latent.training.codlad_binding import bind_codlad
from openmm_latent.training.codlad_diffusion import train_codlad
from openmm_latent.training.dynaprot_binding import bind_dynaprot

WORK = Path(__file__).parents[1] / "benchmark_output" / "backmapped_jumps"


def trained(name: str, n_epochs: int, n_steps: int) -> Path:
    """Train CODLAD on the first four fifths of one protein's MD, once; return the weights."""
    path = WORK / f"{name}_{n_epochs}_{n_steps}.weights.pt"
    if not path.exists():
        read = load_trajectories(OUT / name / f"{name}.pdb", sorted((OUT / name).glob("*.xtc")))
        example = frames_of(read, name=name)
        kept = example.positions[: 4 * len(example) // 5]
        taught = type(example)(name, example.residues, example.disulphides, kept)
        train_codlad([taught], out=path, work_directory=WORK, n_epochs=n_epochs, n_steps=n_steps)
    return path


def bundles(name: str, pdb: app.PDBFile, weights: Path) -> dict[str, Path]:
    """Bind both families to one protein: what it is called in the table -> bundle."""
    positions = np.array(pdb.positions.value_in_unit(unit.nanometer))
    paths = {kind: WORK / f"{name}_{kind}.latent.pt" for kind in ("codlad", "dynaprot", "both")}
    bind_codlad(weights, pdb.topology, positions, paths["codlad"])
    bind_dynaprot(SHIPPED_WEIGHTS, pdb.topology, positions, paths["dynaprot"])
    bind_dynaprot(SHIPPED_WEIGHTS, pdb.topology, positions, paths["both"], backmap=paths["codlad"])
    return {
        "CODLAD: all but Cα drawn": paths["codlad"],
        "DynaProt, then CODLAD": paths["both"],
        "DynaProt, rigid bodies": paths["dynaprot"],
    }


def run(path: Path | None, pdb: app.PDBFile, n_jumps: int, n_proposals: int, interval: int) -> dict:
    """Make guarded jumps, `interval` steps of 2 fs apart, or none without a bundle; return what became of them.

    How far an accepted jump goes is told by heavy atoms before and after it, as they lie, and by chi1 that turned by
    more than 60 degrees.
    """
    relaxation = mm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 2 * unit.femtosecond)
    relaxation.setRandomNumberSeed(1)
    integrator = relaxation
    if path is not None:  # jumps are made by hand
        integrator = LatentModel(path).createIntegrator(
            pdb.topology, relaxation, jumpInterval=10**9, mode="guarded", seed=1, nProposals=n_proposals
        )
    platform, properties = mm.Platform.getPlatform("CPU"), {"Threads": "1"}
    simulation = app.Simulation(pdb.topology, build_system(pdb.topology), integrator, platform, properties)
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
    simulation.step(1000)
    heavy = heavy_atoms(pdb.topology)
    chi1 = torsion_quadruples(describe_atoms(pdb.topology, range(pdb.topology.getNumAtoms())), "chi1")
    began, energies, moves, turned = time.process_time(), [], [], []
    for _ in range(n_jumps):
        before = positions_of(simulation)
        if path is not None and integrator.jump():
            after = positions_of(simulation)
            moves.append(float(np.linalg.norm(after[heavy] - before[heavy], axis=1).mean()))
            turned.append(float((np.cos(dihedrals(after[None], chi1) - dihedrals(before[None], chi1)) < 0.5).mean()))
        simulation.step(interval)
        energies.append(simulation.context.getState(energy=True).getPotentialEnergy()._value)
    done = {"cpu_seconds": round(time.process_time() - began, 1), "median_energy": round(float(np.median(energies)), 1)}
    if path is None:
        return done
    return {
        "jumps": n_jumps,
        "accepted": integrator.getNumAccepted(),
        "refused": {reason: count for reason, count in integrator.getRefusals().items() if count},
        "mean_move_of_heavy_atoms_nm": round(float(np.mean(moves)), 4) if moves else None,
        "share_of_chi1_turned": round(float(np.mean(turned)), 4) if turned else None,
        **done,
    }


def positions_of(simulation: app.Simulation) -> np.ndarray:
    """Return positions of all atoms, (n_atoms, 3) [nm]."""
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jumps", type=int, default=40)
    parser.add_argument("--interval", type=int, default=200, help="relaxation steps of 2 fs between jumps")
    parser.add_argument("--names", nargs="*", default=["chignolin", "villin"])
    parser.add_argument("--proposals", type=int, default=1, help="candidates that one call draws")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--weights", type=Path, help="of CODLAD, instead of training one for each protein")
    options = parser.parse_args()
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "outcomes.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.names:
        pdb = app.PDBFile(str(OUT / name / f"{name}.pdb"))
        weights = options.weights or trained(name, options.epochs, options.steps)
        setting = {key: getattr(value, "name", value) for key, value in vars(options).items() if key != "names"}
        outcome = {"setting": setting, "plain MD": run(None, pdb, options.jumps, 1, options.interval)}
        for label, path in bundles(name, pdb, weights).items():
            outcome[label] = run(path, pdb, options.jumps, options.proposals, options.interval)
            print(name, label, json.dumps(outcome[label]), flush=True)
        found[name if options.weights is None else f"{name}, {options.weights.name}"] = outcome
        kept.write_text(json.dumps(found))
    write_results("backmapped_jumps", {"proteins": found})


if __name__ == "__main__":
    main()
