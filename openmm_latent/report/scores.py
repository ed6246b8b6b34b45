"""Scores of one ensemble against another: each function takes two ensembles and gives numbers by catalogue key.

The same functions serve the sample, each peer, and the floor (halves of the reference against each other). What an
ensemble lacks (torsions, atoms, time) is left out of its dict.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report.ensembles import Ensemble

#: Frames that clashes are counted in, evenly spread.
CHECKED_FRAMES = 500


def defined(score: Callable[[], float]) -> float:
    """Return a score, NaN where it is not defined for its input."""
    try:
        return float(score())
    except LatentError:
        return float("nan")


def mean_surface_jsd(sample: np.ndarray, reference: np.ndarray, pairs: np.ndarray, bins: int = 50) -> float:
    """Return the mean divergence of the joint histograms of pairs of torsions [nats].

    Parameters
    ----------
    sample, reference : array, (n_frames, n_torsions) [rad]
    pairs : array of int, (n_pairs, 2)
    bins : int
        Along each axis.
    """
    return float(np.mean([metrics.ramachandran_jsd(sample[:, pair], reference[:, pair], bins) for pair in pairs]))


def torsion_scores(sample: Ensemble, reference: Ensemble) -> dict[str, float]:
    """Compare torsions."""
    molecule = reference.molecule
    if sample.angles is None or reference.angles is None or len(molecule.quadruples) == 0:
        return {}
    each = metrics.dihedral_jsd(sample.angles, reference.angles)
    scores = {}
    if molecule.n_backbone:
        scores["backbone_jsd"] = float(each[: molecule.n_backbone].mean())
    if molecule.n_backbone < len(each):
        scores["side_chain_jsd"] = float(each[molecule.n_backbone :].mean())
    for key, pairs in (("phi_psi_jsd", molecule.phi_psi), ("chi1_chi2_jsd", molecule.chi1_chi2)):
        if len(pairs):
            scores[key] = mean_surface_jsd(sample.angles, reference.angles, pairs)
    return scores


def fine_surface_scores(sample: Ensemble, reference: Ensemble) -> dict[str, float]:
    """Compare surfaces of 72 x 72 bins, as LD-FPG has them."""
    if sample.angles is None or reference.angles is None:
        return {}
    pairs = {"phi_psi_jsd_72": reference.molecule.phi_psi, "chi1_chi2_jsd_72": reference.molecule.chi1_chi2}
    return {
        key: mean_surface_jsd(sample.angles, reference.angles, columns, 72)
        for key, columns in pairs.items()
        if len(columns)
    }


def fluctuation_scores(sample: Ensemble, reference: Ensemble, seed: int) -> dict[str, float]:
    """Compare where atoms are and how far they move. Pairwise RMSD is the sample's own."""
    if sample.trace is None:
        return {}
    trace, expected = sample.trace, reference.trace
    parts = metrics.rmwd(trace, expected, None)
    scores = {
        "rmwd": parts["rmwd"],
        "rmwd_translation": parts["translation"],
        "rmwd_variance": parts["variance"],
        "symmetric_kl": metrics.symmetric_kl(trace, expected, None),
        "rmsf_r": defined(lambda: metrics.pearson(metrics.rmsf(trace, None), metrics.rmsf(expected, None))),
        "pairwise_rmsd": metrics.mean_pairwise_rmsd(trace, None, seed=seed),
    }
    if sample.positions is not None:
        scores["coordinate_jsd"] = metrics.coordinate_jsd(sample.positions, reference.positions, None)
        heavy = reference.molecule.is_heavy
        if reference.molecule.is_calpha and heavy.sum() > len(reference.molecule.trace):
            first, second = (metrics.rmsf(one.positions, None)[heavy] for one in (sample, reference))
            scores["rmsf_r_heavy"] = defined(lambda: metrics.pearson(first, second))
    return scores


def component_scores(sample: Ensemble, reference: Ensemble, seed: int) -> dict[str, float]:
    """Compare ensembles on principal components."""
    if sample.trace is None:
        return {}
    trace, expected = sample.trace, reference.trace
    scores = {
        "pca_w2": defined(lambda: metrics.pca_w2(trace, expected, None, is_joint=False, seed=seed)),
        "joint_pca_w2": defined(lambda: metrics.pca_w2(trace, expected, None, is_joint=True, seed=seed)),
        "pc_similarity": defined(lambda: metrics.pc_similarity(trace, expected, None, seed=seed)),
    }
    try:
        components = metrics.principal_components(expected, None, 2, seed=seed)
        states = metrics.state_recovery(components.project(trace), components.project(expected))
    except LatentError:  # a frozen ensemble has no components
        return scores
    names = {"jsd": "state_jsd", "precision": "state_precision", "recall": "state_recall", "f1": "state_f1"}
    return scores | {names[key]: float(states[key]) for key in names}


def contact_scores(sample: Ensemble, reference: Ensemble, structure: np.ndarray) -> dict[str, float]:
    """Compare contacts; `structure` (n_atoms, 3) [nm] tells weak ones from transient ones."""
    molecule = reference.molecule
    if sample.trace is None or not molecule.is_calpha:
        return {}
    pairs = metrics.contact_pairs(len(molecule.trace))
    if len(pairs) == 0:
        return {}
    own, expected = (metrics.contact_frequencies(one.trace, pairs) for one in (sample, reference))
    crystal = metrics.contact_frequencies(structure[None, molecule.trace], pairs)
    changed = metrics.changed_contacts(own, expected, crystal)
    return {
        "contact_r": defined(lambda: metrics.pearson(own, expected)),
        "weak_contacts": changed["weak"],
        "transient_contacts": changed["transient"],
    }


