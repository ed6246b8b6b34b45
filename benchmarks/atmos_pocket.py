"""MD of a protein-ligand complex small enough for one core: thrombin's pocket, cut out of ../shared/data/thrombin.

The ligand and every residue with a heavy atom within 0.5 nm of it stay, as the Amber file has them; where a residue's
neighbour in the chain is gone, its N, CA and C are held by springs. Amber's parameters of what stays, OBC2, 300 K,
hydrogens of 3 amu, 4 fs. Each replica is minimised, warms up from its own seed, and leaves one file.

    python benchmarks/atmos_pocket.py [--duration 150]
"""

import argparse
import os
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from results import shared_data

from openmm_latent.data.complex_tokens import name_elements

OUT = Path(__file__).parents[1] / "benchmark_output" / "atmos_small" / "pocket"
LIGAND, CUTOFF = "MOL", 0.5  # [nm]
STIFFNESS = 1000.0  # [kJ/mol/nm^2] of the springs: 0.05 nm a coordinate
TEMPERATURE, TIMESTEP, FRICTION = 300.0, 0.004, 1.0  # K, ps, 1/ps
HYDROGEN_MASS = 3.0  # [amu]
FRAME_SPACING, EQUILIBRATION = 1.0, 20.0  # [ps]
SEEDS = (1, 2, 3)  # of the replicas; the last one is held out


def pocket() -> tuple[app.Topology, np.ndarray, openmm.System]:
    """Return the pocket's topology, positions (n_atoms, 3) [nm] and System with springs."""
    folder = shared_data("thrombin")
    prmtop = app.AmberPrmtopFile(str(folder / "structure.prmtop"))
    positions = app.PDBFile(str(folder / "structure.pdb")).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    with warnings.catch_warnings():  # the file's GB radii are of another OBC; the System uses them as they are
        warnings.simplefilter("ignore")
        bare = prmtop.createSystem(constraints=app.HBonds)
        whole = prmtop.createSystem(
            implicitSolvent=app.OBC2, constraints=app.HBonds, hydrogenMass=HYDROGEN_MASS * unit.amu
        )
    topology = prmtop.topology
    name_elements(topology, bare)  # the file lacks some; repartitioned masses would name others
    residues = list(topology.residues())
    heavy = {atom.index for atom in topology.atoms() if atom.element.symbol != "H"}
    near = [[atom.index for atom in residue.atoms() if atom.index in heavy] for residue in residues]
    centre = positions[near[[residue.name for residue in residues].index(LIGAND)]]
    is_kept = [np.linalg.norm(positions[one][:, None] - centre, axis=2).min() < CUTOFF for one in near]
    kept = [atom.index for r, keep in zip(residues, is_kept, strict=True) if keep for atom in r.atoms()]
    neighbours = {i: [i - 1, i + 1] for i in range(len(residues))}
    edges = [
        atom.index
        for residue, keep in zip(residues, is_kept, strict=True)
        if keep and not all(0 <= i < len(residues) and is_kept[i] for i in neighbours[residue.index])
        for atom in residue.atoms()
        if atom.name in ("N", "CA", "C") and residue.name != LIGAND
    ]
    system = cut_system(whole, kept)
    place = {atom: number for number, atom in enumerate(kept)}
    add_springs(system, [place[atom] for atom in edges], positions[kept])
    return cut_topology(topology, set(kept)), positions[kept], system


def cut_topology(topology: app.Topology, kept: set[int]) -> app.Topology:
    """Return the atoms kept with their bonds; each stretch of neighbouring residues is a chain."""
    cut, atoms, chain = app.Topology(), {}, None
    bonded = {tuple(sorted((a.residue.index, b.residue.index))) for a, b in topology.bonds()}
    residues = [r for r in topology.residues() if next(r.atoms()).index in kept]
    for before, residue in pairwise([None, *residues]):
        if before is None or (before.index, residue.index) not in bonded:
            chain = cut.addChain()
        new = cut.addResidue(residue.name, chain, residue.id)
        for atom in residue.atoms():
            atoms[atom.index] = cut.addAtom(atom.name, atom.element, new)
    for bond in topology.bonds():
        if bond[0].index in atoms and bond[1].index in atoms:
            cut.addBond(atoms[bond[0].index], atoms[bond[1].index], bond.type, bond.order)
    return cut


