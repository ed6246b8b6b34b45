"""What plots are made of, gathered while the frames are still in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import LatentError
from openmm_latent.report.ensembles import Ensemble, Reader
from openmm_latent.report.slow import SlowCoordinates, timescale_curves

#: Bins an axis of the surface along two slow coordinates, and of the line along the slowest.
SURFACE_BINS, LINE_BINS = 60, 80
#: Points of each ensemble in an overlay of principal components.
OVERLAY_POINTS = 1500
#: Frames of each ensemble that the viewer plays.
VIEWER_FRAMES = 40


def collect_drawings(
    reader: Reader,
    reference: Ensemble,
    sample: Ensemble,
    peers: dict[str, Ensemble],
    slow: SlowCoordinates | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Return arrays for each plot; a plot that cannot be made is left out.

    Parameters
    ----------
    reader : Reader
    reference, sample : Ensemble
        With features.
    peers : dict of str to Ensemble
    slow : SlowCoordinates or None
    temperature : float [K] or None
    """
    everyone = {"reference": reference, "sample": sample} | peers
    drawings: dict[str, Any] = {
        "names": {"reference": reference.name, "sample": sample.name},
        "viewer": {name: _played(everyone[name]) for name in ("reference", "sample")},
        "structure": reader.structure,
        "molecule": reader.molecule,
        "rmsf": {name: metrics.rmsf(one.trace, None) for name, one in everyone.items() if one.trace is not None},
        "residues": [reader.molecule.labels[i] for i in reader.molecule.trace],
        "is_calpha": reader.molecule.is_calpha,
        "temperature": temperature,
    }
    drawings |= _torsions(reference, sample) | _contacts(reference, sample) | _components(everyone)
    if slow is not None:
        drawings |= _surfaces(everyone, slow)
        curves = {name: timescale_curves(one) for name, one in everyone.items() if one.features is not None}
        drawings["timescales"] = {name: curve for name, curve in curves.items() if curve}
        drawings["lag_time"] = slow.lag_time
    return drawings


def _played(ensemble: Ensemble) -> np.ndarray:
    """Return the frames that the viewer plays, evenly spread: (n_frames, n_atoms, 3) [nm]."""
    return np.array(ensemble.thinned(VIEWER_FRAMES).positions)


def _torsions(reference: Ensemble, sample: Ensemble) -> dict[str, Any]:
    """Return surfaces of pairs of torsions and the divergence of each single torsion with its floor."""
    molecule = reference.molecule
    if reference.angles is None or len(molecule.quadruples) == 0:
        return {}
    maps = []
    for words, pairs in (("φ, ψ", molecule.phi_psi), ("χ1, χ2", molecule.chi1_chi2)):
        for pair in pairs:
            counts = [metrics.ramachandran_counts(one.angles[:, pair]) for one in (reference, sample)]
            maps.append({"label": molecule.pair_label(pair), "axes": words, "counts": counts})
    counts = [metrics.dihedral_counts(one.angles) for one in (reference, sample)]
    halves = reference.halves()[0]
    floor = metrics.row_jsd(*(metrics.dihedral_counts(one.angles) for one in halves))
    each = {"names": molecule.torsions, "jsd": metrics.row_jsd(*counts), "floor": floor}
    return {"maps": maps, "torsions": each | {"n_backbone": molecule.n_backbone}}


def _contacts(reference: Ensemble, sample: Ensemble) -> dict[str, Any]:
    """Return contact frequencies of all pairs of residues, each (n_residues, n_residues)."""
    n = len(reference.molecule.trace)
    if not reference.molecule.is_calpha or n <= metrics.CONTACT_SEPARATION:
        return {}
    pairs, matrices = metrics.contact_pairs(n), {}
    for name, one in (("reference", reference), ("sample", sample)):
        matrices[name] = np.full((n, n), np.nan)
        matrices[name][pairs[:, 0], pairs[:, 1]] = metrics.contact_frequencies(one.trace, pairs)
    return {"contacts": matrices}


def _components(everyone: dict[str, Ensemble]) -> dict[str, Any]:
    """Return projections of some frames on the reference's two first components."""
    try:
        components = metrics.principal_components(everyone["reference"].trace, None, 2, seed=1)
    except LatentError:
        return {}
    points = {
        name: components.project(one.thinned(OVERLAY_POINTS).trace)
        for name, one in everyone.items()
        if one.trace is not None
    }
    return {"components": points}


def _surfaces(everyone: dict[str, Ensemble], slow: SlowCoordinates) -> dict[str, Any]:
    """Return histograms along the slow coordinates, over the joint range of reference and sample."""
    projected = {name: slow.project(one) for name, one in everyone.items() if one.features is not None}
    both = np.concatenate([projected["reference"], projected["sample"]])
    low, high = both.min(axis=0), both.max(axis=0)
    high = np.where(high > low, high, low + 1.0)
    edges = [np.linspace(a, b, SURFACE_BINS + 1) for a, b in zip(low, high, strict=True)]
    line = np.linspace(low[0], high[0], LINE_BINS + 1)
    return {
        "surface_edges": edges,
        "surfaces": {name: np.histogram2d(*projected[name].T, bins=edges)[0] for name in ("reference", "sample")},
        "line_edges": line,
        "lines": {name: np.histogram(points[:, 0], line)[0] for name, points in projected.items()},
        "boundary": slow.boundary,
    }