def violations(sample: Ensemble, structure: np.ndarray) -> dict[str, float]:
    """Count what no molecule does, in a frame on average: an ensemble's own numbers.

    Parameters
    ----------
    sample : Ensemble
    structure : array, (n_atoms, 3) [nm]
        Has the right hands and forms.
    """
    if sample.positions is None:
        return {}
    molecule = sample.molecule
    scores = {}
    if len(molecule.bonds):  # without bonds, as between Cα alone, every pair would count
        heavy, bonds = molecule.heavy_bonds()
        checked = sample.thinned(CHECKED_FRAMES).positions[:, heavy]
        scores["clashes"] = float(metrics.clash_counts(checked, bonds)["total"].mean())
        scores["close_share"] = metrics.close_fraction(checked, bonds)
    if len(molecule.centres):
        scores["chirality"] = float(metrics.chirality_violations(sample.positions, molecule.centres, structure).mean())
    if len(molecule.omegas):
        counts = metrics.omega_violations(sample.positions, molecule.omegas, structure)
        scores["omega_flipped"] = float(counts["flipped"].mean())
        scores["omega_twisted"] = float(counts["twisted"].mean())
    return scores


def product_of_marginals(reference: Ensemble, n_frames: int, seed: int) -> dict[str, float]:
    """Score independent draws of the reference's own torsions: whoever does not beat them learned no coupling."""
    molecule = reference.molecule
    if reference.angles is None or not (len(molecule.phi_psi) or len(molecule.chi1_chi2)):
        return {}
    drawn = metrics.product_of_marginals(reference.angles, n_frames, seed).astype(np.float32)
    drawn_only = Ensemble("marginals", molecule, None, None, drawn, (n_frames,), None)
    return {
        key: value for key, value in torsion_scores(drawn_only, reference).items() if key.endswith(("psi_jsd", "2_jsd"))
    }


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
            cut = [one[part] for one in counts]
            target = expected[part]
            found[key] = _interval(lambda c, t=target: float(row_jsd_mean(sum(c), t)), cut, seed)
    for key, pairs in (("phi_psi_jsd", molecule.phi_psi), ("chi1_chi2_jsd", molecule.chi1_chi2)):
        if len(pairs):
            grids = [_grids(block, pairs) for block in blocks]
            target = _grids(reference.angles, pairs)
            found[key] = _interval(lambda c, t=target: float(row_jsd_mean(sum(c), t)), grids, seed)
    return found


def row_jsd_mean(counts: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean of `metrics.row_jsd`, all rows at once: (n_rows, n_bins) twice -> float [nats]."""
    p, q = counts / counts.sum(axis=1, keepdims=True), reference / reference.sum(axis=1, keepdims=True)
    middle = 0.5 * (p + q)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / middle), 0.0) + np.where(q > 0, q * np.log(q / middle), 0.0)
    return float(0.5 * terms.sum(axis=1).mean())


def _grids(angles: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return flat 50 x 50 histograms: (n_frames, n_torsions) -> (n_pairs, 2500) of float32."""
    return np.array([metrics.ramachandran_counts(angles[:, pair]).ravel() for pair in pairs], dtype=np.float32)


def trace_intervals(sample: Ensemble, reference: Ensemble, seed: int, n_blocks: int) -> dict[str, tuple]:
    """Return bootstrap intervals of what follows from sums over blocks: RMSF and contact correlations."""
    if sample.trace is None:
        return {}
    edges = block_edges(sample.lengths, n_blocks)
    found = {}
    moments = [(b - a, *metrics.atom_moments(sample.trace[a:b], None)) for a, b in edges]
    expected = metrics.rmsf(reference.trace, None)
    found["rmsf_r"] = _interval(lambda c: defined(lambda: metrics.pearson(_joint_rmsf(c), expected)), moments, seed)
    molecule = reference.molecule
    pairs = metrics.contact_pairs(len(molecule.trace)) if molecule.is_calpha else np.zeros((0, 2))
    if len(pairs) >= 3:
        target = metrics.contact_frequencies(reference.trace, pairs)
        shares = [(b - a) * metrics.contact_frequencies(sample.trace[a:b], pairs) for a, b in edges]
        # Pearson's r does not ask how many frames there were.
        found["contact_r"] = _interval(lambda c: defined(lambda: metrics.pearson(sum(c), target)), shares, seed)
    return found


def _joint_rmsf(moments: list[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the RMSF of several blocks together from (frames, means, covariances)."""
    weights = np.array([n for n, _, _ in moments], dtype=np.float64)
    weights /= weights.sum()
    means = np.array([mean for _, mean, _ in moments])  # (n_blocks, n_atoms, 3)
    within = sum(w * np.trace(c, axis1=1, axis2=2) for w, (_, _, c) in zip(weights, moments, strict=True))
    between = np.tensordot(weights, means**2, axes=1) - np.tensordot(weights, means, axes=1) ** 2
    return np.sqrt(np.clip(within + between.sum(axis=1), 0.0, None))


def _interval(score: Callable[[list], float], blocks: list, seed: int) -> tuple[float, float]:
    """Return a bootstrap interval; NaNs where a resample has no score or there are too few blocks."""
    try:
        return metrics.bootstrap_interval(score, blocks, seed=seed)
    except LatentError:
        return float("nan"), float("nan")
