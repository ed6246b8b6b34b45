"""Conformations from bundles, outside any Simulation: independent, in time order, and between two structures.

Knows the contract and no family: whatever bundle has `sample`, `jump`, `fill` or `interpolate` serves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
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
    "fill": "fill the frames between two jumps; use one of a family that can, such as ATMOS, bound by this version",
    "interpolate": "go from one structure to another; use one of a family that can, such as ConfRover",
}


def load_able(path: str | Path, method: str) -> Bundle:
    """Load a bundle that has a method of the contract: "jump", as all have, "sample", "fill" or "interpolate".

    Raises
    ------
    LatentError
        The file is no sound bundle, or its family cannot do this.
    """
    bundle = load_bundle(path)
    _require_able(bundle, method)
    return bundle


def fine_time(manifest: Manifest) -> float:
    """Return the time between the frames that `interpolate` and `fill` draw [ps]: a family's own, or the lag time."""
    return float(manifest.config.get("fine_time") or manifest.lag_time)


def model_topology(manifest: Manifest, whole: app.Topology | None = None) -> app.Topology:
    """Return a bundle's model atoms as a topology, with the bonds of amino acids and of its disulphides.

    Of ligands a bundle knows no bonds: they are those of the `whole` topology, if one is given that has the model's
    atoms.
    """
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
    if whole is not None:
        added = sorted(topology.atoms(), key=lambda atom: atom.index)  # in the manifest's order
        atoms = dict(zip(match_atoms(manifest.atoms, whole), added, strict=True))
        known = {frozenset((first.index, second.index)) for first, second in topology.bonds()}
        for first, second in whole.bonds():
            if first.index in atoms and second.index in atoms:
                ends = atoms[first.index], atoms[second.index]
                if frozenset(end.index for end in ends) not in known:
                    topology.addBond(*ends)
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


def sample_trajectory(
    bundle: Bundle, n_frames: int, start: np.ndarray | None = None, seed: int = 1, is_filled: bool = False
) -> Iterator[np.ndarray]:
    """Yield frames in time order: jump after jump from the start, with what the model draws between two jumps.

    Only one batch of frames is held at a time, however many are drawn. Each frame depends on the start, the seed and
    its place alone.

    Parameters
    ----------
    bundle : Bundle
        Of any family; without memory the frames are a Markov chain.
    n_frames : int
        All together, the start among them.
    start : ndarray, optional
        (n_atoms, 3) [nm], the model atoms in the manifest's order; the bundle's reference structure unless given.
    seed : int
    is_filled : bool
        Draw the frames between two jumps, too, all intervals of a batch at once; the bundle must have `fill`. Frames
        are then `fine_time(manifest)` apart, and otherwise a lag time.

    Yields
    ------
    ndarray
        (n_atoms, 3) [nm] float32, the start first; each lies on the one before. Nothing is minimised.

    Raises
    ------
    LatentError
        `start` is of other atoms, there are fewer than two frames, the bundle cannot fill, or the model gives numbers
        that are not finite.

    Source: ATMOS, section 3.5 and algorithm 5.
    """
    require(n_frames >= 2, f"n_frames must be at least 2, the start among them, got {n_frames}")
    reference = np.asarray(bundle.manifest.reference_positions)
    begun = _model_positions(reference if start is None else start, "start", bundle)
    frames = _key_frames(bundle, begun, seed)
    if is_filled:
        _require_able(bundle, "fill")
        frames = _filled(bundle, frames, n_frames, seed)
    yield from itertools.islice(frames, n_frames)


