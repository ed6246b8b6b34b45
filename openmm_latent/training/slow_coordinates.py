"""Slow coordinates of a GLDP model: what they are made of, and fitting them."""

from __future__ import annotations

import numpy as np
import torch

from openmm_latent.data.trajectories import TrajectorySet
from openmm_latent.errors import require
from openmm_latent.models.gldp import GLDP
from openmm_latent.nn.torsions import torsion_features
from openmm_latent.propagators.slow import fit_slow, leading_torsions

SLOW_FEATURES = ("auto", "torsions", "angles", "backbone", "latent")

#: More torsions than this are too many for slow coordinates to be fitted on.
_MOST_TORSIONS = 200

#: Autocorrelation that every slow coordinate keeps over the lag at which it is fitted.
_SLOW_MEMORY = 0.2


def choose_slow_features(model: GLDP, asked: str) -> str:
    """Return what slow coordinates are made of: "torsions", "angles", "backbone" or "latent"."""
    n_torsions = model.n_backbone_torsions if asked == "backbone" else len(model.torsions)
    require(
        asked in ("auto", "latent") or n_torsions > 0,
        f"slow_features '{asked}' needs a protein's torsions among the model atoms, which have none; give 'latent'",
    )
    if asked != "auto":
        return asked
    return "torsions" if 1 <= n_torsions <= _MOST_TORSIONS else "latent"


def set_slow_coordinates(
    model: GLDP, features: str, latents: list[np.ndarray], trajectories: TrajectorySet, how: tuple[int, int, str]
) -> list[np.ndarray]:
    """Fit and set slow coordinates by (lag_frames, n_slow, method); return their series, (n_frames, n_slow) a file."""
    lag_frames, n_slow, method = how
    series = latents
    torsions = model.torsions[: model.n_backbone_torsions] if features == "backbone" else model.torsions
    if features != "latent":
        blocks = [torch.as_tensor(part).float().split(8192) for part in trajectories.positions]
        series = [torch.cat([torsion_features(block, torsions) for block in part]).numpy() for part in blocks]
    n_slow = min(n_slow, series[0].shape[1])
    mean, matrix = fit_slow(series, lag_frames, n_slow, 1e-6, method, _SLOW_MEMORY)
    if features not in ("angles", "backbone"):
        model.set_slow(mean, matrix, uses_torsions=features == "torsions")
        return [(part - mean) @ matrix.T for part in series]
    picked = leading_torsions(series, matrix)
    angles = [np.arctan2(part[:, len(torsions) + picked], part[:, picked]) for part in series]
    model.set_slow_angles(picked)
    return angles
