"""Side chains that overlap are exchanged among samples on the same trace, until they fit.

Samples of a protein that the network has not seen put each residue somewhere sensible and, now and then, two of them
into one place. Other samples on the same trace have other codes for these two. Codes are exchanged where residues
overlap, several ways at once, and the way with the least overlap is kept.

DISCREPANCY(CODLAD, sampling): the paper takes samples as they come; this is ours. What it favours is atoms that do not
overlap; the distribution of what does not is the network's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from openmm_latent.models.codlad.losses import LossTables
from openmm_latent.models.codlad.module import BackmappedProtein
from openmm_latent.nn.residue_geometry import N_SLOTS, Residues

#: Atoms that are neither bonded nor bonded to a common atom overlap below this distance [nm]; hydrogen bonds are longer
#: than 0.26, and what they overlap by counts little.
NEAREST = 0.30
#: Squares of overlaps, over 0.1 nm, that a residue may have: two atoms 0.286 nm apart.
_TOLERATED = 0.02
#: Rounds at most, and the ways that are tried in each.
_N_ROUNDS, _N_WAYS = 8, 6


class Packing:
    """Fits the side chains of samples on one trace.

    Parameters
    ----------
    module : BackmappedProtein
    residues : Residues
    disulphides : ndarray of int, optional
        (n_disulphides, 2) residues whose SG are bonded
    """

    def __init__(self, module: BackmappedProtein, residues: Residues, disulphides: np.ndarray | None = None):
        self.module = module
        self.tables = LossTables(residues, disulphides)

    def overlaps(self, built: Tensor) -> Tensor:
        """Return each residue's sum of squared overlaps over 0.1 nm: (batch, n_residues, 15, 3) [nm] -> (batch, n)."""
        pairs = self.tables.near_pairs(built, NEAREST)
        total = torch.zeros(built.shape[:2])
        flat = built.flatten(1, 2)
        apart = (flat[pairs[:, 0], pairs[:, 1]] - flat[pairs[:, 0], pairs[:, 2]]).norm(dim=1)
        squares = ((NEAREST - apart) / 0.1).square()
        for column in (1, 2):
            total.index_put_((pairs[:, 0], pairs[:, column] // N_SLOTS), squares, accumulate=True)
        return total

    @torch.no_grad()
    def samples(self, trace: Tensor, noise: Tensor, seed: list[int], n_wanted: int | None = None) -> Tensor:
        """Draw samples on one trace, and fit each, or the first of them, with the codes of all.

        Parameters
        ----------
        trace : Tensor
            (n_residues, 3) [nm]
        noise : Tensor
            (n_samples, n_noise) standard normal
        seed : list of int
            Of the ways that are tried; each sample has its own.
        n_wanted : int, optional
            All unless given.

        Returns
        -------
        Tensor
            (n_wanted, n_atoms, 3) [nm]
        """
        traces = trace.expand(len(noise), -1, -1)
        centred = self.module.centred(traces)
        drawn = self.module.draw(centred, noise)  # (n_samples, n_residues, n_latent)
        fitted = [
            self._fitted(centred[:1], drawn, number, np.random.default_rng([*seed, number]))
            for number in range(len(drawn) if n_wanted is None else min(n_wanted, len(drawn)))
        ]
        return self.module.placed(torch.cat(fitted), traces[: len(fitted)])

    def _fitted(self, trace: Tensor, drawn: Tensor, number: int, generator: np.random.Generator) -> Tensor:
        """Return one sample's atoms, (1, n_residues, 15, 3) [nm], after as many rounds as it takes."""
        latent = drawn[number : number + 1]
        built = self.module.built(latent, trace)
        overlap = self.overlaps(built)[0]
        everywhere = torch.arange(drawn.shape[1])
        for _ in range(_N_ROUNDS):
            if not bool((overlap > _TOLERATED).any()):
                break
            shape = (_N_WAYS, drawn.shape[1])
            others = drawn[torch.as_tensor(generator.integers(len(drawn), size=shape)), everywhere]
            # only one of two that overlap need move, so each stays in half of the ways
            moves = torch.as_tensor(generator.random(shape) < 0.5) & (overlap > _TOLERATED)
            ways = torch.where(moves.unsqueeze(2), others, latent)
            tried = self.module.built(ways, trace.expand(_N_WAYS, -1, -1))
            overlaps = self.overlaps(tried)
            best = int(overlaps.sum(1).argmin())
            if float(overlaps[best].sum()) < float(overlap.sum()):
                latent, built, overlap = ways[best : best + 1], tried[best : best + 1], overlaps[best]
        return built
