"""A reversible Markov chain in a double well, whose populations are known, and segments that start where they like."""

from __future__ import annotations

import numpy as np


class DoubleWell:
    """A particle that hops between neighbouring bins of a tilted double well, in detailed balance.

    The right well holds 24 % of the equilibrium; its exchange with the left takes `timescale` frames.
    """

    def __init__(self, barrier: float = 4.0, n_bins: int = 20) -> None:
        self.x = np.linspace(-1.6, 1.6, n_bins)
        energy = barrier * (self.x**2 - 1) ** 2 + 0.6 * self.x
        self.stationary = np.exp(-energy) / np.exp(-energy).sum()
        matrix = np.zeros((n_bins, n_bins))
        for i in range(n_bins):
            for j in range(max(0, i - 2), min(n_bins, i + 3)):
                if i != j:
                    matrix[i, j] = 0.2 * min(1.0, self.stationary[j] / self.stationary[i])
        np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
        self.matrix, self.cumulative = matrix, matrix.cumsum(axis=1)
        self.population = float(self.stationary[self.x > 0].sum())
        self.timescale = float(-1.0 / np.log(np.sort(np.linalg.eigvals(matrix).real)[-2]))

    def bins(self, n_segments: int, n_frames: int, share_right: float, random: np.random.Generator) -> np.ndarray:
        """Return (n_segments, n_frames) bins; `share_right` of the segments start in the right well's middle."""
        starts = np.where(random.random(n_segments) < share_right, 1.0, -1.0)
        here = np.abs(self.x[None, :] - starts[:, None]).argmin(axis=1)
        visited = np.empty((n_segments, n_frames), dtype=int)
        for frame in range(n_frames):
            visited[:, frame] = here
            draws = random.random(n_segments)[:, None]
            here = np.minimum((self.cumulative[here] < draws).sum(axis=1), len(self.x) - 1)
        return visited

    def positions(self, n_segments: int, n_frames: int, share_right: float, seed: int) -> list[np.ndarray]:
        """Return segments of positions (n_frames,), spread within the bins."""
        random = np.random.default_rng(seed)
        visited = self.bins(n_segments, n_frames, share_right, random)
        width = 0.99 * (self.x[1] - self.x[0])
        return list(self.x[visited] + width * (random.random(visited.shape) - 0.5))
