"""The scores of ATMOS's tables 1 and 3, of trajectories against reference trajectories from the same starts.

A target is one start of one molecule; its sample and its reference are superposed on it. Lengths are in Å, as in the
paper. Scores over targets have 95 % intervals from drawing targets again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from openmm_latent.errors import LatentError
from openmm_latent.metrics import (
    changed_contacts,
    clash_counts,
    contact_frequencies,
    contact_pairs,
    mean_pairwise_rmsd,
    pc_similarity,
    pca_w2,
    pearson,
    profile_correlations,
    rmsf,
    rmwd,
    share_above,
    superpose,
    t_rmsd_error,
)

RESAMPLES = 400
#: From nm to the paper's unit.
ANGSTROM = 10.0
#: Scores of which more is better.
RISING = ("pairwise RMSD r", "global RMSF r", "per-target RMSF r", "PC-sim above 0.5", "weak contacts")
RISING += ("transient contacts",)


@dataclass(frozen=True)
class Target:
    """A start, the MD from it, and which atoms are Cα.

    Attributes
    ----------
    reference : ndarray
        (n_frames, n_atoms, 3) [nm], heavy atoms; the first frame is the start.
    cas : ndarray of int
        (n_residues,)
    """

    reference: np.ndarray
    cas: np.ndarray

    @property
    def start(self) -> np.ndarray:
        """(n_atoms, 3) [nm]"""
        return self.reference[0]

    @cached_property
    def own(self) -> dict:
        """What the reference alone gives."""
        return summary(self.reference, self)


def summary(frames: np.ndarray, target: Target) -> dict:
    """Return what correlations over targets are made of, frames (n_frames, n_atoms, 3) [nm], [Å]."""
    alphas, start = frames[:, target.cas], target.start[target.cas]
    return {
        "pairwise": ANGSTROM * mean_pairwise_rmsd(alphas, start, seed=1),
        "rmsf": ANGSTROM * rmsf(alphas, start),
    }


def target_scores(frames: np.ndarray, target: Target) -> dict:
    """Score one trajectory, (n_frames, n_atoms, 3) [nm], against its reference."""
    alphas, reference, start = (x[..., target.cas, :] for x in (frames, target.reference, target.start))
    pairs = contact_pairs(len(target.cas))
    contacts = changed_contacts(*(contact_frequencies(side, pairs) for side in (alphas, reference, start[None])))
    moves = float(np.ptp(alphas, axis=0).max()) > 1e-6
    return summary(frames, target) | {
        "RMWD": ANGSTROM * rmwd(frames, target.reference, target.start)["rmwd"],
        "MD PCA W2": ANGSTROM * pca_w2(alphas, reference, start, is_joint=False, seed=1),
        "joint PCA W2": ANGSTROM * pca_w2(alphas, reference, start, is_joint=True, seed=1),
        "PC-sim": pc_similarity(alphas, reference, start, seed=1) if moves else 0.0,
        "weak contacts": contacts["weak"],
        "transient contacts": contacts["transient"],
        "t-RMSD error": ANGSTROM * t_rmsd_error(alphas, reference),
    }


def pooled(each: Sequence[dict], targets: Sequence[Target]) -> dict[str, float]:
    """Return table 1 of one method: `each` is `target_scores` of all targets; None where a score is not defined."""

    def over(name: str, of=np.nanmean) -> float | None:
        values = np.array([one[name] for one in each], dtype=float)
        return float(of(values)) if np.isfinite(values).any() else None

    own = [target.own for target in targets]
    profiles = [[one["rmsf"] for one in side] for side in (each, own)]
    return {
        "pairwise RMSD r": _or_none(lambda: pearson(*([one["pairwise"] for one in side] for side in (each, own)))),
        "mean pairwise RMSD": over("pairwise"),
        "global RMSF r": _or_none(lambda: profile_correlations(*profiles)["global"]),
        "per-target RMSF r": _or_none(lambda: profile_correlations(*profiles)["per_target"]),
        "RMWD": over("RMWD", np.median),
        "MD PCA W2": over("MD PCA W2", np.median),
        "joint PCA W2": over("joint PCA W2", np.median),
        "PC-sim above 0.5": share_above([one["PC-sim"] for one in each]),
        "weak contacts": over("weak contacts"),
        "transient contacts": over("transient contacts"),
        "t-RMSD error": over("t-RMSD error"),
    }


def _or_none(score) -> float | None:
    """Return a score, or None where metrics say in a sentence that it is not defined."""
    try:
        return score()
    except LatentError:
        return None


def table(made: dict[str, Sequence[np.ndarray]], targets: Sequence[Target]) -> dict[str, dict]:
    """Return table 1, method by method, each score with its interval over targets."""
    each = {name: [target_scores(*one) for one in zip(paths, targets, strict=True)] for name, paths in made.items()}
    draws = np.random.default_rng(1).integers(len(targets), size=(RESAMPLES, len(targets)))
    result = {}
    for name, scores in each.items():
        drawn = [pooled([scores[i] for i in draw], [targets[i] for i in draw]) for draw in draws]
        value = pooled(scores, targets)
        result[name] = {key: _with_interval(value[key], [one[key] for one in drawn]) for key in value}
    return result


def gains(made: dict[str, Sequence[np.ndarray]], targets: Sequence[Target], better: str, worse: str) -> dict[str, dict]:
    """Return by how much one method beats another, paired over targets; above zero is better."""
    each = [[target_scores(*one) for one in zip(made[name], targets, strict=True)] for name in (better, worse)]
    draws = np.random.default_rng(2).integers(len(targets), size=(RESAMPLES, len(targets)))

    def gain(chosen: Sequence[int]) -> dict[str, float | None]:
        sides = [pooled([of[i] for i in chosen], [targets[i] for i in chosen]) for of in each]
        return {
            key: None if None in (sides[0][key], sides[1][key]) else _sign(key) * (sides[0][key] - sides[1][key])
            for key in sides[0]
            if key != "mean pairwise RMSD"
        }

    value, drawn = gain(range(len(targets))), [gain(draw) for draw in draws]
    return {key: _with_interval(value[key], [one[key] for one in drawn]) for key in value}


def _sign(key: str) -> int:
    return 1 if key in RISING else -1


def _with_interval(value: float | None, drawn: Sequence[float | None]) -> dict:
    known = [one for one in drawn if one is not None]
    interval = [float(np.percentile(known, q)) for q in (2.5, 97.5)] if value is not None and known else None
    return {"value": value, "interval": interval}


# ---- complexes -------------------------------------------------------------------------------------------------------


def complex_scores(
    frames: np.ndarray, reference: np.ndarray, bonds: np.ndarray, ligand: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """Return table 3 of one trajectory: ligand alone, and ligand with pocket.

    Parameters
    ----------
    frames, reference : ndarray
        (n_frames, n_atoms, 3) [nm], heavy atoms of pocket and ligand, equally long.
    bonds : ndarray of int
        (n_bonds, 2)
    ligand : ndarray of int
        (n_ligand_atoms,)

    Frames are superposed on the reference's first one by all atoms: what is scored of a ligand is where it lies, too.
    """
    start = reference[0]
    lying = [superpose(side, start) for side in (frames, reference)]
    clashes = clash_counts(frames, bonds, ligand)
    result = {}
    for name, atoms, kind in (("ligand", ligand, "ligand"), ("complex", np.arange(len(start)), "between")):
        one, other = (side[:, atoms] for side in lying)
        result[name] = {
            "RMSF r": _or_none(lambda one=one, other=other: pearson(rmsf(one, None), rmsf(other, None))),
            "mean RMSF": ANGSTROM * float(rmsf(one, None).mean()),
            "RMWD": ANGSTROM * rmwd(one, other, None)["rmwd"],
            "clashes a trajectory": float(clashes[kind].sum()),
            "clashes a frame": float(clashes[kind].mean()),
            "t-RMSD error": ANGSTROM * t_rmsd_error(one, other, is_superposed=True),
        }
    return result
