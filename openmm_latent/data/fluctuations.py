"""How the residues of a protein fluctuate in trajectories: the labels that DynaProt learns.

| symbol | variable |
|---|---|
| Sigma (3 n, 3 n) | `joint` [nm^2] |
| R_i^T Sigma_ii R_i | `marginal` (n, 3, 3) [nm^2] |
| C_ij = tr(Sigma_ij) / 3 | `coupling` (n, n) [nm^2] |

Source: DynaProt, section 4.1 (replicas joined, Cα superposed, covariance of T frames divided by T - 1).
DISCREPANCY(DynaProt, coupling label): the public code averages all nine entries of Sigma_ij, which changes when the
protein is turned; the trace does not, and its correlations are the usual dynamic cross-correlations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from openmm import app

from openmm_latent.data.backbone import Backbone, read_backbone
from openmm_latent.data.datasets import DataSet, Entry, runs_at
from openmm_latent.errors import LatentError, require
from openmm_latent.geometry import superpose

#: Rounds of superposing on the mean and taking it anew; it stops earlier when the mean stands still.
_ROUNDS = 20
_STILL = 1e-6  # [nm]
#: Frames below which a covariance of three coordinates says nothing.
LEAST_FRAMES = 10


@dataclass(frozen=True)
class Fluctuations:
    """The Gaussian of superposed Cα atoms.

    Attributes
    ----------
    mean : ndarray
        (n_residues, 3) [nm]
    joint : ndarray
        (3 n_residues, 3 n_residues) [nm^2], in the axes of `mean`
    nearest : tuple of (int, int)
        Trajectory and frame that lie nearest to the mean
    n_frames : int
    """

    mean: np.ndarray
    joint: np.ndarray
    nearest: tuple[int, int]
    n_frames: int

    @property
    def blocks(self) -> np.ndarray:
        """(n_residues, n_residues, 3, 3) [nm^2]."""
        n = len(self.mean)
        return self.joint.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)


@dataclass(frozen=True)
class ProteinExample:
    """A structure and what it should teach; all in the axes of `positions`.

    Attributes
    ----------
    name : str
    residue_types, chains : ndarray of int
        (n_residues,) as `Backbone` has them
    rotations : ndarray
        (n_residues, 3, 3) local frames of the structure, columns are the axes
    positions : ndarray
        (n_residues, 3) [nm] Cα of the structure, superposed on the mean of the trajectories
    marginal : ndarray
        (n_residues, 3, 3) [nm^2] covariance of each Cα in its residue's frame
    coupling : ndarray
        (n_residues, n_residues) [nm^2] a third of the trace of each block of the joint covariance
    n_frames : int
        From which the covariances come.
    joint : ndarray or None
        (3 n_residues, 3 n_residues) [nm^2], where it was asked for
    """

    name: str
    residue_types: np.ndarray
    chains: np.ndarray
    rotations: np.ndarray
    positions: np.ndarray
    marginal: np.ndarray
    coupling: np.ndarray
    n_frames: int
    joint: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of residues."""
        return len(self.residue_types)

    @property
    def rmsf(self) -> np.ndarray:
        """(n_residues,) [nm]."""
        return np.sqrt(np.trace(self.marginal, axis1=1, axis2=2))


def fluctuations(trajectories: Sequence[np.ndarray]) -> Fluctuations:
    """Superpose the Cα atoms of all frames on their own mean, and return mean and covariance.

    Parameters
    ----------
    trajectories : sequence of ndarray
        Each (n_frames, n_residues, 3) [nm] Cα, in any pose; replicas are joined.

    Returns
    -------
    Fluctuations

    Raises
    ------
    LatentError
        The trajectories differ in atoms, hold fewer than `LEAST_FRAMES` frames, or numbers that are none.
    """
    shapes = [np.shape(frames) for frames in trajectories]
    require(
        len(shapes) > 0 and all(len(s) == 3 and s[1:] == shapes[0][1:] and s[2] == 3 for s in shapes),
        f"trajectories must each have shape (n_frames, n_residues, 3) [nm] of the same residues, got "
        f"{', '.join(map(str, shapes)) or 'none'}",
    )
    frames = np.concatenate([np.asarray(part, dtype=np.float64) for part in trajectories])
    require(
        len(frames) >= LEAST_FRAMES,
        f"trajectories must have at least {LEAST_FRAMES} frames together, got {len(frames)}; run longer, or save more",
    )
    require(bool(np.isfinite(frames).all()), "trajectories hold coordinates that are not numbers; cut such frames off")
    mean = frames[0] - frames[0].mean(axis=0)
    for _ in range(_ROUNDS):
        frames = superpose(frames, mean, out=frames)
        before, mean = mean, frames.mean(axis=0)
        if np.abs(mean - before).max() < _STILL:
            break
    apart = frames - mean
    nearest = int((apart**2).sum(axis=(1, 2)).argmin())
    flat = apart.reshape(len(frames), -1)
    starts = np.cumsum([0, *(s[0] for s in shapes)])
    part = int(np.searchsorted(starts, nearest, side="right")) - 1
    joint = flat.T @ flat / (len(frames) - 1)
    return Fluctuations(mean, joint, (part, nearest - int(starts[part])), len(frames))


