"""What a reweighting is asked and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from openmm_latent.analysis import checks, markov
from openmm_latent.analysis.segments import Segment
from openmm_latent.analysis.settling import Settling
from openmm_latent.errors import require

#: [kJ/mol/K]
GAS_CONSTANT = 0.00831446261815324
#: Free energies of bins with fewer frames are left out.
_FEWEST_IN_BIN = 5
#: Name that sentences use for what belongs to no state: frame weights, surfaces, timescales.
EVERYTHING = "the ensemble as a whole"


@dataclass(frozen=True)
class ReweightConfig:
    """How to reweight."""

    temperature: float  # [K] of the relaxations
    lag_time: float | None = None  # [ps] of the Markov model; None chooses
    dropped_time: float | None = None  # [ps] after each accepted jump; None lets a test choose
    n_microstates: int = 40
    n_dimensions: int = 4  # of TICA, at most
    fewest_transitions: int = 5  # each way, of each slow process that matters
    largest_error: float = 1.0  # [kT] of a state's free energy that is still told
    level: float = 0.05  # of the test of how much to drop
    n_draws: int = 200  # of the posterior
    n_replicas: int = 100  # of the bootstrap that lags are compared by
    confidence: float = 0.95  # of intervals
    seed: int = 1

    def check(self) -> None:
        """Raise `LatentError` for values that make no sense."""
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature} K")
        require(self.lag_time is None or self.lag_time > 0, f"lag_time must be positive, got {self.lag_time} ps")
        require(
            self.dropped_time is None or self.dropped_time >= 0,
            f"dropped_time must be zero or positive, got {self.dropped_time} ps",
        )
        require(self.n_microstates >= 2, f"n_microstates must be at least 2, got {self.n_microstates}")
        require(0 < self.confidence < 1, f"confidence must lie between 0 and 1, got {self.confidence}")
        require(
            self.n_draws >= 2 * checks.FEWEST_DRAWS,
            f"n_draws must be at least {2 * checks.FEWEST_DRAWS}, got {self.n_draws}",
        )


@dataclass(frozen=True)
class Population:
    """What is known of one state; all numbers are None where `refusals` tells why."""

    name: str
    refusals: list[str]
    population: float | None = None
    low: float | None = None
    high: float | None = None
    free_energy: float | None = None  # [kJ/mol] -RT ln(p / (1 - p)), of the state against all others
    free_energy_sd: float | None = None  # [kJ/mol]
    free_energy_low: float | None = None  # [kJ/mol]
    free_energy_high: float | None = None  # [kJ/mol]


@dataclass(frozen=True)
class LagResult:
    """One rung of the ladder of lags: a model, replicas of it, and what is compared between lags."""

    model: markov.MarkovModel
    replicas: list[markov.MarkovModel]  # of the bootstrap over segments
    timescales: np.ndarray  # (1 + n_replicas, n_processes) [ps], the model's first
    log_odds: np.ndarray  # (1 + n_replicas, n_states) ln(p / (1 - p)); nan for a state that is not connected


@dataclass(frozen=True)
class Reweighting:
    """The result.

    Attributes
    ----------
    config : ReweightConfig
    frame_spacing : float
        [ps]
    settling : Settling or None
        The test of how much to drop; None if the user gave the time.
    dropped_time, lag_time : float or None
        [ps] used.
    segments : list of Segment
        After dropping.
    labels : list of array of int
        Microstate of each kept frame.
    ladder : list of LagResult
    model, posterior : of the chosen lag, or None
    processes : list of SlowProcess
    chapman_kolmogorov : dict of str to ChapmanKolmogorov
        By state; `EVERYTHING` for the slowest process.
    populations : list of Population
    refusals : list of str
        Why weights and surfaces are not given; empty if they are.
    """

    config: ReweightConfig
    frame_spacing: float
    settling: Settling | None
    dropped_time: float | None
    lag_time: float | None
    segments: list[Segment]
    labels: list[np.ndarray] = field(default_factory=list)
    ladder: list[LagResult] = field(default_factory=list)
    model: markov.MarkovModel | None = None
    posterior: markov.Posterior | None = None
    processes: list[checks.SlowProcess] = field(default_factory=list)
    chapman_kolmogorov: dict[str, checks.ChapmanKolmogorov] = field(default_factory=dict)
    populations: list[Population] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def weights(self) -> list[np.ndarray]:
        """Return each kept frame's stationary weight, sum 1; raises `LatentError` if the data do not suffice."""
        require(not self.refusals, f"weights are not given: {'; '.join(self.refusals)}")
        assert self.model is not None
        return markov.frame_weights(self.labels, self.model.active, self.model.stationary)

    def surface(self, axes: Sequence[int], edges: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return a free-energy surface over one or two axes of the segments.

        Parameters
        ----------
        axes : sequence of int
            Columns of `Segment.axes`.
        edges : list of array
            Bin edges of each axis.

        Returns
        -------
        free_energy, error : np.ndarray
            [kJ/mol], lowest 0; nan in bins with fewer than 5 frames. The error joins the posterior's with that of
            the frames in the bin, of which each segment counts for one.
        """
        require(not self.refusals, f"the surface is not given: {'; '.join(self.refusals)}")
        assert self.model is not None
        assert self.posterior is not None
        values = np.concatenate([part.axes[:, list(axes)] for part in self.segments])
        everywhere = np.concatenate(self.labels)
        owner = np.repeat(np.arange(len(self.segments)), [len(part) for part in self.segments])
        shape = tuple(len(edge) - 1 for edge in edges)
        place = [
            np.clip(np.searchsorted(e, v, side="right") - 1, 0, len(e) - 2)
            for e, v in zip(edges, values.T, strict=True)
        ]
        bins = np.ravel_multi_index(place, shape)
        place_of = np.full(max(int(everywhere.max()), int(self.model.active.max())) + 1, -1)
        place_of[self.model.active] = np.arange(len(self.model.active))
        used = place_of[everywhere] >= 0
        rows, columns = place_of[everywhere[used]], bins[used]
        n_bins = int(np.prod(shape))
        within = np.bincount(rows * n_bins + columns, minlength=len(self.model.active) * n_bins)
        within = within.reshape(-1, n_bins)  # (n, n_bins)
        n_frames = within.sum(axis=0)
        within = within / within.sum(axis=1, keepdims=True)
        n_visitors = np.bincount(np.unique(owner[used] * n_bins + columns) % n_bins, minlength=n_bins)
        kt = GAS_CONSTANT * self.config.temperature
        with np.errstate(divide="ignore", invalid="ignore"):
            free_energy = -kt * np.log(self.model.stationary @ within)
            spread = np.std(np.log(self.posterior.stationary @ within), axis=0)
            error = kt * np.sqrt(spread**2 + 1.0 / n_visitors)
        is_blank = n_frames < _FEWEST_IN_BIN
        free_energy[is_blank], error[is_blank] = np.nan, np.nan
        return (free_energy - np.nanmin(free_energy)).reshape(shape), error.reshape(shape)
