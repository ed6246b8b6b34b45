"""Scores over many targets (proteins): each takes lists with one entry a target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.errors import require


def pearson(values: np.ndarray, reference: np.ndarray) -> float:
    """Return Pearson's correlation.

    Parameters
    ----------
    values, reference : array, (n,)
        For example the mean pairwise RMSD of each target.

    Returns
    -------
    float, from -1 to 1

    Raises
    ------
    LatentError
        The lengths differ, there are fewer than three values, or one side does not vary.
    """
    first, second = np.ravel(np.asarray(values, dtype=np.float64)), np.ravel(np.asarray(reference, dtype=np.float64))
    require(
        len(first) == len(second) and len(first) >= 3,
        f"values must be as many as reference ({len(second)}) and at least three, got {len(first)}; "
        "a correlation of fewer says nothing",
    )
    deviations = [side - side.mean() for side in (first, second)]
    lengths = [np.linalg.norm(side) for side in deviations]
    for name, side, length in (("values", first, lengths[0]), ("reference", second, lengths[1])):
        require(
            np.isfinite(length) and length > 1e-12 * np.linalg.norm(side),
            f"{name} must be finite and vary, got {len(side)} values from {side.min():.4g} to {side.max():.4g}; "
            "a constant has no correlation",
        )
    return float(np.clip(deviations[0] @ deviations[1] / (lengths[0] * lengths[1]), -1.0, 1.0))


def profile_correlations(profiles: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> dict[str, float]:
    """Return how well per-residue profiles, such as RMSF, agree over targets.

    Parameters
    ----------
    profiles, references : list of array, (n_residues of that target,)

    Returns
    -------
    dict: global (all residues of all targets together), per_target (median of the targets' own correlations)

    Raises
    ------
    LatentError
        A target differs in length, or a profile does not vary.

    Source: METRICS "RMSF r"; AlphaFlow (2024).
    """
    require(
        len(profiles) == len(references) and len(profiles) > 0,
        f"profiles must have one entry for each of the {len(references)} references, got {len(profiles)}",
    )
    own = [pearson(profile, reference) for profile, reference in zip(profiles, references, strict=True)]
    together = pearson(
        np.concatenate([np.ravel(p) for p in profiles]), np.concatenate([np.ravel(r) for r in references])
    )
    return {"global": together, "per_target": float(np.median(own))}


def share_above(values: Sequence[float], threshold: float = 0.5) -> float:
    """Return the share of targets whose value (such as `pc_similarity`) is above a threshold, 0 to 1."""
    numbers = np.asarray(values, dtype=np.float64)
    require(numbers.size > 0, "values must hold at least one target, got none")
    return float((numbers > threshold).mean())
