"""A capped alanine whose phi and psi follow a known process: training data that needs no file and no MD."""

import numpy as np
from openmm import app

from openmm_latent.data.trajectories import TrajectorySet

#: Heavy atoms of ACE-ALA-NME: residue, name, element and ideal positions [nm].
_ATOMS = [
    ("ACE", "CH3", "C", (0.2000, 0.2090, 0.0000)),
    ("ACE", "C", "C", (0.3427, 0.2641, 0.0000)),
    ("ACE", "O", "O", (0.4391, 0.1877, 0.0000)),
    ("ALA", "N", "N", (0.3555, 0.3970, 0.0000)),
    ("ALA", "CA", "C", (0.4853, 0.4614, 0.0000)),
    ("ALA", "CB", "C", (0.5661, 0.4221, -0.1232)),
    ("ALA", "C", "C", (0.4713, 0.6129, 0.0000)),
    ("ALA", "O", "O", (0.3601, 0.6653, 0.0000)),
    ("NME", "N", "N", (0.5846, 0.6835, 0.0000)),
    ("NME", "CH3", "C", (0.5846, 0.8284, 0.0000)),
]


def capped_alanine_topology():
    """Return the heavy atoms of ACE-ALA-NME with their bonds."""
    topology = app.Topology()
    chain = topology.addChain()
    residues, atoms = {}, []
    for residue, name, element, _ in _ATOMS:
        if residue not in residues:
            residues[residue] = topology.addResidue(residue, chain)
        atoms.append(topology.addAtom(name, app.Element.getBySymbol(element), residues[residue]))
    for a, b in [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9)]:
        topology.addBond(atoms[a], atoms[b])
    return topology


def _turn(positions, axis_start, axis_end, moved, angle):
    """Rotate the atoms `moved` of every frame by its angle [rad] about a bond."""
    origin = positions[:, axis_start]
    axis = positions[:, axis_end] - origin
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    relative = positions[:, moved] - origin[:, None]
    along = (relative * axis[:, None]).sum(2, keepdims=True) * axis[:, None]
    across = np.cross(axis[:, None], relative)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    positions[:, moved] = origin[:, None] + along + (relative - along) * cosine + across * sine


def capped_alanine_frames(n_frames, seed):
    """Return (n_frames, 10, 3) float32 [nm]: phi and psi are Ornstein-Uhlenbeck, tumbling at random."""
    rng = np.random.default_rng(seed)
    angles = np.zeros((n_frames, 2))
    for frame in range(1, n_frames):
        angles[frame] = 0.9 * angles[frame - 1] + np.sqrt(1 - 0.81) * 0.5 * rng.normal(size=2)
    positions = np.repeat(np.array([atom[3] for atom in _ATOMS])[None], n_frames, axis=0)
    _turn(positions, 3, 4, [5, 6, 7, 8, 9], angles[:, 0] + 1.7)
    _turn(positions, 4, 6, [7, 8, 9], angles[:, 1] - 0.6)
    positions += 0.001 * rng.normal(size=positions.shape)
    turns, _ = np.linalg.qr(rng.normal(size=(n_frames, 3, 3)))
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    return (positions @ turns + rng.normal(size=(n_frames, 1, 3))).astype(np.float32)


def capped_alanine_trajectories(n_frames=600, n_files=2, seed=1):
    """Return a TrajectorySet of the frames above, 1 ps apart."""
    return TrajectorySet(
        topology=capped_alanine_topology(),
        model_atoms=list(range(len(_ATOMS))),
        positions=[capped_alanine_frames(n_frames, seed + i) for i in range(n_files)],
        frame_spacing=1.0,
        files=[f"made-{i}.xtc" for i in range(n_files)],
        digest=f"capped alanine {n_frames} {n_files} {seed}",
        provenance={"temperature": 300.0, "force_field": "none"},
    )
