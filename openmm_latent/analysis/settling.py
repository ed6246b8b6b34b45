"""How much of each segment to drop: the time after which MD no longer remembers how the jump put it there.

A jump ends in a minimisation and new velocities, so that the first picoseconds are colder or stiffer than equilibrium.
For each time of a ladder, one frame a segment, taken just after it, is compared with one frame a segment taken late.
Only frames in the same small region are compared (frames in different regions may well differ: that is what the
Markov model corrects), by a permutation test within the regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_latent.analysis.segments import Segment
from openmm_latent.metrics import assign_states, cluster_centres

#: Segments, and frames in each, that the test needs.
FEWEST_SEGMENTS, FEWEST_FRAMES = 20, 8
#: Frames of a region needed on each side to be compared there.
_FEWEST = 3


@dataclass(frozen=True)
class Settling:
    """What the test found.

    Attributes
    ----------
    dropped_time : float or None
        [ps]; None if no time of the ladder passed.
    level : float
        Chance that a time after which all is in equilibrium fails, all observables together.
    ladder : list of dict
        For each time tried: `dropped_time` [ps], `p` (smallest of all observables, before the correction), `n_early`,
        `n_late`, `passes`.
    n_observables : int
        How many were compared.
    """

    dropped_time: float | None
    level: float
    ladder: list[dict[str, float | int | bool]]
    n_observables: int

    def problem(self) -> str | None:
        """Return what is wrong if no time passed."""
        if self.dropped_time is not None:
            return None
        if not self.ladder:
            return (
                f"fewer than {FEWEST_SEGMENTS} segments of {FEWEST_FRAMES} frames are there, too few to test how much "
                f"of each to drop: run longer, write frames more often (--report-interval), or give the time to drop "
                f"(--drop)"
            )
        return (
            f"frames just after a jump still differ from late ones {self.ladder[-1]['dropped_time']:g} ps after it: "
            f"make the relaxations longer (--jump-interval)"
        )


def find_dropped_time(
    segments: Sequence[Segment],
    frame_spacing: float,
    *,
    level: float = 0.05,
    n_regions: int = 12,
    n_permutations: int = 2000,
    longest_fraction: float = 0.4,
    seed: int = 0,
) -> Settling:
    """Return the smallest time of a ladder after which a segment's frames are like its late ones.

    Parameters
    ----------
    segments : list of Segment
    frame_spacing : float [ps]
    level : float
        Of the test, Bonferroni-corrected for the number of observables.
    n_regions : int
        Of k-means on the features.
    longest_fraction : float
        Of the median segment length: the longest time tried. Late means after half of it.

    Notes
    -----
    Compared are the observables (energies) where there are any, how far the features move in one frame, and the
    features' distance from their region's centre. A passed test does not show that nothing is left; with n segments
    it would see shifts of about 3 / sqrt(n) standard deviations.
    """
    kept = [part for part in segments if len(part) >= FEWEST_FRAMES]
    if len(kept) < FEWEST_SEGMENTS:
        return Settling(None, level, [], 0)
    random = np.random.default_rng(seed)
    everything = np.concatenate([part.features for part in kept])
    sample = everything[random.permutation(len(everything))[:20_000]]
    scale = np.maximum(sample.std(axis=0), 1e-12)
    centres = cluster_centres(sample / scale, n_regions, seed)
    length = float(np.median([len(part) for part in kept]))
    late = _late_frames(kept, length, random)
    ladder: list[dict[str, float | int | bool]] = []
    rows = _describe(kept, late, centres, scale)
    n_observables = rows[1].shape[1]
    for n_dropped in _ladder(int(longest_fraction * length)):
        early = [n_dropped if n_dropped + 1 < len(part) // 2 else -1 for part in kept]
        other = _describe(kept, early, centres, scale)
        smallest = _permutation_p(other, rows, n_permutations, random)
        ladder.append(
            {
                "dropped_time": round(n_dropped * frame_spacing, 9),
                "p": smallest,
                "n_early": len(other[0]),
                "n_late": len(rows[0]),
                "passes": bool(smallest * n_observables > level),
            }
        )
        if ladder[-1]["passes"]:
            return Settling(float(ladder[-1]["dropped_time"]), level, ladder, n_observables)
    return Settling(None, level, ladder, n_observables)


def _ladder(longest: int) -> list[int]:
    """Return 0, 1, 2, 3, 4, 6, 8, 12, 16, ... frames up to `longest`."""
    rungs = [0, 1, 2, 3]
    while rungs[-1] <= longest:
        rungs.append(2 * rungs[-2])
    return [rung for rung in rungs if rung <= max(0, longest)]


def _late_frames(segments: Sequence[Segment], length: float, random: np.random.Generator) -> list[int]:
    """Return one frame a segment from its second half; -1 where the segment is short."""
    chosen = []
    for part in segments:
        first = max(len(part) // 2, int(length // 2))
        chosen.append(int(random.integers(first, len(part) - 1)) if first < len(part) - 1 else -1)
    return chosen


def _describe(
    segments: Sequence[Segment], frames: Sequence[int], centres: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return region (n,) and observables (n, n_observables) of one frame a segment; -1 leaves a segment out."""
    chosen = [(part, frame) for part, frame in zip(segments, frames, strict=True) if frame >= 0]
    here = np.stack([part.features[frame] for part, frame in chosen]) / scale
    moved = np.stack([part.features[frame + 1] for part, frame in chosen]) / scale - here
    regions = assign_states(here, centres)
    inside = np.linalg.norm(here - centres[regions], axis=1)
    energies = np.stack([part.observables[frame] for part, frame in chosen])
    return regions, np.column_stack([energies, np.linalg.norm(moved, axis=1), inside])


def _permutation_p(
    early: tuple[np.ndarray, np.ndarray],
    late: tuple[np.ndarray, np.ndarray],
    n_permutations: int,
    random: np.random.Generator,
) -> float:
    """Return the smallest p value over the observables.

    The statistic is the largest distance between the early and the late distribution of ranks within a region;
    permuting the labels within the regions gives its distribution if early and late frames of a region are alike.
    """
    regions = np.concatenate([early[0], late[0]])
    values = np.concatenate([early[1], late[1]])
    is_early = np.arange(len(regions)) < len(early[0])
    usable = [
        np.flatnonzero(regions == region)
        for region in np.unique(regions)
        if min(is_early[regions == region].sum(), (~is_early)[regions == region].sum()) >= _FEWEST
    ]
    if not usable:
        return 1.0
    members = np.concatenate(usable)
    labels = np.empty((n_permutations + 1, len(members)))
    ranks = np.empty((len(members), values.shape[1]))
    start = 0
    for group in usable:
        here = slice(start, start + len(group))
        # ranks from 0 to 1 in the region, so that regions can be put together
        ranks[here] = (np.argsort(np.argsort(values[group], axis=0), axis=0) + 0.5) / len(group)
        own = is_early[group].astype(float)
        labels[0, here] = own
        labels[1:, here] = random.permuted(np.broadcast_to(own, (n_permutations, len(group))), axis=1)
        # each region weighs as much among the early as among the late: compare labels minus their mean
        labels[:, here] -= own.mean()
        start += len(group)
    smallest = 1.0
    for column in ranks.T:
        order = np.argsort(column, kind="stable")
        distance = np.abs(np.cumsum(labels[:, order], axis=1)).max(axis=1)
        smallest = min(smallest, float((distance >= distance[0] * (1 - 1e-12)).mean()))
    return smallest