def cut_system(whole: openmm.System, kept: list[int]) -> openmm.System:
    """Return the System of some atoms: their masses, constraints, and every term among them alone."""
    system, place = openmm.System(), {atom: number for number, atom in enumerate(kept)}
    for atom in kept:
        system.addParticle(whole.getParticleMass(atom))
    for number in range(whole.getNumConstraints()):
        first, second, distance = whole.getConstraintParameters(number)
        if first in place and second in place:
            system.addConstraint(place[first], place[second], distance)
    for force in whole.getForces():
        made = _cut_force(force, kept, place)
        if made is not None:
            system.addForce(made)
    return system


def _cut_force(force: openmm.Force, kept: list[int], place: dict[int, int]) -> openmm.Force | None:
    """Return the terms of a force among the atoms kept; None of one that removes the motion of the whole."""
    for kind, name, n_ends in (
        (openmm.HarmonicBondForce, "Bond", 2),
        (openmm.HarmonicAngleForce, "Angle", 3),
        (openmm.PeriodicTorsionForce, "Torsion", 4),
    ):
        if isinstance(force, kind):
            made = kind()
            for number in range(getattr(force, f"getNum{name}s")()):
                values = getattr(force, f"get{name}Parameters")(number)
                if all(atom in place for atom in values[:n_ends]):
                    getattr(made, f"add{name}")(*(place[atom] for atom in values[:n_ends]), *values[n_ends:])
            return made
    if isinstance(force, openmm.NonbondedForce | openmm.GBSAOBCForce):
        made = type(force)()
        made.setNonbondedMethod(type(force).NoCutoff)
        for atom in kept:
            made.addParticle(*force.getParticleParameters(atom))
        if isinstance(force, openmm.GBSAOBCForce):
            made.setSoluteDielectric(force.getSoluteDielectric())
            made.setSolventDielectric(force.getSolventDielectric())
            made.setSurfaceAreaEnergy(force.getSurfaceAreaEnergy())
            return made
        for number in range(force.getNumExceptions()):
            first, second, *values = force.getExceptionParameters(number)
            if first in place and second in place:
                made.addException(place[first], place[second], *values)
        return made
    if isinstance(force, openmm.CMMotionRemover):
        return None
    raise TypeError(f"no way to cut {type(force).__name__}")


def add_springs(system: openmm.System, atoms: list[int], positions: np.ndarray) -> None:
    """Hold some atoms near where they are, (n_atoms, 3) [nm]."""
    springs = openmm.CustomExternalForce("0.5*stiffness*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    springs.addGlobalParameter("stiffness", STIFFNESS)
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    for atom in atoms:
        springs.addParticle(atom, positions[atom])
    system.addForce(springs)


def simulation_of(seed: int) -> app.Simulation:
    """Return a minimised Simulation of the pocket, with velocities drawn."""
    topology, positions, system = pocket()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return simulation


def replica_path(seed: int) -> Path:
    """Return where a replica is kept: frames (n_frames, n_atoms, 3) [nm] of all atoms."""
    return OUT / f"replica_{seed}.npy"


def run(seed: int, duration: float) -> None:
    """Run one replica and keep its frames; one that was interrupted begins anew."""
    simulation, n_steps = simulation_of(seed), round(FRAME_SPACING / TIMESTEP)
    simulation.step(round(EQUILIBRATION / TIMESTEP))
    frames = []
    for _ in range(round(duration / FRAME_SPACING)):
        simulation.step(n_steps)
        state = simulation.context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).astype(np.float32))
    np.save(replica_path(seed), np.stack(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--duration", type=float, default=150.0, help="[ps] of each replica")
    options = parser.parse_args()
    os.environ.setdefault("OPENMM_CPU_THREADS", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        if not replica_path(seed).exists():
            began = time.process_time()
            run(seed, options.duration)
            print(f"replica {seed}: {time.process_time() - began:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
