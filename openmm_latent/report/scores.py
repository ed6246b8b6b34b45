"""Scores of one ensemble against another: each function takes two ensembles and gives numbers by catalogue key.

The same functions serve the sample, each peer, and the floor (halves of the reference against each other). What an
ensemble lacks (torsions, atoms, time) is left out of its dict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Violations:
    """What no molecule does, counted frame by frame.

    Attributes
    ----------
    series : dict of str to array, (n_frames,)
        Counts by catalogue key; clashes are of `CHECKED_FRAMES` frames at most, evenly spread.
    close_share : float or None
        Of all neighbours in those frames together.
    """

    series: dict[str, np.ndarray]
    close_share: float | None

    @property
    def means(self) -> dict[str, float]:
        """Numbers by catalogue key."""
        found = {key: float(counts.mean()) for key, counts in self.series.items()}
        return found if self.close_share is None else found | {"close_share": self.close_share}


def violations(sample: Ensemble, structure: np.ndarray) -> Violations:
    """Count what no molecule does: an ensemble's own numbers.

    Parameters
    ----------
    sample : Ensemble
    structure : array, (n_atoms, 3) [nm]
        Has the right hands and forms.
    """
    if sample.positions is None:
        return Violations({}, None)
    molecule, series, close_share = sample.molecule, {}, None
    if len(molecule.bonds):  # without bonds, as between Cα alone, every pair would count
        heavy, bonds = molecule.heavy_bonds()
        checked = sample.thinned(CHECKED_FRAMES).positions[:, heavy]
        series["clashes"] = metrics.clash_counts(checked, bonds)["total"]
        close_share = metrics.close_fraction(checked, bonds)
    if len(molecule.centres):
        series["chirality"] = metrics.chirality_violations(sample.positions, molecule.centres, structure)
    if len(molecule.omegas):
        counts = metrics.omega_violations(sample.positions, molecule.omegas, structure)
        series |= {f"omega_{key}": counts[key] for key in ("flipped", "twisted")}
    return Violations(series, close_share)


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
