"""Cα traces into heavy atoms, outside any Simulation: by a family's weights, or by a bundle with `backmap`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import app

from openmm_latent.bundle import Manifest, load_bundle
from openmm_latent.data.backbone import residue_type
from openmm_latent.data.caps import CapBuilder
from openmm_latent.data.residue_slots import standard_name
from openmm_latent.data.traces import Trace
from openmm_latent.errors import require
from openmm_latent.models.codlad.module import BackmappedProtein
from openmm_latent.models.codlad.packing import Packing
from openmm_latent.models.codlad.weights import load_weights
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES

#: Atoms that are drawn at once.
_BATCH_ATOMS = 10_000


@dataclass(frozen=True, eq=False)
class Backmapper:
    """Draws the heavy atoms of one protein on its traces.

    Attributes
    ----------
    topology : openmm.app.Topology
        Heavy atoms with bonds; caps are among them, which are not drawn but built.
    module : torch module
        With the contract's `backmap`.
    n_noise : int
        Normals of one sample.
    rows : ndarray of int
        (n_inner,) where the module's output has each atom that is in no cap
    packing : Packing, optional
        Fits side chains that overlap; samples are taken as they are drawn without.
    n_candidates : int
        Samples on one trace among which side chains are exchanged.
    """

    topology: app.Topology
    module: Any
    n_noise: int
    rows: np.ndarray
    packing: Packing | None = None
    n_candidates: int = 1

    def draw(self, frames: np.ndarray, n_samples: int = 1, seed: int = 1) -> Iterator[np.ndarray]:
        """Yield samples one by one: all of the first frame, then all of the next.

        A sample depends on the seed, its frame's number and its own, and on nothing else.

        Parameters
        ----------
        frames : ndarray
            (n_frames, n_residues, 3) [nm] Cα
        n_samples : int
            Of each frame.
        seed : int

        Yields
        ------
        ndarray
            (n_atoms, 3) [nm], float32

        Raises
        ------
        LatentError
            The frames are those of another protein.
        """
        frames = np.asarray(frames)
        n_residues = sum(atom.name == "CA" for atom in self.topology.atoms())
        caps = CapBuilder(self.topology)
        require(
            frames.ndim == 3 and frames.shape[1:] == (n_residues, 3) and bool(np.isfinite(frames).all()),
            f"frames must be finite and of shape (n_frames, n_residues={n_residues}, 3) [nm], got {frames.shape}; give "
            f"those of the trace that the model was loaded for",
        )
        if self.packing is not None:
            for frame, trace in enumerate(frames):
                fixed = torch.tensor(trace, dtype=torch.float32)
                yield from map(caps, self._packed(self.packing, fixed, seed, frame, n_samples))
            return
        wanted = [(frame, sample) for frame in range(len(frames)) for sample in range(n_samples)]
        size = max(1, _BATCH_ATOMS // self.topology.getNumAtoms())
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            noise = np.stack([self._normals(seed, frame, sample) for frame, sample in batch])
            traces = torch.tensor(frames[[frame for frame, _ in batch]], dtype=torch.float32)
            with torch.no_grad():
                drawn = self.module.backmap(traces, torch.from_numpy(noise)).numpy()
            yield from map(caps, drawn[:, self.rows])

    def _packed(
        self, packing: Packing, trace: torch.Tensor, seed: int, frame: int, n_samples: int
    ) -> Iterator[np.ndarray]:
        """Yield samples on one trace, fitted in lots of `n_candidates`, (n_atoms, 3) [nm]; all of a lot are drawn."""
        for first in range(0, n_samples, self.n_candidates):
            noise = [self._normals(seed, frame, first + number) for number in range(self.n_candidates)]
            normals, left = torch.from_numpy(np.stack(noise)), n_samples - first
            yield from packing.samples(trace, normals, [seed, frame, first], left).numpy()[:, self.rows]

    def _normals(self, seed: int, frame: int, sample: int) -> np.ndarray:
        return np.random.default_rng([seed, frame, sample]).standard_normal(self.n_noise, dtype=np.float32)


def load_backmapper(model: str | Path, trace: Trace, n_steps: int | None = None, n_candidates: int = 8) -> Backmapper:
    """Load a model for the protein of a trace.

    Parameters
    ----------
    model : path
        Weights that `openmm-latent train codlad` wrote, which serve any protein; or a bundle with `backmap`, which must
        have been bound to this one.
    trace : Trace
    n_steps : int, optional
        Steps of a sample, for weights; those of training unless given.
    n_candidates : int
        Samples among which side chains are exchanged until they do not overlap, for weights; 1 takes samples as drawn.

    Raises
    ------
    LatentError
        n_candidates is not positive, the file is unreadable or of a family that cannot backmap, or a bundle of another
        sequence.
    """
    path = Path(model)
    require(n_candidates >= 1, f"n_candidates must be at least 1, got {n_candidates}; 1 takes samples as drawn")
    require(path.is_file(), f"model {path} does not exist; check the name")
    if not _is_bundle(path):
        residues, slots = trace.residues, np.flatnonzero(trace.residues.has_atom)
        module = BackmappedProtein(load_weights(path)[0], residues, slots, n_steps, trace.disulphides).eval()
        packing = Packing(module, residues, trace.disulphides) if n_candidates > 1 else None
        return Backmapper(trace.topology(), module, module.n_noise, np.arange(len(slots)), packing, n_candidates)
    bundle = load_bundle(path)
    manifest = bundle.manifest
    require(
        "backmap" in manifest.capabilities,
        f"bundle '{bundle.name}' of family {manifest.family} cannot build atoms on a trace; give weights of "
        f"`openmm-latent train codlad`, or a bundle of them",
    )
    require(
        n_steps is None,
        f"n_steps is fixed in a bundle, got {n_steps} for '{bundle.name}'; leave it out, or give the weights",
    )
    topology, rows = _bundle_topology(manifest, bundle.name, trace)
    return Backmapper(topology, bundle.module, manifest.noise_sizes["backmap"], rows)


def _is_bundle(path: Path) -> bool:
    """Tell a bundle by its manifest; what is no zip file is none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as entries:
        return any(name.endswith("/extra/manifest.json") for name in entries.namelist())