def fill_intervals(
    bundle: Bundle, starts: np.ndarray, ends: np.ndarray, numbers: Sequence[int], seed: int = 1
) -> np.ndarray:
    """Draw the frames between the two ends of some jumps, all at once.

    Parameters
    ----------
    bundle : Bundle
        From `load_able(path, "fill")`.
    starts, ends : ndarray
        (n_jumps, n_atoms, 3) [nm]
    numbers : sequence of int
        (n_jumps,) which tell the noise of one jump from that of another.
    seed : int

    Returns
    -------
    ndarray
        (n_jumps, n_between, n_atoms, 3) [nm] float32, placed on the starts and `fine_time(manifest)` apart

    Raises
    ------
    LatentError
        The model gives numbers that are not finite.
    """
    size = bundle.manifest.noise_sizes["fill"]
    noise = np.stack([_normals(size, seed, number, 1) for number in numbers])  # 1: other than that of jumps
    given = [torch.from_numpy(np.array(one, dtype=np.float32)) for one in (starts, ends)]
    with torch.no_grad():
        drawn = bundle.module.fill(*given, torch.from_numpy(noise)).numpy()
    for frames, number in zip(drawn, numbers, strict=True):
        _sound(frames, number, bundle)
    return drawn


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
        All together, at least 3; each is `fine_time(manifest)` after the one before.
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
    moved, goal = (_model_positions(given, name, bundle) for name, given in (("start", start), ("end", end)))
    require(n_frames >= 3, f"n_frames must be at least 3, start and end among them, got {n_frames}")
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


def _require_able(bundle: Bundle, method: str) -> None:
    """Refuse a bundle without a method of the contract."""
    require(
        method in bundle.manifest.capabilities,
        f"bundle '{bundle.name}' of family {bundle.manifest.family} cannot {_USES.get(method, method)}",
    )


def _key_frames(bundle: Bundle, start: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield the start and, without end, jump after jump: (n_atoms, 3) [nm]."""
    frame = torch.from_numpy(start[None].copy())
    with torch.no_grad():
        state = bundle.module.initial_state(frame)
    yield start
    for number in itertools.count(1):
        noise = _normals(bundle.manifest.noise_sizes["jump"], seed, number)
        with torch.no_grad():  # not around the yield: it would hold for the caller, too
            frame, state = bundle.module.jump(frame, state, torch.from_numpy(noise[None]))
        yield _sound(frame.numpy()[0], number, bundle)


def _filled(bundle: Bundle, keys: Iterator[np.ndarray], n_frames: int, seed: int) -> Iterator[np.ndarray]:
    """Yield key frames with what is between them, a batch of intervals at a time: at least `n_frames`."""
    manifest = bundle.manifest
    n_steps = round(manifest.lag_time / fine_time(manifest))  # of the interpolator, in a jump
    n_intervals = math.ceil((n_frames - 1) / n_steps)
    size = max(1, _BATCH_ATOMS // len(manifest.atoms))
    held = [next(keys)]
    for first in range(0, n_intervals, size):
        numbers = range(first, min(n_intervals, first + size))
        held = [held[-1], *itertools.islice(keys, len(numbers))]
        starts, ends = np.stack(held[:-1]), np.stack(held[1:])
        for begun, between in zip(starts, fill_intervals(bundle, starts, ends, numbers, seed), strict=True):
            yield begun
            yield from between
    yield held[-1]


def _model_positions(given: np.ndarray, name: str, bundle: Bundle) -> np.ndarray:
    """Return a frame of the model atoms in single precision, (n_atoms, 3) [nm], if it is that."""
    n_atoms = len(bundle.manifest.atoms)
    require(
        np.shape(given) == (n_atoms, 3) and bool(np.isfinite(given).all()),
        f"{name} must be finite and of shape (n_atoms={n_atoms}, 3) [nm], got {np.shape(given)}; give the model "
        f"atoms of bundle '{bundle.name}'",
    )
    return np.asarray(given, dtype=np.float32)


def _normals(size: int, *key: int) -> np.ndarray:
    """Return noise that is a function of a key such as (seed, number): (size,)."""
    return np.random.default_rng(key).standard_normal(size, dtype=np.float32)


def _sound(frame: np.ndarray, number: int, bundle: Bundle) -> np.ndarray:
    require(
        bool(np.isfinite(frame).all()),
        f"bundle '{bundle.name}' drew frame {number} with numbers that are not finite; train it longer",
    )
    return frame