def protein_example(
    topology: app.Topology | Backbone,
    trajectories: Sequence[np.ndarray],
    *,
    name: str = "protein",
    structure: np.ndarray | None = None,
    atoms: Sequence[int] | np.ndarray | None = None,
    keeps_joint: bool = False,
) -> ProteinExample:
    """Make an example of one protein from its trajectories.

    Parameters
    ----------
    topology : openmm.app.Topology or Backbone
    trajectories : sequence of ndarray
        Each (n_frames, n_atoms, 3) [nm], whole molecules.
    name : str
    structure : ndarray, optional
        (n_atoms, 3) [nm] what the network is shown, such as the crystal structure; by default the frame that is
        nearest to the mean.
    atoms : sequence of int, optional
        (n_atoms,) which of the topology's atoms the arrays hold, in order; all of them unless given. N, CA and C of
        each residue are enough.
    keeps_joint : bool
        Keep the joint covariance, which grows with the square of the residues.

    Raises
    ------
    LatentError
        As `read_backbone` and `fluctuations`, or the arrays lack atoms of the backbone.
    """
    backbone = topology if isinstance(topology, Backbone) else read_backbone(topology)
    if atoms is not None:
        backbone = _among(backbone, np.asarray(atoms, dtype=np.int64))
    require(len(trajectories) > 0, "trajectories must hold at least one, got none; give one array a run")
    n_atoms = int(backbone.atoms.max()) + 1
    for number, frames in enumerate(trajectories):
        require(
            np.ndim(frames) == 3 and np.shape(frames)[1] >= n_atoms and np.shape(frames)[2] == 3,
            f"trajectory {number} of {name} must have shape (n_frames, n_atoms >= {n_atoms}, 3) [nm], got "
            f"{np.shape(frames)}; say by atoms which atoms it holds",
        )
    found = fluctuations([np.asarray(frames)[:, backbone.ca] for frames in trajectories])
    shown = trajectories[found.nearest[0]][found.nearest[1]] if structure is None else np.asarray(structure)
    rotations, positions = _on_the_mean(backbone, shown, found.mean)
    blocks = found.blocks
    own = np.arange(len(backbone))
    return ProteinExample(
        name=name,
        residue_types=backbone.residue_types,
        chains=backbone.chains,
        rotations=rotations,
        positions=positions,
        marginal=rotations.transpose(0, 2, 1) @ blocks[own, own] @ rotations,
        coupling=np.trace(blocks, axis1=2, axis2=3) / 3.0,
        n_frames=found.n_frames,
        joint=found.joint if keeps_joint else None,
    )


def read_examples(
    dataset: DataSet,
    names: Iterable[str] | None = None,
    *,
    temperature: float | None = None,
    stride: int = 1,
    keeps_joint: bool = False,
) -> list[ProteinExample]:
    """Make an example of each protein of a data set, all its runs joined; only backbones are kept in memory.

    Parameters
    ----------
    dataset : DataSet
        From `open_dataset`.
    names : iterable of str, optional
        Which entries; all unless given.
    temperature : float, optional
        [K] Only runs at this one; needed where an entry has several.
    stride : int
        Keep every stride-th frame.
    keeps_joint : bool
        See `protein_example`.

    Raises
    ------
    LatentError
        An entry has no runs, runs of several temperatures, or no protein.
    """
    require(stride >= 1, f"stride must be a positive whole number, got {stride}")
    return [
        _entry_example(dataset[name], temperature, stride, keeps_joint)
        for name in (dataset.names if names is None else names)
    ]


def _entry_example(entry: Entry, temperature: float | None, stride: int, keeps_joint: bool) -> ProteinExample:
    runs = runs_at(entry, temperature)
    temperatures = sorted({run.temperature for run in runs if run.temperature is not None})
    require(
        len(runs) > 0 and len(temperatures) <= 1,
        f"entry {entry.name} must have runs at one temperature, got {', '.join(f'{t:g} K' for t in temperatures)} in "
        f"{len(runs)} runs; give the temperature of those to use",
    )
    try:
        backbone = read_backbone(entry.topology)
        frames = [np.concatenate(list(entry.stream(run, stride=stride, atoms=backbone.atoms))) for run in runs]
        return protein_example(backbone, frames, name=entry.name, atoms=backbone.atoms, keeps_joint=keeps_joint)
    except LatentError as error:
        raise LatentError(f"entry {entry.name}: {error}") from error


def _among(backbone: Backbone, atoms: np.ndarray) -> Backbone:
    """Return the backbone with its atoms as places in `atoms`."""
    place = np.full(max(int(atoms.max(initial=0)), int(backbone.atoms.max())) + 1, -1)
    place[atoms] = np.arange(len(atoms))
    absent = backbone.atoms[place[backbone.atoms] < 0]
    require(
        len(absent) == 0,
        f"atoms lack {len(absent)} of the backbone's N, CA and C, such as {absent[:1]}; select these with the others",
    )
    parts = (place[backbone.n], place[backbone.ca], place[backbone.c])
    return Backbone(*parts, backbone.residue_types, backbone.chains, backbone.residue_index)


def _on_the_mean(backbone: Backbone, structure: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (n_residues, 3, 3) and Cα (n_residues, 3) [nm] of a structure superposed on the mean."""
    backbone.frames(structure)  # tells what is wrong with it, if anything is
    kept = np.zeros(len(structure))
    kept[backbone.ca] = 1.0
    # atoms of weight zero are carried along; the mean has none of them
    target = np.zeros((len(structure), 3))
    target[backbone.ca] = mean
    return backbone.frames(superpose(np.asarray(structure, dtype=np.float64), target, weights=kept))
