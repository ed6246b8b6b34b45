"""A reversible Markov model of short segments: microstates, counts, maximum likelihood and posterior.

| step | made by |
|---|---|
| slow coordinates | deeptime's TICA on the features |
| microstates | deeptime's k-means, apart for each combination of the named states, so that none straddles a state |
| counts | deeptime, sliding window inside segments, divided by the lag: as many as independent ones |
| transition matrix | deeptime's reversible maximum likelihood on the largest strongly connected set |
| posterior | deeptime's reversible Gibbs sampler, with moves of whole regions added (see `Posterior`) |

Source: J.-H. Prinz et al., J. Chem. Phys. 134, 174105 (2011); B. Trendelkamp-Schroer et al., J. Chem. Phys. 143,
174101 (2015), whose prior x_ij^-1 on observed transitions is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmm_latent.analysis.segments import Segment
from openmm_latent.errors import require
from openmm_latent.metrics import assign_states, lagged_covariances

#: Frames that k-means is fitted on, at most, and of each cell of a grid of so many cells an axis; all are assigned.
_KMEANS_FRAMES, _FRAMES_A_CELL, _CELLS = 30_000, 10, 16
#: Frames below which a microstate is joined with the nearest.
_FEWEST_FRAMES = 20
#: Units of the bootstrap: whole segments, unless these are fewer; long ones are cut into this many in all, about.
_FEWEST_BLOCKS, _MOST_BLOCKS = 50, 200
#: Independent draws of each population that a posterior should be worth.
_ENOUGH_DRAWS = 100


@dataclass(frozen=True)
class MarkovModel:
    """A reversible Markov model on the connected microstates.

    Attributes
    ----------
    lag_frames : int
    active : np.ndarray
        (n,) labels of the microstates in the largest strongly connected set.
    counts : np.ndarray
        (n, n) effective counts: those of a sliding window, divided by the lag.
    transition_matrix : np.ndarray
        (n, n), rows sum to 1
    stationary : np.ndarray
        (n,), sums to 1
    """

    lag_frames: int
    active: np.ndarray
    counts: np.ndarray
    transition_matrix: np.ndarray
    stationary: np.ndarray

    def eigenvalues(self) -> np.ndarray:
        """Return the eigenvalues (n,), largest first; the first is 1."""
        return spectrum(self.transition_matrix, self.stationary)[0]

    def timescales(self, frame_spacing: float, n: int = 5) -> np.ndarray:
        """Return the (at most n,) slowest implied timescales [ps]; nan for eigenvalues not above 0."""
        return implied_timescales(self.eigenvalues(), self.lag_frames * frame_spacing, n)


def implied_timescales(eigenvalues: np.ndarray, lag_time: float, n: int) -> np.ndarray:
    """Return -lag / ln lambda [ps] of the n eigenvalues after the first."""
    chosen = eigenvalues[1 : n + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chosen > 0, -lag_time / np.log(np.clip(chosen, 1e-300, 1 - 1e-15)), np.nan)


def spectrum(transition_matrix: np.ndarray, stationary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (n,), largest first, and right eigenvectors (n, n), columns of unit stationary variance."""
    root = np.sqrt(stationary)
    symmetric = root[:, None] * transition_matrix / root[None, :]
    values, vectors = np.linalg.eigh(0.5 * (symmetric + symmetric.T))
    order = np.argsort(values)[::-1]
    return values[order], vectors[:, order] / root[:, None]


# --- microstates -----------------------------------------------------------------------------------------------------


