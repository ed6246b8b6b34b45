"""What a sample has to beat: plain MD of the same cost, an elastic network, a Gaussian of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from openmm_latent import metrics
from openmm_latent.errors import require
from openmm_latent.report.ensembles import Ensemble, make_ensemble

#: Peers by the word that --peers takes.
PEERS = ("anm", "gaussian", "md")
#: Columns of the table.
TITLES = {"md": "plain MD", "anm": "ANM", "gaussian": "Gaussian", "marginals": "marginals"}
#: Interaction range of the elastic network, ProDy's default for Cα [Å].
_ANM_CUTOFF_ANGSTROM = 15.0
#: Modes that are kept, at most: more hardly move.
_ANM_MODES = 200
#: Trace atoms of an elastic network, at most: its Hessian has (3 n)² entries.
_ANM_ATOMS = 2000
#: Coordinates that are drawn, at most.
_MAX_COORDINATES = 10_000_000


def check_peers(names: Sequence[str], has_md: bool) -> list[str]:
    """Return the peers asked for, each once, after checking that they can be made.

    Raises
    ------
    LatentError
        A word is unknown, ProDy is not installed, or the MD's files are not given.
    """
    chosen = list(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    if has_md and "md" not in chosen:
        chosen.append("md")
    for name in chosen:
        require(name in PEERS, f"peers (--peers) must be among {', '.join(PEERS)}, got {name!r}")
    require(
        "md" not in chosen or has_md,
        "peers (--peers) has md, which needs files: give --md FILES of a plain run, such as `openmm-latent generate` "
        "writes",
    )
    require(
        "anm" not in chosen or find_spec("prody") is not None,
        "peers (--peers) has anm, which needs ProDy; `pip install prody` gives it, or leave anm out",
    )
    return chosen


def gaussian_peer(training: Ensemble, n_frames: int, seed: int) -> Ensemble:
    """Draw from the Gaussian of the training frames' superposed positions.

    Parameters
    ----------
    training : Ensemble
    n_frames : int
        As many as the sample has; fewer of a large molecule.
    seed : int
    """
    structure = training.positions[0].astype(np.float64)
    n_drawn = max(2, min(n_frames, _MAX_COORDINATES // structure.size))
    drawn = metrics.cartesian_gaussian(training.positions, None, n_drawn, seed).astype(np.float32)
    return make_ensemble("gaussian", training.molecule, [drawn], structure, None)


def anm_peer(training: Ensemble, structure: np.ndarray, n_frames: int, seed: int) -> Ensemble:
    """Draw from an anisotropic network model of the trace atoms, as large in all as the training data's motion.

    Parameters
    ----------
    training : Ensemble
        Sets the one number that the model lacks, its temperature over its spring: the mean square fluctuation.
    structure : array, (n_atoms, 3) [nm]
        Its minimum.
    n_frames : int
    seed : int

    Raises
    ------
    LatentError
        There are too many trace atoms.

    Source: A. R. Atilgan et al., Biophys. J. 80, 505 (2001); ProDy's implementation.
    """
    import prody

    molecule = training.molecule
    n_trace = len(molecule.trace)
    require(
        2 < n_trace <= _ANM_ATOMS,
        f"peers (--peers) has anm, which takes 3 to {_ANM_ATOMS} atoms, got {n_trace}; take --atoms ca or leave it out",
    )
    centre = structure[molecule.trace]
    before = prody.LOGGER.verbosity
    prody.LOGGER.verbosity = "none"  # it prints its progress
    try:
        network = prody.ANM("network")
        network.buildHessian(10.0 * centre, cutoff=_ANM_CUTOFF_ANGSTROM)
        network.calcModes(n_modes=min(_ANM_MODES, 3 * n_trace - 6))
    finally:
        prody.LOGGER.verbosity = before
    variances, directions = 1.0 / network.getEigvals(), network.getEigvecs()  # directions: (3 n_trace, n_modes)
    _, covariance = metrics.atom_moments(training.trace, None)
    variances *= np.trace(covariance, axis1=1, axis2=2).sum() / variances.sum()
    n_drawn = max(2, min(n_frames, _MAX_COORDINATES // (3 * n_trace)))
    normals = np.random.default_rng(seed).standard_normal((n_drawn, len(variances))) * np.sqrt(variances)
    drawn = (centre + (normals @ directions.T).reshape(n_drawn, n_trace, 3)).astype(np.float32)
    if n_trace == len(molecule.atoms):
        return make_ensemble("anm", molecule, [drawn], structure, None)
    return Ensemble("anm", molecule, None, drawn, None, (n_drawn,), None)


def md_peer(md: Ensemble, n_frames: int) -> Ensemble:
    """Return the first frames of a plain run, as many as the sample has."""
    return replace(md.first(n_frames), name="md")
