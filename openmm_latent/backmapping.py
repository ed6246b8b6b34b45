"""Cα traces into heavy atoms, outside any Simulation: by a family's weights, or by a bundle with `backmap`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openmm import app

from openmm_latent.bundle import Manifest, load_bundle
from openmm_latent.data.backbone import residue_type
from openmm_latent.data.traces import Trace
from openmm_latent.errors import require
from openmm_latent.models.codlad.module import BackmappedProtein
from openmm_latent.models.codlad.weights import load_weights
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES

#: Atoms that are drawn at once.
_BATCH_ATOMS = 10_000


@dataclass(frozen=True)
class Backmapper:
    """Draws the heavy atoms of one protein on its traces.

    Attributes
    ----------
    topology : openmm.app.Topology
        The atoms that are drawn, with bonds.
    module : torch module
        With the contract's `backmap`.
    n_noise : int
        Normals of one sample.
    """

    topology: app.Topology
    module: Any
    n_noise: int

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
        require(
            frames.ndim == 3 and frames.shape[1:] == (n_residues, 3) and bool(np.isfinite(frames).all()),
            f"frames must be finite and of shape (n_frames, n_residues={n_residues}, 3) [nm], got {frames.shape}; give "
            f"those of the trace that the model was loaded for",
        )
        wanted = [(frame, sample) for frame in range(len(frames)) for sample in range(n_samples)]
        size = max(1, _BATCH_ATOMS // self.topology.getNumAtoms())
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            noise = np.stack([self._normals(seed, frame, sample) for frame, sample in batch])
            traces = torch.tensor(frames[[frame for frame, _ in batch]], dtype=torch.float32)
            with torch.no_grad():
                yield from self.module.backmap(traces, torch.from_numpy(noise)).numpy()

    def _normals(self, seed: int, frame: int, sample: int) -> np.ndarray:
        return np.random.default_rng([seed, frame, sample]).standard_normal(self.n_noise, dtype=np.float32)


def load_backmapper(model: str | Path, trace: Trace, n_steps: int | None = None) -> Backmapper:
    """Load a model for the protein of a trace.

    Parameters
    ----------
    model : path
        Weights that `openmm-latent train codlad` wrote, which serve any protein; or a bundle with `backmap`, which must
        have been bound to this one.
    trace : Trace
    n_steps : int, optional
        Steps of a sample, for weights; those of training unless given.

    Raises
    ------
    LatentError
        The file is unreadable or of a family that cannot backmap, or a bundle of another sequence.
    """
    path = Path(model)
    require(path.is_file(), f"model {path} does not exist; check the name")
    if not _is_bundle(path):
        module = BackmappedProtein(
            load_weights(path)[0], trace.residues, np.flatnonzero(trace.residues.has_atom), n_steps
        ).eval()
        return Backmapper(trace.topology(), module, module.n_noise)
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
    topology = _bundle_topology(manifest, bundle.name, trace)
    return Backmapper(topology, bundle.module, manifest.noise_sizes["backmap"])


def _is_bundle(path: Path) -> bool:
    """Tell a bundle by its manifest; what is no zip file is none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as entries:
        return any(name.endswith("/extra/manifest.json") for name in entries.namelist())


def _bundle_topology(manifest: Manifest, name: str, trace: Trace) -> app.Topology:
    """Return the model atoms of a bundle as a topology, if its residues are those of a trace."""
    places: dict[tuple[int, int], list[int]] = {}
    for number, atom in enumerate(manifest.atoms):
        places.setdefault((int(atom.chain), atom.residue_index), []).append(number)
    kinds = [residue_type(manifest.atoms[numbers[0]].residue_name) for numbers in places.values()]
    types, again = trace.residues.types.tolist(), "give weights instead, or bind them to this protein"
    require(
        len(kinds) == len(types),
        f"trace has {len(types)} residues, and bundle '{name}' was bound to a protein of {len(kinds)}; {again}",
    )
    other = next((i for i, pair in enumerate(zip(types, kinds, strict=True)) if pair[0] != pair[1]), None)
    require(
        other is None,
        f"trace has {RESIDUE_NAMES[types[other or 0]]} as residue {(other or 0) + 1}, where the protein that bundle "
        f"'{name}' was bound to has {RESIDUE_NAMES[kinds[other or 0]]}; {again}",
    )
    chains = np.array([chain for chain, _ in places])
    require(
        np.array_equal(np.diff(chains) != 0, np.diff(trace.residues.chains) != 0),
        f"trace ends its chains after other residues than the protein that bundle '{name}' was bound to; {again}",
    )
    topology, last = app.Topology(), None
    for (chain, _), numbers, kind, label in zip(places, places.values(), kinds, trace.labels, strict=True):
        if chain != last:
            added, last = topology.addChain(label[0]), chain
        residue = topology.addResidue(RESIDUE_NAMES[kind], added, label[1])
        for atom in numbers:
            record = manifest.atoms[atom]
            topology.addAtom(record.name, app.Element.getBySymbol(record.element), residue)
    topology.createStandardBonds()
    return topology
