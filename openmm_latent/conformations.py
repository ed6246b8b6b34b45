"""Conformations from bundles, outside any Simulation: independent ones, and those between two structures.

Knows the contract and no family: whatever bundle has `sample` or `interpolate` serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from openmm import app, unit

from openmm_latent.bundle import Bundle, Manifest, load_bundle
from openmm_latent.data.backbone import residue_type
from openmm_latent.data.trajectories import load_topology
from openmm_latent.errors import require
from openmm_latent.geometry import superpose
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, UNKNOWN
from openmm_latent.topology import match_atoms

#: Atoms that are drawn at once.
_BATCH_ATOMS = 10_000
_USES = {
    "sample": "draw independent conformations; use one of a family that can, such as ConfRover",
    "interpolate": "go from one structure to another; use one of a family that can, such as ConfRover",
}


def load_able(path: str | Path, method: str) -> Bundle:
    """Load a bundle that has a method of the contract, "sample" or "interpolate".

    Raises
    ------
    LatentError
        The file is no sound bundle, or its family cannot do this.
    """
    bundle = load_bundle(path)
    require(
        method in bundle.manifest.capabilities,
        f"bundle '{bundle.name}' of family {bundle.manifest.family} cannot {_USES[method]}",
    )
    return bundle


def model_topology(manifest: Manifest) -> app.Topology:
    """Return a bundle's model atoms as a topology, with the bonds of amino acids and of its disulphides."""
    topology, residues, last = app.Topology(), {}, None
    for record in manifest.atoms:
        if record.chain != last:
            chain, last = topology.addChain(chr(ord("A") + int(record.chain) % 26)), record.chain
        place = record.chain, record.residue_index
        if place not in residues:
            kind = residue_type(record.residue_name)
            name = record.residue_name if kind == UNKNOWN else RESIDUE_NAMES[kind]  # force fields' names have no bonds
            residues[place] = topology.addResidue(name, chain, str(record.residue_index + 1))
        topology.addAtom(record.name, app.Element.getBySymbol(record.element), residues[place])
    topology.createStandardBonds()
    topology.createDisulfideBonds(np.asarray(manifest.reference_positions) * unit.nanometer)
    return topology


def sample_conformations(bundle: Bundle, count: int, seed: int = 1) -> Iterator[np.ndarray]:
    """Yield independent conformations one by one; each depends on the seed and its own number alone.

    Parameters
    ----------
    bundle : Bundle
        From `load_able(path, "sample")`.
    count : int
    seed : int

    Yields
    ------
    ndarray
        (n_atoms, 3) [nm] float32, the model atoms

    Raises
    ------
    LatentError
        `count` is less than 1, or the model gives numbers that are not finite.
    """
    require(count >= 1, f"count must be at least 1, got {count}; 250 are usual")
    manifest = bundle.manifest
    size = max(1, _BATCH_ATOMS // len(manifest.atoms))
    for start in range(0, count, size):
        numbers = range(start, min(count, start + size))
        noise = np.stack([_normals(manifest.noise_sizes["sample"], seed, number) for number in numbers])
        with torch.no_grad():
            drawn = bundle.module.sample(torch.from_numpy(noise)).numpy()
        for number, frame in zip(numbers, drawn, strict=True):
            yield _sound(frame, number, bundle)


def interpolate_conformations(
    bundle: Bundle, start: np.ndarray, end: np.ndarray, n_frames: int, seed: int = 1
) -> Iterator[np.ndarray]:
    """Yield a way from one structure to another: the start, what the model draws, and the end.

    Parameters
    ----------
    bundle : Bundle
        From `load_able(path, "interpolate")`.
    start, end : ndarray
        (n_atoms, 3) [nm], the model atoms in the manifest's order, at any place
    n_frames : int
        All together, at least 3; each is one lag time after the one before.
    seed : int

    Yields
    ------
    ndarray
        (n_atoms, 3) [nm] float32; the end is superposed on the start

    Raises
    ------
    LatentError
        An array is of other atoms, there are too few frames, or the model gives numbers that are not finite.
    """
    n_atoms = len(bundle.manifest.atoms)
    for name, given in (("start", start), ("end", end)):
        require(
            np.shape(given) == (n_atoms, 3) and bool(np.isfinite(given).all()),
            f"{name} must be finite and of shape (n_atoms={n_atoms}, 3) [nm], got {np.shape(given)}; give the model "
            f"atoms of bundle '{bundle.name}'",
        )
    require(n_frames >= 3, f"n_frames must be at least 3, start and end among them, got {n_frames}")
    moved = np.asarray(start, dtype=np.float32)
    goal = superpose(np.asarray(end, dtype=np.float64), np.asarray(start, dtype=np.float64)).astype(np.float32)
    yield moved
    for number in range(1, n_frames - 1):
        noise = _normals(bundle.manifest.noise_sizes["interpolate"], seed, number)
        given = [torch.from_numpy(one[None].copy()) for one in (moved, goal)]
        remaining = torch.tensor([float(n_frames - number)])
        with torch.no_grad():
            moved = bundle.module.interpolate(*given, remaining, torch.from_numpy(noise[None])).numpy()[0]
        yield _sound(moved, number, bundle)
    yield goal


def read_model_atoms(path: str | Path, manifest: Manifest, name: str, argument: str) -> np.ndarray:
    """Read a structure file and return a bundle's model atoms in it, (n_atoms, 3) [nm]; others are passed over.

    Parameters
    ----------
    path : path
        PDB or mmCIF.
    manifest : Manifest
    name : str
        Of the bundle, for messages.
    argument : str
        Whose file it is, for messages.

    Raises
    ------
    LatentError
        The file is unreadable, has no positions, or lacks model atoms.
    """
    require(Path(path).is_file(), f"{argument} file {path} does not exist; check the name")
    topology, positions = load_topology(path)
    require(positions is not None, f"{argument} {path} has no positions; give a PDB or mmCIF file")
    return np.asarray(positions)[match_atoms(manifest.atoms, topology, f"bundle '{name}'")]


def _normals(count: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).standard_normal(count, dtype=np.float32)


def _sound(frame: np.ndarray, number: int, bundle: Bundle) -> np.ndarray:
    require(
        bool(np.isfinite(frame).all()),
        f"bundle '{bundle.name}' drew frame {number} with numbers that are not finite; train it longer",
    )
    return frame
