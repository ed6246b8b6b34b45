"""One protein's Gaussian whose atoms another bundle's `backmap` draws on the Cα atoms that it moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.models.dynaprot.module import GaussianProtein


class BackmappedGaussian(GaussianProtein):
    """A `GaussianProtein` that decodes in two stages: Cα atoms by the Gaussian, all others by a second bundle.

    Side chains and peptide planes are drawn anew in each jump, whatever they were in the frame. Nothing is known of the
    second bundle's family but the contract's `backmap`.

    Parameters
    ----------
    backmapper : scripted module
        Of a loaded bundle: `backmap(trace, noise)`, (b, n_residues, 3) [nm] and (b, n_backmap_noise) -> (b, n_atoms, 3)
        [nm], atoms in the order of `atoms` and the trace in that of their Cα.
    n_backmap_noise : int
    *arguments, **options
        Of `GaussianProtein`; `atoms` are those of the bundle.

    Raises
    ------
    LatentError
        As `GaussianProtein`, or the bundle's Cα atoms are not those of the Gaussian.

    Source: DynaProt, as `GaussianProtein`. DISCREPANCY(paper): it ends at Cα atoms; this is ours.
    """

    def __init__(self, backmapper: Any, n_backmap_noise: int, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        traced = [number for number, atom in enumerate(arguments[0]) if atom.name == "CA"]
        require(
            self.placement.cas.tolist() == traced,
            f"backmap has {len(traced)} Cα atoms, and the Gaussian {self.n_residues}, of other residues or in another "
            f"order; bind both to the same protein",
        )
        self.backmapper = backmapper
        self.n_decode_noise = n_backmap_noise

    def place(self, shifts: Tensor, frame: Tensor, noise: Tensor) -> Tensor:
        """Return all atoms on Cα atoms that move by `shifts`, (b, n_residues, 3) [nm], in double precision."""
        before = frame.index_select(1, self.placement.cas)
        targets = self.placement.chain_targets(before, shifts)
        drawn: Tensor = self.backmapper.backmap(targets.to(torch.float32), noise)
        return drawn.to(torch.float64)
