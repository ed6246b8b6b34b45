"""Scores of what belongs together one by one: runs from the same start, and frames rebuilt from the same trace."""

from __future__ import annotations

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError, require
from openmm_latent.report.ensembles import Ensemble
from openmm_latent.report.scores import CHECKED_FRAMES

#: Two runs start alike if their first frames are closer than this [nm].
SAME_START = 0.1
#: Times agree if they differ by less than this fraction.
_TOLERANCE = 1e-3


def start_pairs(sample: Ensemble, reference: Ensemble) -> list[tuple[slice, slice]]:
    """Return the frames of runs that pair in order and start alike, cut to the shorter one of each pair.

    Empty for ensembles without time, or whose frames are spaced unlike.
    """
    if sample.frame_spacing is None or sample.trace is None or reference.frame_spacing is None:
        return []
    if abs(sample.frame_spacing - reference.frame_spacing) > _TOLERANCE * reference.frame_spacing:
        return []
    pairs = []
    begins = [np.cumsum((0, *one.lengths)) for one in (sample, reference)]
    for k in range(min(len(sample.lengths), len(reference.lengths))):
        a, b, n = int(begins[0][k]), int(begins[1][k]), min(sample.lengths[k], reference.lengths[k])
        if n > 1 and np.sqrt(((sample.trace[a] - reference.trace[b]) ** 2).sum(axis=1).mean()) < SAME_START:
            pairs.append((slice(a, a + n), slice(b, b + n)))
    return pairs


def start_scores(sample: Ensemble, reference: Ensemble, site_atoms: np.ndarray | None = None) -> dict[str, float]:
    """Compare runs from the same starts: RMSD with time and, of several, how far they move. Empty without any.

    Parameters
    ----------
    sample, reference : Ensemble
    site_atoms : array of int, (n,), optional
        Of ligand and pocket.
    """
    pairs = start_pairs(sample, reference)
    if not pairs:
        return {}
    traces = [(sample.trace[a], reference.trace[b]) for a, b in pairs]
    found = {"t_rmsd_error": float(np.mean([metrics.t_rmsd_error(*pair) for pair in traces]))}
    if site_atoms is not None and sample.positions is not None and reference.positions is not None:
        own, expected = (one.positions[:, site_atoms] for one in (sample, reference))
        errors = [metrics.t_rmsd_error(own[a], expected[b], is_superposed=True) for a, b in pairs]
        found["complex_t_rmsd_error"] = float(np.mean(errors))
    if len(traces) > 1:
        changes = metrics.multi_start_scores([one for one, _ in traces], [other for _, other in traces])
        for kind in ("frame", "step", "trajectory"):
            found[f"start_{kind}_r"], found[f"start_{kind}_mae"] = changes[kind]["r"], changes[kind]["mae"]
    return found


def backmapping_scores(sample: Ensemble, reference: Ensemble) -> dict[str, float]:
    """Compare rebuilt frames with the true ones, in order; at most 500 frames, evenly spread, are looked at.

    Parameters
    ----------
    sample : Ensemble
        The reference's frames rebuilt: all of them once, or several times over, end to end.
    reference : Ensemble

    Raises
    ------
    LatentError
        The sample does not hold the reference's frames a whole number of times.
    """
    n = reference.n_frames
    n_samples = sample.n_frames // n
    require(
        n_samples >= 1 and n_samples * n == sample.n_frames,
        f"sample (--sample) must hold the reference's {n} frames rebuilt in order, once or several times over, to be "
        f"compared frame by frame (--backmap), got {sample.n_frames} frames; give files that pair",
    )
    heavy = np.flatnonzero(reference.molecule.is_heavy)
    chosen = np.linspace(0, n - 1, min(n, CHECKED_FRAMES)).round().astype(int)
    true = reference.positions[chosen][:, heavy]
    rebuilt = np.array([sample.positions[k * n + chosen][:, heavy] for k in range(n_samples)])
    distances = [metrics.backmapping_rmsd(one, true) for one in rebuilt]
    found = {f"rebuilt_rmsd_{key}": float(np.mean([one[key] for one in distances])) for key in distances[0]}
    try:
        radii = metrics.covalent_radii([reference.molecule.records[i].element for i in heavy])
        bonds = [metrics.bond_graph_scores(one, true, radii) for one in rebuilt]
    except LatentError:  # an element without a radius, or Cα alone: no bonds
        bonds = []
    for key in ("ged", "gdr", "bond_mse"):
        found[key] = float(np.mean([one[key] for one in bonds])) if bonds else float("nan")
    if n_samples > 1 and found["rebuilt_rmsd_superposed"] > 0:
        spread = metrics.diversity(rebuilt, true)
        found["diversity"], found["diversity_ratio"] = spread["div"], spread["ratio"]
    return found