def slow_coordinates(segments: Sequence[Segment], lag_frames: int, n_dimensions: int) -> list[np.ndarray]:
    """Return the TICA coordinates of each segment, (n_frames, at most n_dimensions), as a kinetic map."""
    from deeptime.decomposition import TICA

    series = [part.features for part in segments]
    if series[0].shape[1] == 1:
        return [(part - series[0].mean()) for part in series]
    covariances = lagged_covariances(series, lag_frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deeptime's, on eigenvalues of constant features that it then leaves out
        model = TICA(lagtime=lag_frames, dim=n_dimensions, scaling="kinetic_map").fit_from_covariances(covariances)
    tica = model.fetch_model()
    return [np.asarray(tica.transform(part), dtype=np.float64) for part in series]


def microstates(
    segments: Sequence[Segment], coordinates: Sequence[np.ndarray], n_microstates: int, seed: int
) -> list[np.ndarray]:
    """Assign each frame to a microstate; no microstate straddles the edge of a named state.

    k-means puts its centres where the frames are, but rare regions, such as a state's edge, decide over transitions:
    it is fitted on frames thinned to an even density.

    Returns
    -------
    list of array of int, (n_frames,)
        Labels from 0, the same numbering in all segments.
    """
    points = np.concatenate(coordinates)
    is_in = np.concatenate([part.is_in for part in segments])
    _, patterns = np.unique(is_in, axis=0, return_inverse=True)
    patterns = patterns.reshape(-1)  # (n_frames,)
    random = np.random.default_rng(seed)
    thinned = _thin(points, patterns, random)
    sizes = np.bincount(patterns[thinned])
    labels = np.full(len(points), -1)
    first = 0
    for pattern, size in enumerate(sizes):
        fitted = points[thinned[patterns[thinned] == pattern]]
        n_centres = max(2, round(n_microstates * size / sizes.sum()))
        members = np.flatnonzero(patterns == pattern)
        labels[members] = first + _cluster(fitted, points[members], n_centres, seed)
        first = int(labels.max()) + 1
    return np.split(labels, np.cumsum([len(part) for part in segments])[:-1])


def _thin(points: np.ndarray, patterns: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return indices of at most some frames of each cell of a grid over the first three coordinates."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = ((points - low) / np.maximum(high - low, 1e-12) * (_CELLS - 1e-9)).astype(int)[:, :3]
    order = random.permutation(len(points))
    keys = np.column_stack([patterns, cells])[order]
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    by_cell = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[by_cell], np.arange(cell.max() + 1))
    rank = np.arange(len(points)) - starts[cell[by_cell]]
    return order[by_cell[rank < _FRAMES_A_CELL]][:_KMEANS_FRAMES]


def _cluster(fitted: np.ndarray, points: np.ndarray, n_centres: int, seed: int) -> np.ndarray:
    """Return the microstate of each point from 0, all with enough frames where there are enough."""
    from deeptime.clustering import KMeans

    n_centres = min(n_centres, len(np.unique(fitted, axis=0)))
    model = KMeans(n_centres, max_iter=100, fixed_seed=seed + 1, n_jobs=1).fit(fitted).fetch_model()
    centres = np.asarray(model.cluster_centers)
    while True:
        labels = assign_states(points, centres)
        sizes = np.bincount(labels, minlength=len(centres))
        if len(centres) == 1 or sizes.min() >= _FEWEST_FRAMES:
            return labels
        centres = np.delete(centres, sizes.argmin(), axis=0)


# --- estimation ------------------------------------------------------------------------------------------------------


def count_transitions(labels: Sequence[np.ndarray], lag_frames: int, n_microstates: int) -> np.ndarray:
    """Return (n, n) counts of a sliding window inside segments, divided by the lag (deeptime's "sliding-effective")."""
    from deeptime.markov import TransitionCountEstimator

    usable = [np.ascontiguousarray(part, dtype=np.int32) for part in labels if len(part) > lag_frames]
    if not usable:
        return np.zeros((n_microstates, n_microstates))
    estimator = TransitionCountEstimator(lag_frames, "sliding-effective", n_states=n_microstates)
    return np.asarray(estimator.fit_fetch(usable).count_matrix, dtype=np.float64)


class WeightedCounts:
    """The same counts, each pair as heavy as the block that it starts in (see `blocks_of`)."""

    def __init__(self, labels: Sequence[np.ndarray], lag_frames: int, n_microstates: int) -> None:
        self.lag_frames, self.n_microstates = lag_frames, n_microstates
        self.pairs = np.concatenate([part[:-lag_frames] * n_microstates + part[lag_frames:] for part in labels])
        blocks = blocks_of(labels)
        self.n_blocks = 1 + max(int(block[-1]) for block in blocks if len(block))
        self.starts = np.concatenate([block[: max(0, len(block) - lag_frames)] for block in blocks])

    def counts(self, weights: np.ndarray) -> np.ndarray:
        """Return (n, n) counts for weights (n_blocks,)."""
        counted = np.bincount(self.pairs, weights[self.starts], self.n_microstates**2)
        return counted.reshape(self.n_microstates, self.n_microstates) / self.lag_frames


def blocks_of(labels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the block number of each frame: the bootstrap's units are segments, or pieces of very long ones."""
    n_frames, typical = sum(len(part) for part in labels), int(np.median([len(part) for part in labels]))
    longest = max(1, n_frames // _MOST_BLOCKS, min(typical, n_frames // _FEWEST_BLOCKS))
    blocks, first = [], 0
    for part in labels:
        blocks.append(first + np.arange(len(part)) // longest)
        first += -(-len(part) // longest)
    return blocks


def fit_model(labels: Sequence[np.ndarray], lag_frames: int, n_microstates: int) -> MarkovModel | None:
    """Return the reversible maximum-likelihood model, or None where nothing is connected."""
    from deeptime.markov.tools.estimation import largest_connected_set

    counts = count_transitions(labels, lag_frames, n_microstates)
    if counts.sum() == 0:
        return None
    active = np.sort(np.asarray(largest_connected_set(counts, directed=True)))
    if len(active) < 2:
        return None
    matrix, stationary = maximum_likelihood(counts[np.ix_(active, active)])
    return MarkovModel(lag_frames, active, counts[np.ix_(active, active)], matrix, stationary)


def bootstrap(
    model: MarkovModel, labels: Sequence[np.ndarray], n_microstates: int, n_replicas: int, seed: int
) -> list[MarkovModel]:
    """Return models of randomly weighted segments; the same seed gives the same weights at every lag.

    The weights are exponential (a Bayesian bootstrap), so that no transition is lost and all replicas are connected.

    Source: D. B. Rubin, Ann. Stat. 9, 130 (1981).
    """
    random = np.random.default_rng(seed)
    weighted = WeightedCounts(labels, model.lag_frames, n_microstates)
    active = np.ix_(model.active, model.active)
    replicas = []
    for _ in range(n_replicas):
        counts = weighted.counts(random.standard_exponential(weighted.n_blocks))[active]
        fitted = likelihood_from(counts, model.stationary)
        replicas.append(MarkovModel(model.lag_frames, model.active, counts, *fitted))
    return replicas


def maximum_likelihood(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the reversible maximum-likelihood transition matrix (n, n) and its stationary distribution (n,)."""
    from deeptime.markov.tools.estimation import transition_matrix

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that it has not converged; the posterior starts near it all the same
        matrix, stationary = transition_matrix(
            counts, reversible=True, return_statdist=True, maxiter=200_000, maxerr=1e-9
        )
    return np.asarray(matrix), np.asarray(stationary)


def likelihood_from(counts: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same as `maximum_likelihood`, by Newton steps from a stationary distribution that is near.

    deeptime's fixed point takes thousands of steps where basins exchange slowly; a bootstrap asks for it hundreds of
    times. With s_ij = c_ij + c_ji, row sums c_i of the counts and x_i = exp(v_i) of the solution, the fixed point's
    equation reads sum_j s_ij q_ij = c_i, q_ij = 1 / (1 + c_j x_i / (c_i x_j)): the gradient of a concave function of v
    (that of a Bradley-Terry model), whose Hessian is a graph's Laplacian.

    Parameters
    ----------
    counts : array, (n, n), connected
    start : array, (n,), positive

    Source: the fixed point is equation 29 of J.-H. Prinz et al., J. Chem. Phys. 134, 174105 (2011).
    """
    rows = counts.sum(axis=1)
    both = counts + counts.T
    off = both - np.diag(np.diag(both))  # of a state with itself, q is 1/2 whatever v is
    wanted = rows - np.diag(counts)
    shift = np.log(rows)[:, None] - np.log(rows)[None, :]
    v = np.log(start)

    def height(at: np.ndarray) -> float:
        pairs = -np.logaddexp(0.0, shift + at[None, :] - at[:, None]) + at[None, :]
        return float(0.5 * (off * pairs).sum() - wanted @ at)

    now = height(v)
    for _ in range(100):
        q = 1.0 / (1.0 + np.exp(-(shift + v[None, :] - v[:, None])))
        gradient = (off * q).sum(axis=1) - wanted
        stiffness = off * q * (1.0 - q)
        laplacian = np.diag(stiffness.sum(axis=1)) - stiffness
        # One v is free: the constant vector added to the Laplacian fixes it.
        step = np.linalg.solve(laplacian + stiffness.sum() / len(v) ** 2, gradient)
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        while height(v + step) < now - 1e-9 * abs(now) and np.abs(step).max() > 1e-12:
            step = 0.5 * step
        v = v + step - (v + step).max()
        now = height(v)
        if np.abs(step).max() < 1e-9:
            break
    else:
        return maximum_likelihood(counts)
    x = np.exp(v) / np.exp(v).sum()
    joint = both / (rows[:, None] / x[:, None] + rows[None, :] / x[None, :])
    total = joint.sum(axis=1)
    return joint / total[:, None], total / total.sum()


@dataclass(frozen=True)
class Posterior:
    """Draws of reversible transition matrices.

    deeptime's Gibbs sampler changes one element at a time and takes many sweeps to change the weight of a whole basin
    that few transitions connect. Between its sweeps whole regions are scaled: x_ij -> e^s x_ij inside the region A, or
    across its edge, with a Metropolis test. As the prior is x_ij^-1 dx_ij, only the likelihood enters:
    ln p = s sum of the scaled counts - sum_i c_i ln(x_i' / x_i), with x_i the row sums and c_i those of the counts.

    Attributes
    ----------
    stationary : np.ndarray
        (n_draws, n)
    transition_matrices : np.ndarray
        (n_draws, n, n)
    effective_draws : float
        Independent draws that the draws of the slowest region's weight are worth (of 100 and more wanted).
    """

    stationary: np.ndarray
    transition_matrices: np.ndarray
    effective_draws: float


def sample_posterior(
    model: MarkovModel, regions: np.ndarray, *, n_draws: int = 200, seed: int = 0, longest: int = 64
) -> Posterior:
    """Draw from the posterior of reversible transition matrices.

    Parameters
    ----------
    model : MarkovModel
    regions : array of bool, (n_regions, n)
        Sets of microstates whose weight may change slowly: the named states, the sides of slow processes.
    n_draws : int
    longest : int
        The sampler takes at most `longest` times 2 sweeps between draws; fewer where that gives independent draws.
    """
    from deeptime.markov.tools.estimation.dense.tmat_sampling.sampler_rev import SamplerRev

    random = np.random.default_rng(seed)
    sampler = SamplerRev(model.counts, P0=model.transition_matrix, seed=int(random.integers(1, 2**31 - 1)))
    masks = [mask for mask in regions if 0 < mask.sum() < len(mask)]
    moves = [_Move(model.counts, mask, across) for mask in masks for across in (False, True)]

    def sweep(n_sweeps: int) -> np.ndarray:
        for _ in range(n_sweeps):
            sampler.update(1)
            for move in moves:
                move.apply(sampler.V, random)
        return np.array(sampler.V)

    def weights(joint: np.ndarray) -> list[float]:
        rows = joint.sum(axis=1) / joint.sum()
        return [float(np.log(rows[mask].sum() / rows[~mask].sum())) for mask in masks]

    sweep(20)
    n_sweeps, joints, worth = 2, [], 0.0
    while True:
        joints = [sweep(n_sweeps) for _ in range(n_draws)]
        series = np.array([weights(joint) for joint in joints])
        worth = min((_effective_size(column) for column in series.T), default=float(n_draws))
        if worth >= min(_ENOUGH_DRAWS, 0.5 * n_draws) or n_sweeps >= 2 * longest:
            break
        n_sweeps *= 4
    stacked = np.array(joints)
    rows = stacked.sum(axis=2)
    return Posterior(rows / rows.sum(axis=1, keepdims=True), stacked / rows[:, :, None], worth)


class _Move:
    """A Metropolis move that scales the joint probabilities inside a region, or those across its edge."""

    def __init__(self, counts: np.ndarray, mask: np.ndarray, across: bool) -> None:
        inside = np.outer(mask, mask)
        self.scaled = np.logical_xor.outer(mask, mask) if across else inside
        self.n_scaled = counts[self.scaled].sum()
        self.row_counts = counts.sum(axis=1)
        crossing = counts[np.logical_xor.outer(mask, mask)].sum()
        self.width = 2.4 / np.sqrt(max(crossing, 1.0))

    def apply(self, joint: np.ndarray, random: np.random.Generator) -> None:
        """Change `joint`, (n, n) symmetric, in place or leave it."""
        shift = self.width * random.standard_normal()
        part = np.where(self.scaled, joint, 0.0).sum(axis=1)  # of each row, what the move scales
        ratio = 1.0 + np.expm1(shift) * part / joint.sum(axis=1)
        gain = shift * self.n_scaled - (self.row_counts * np.log(ratio)).sum()
        if np.log(random.random()) < gain:
            joint[self.scaled] *= np.exp(shift)


def _effective_size(series: np.ndarray) -> float:
    """Return N / (1 + 2 sum of autocorrelations up to the first that is not positive)."""
    centred = series - series.mean()
    if not np.any(centred):
        return 1.0
    spectrum_ = np.fft.rfft(centred, 2 * len(series))
    rho = np.fft.irfft(np.abs(spectrum_) ** 2)[: len(series)]
    rho = rho / rho[0]
    ends = np.flatnonzero(rho <= 0)
    return float(len(series) / (-1.0 + 2.0 * rho[: ends[0] if len(ends) else len(rho)].sum()))


def summary(draws: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """Return the standard deviation and the central interval of draws."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return {"sd": float(np.std(draws)), "low": float(low), "high": float(high)}


def frame_weights(labels: Sequence[np.ndarray], active: np.ndarray, stationary: np.ndarray) -> list[np.ndarray]:
    """Return a stationary weight for each frame, sum 1 over all; frames of microstates left out weigh 0."""
    n_microstates = 1 + max(int(part.max()) for part in labels if len(part))
    counts = np.sum([np.bincount(part, minlength=n_microstates) for part in labels], axis=0)
    each = np.zeros(n_microstates)
    each[active] = stationary / counts[active]
    return [each[part] for part in labels]


def coarse(matrix: np.ndarray, stationary: np.ndarray, sets: np.ndarray) -> Any:
    """Return the probability to be in each set one step after starting in each, local equilibrium: (n_sets, n_sets).

    Parameters
    ----------
    sets : array of bool, (n_sets, n)
        A partition of the microstates.
    """
    weighted = sets * stationary  # (n_sets, n)
    require(bool((weighted.sum(axis=1) > 0).all()), "sets must each have stationary weight")
    return (weighted @ matrix @ sets.T) / weighted.sum(axis=1, keepdims=True)
