"""How many independent samples a series is worth, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_latent.errors import require

#: A stationary distribution counts as right within this many floors.
MAX_FLOORS = 2.0


def effective_sample_size(
    series: np.ndarray | Sequence[np.ndarray], weights: np.ndarray | Sequence[np.ndarray] | None = None
) -> float:
    """Return how many independent samples an equilibrium series is worth: N / (-1 + 2 sum rho).

    The sum starts at rho(0) = 1 and ends before the first rho <= 0. Several series of one process share one mean, so
    walkers that are each stuck in a state of their own count about one apiece, not as many as they have frames.

    With weights it is the variance of the coordinate over that of its weighted mean: rho is then the autocorrelation of
    w (x - mean), and N / (-1 + 2 sum rho) is multiplied by <w (x - mean)^2> <w> / <w^2 (x - mean)^2>.

    Parameters
    ----------
    series : array, (n_frames,), or list of such
        One slow coordinate in time order; a list holds independent runs, with pairs that never cross from one to the
        next.
    weights : like `series`, optional
        Of each frame after reweighting, not negative; equal unless given.

    Returns
    -------
    float, at most the number of frames (without weights)

    Raises
    ------
    LatentError
        A series has another shape or fewer than two frames, holds NaN or infinity, or nothing varies.

    Source: METRICS "ESS"; L. Klein et al., Timewarp (2023), section 6.
    """
    runs = _runs(series, "series")
    shares = [np.ones(len(run)) for run in runs] if weights is None else _runs(weights, "weights")
    require(
        [len(share) for share in shares] == [len(run) for run in runs] and min(map(np.min, shares)) >= 0,
        "weights must be as many as the frames of series and not negative; give one a frame",
    )
    together, share = np.concatenate(runs), np.concatenate(shares)
    require(share.sum() > 0, "weights must not all be 0; which frames count?")
    share = share / share.mean()
    mean = (share * together).mean()
    deviations, offset = share * (together - mean), 0
    longest = max(len(run) for run in runs)
    products = np.zeros(longest)  # sums of x(t) x(t + lag), by lag
    for run in runs:
        # Padded to twice the length: no product may wrap round the end.
        spectrum = np.fft.rfft(deviations[offset : offset + len(run)], 2 * len(run))
        products[: len(run)] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(run))[: len(run)]
        offset += len(run)
    require(
        products[0] > 1e-20 * (mean**2 + 1e-280) * longest,
        "series must vary, got a constant; a coordinate that never moves has no sample size",
    )
    correlations = products / products[0]
    below = np.flatnonzero(correlations <= 0)
    last = int(below[0]) if len(below) else longest
    efficiency = (deviations * (together - mean)).sum() / products[0]
    return float(len(together) * efficiency / (-1.0 + 2.0 * correlations[:last].sum()))


def _runs(series: np.ndarray | Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    """Return a series, or a list of them, as a list of float64 arrays (n_frames >= 2,), checked."""
    one = isinstance(series, np.ndarray) and series.ndim == 1
    runs = [np.asarray(run, dtype=np.float64) for run in ([series] if one else series)]
    require(len(runs) > 0, f"{name} must hold at least one run, got an empty list; give one coordinate in time order")
    for run in runs:
        require(
            run.ndim == 1 and len(run) >= 2 and bool(np.isfinite(run).all()),
            f"{name} must have shape (n_frames >= 2,) and finite values, got {run.shape}; give one slow coordinate",
        )
    return runs


def sample_size_per_cost(
    series: np.ndarray | Sequence[np.ndarray],
    *,
    states: np.ndarray,
    reference_states: np.ndarray,
    divergence: float,
    floor: float,
    cpu_seconds: float | None = None,
    force_evaluations: float | None = None,
    weights: np.ndarray | Sequence[np.ndarray] | None = None,
) -> dict:
    """Return the effective sample size and what it cost, where it may be quoted.

    A sample size of a wrong distribution, or of one basin, is worth nothing. So it is 0 if a state of the reference is
    never visited, and NaN if the stationary distribution is further than two floors from the reference's.

    Parameters
    ----------
    series : array, (n_frames,), or list of such
        The slowest TICA coordinate, fitted on the reference.
    states, reference_states : array of int, (n_frames,)
        From `assign_states` (or `core_states`), with the same centres.
    divergence, floor : float [nats]
        JSD of the (reweighted) sample, and its floor: that of the halves of the reference.
    cpu_seconds, force_evaluations : float, optional
        What the whole sample cost, including rejected jumps; the ratio is NaN where it is not given.
    weights : like `series`, optional

    Returns
    -------
    dict: sample_size, per_cpu_second [1/s], per_force_evaluation; reason, a sentence where they are 0 or NaN, else ""

    Raises
    ------
    LatentError
        A cost or the floor is not positive, or as `effective_sample_size`.

    Source: METRICS "ESS"; L. Klein et al., Timewarp (2023).
    """
    for name, value in (("cpu_seconds", cpu_seconds), ("force_evaluations", force_evaluations), ("floor", floor)):
        require(value is None or value > 0, f"{name} must be positive, got {value}; count what the whole sample cost")
    missing = np.setdiff1d(np.unique(reference_states), np.unique(states))
    if len(missing):
        size, reason = 0.0, f"{len(missing)} states of the reference are never visited."
    elif not divergence <= MAX_FLOORS * floor:
        size = float("nan")
        reason = f"The stationary JSD, {divergence:.3g} nats, is more than {MAX_FLOORS:g} times its floor, {floor:.3g}."
    else:
        size, reason = effective_sample_size(series, weights), ""
    return {
        "sample_size": size,
        "per_cpu_second": size / cpu_seconds if cpu_seconds else float("nan"),
        "per_force_evaluation": size / force_evaluations if force_evaluations else float("nan"),
        "reason": reason,
    }
