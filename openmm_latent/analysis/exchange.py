"""Populations of states from the attempts of exact-mode jumps, the refused ones included.

An exact run visits a rare state only as often as a jump into it is accepted. But every attempt measures the
generalised work w = W/kT - ln q(from|to)/q(to|from) of a way from one state to another, and the ways there and back
between two states obey Crooks' relation, p_forward(w) / p_backward(-w) = exp(w - f): so walkers that have been started
in each state give the states' free energies although few jumps, or none, went all the way.

| symbol | variable |
|---|---|
| N_i, attempts that began in state i | `n_attempts` |
| w of an attempt from i that ended in j | `works` |
| f_i = -ln population of i | `free_energies` [kT] |

For two states the estimate is Bennett's acceptance ratio; for more it is the maximum of the same likelihood over all
pairs (Shirts et al., Phys. Rev. Lett. 91, 140601 (2003); Maragakis et al., J. Chem. Phys. 129, 024102 (2008)). What it
assumes is that the frames from which jumps began are in equilibrium within their state, not between states: many
relaxations and accepted moves inside a state, the first of each walker thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from openmm_latent.errors import require


@dataclass(frozen=True)
class Attempts:
    """The exact-mode jumps of one walker, in time order.

    Attributes
    ----------
    start, end : array of int, (n_jumps,)
        State of the frame that was left and of the frame to which the drive led; -1 for an end that is in no state, for
        a drive that blew up, and where nothing was driven since the proposal was near (`leastDrivenDistance`).
    works : array, (n_jumps,)
        W/kT - logProposalRatio, dimensionless; anything where `end` is -1.
    protocol : tuple
        How its jumps were driven and proposed: (sigma, driven steps, steps per perturbation, ...), the same throughout.
    """

    start: np.ndarray
    end: np.ndarray
    works: np.ndarray
    protocol: tuple


@dataclass(frozen=True)
class Exchange:
    """What attempts between states say of their populations.

    Attributes
    ----------
    populations, errors : array, (n_states,)
        Sum of populations 1; one standard error, by bootstrap of blocks of consecutive attempts.
    free_energies, free_energy_errors : array, (n_states,) [kT]
        -ln population, less that of state 0.
    n_attempts : array, (n_states,)
        Attempts that began in each state.
    n_ways : array, (n_states, n_states)
        Attempts from one state to another.
    """

    populations: np.ndarray
    errors: np.ndarray
    free_energies: np.ndarray
    free_energy_errors: np.ndarray
    n_attempts: np.ndarray
    n_ways: np.ndarray


def populations_from_attempts(
    walkers: Sequence[Attempts], n_states: int, block: int = 20, n_bootstrap: int = 200, seed: int = 1
) -> Exchange:
    """Estimate populations from the generalised work of accepted and refused jumps.

    Parameters
    ----------
    walkers : list of Attempts
        Each equilibrated within the states that it was in.
    n_states : int
    block : int
        Consecutive attempts that the bootstrap draws together: more than the relaxation inside a state takes.
    n_bootstrap : int
    seed : int

    Raises
    ------
    LatentError
        Walkers were driven differently, no attempt began in some state, or the states fall apart into groups without
        attempts both ways.

    Source: C. H. Bennett, J. Comput. Phys. 22, 245 (1976); M. R. Shirts et al., Phys. Rev. Lett. 91, 140601 (2003).
    """
    _check(walkers, n_states)
    blocks = [
        (walker.start[i : i + block], walker.end[i : i + block], walker.works[i : i + block])
        for walker in walkers
        for i in range(0, len(walker.start), block)
    ]
    everything = _joined(blocks)
    estimate = _solve(*everything, n_states)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_bootstrap):
        sample = _joined([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))])
        if _is_connected(_ways(*sample[:2], n_states)):
            drawn.append(_solve(*sample, n_states))
    require(
        len(drawn) >= 0.9 * n_bootstrap,
        f"attempts between states are too few for an error bar: {n_bootstrap - len(drawn)} of {n_bootstrap} bootstrap "
        f"samples lack a way between states; run longer, or start walkers in every state",
    )
    replicas = np.array(drawn)
    populations = _populations(replicas)
    return Exchange(
        populations=_populations(estimate[None])[0],
        errors=populations.std(axis=0, ddof=1),
        free_energies=estimate,
        free_energy_errors=replicas.std(axis=0, ddof=1),
        n_attempts=np.bincount(everything[0], minlength=n_states),
        n_ways=_ways(*everything[:2], n_states),
    )


def _check(walkers: Sequence[Attempts], n_states: int) -> None:
    """Refuse what cannot give populations."""
    require(n_states >= 2, f"n_states must be at least 2, got {n_states}")
    protocols = sorted({walker.protocol for walker in walkers})
    require(
        len(protocols) == 1,
        f"all walkers must have been driven alike, for the ways there and back to be each other's reversal, got "
        f"protocols {protocols}; tune once and give every walker that setting",
    )
    for walker in walkers:
        require(
            len(walker.start) == len(walker.end) == len(walker.works),
            f"start, end and works of a walker must have one entry a jump, got {len(walker.start)}, {len(walker.end)} "
            f"and {len(walker.works)}",
        )
        require(
            bool(np.all((walker.start >= 0) & (walker.start < n_states)) and np.all(walker.end < n_states)),
            f"start must lie in 0..{n_states - 1} and end below {n_states}, got others; give every frame a state",
        )
        require(
            bool(np.isfinite(walker.works[walker.end >= 0]).all()),
            "works must be finite wherever end is a state, got NaN or infinity; set end to -1 for drives that blew up "
            "and jumps that were not driven",
        )
    start = np.concatenate([walker.start for walker in walkers])
    end = np.concatenate([walker.end for walker in walkers])
    missing = sorted(set(range(n_states)) - set(start.tolist()))
    require(not missing, f"no jump began in state {missing[:1]}; start a walker there")
    require(
        _is_connected(_ways(start, end, n_states)),
        "the states fall apart into groups without attempts both ways; run longer, or propose more boldly",
    )


def _joined(blocks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start, end, works = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return start, end, works


def _ways(start: np.ndarray, end: np.ndarray, n_states: int) -> np.ndarray:
    """Count attempts from state to state: (n_states, n_states)."""
    counts = np.zeros((n_states, n_states), dtype=int)
    np.add.at(counts, (start[end >= 0], end[end >= 0]), 1)
    return counts


def _is_connected(ways: np.ndarray) -> bool:
    """Whether attempts both ways join all states."""
    joined = (ways > 0) & (ways.T > 0)
    reached = joined | np.eye(len(ways), dtype=bool)
    for _ in range(len(ways)):
        reached = reached @ reached
    return bool(reached.all())


def _solve(start: np.ndarray, end: np.ndarray, works: np.ndarray, n_states: int) -> np.ndarray:
    """Return f_i - f_0 [kT]: the maximum of the likelihood that each way was taken in the direction it was."""
    n_attempts = np.maximum(np.bincount(start, minlength=n_states), 1)
    is_way = (end >= 0) & (end != start)
    i, j, w = start[is_way], end[is_way], works[is_way]
    # Crooks: p(way | from i) / p(reversed way | from j) = exp(w - (f_j - f_i)); the numbers of attempts are the priors
    prior = np.log(n_attempts[j] / n_attempts[i])

    def negative_log_likelihood(free: np.ndarray) -> tuple[float, np.ndarray]:
        f = np.concatenate([[0.0], free])
        odds = prior - w + f[j] - f[i]  # ln of the odds that it is the reversal of a way from j
        share = expit(odds)
        gradient = np.bincount(j, share, n_states) - np.bincount(i, share, n_states)
        return float(np.logaddexp(0.0, odds).sum()), gradient[1:]

    found = minimize(negative_log_likelihood, np.zeros(n_states - 1), jac=True, method="BFGS")
    return np.concatenate([[0.0], found.x])


def _populations(free_energies: np.ndarray) -> np.ndarray:
    """Return populations of (n, n_states) free energies [kT]."""
    weights = np.exp(-(free_energies - free_energies.min(axis=1, keepdims=True)))
    return weights / weights.sum(axis=1, keepdims=True)