def _bundle_topology(manifest: Manifest, name: str, trace: Trace) -> tuple[app.Topology, np.ndarray]:
    """Return the topology of a trace and the row of each atom in a bundle's output, if the bundle is of its protein."""
    places: dict[tuple[int, int], list[int]] = {}
    for number, atom in enumerate(manifest.atoms):
        places.setdefault((int(atom.chain), atom.residue_index), []).append(number)
    kinds = [residue_type(manifest.atoms[numbers[0]].residue_name) for numbers in places.values()]
    rows = [
        {standard_name(manifest.atoms[row].name, kind): row for row in numbers}
        for numbers, kind in zip(places.values(), kinds, strict=True)
    ]
    has_oxt = np.array(["OXT" in atoms for atoms in rows])
    bridges = np.array(manifest.config.get("disulphides", []), dtype=np.int64).reshape(-1, 2)
    chains = np.array([chain for chain, _ in places])
    _require_same(trace, kinds, chains, bridges, has_oxt, f"the protein that bundle '{name}' was bound to")
    bound = replace(trace, residues=replace(trace.residues, has_oxt=has_oxt), disulphides=bridges)
    names = bound.residues.atom_names
    order = [atoms[atom] for atoms, slots in zip(rows, names, strict=True) for atom in slots if atom]
    return bound.topology(), np.array(order)


def _require_same(
    trace: Trace, kinds: list[int], chains: np.ndarray, bridges: np.ndarray, has_oxt: np.ndarray, protein: str
) -> None:
    """Refuse a trace of other residues (n_residues,), chains, disulphides or ends of chains than a bundle's."""
    types, again = trace.residues.types.tolist(), "give weights instead, or bind them to this protein"
    require(len(kinds) == len(types), f"trace has {len(types)} residues, and {protein} has {len(kinds)}; {again}")
    other = next((i for i, pair in enumerate(zip(types, kinds, strict=True)) if pair[0] != pair[1]), None)
    require(
        other is None,
        f"trace has {RESIDUE_NAMES[types[other or 0]]} as residue {(other or 0) + 1}, where {protein} has "
        f"{RESIDUE_NAMES[kinds[other or 0]]}; {again}",
    )
    require(
        np.array_equal(np.diff(chains) != 0, np.diff(trace.residues.chains) != 0),
        f"trace ends its chains after other residues than {protein}; {again}",
    )
    wanted = {frozenset(pair) for pair in trace.disulphides.tolist()}
    require(
        not wanted or wanted == {frozenset(pair) for pair in bridges.tolist()},
        f"trace has {len(wanted)} disulphides, other ones than the {len(bridges)} of {protein}; {again}",
    )
    capped = next((i for i, (_, after) in enumerate(trace.caps) if after and has_oxt[i]), None)
    require(capped is None, f"trace has a cap after residue {(capped or 0) + 1}, where {protein} ends in OXT; {again}")
