"""Error bars of scores: each number from blocks of the sample, and what it would be of other blocks.

Blocks are made into sums, histograms or matrices once; a resample only adds them up.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report.ensembles import Ensemble
from openmm_latent.report.scores import defined

#: Points of each ensemble, and resamples, that intervals of W2 are made of: a transport costs about 10 ms.
W2_POINTS, W2_RESAMPLES = 300, 100


def block_edges(lengths: tuple[int, ...], n_blocks: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) frames of about `n_blocks` contiguous blocks that cross no run."""
    numbers = np.arange(sum(lengths))
    edges = np.cumsum((0, *lengths))
    runs = [numbers[a:b] for a, b in pairwise(edges) if b > a]
    return [(int(b[0]), int(b[-1]) + 1) for b in metrics.contiguous_blocks(runs, min(n_blocks, len(numbers)))]


def torsion_intervals(sample: Ensemble, reference: Ensemble, seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return bootstrap intervals of the torsions' divergences, from histograms of blocks of the sample."""
    molecule = reference.molecule
    if sample.angles is None or len(molecule.quadruples) == 0:
        return {}
    blocks = [sample.angles[a:b] for a, b in block_edges(sample.lengths, n_blocks)]
    counts = [metrics.dihedral_counts(block) for block in blocks]
    expected = metrics.dihedral_counts(reference.angles)
    n = molecule.n_backbone
    found = {}
    for key, part in (("backbone_jsd", slice(0, n)), ("side_chain_jsd", slice(n, len(expected)))):
        if len(expected[part]):
            kept, score = occupied_rows([one[part] for one in counts], expected[part])
            found[key] = _interval(score, kept, seed)
    for key, pairs in (("phi_psi_jsd", molecule.phi_psi), ("chi1_chi2_jsd", molecule.chi1_chi2)):
        if len(pairs):
            kept, score = occupied_rows([_grids(block, pairs) for block in blocks], _grids(reference.angles, pairs))
            found[key] = _interval(score, kept, seed)
    return found


def occupied_rows(counts: list[np.ndarray], target: np.ndarray) -> tuple[list[np.ndarray], Callable[[list], float]]:
    """Return histograms of blocks without the bins that nobody visits, and the score of some of them together.

    Most bins of a torsion surface are empty: a resample then costs a tenth.

    Parameters
    ----------
    counts : list of array, (n_rows, n_bins)
        One a block.
    target : array, (n_rows, n_bins)
        Of the reference.

    Returns
    -------
    blocks : list of array, (n_occupied,)
    score : callable
        Blocks -> the mean over rows of `metrics.row_jsd` [nats].
    """
    from scipy.special import rel_entr

    used = (sum(counts) > 0) | (target > 0)  # type: ignore[operator]
    rows = np.nonzero(used)[0]
    expected = (target / target.sum(axis=1, keepdims=True))[used].astype(np.float64)

    def score(chosen: list[np.ndarray]) -> float:
        total = np.sum(chosen, axis=0, dtype=np.float64)
        found = total / np.bincount(rows, total)[rows]
        middle = 0.5 * (found + expected)
        return float(0.5 * (rel_entr(found, middle).sum() + rel_entr(expected, middle).sum()) / len(used))

    return [one[used] for one in counts], score


def _grids(angles: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return flat 50 x 50 histograms: (n_frames, n_torsions) -> (n_pairs, 2500) of float32."""
    return np.array([metrics.ramachandran_counts(angles[:, pair]).ravel() for pair in pairs], dtype=np.float32)


def trace_intervals(sample: Ensemble, reference: Ensemble, seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return bootstrap intervals of what follows from sums over blocks: RMSF, RMWD, symmetric KL, contacts."""
    if sample.trace is None:
        return {}
    edges = block_edges(sample.lengths, n_blocks)
    found = {}
    moments = [(b - a, *metrics.atom_moments(sample.trace[a:b], None)) for a, b in edges]
    target = metrics.atom_moments(reference.trace, None)
    expected = metrics.rmsf_of_covariances(target[1])
    found["rmsf_r"] = _interval(
        lambda c: defined(lambda: metrics.pearson(metrics.rmsf_of_covariances(joint_moments(c)[1]), expected)),
        moments,
        seed,
    )
    for key, part in (("rmwd", "rmwd"), ("rmwd_translation", "translation"), ("rmwd_variance", "variance")):
        found[key] = _interval(lambda c, p=part: metrics.rmwd_of_moments(joint_moments(c), target)[p], moments, seed)
    found["symmetric_kl"] = _interval(
        lambda c: metrics.symmetric_kl_of_covariances(joint_moments(c)[1], target[1]), moments, seed
    )
    molecule = reference.molecule
    pairs = metrics.contact_pairs(len(molecule.trace)) if molecule.is_calpha else np.zeros((0, 2))
    if len(pairs) >= 3:
        frequencies = metrics.contact_frequencies(reference.trace, pairs)
        shares = [(b - a) * metrics.contact_frequencies(sample.trace[a:b], pairs) for a, b in edges]
        # Pearson's r does not ask how many frames there were.
        found["contact_r"] = _interval(lambda c: defined(lambda: metrics.pearson(sum(c), frequencies)), shares, seed)
    return found


def joint_moments(moments: list[tuple[int, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (n_atoms, 3) and covariance (n_atoms, 3, 3) of several blocks together: (frames, means, covariances).

    As `metrics.atom_moments` has them of all frames.
    """
    weights = np.array([n for n, _, _ in moments], dtype=np.float64)
    weights /= weights.sum()
    means = np.array([mean for _, mean, _ in moments])  # (n_blocks, n_atoms, 3)
    mean = np.tensordot(weights, means, axes=1)
    apart = means - mean
    within = sum(w * c for w, (_, _, c) in zip(weights, moments, strict=True))
    return mean, within + np.einsum("b,bni,bnj->nij", weights, apart, apart, optimize=True)


def pairwise_interval(ensemble: Ensemble, seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return a bootstrap interval of the mean pairwise RMSD, from blocks of the frames that it is taken over."""
    if ensemble.trace is None:
        return {}
    distances = metrics.pairwise_rmsds(ensemble.trace, None, seed=seed)  # (n, n), zero on the diagonal
    n = len(distances)
    blocks = metrics.contiguous_blocks([np.arange(n)], min(n_blocks, n))

    def mean_distance(chosen: list[np.ndarray]) -> float:
        weights = np.bincount(np.concatenate(chosen), minlength=n).astype(np.float64)
        n_pairs = weights.sum() ** 2 - (weights**2).sum()  # a frame drawn twice makes no pair with itself
        return float(weights @ distances @ weights / n_pairs) if n_pairs > 0 else float("nan")

    return {"pairwise_rmsd": _interval(mean_distance, blocks, seed)}


def component_intervals(
    sample: Ensemble, reference: Ensemble, values: dict[str, float], seed: int, n_blocks: int
) -> dict[str, tuple]:
    """Return bootstrap intervals of W2 on principal components, from some points that blocks weigh anew.

    The width is that of `W2_POINTS` points; the place is that of the score itself.

    Parameters
    ----------
    sample, reference : Ensemble
    values : dict of str to float
        Has the scores `pca_w2` and `joint_pca_w2` [nm].
    seed, n_blocks : int
    """
    if sample.trace is None:
        return {}
    n_points = min(W2_POINTS, sample.n_frames, reference.n_frames)
    chosen = [one.thinned(n_points).trace for one in (sample, reference)]
    blocks = metrics.contiguous_blocks([np.arange(n_points)], min(n_blocks, n_points))
    found = {}
    for key, is_joint in (("pca_w2", False), ("joint_pca_w2", True)):
        try:
            score = _weighted_w2(*chosen, is_joint, seed)
        except LatentError:  # a frozen ensemble has no components
            continue
        low, high = _interval(score, blocks, seed, W2_RESAMPLES)
        shift = values.get(key, float("nan")) - score(blocks)
        found[key] = (low + shift, high + shift)
    return found


def _weighted_w2(
    sample: np.ndarray, reference: np.ndarray, is_joint: bool, seed: int
) -> Callable[[list[np.ndarray]], float]:
    """Return a function from blocks of the sample's frame numbers to W2 [nm]; components and costs are made once."""
    import ot

    fit = np.concatenate([sample, reference]) if is_joint else reference
    components = metrics.principal_components(fit, None, 2, seed=seed)
    costs = ot.dist(components.project(sample), components.project(reference))
    even = np.full(len(reference), 1.0 / len(reference))

    def distance(chosen: list[np.ndarray]) -> float:
        weights = np.bincount(np.concatenate(chosen), minlength=len(sample)).astype(np.float64)
        cost = ot.emd2(weights / weights.sum(), even, costs, numItermax=1_000_000)
        return float(np.sqrt(max(0.0, float(cost)) / sample.shape[1]))

    return distance


def jsd_interval(counts: list[np.ndarray], target: np.ndarray, value: float, seed: int) -> tuple[float, float]:
    """Return a bootstrap interval of a divergence [nats] from histograms of blocks, laid about the score itself.

    What lies across the blocks' ends is in the score and not in the blocks.
    """
    low, high = _interval(lambda c: metrics.jsd(sum(c), target), counts, seed)
    shift = value - metrics.jsd(sum(counts), target)
    return low + shift, high + shift


def count_intervals(series: dict[str, np.ndarray], seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return bootstrap intervals of mean counts a frame: clashes, hands, peptide bonds."""
    found = {}
    for key, counts in series.items():
        blocks = metrics.contiguous_blocks([counts], min(n_blocks, len(counts)))
        found[key] = _interval(lambda c: float(np.concatenate(c).mean()), blocks, seed)
    return found


def _interval(
    score: Callable[[list], float], blocks: list, seed: int, n_resamples: int = metrics.RESAMPLES
) -> tuple[float, float]:
    """Return a bootstrap interval; NaNs where a resample has no score or there are too few blocks."""
    try:
        return metrics.bootstrap_interval(score, blocks, seed=seed, n_resamples=n_resamples)
    except LatentError:
        return float("nan"), float("nan")
