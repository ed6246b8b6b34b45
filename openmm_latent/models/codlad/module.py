"""One protein's backmapping as the exported contract sees it: a Cα trace and noise in, all heavy atoms out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.diffusion.gaussian_diffusion import AncestralSampler, GaussianDiffusion
from openmm_latent.model import LatentModule
from openmm_latent.models.codlad.autoencoder import Autoencoder
from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.decoder import BoundDecoder
from openmm_latent.models.codlad.denoiser import Denoiser
from openmm_latent.models.codlad.graphs import Protein
from openmm_latent.nn.disulphides import Disulphides
from openmm_latent.nn.residue_geometry import CA, N_SLOTS, Residues

#: Standardised latents lie within so many standard deviations.
BOUND = 5.0


class CODLAD(nn.Module):
    """A trained model, of any protein: autoencoder and denoiser.

    Parameters
    ----------
    config : CODLADConfig
    """

    def __init__(self, config: CODLADConfig):
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config)
        self.denoiser = Denoiser(config)

    def diffusion(self, n_steps: int | None = None) -> GaussianDiffusion:
        """Return the process of `n_steps`, or of all that the network is trained on."""
        return GaussianDiffusion(self.config.n_diffusion_steps, n_steps, bound=BOUND)


class BackmappedProtein(LatentModule):
    """Draw all heavy atoms of one protein on its Cα trace.

    Latents of all residues come from diffusion on the trace and the sequence, are snapped to codes, and decoded to
    internal coordinates; then disulphides are closed. A jump does so on the current frame's Cα: they stay, all other
    model atoms are new and independent of where they were. There is no explicit latent and there are no slow
    coordinates; `sample` needs a trace, so it is absent, too.

    Parameters
    ----------
    model : CODLAD
        Its weights are copied.
    residues : Residues
        Chains of at least three residues.
    slots : sequence of int
        (n_atoms,) where each model atom is, counted as 15 residue + slot: all heavy atoms, in any order
    n_steps : int, optional
        Steps of a sample, at most those of training; the configuration's unless given.
    disulphides : ndarray of int, optional
        (n_disulphides, 2) residues whose SG are bonded

    Attributes
    ----------
    n_noise : int
        Normals of one `jump` or `backmap`: 3 residues x steps for three numbers a latent.

    Raises
    ------
    LatentError
        Atoms are missing or there twice, a chain is too short, steps are out of range, or a disulphide ends at a
        residue that is no cysteine.

    Source: CODLAD, sampling. DISCREPANCY(CODLAD): jumps inside a simulation are ours, and so is the closing of
    disulphides, whose ends are drawn apart from each other.
    """

    __constants__ = ("n_atoms", "n_bridges", "n_draws", "n_noise", "n_numbers", "n_residues")

    def __init__(
        self,
        model: CODLAD,
        residues: Residues,
        slots: Sequence[int] | np.ndarray,
        n_steps: int | None = None,
        disulphides: np.ndarray | None = None,
    ):
        super().__init__()
        slots = residues.checked_slots(slots)
        diffusion = model.diffusion(model.config.n_sampling_steps if n_steps is None else n_steps)
        autoencoder = model.autoencoder
        self.n_residues, self.n_atoms = len(residues), len(slots)
        self.n_numbers = model.config.n_latent
        self.n_latent, self.n_slow, self.n_decode_noise = 0, 0, 0
        self.sampler = AncestralSampler(copy.deepcopy(model.denoiser), diffusion)
        self.decoder = BoundDecoder(copy.deepcopy(autoencoder.decoder), Protein(residues))
        bridges = np.zeros((0, 2), dtype=np.int64) if disulphides is None else np.asarray(disulphides)
        self.bridges, self.n_bridges = Disulphides(residues, bridges), len(bridges)
        self.codebook = copy.deepcopy(autoencoder.quantiser.codebook)
        self.n_draws = self.sampler.n_draws
        self.n_noise = self.n_draws * self.n_residues * self.n_numbers
        self.n_propagate_noise = self.n_noise
        self.register_buffer("latent_mean", autoencoder.latent_mean.clone())
        self.register_buffer("latent_std", autoencoder.latent_std.clone())
        self.register_buffer("known_codes", autoencoder.known_codes.clone())
        self.register_buffer("slots", torch.tensor(slots))
        place = {slot: atom for atom, slot in enumerate(slots.tolist())}
        self.register_buffer("cas", torch.tensor([place[N_SLOTS * i + CA] for i in range(self.n_residues)]))

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals of `jump` and of `backmap`: the same."""
        return {"jump": self.n_noise, "backmap": self.n_noise}

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return the memory of a model that has none: an empty list."""
        state: List[Tensor] = []  # noqa: UP006
        return state

    def jump(
        self,
        positions: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Keep the Cα atoms, bit for bit, and draw all other atoms anew."""
        return self.backmap(positions.index_select(1, self.cas), noise), state

    def backmap(self, trace: Tensor, noise: Tensor) -> Tensor:
        """Draw all atoms on Cα traces: (b, n_residues, 3) [nm], (b, n_noise) -> (b, n_atoms, 3) [nm]."""
        centred = self.centred(trace)
        return self.placed(self.built(self.draw(centred, noise), centred), trace)

    def centred(self, trace: Tensor) -> Tensor:
        """Return Cα traces about the origin: (b, n_residues, 3) [nm]."""
        wide = trace.to(torch.float64)
        return (wide - wide.mean(dim=1, keepdim=True)).to(torch.float32)

    def built(self, latent: Tensor, trace: Tensor) -> Tensor:
        """Return all slots of latents (b, n_residues, n_latent) on centred traces: (b, n_residues, 15, 3) [nm]."""
        slots = self.decoder(latent, trace)[1]
        return self.bridges(slots) if self.n_bridges > 0 else slots

    def placed(self, built: Tensor, trace: Tensor) -> Tensor:
        """Return the model's atoms, (b, n_atoms, 3) [nm], of slots on centred traces, where the traces are."""
        centre = trace.to(torch.float64).mean(dim=1, keepdim=True)
        chosen = built.flatten(1, 2).index_select(1, self.slots)
        placed = (chosen.to(torch.float64) + centre).to(torch.float32)
        return placed.index_copy(1, self.cas, trace)

    def draw(self, trace: Tensor, noise: Tensor) -> Tensor:
        """Draw latents, and snap them to codes: (b, n_residues, 3) [nm], (b, n_noise) -> (b, n_residues, n_latent)."""
        protein = self.decoder.protein
        context = self.sampler.denoiser.prepare(trace, protein.types, protein.chains, protein.anchors)
        drawn = self.sampler(noise.view(-1, self.n_draws, self.n_residues, self.n_numbers), context)
        latent = self.latent_mean[protein.types] + self.latent_std[protein.types] * drawn
        return self.codebook.embed(self.codebook.nearest_known(latent, self.known_codes[protein.types]))
