"""Snap latents to a codebook that follows them by running means.

Source: van den Oord, Vinyals and Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017, equation 3 and
appendix A.1.

| symbol | variable |
|---|---|
| e_i | `codes` |
| N_i | `counts` |
| m_i | `sums` |
| gamma | `decay` |
| beta | `commitment` |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A code with a smaller running count stays where it is.
_LEAST_COUNT = 1e-5


class Codebook(nn.Module):
    """Codes, (n_codes, n_latent): all of the quantiser that a bundle needs."""

    def __init__(self, codes: Tensor):
        super().__init__()
        self.register_buffer("codes", codes)
        self.n_block = 2048  # distances of so many latents to all codes are computed at once

    def nearest(self, latent: Tensor) -> Tensor:
        """Return each latent's code: (..., n_latent) -> (...) int64."""
        flat = latent.detach().reshape(-1, latent.shape[-1])
        half = 0.5 * (self.codes * self.codes).sum(1)
        found = [(half - torch.mm(block, self.codes.t())).argmin(1) for block in flat.split(self.n_block)]
        return torch.cat(found).view(latent.shape[:-1])

    def nearest_known(self, latent: Tensor, is_known: Tensor) -> Tensor:
        """Return the nearest of some codes: (batch, n, n_latent), (n, n_codes) of bool -> (batch, n) int64."""
        half = 0.5 * (self.codes * self.codes).sum(1)
        far = half.masked_fill(~is_known, float("inf"))  # (n, n_codes)
        found = [(far - torch.mm(frame, self.codes.t())).argmin(1) for frame in latent.detach()]
        return torch.stack(found)

    def embed(self, chosen: Tensor) -> Tensor:
        """Return codes by number: (...) int64 -> (..., n_latent)."""
        return self.codes[chosen]

    def forward(self, latent: Tensor) -> Tensor:
        """Snap latents to their nearest codes, (..., n_latent); no gradient."""
        return self.embed(self.nearest(latent))


class VectorQuantiser(nn.Module):
    """A codebook whose codes are running means of the latents that choose them.

    In training mode each call of `forward` moves the codebook: first onto latents of the first batch, then by running
    means; a code that nothing has chosen for `dead_after` calls moves onto a latent of the batch, those with a large
    error first. Which one is decided by the number of calls alone, so a resumed training does the same.

    Parameters
    ----------
    n_codes : int
    n_latent : int
        Numbers in a latent.
    decay : float
        Share of the old in the running means, each step.
    commitment : float
        Weight of the loss that draws latents to their codes.
    dead_after : int
        Calls.

    Attributes
    ----------
    codebook : Codebook

    DISCREPANCY(CODLAD, vector quantisation): the paper names no way with dead codes nor of the first codebook.
    """

    def __init__(
        self, n_codes: int, n_latent: int, decay: float = 0.99, commitment: float = 0.25, dead_after: int = 100
    ):
        super().__init__()
        self.decay, self.commitment, self.dead_after = decay, commitment, dead_after
        codes = torch.randn(n_codes, n_latent, generator=torch.Generator().manual_seed(0))
        self.codebook = Codebook(codes)
        self.register_buffer("counts", torch.ones(n_codes))
        self.register_buffer("sums", codes.clone())
        self.register_buffer("idle", torch.zeros(n_codes, dtype=torch.int64))  # calls since a code was chosen
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    @property
    def codes(self) -> Tensor:
        """(n_codes, n_latent)."""
        return self.codebook.codes

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise.

        Parameters
        ----------
        latent : Tensor
            (..., n_latent)

        Returns
        -------
        quantised : Tensor
            (..., n_latent) codes; their gradient goes straight to the latent
        chosen : Tensor
            (...) int64 numbers of the codes
        commitment : Tensor
            () the weighted mean square distance of latents from their codes
        """
        if self.training and int(self.n_calls) == 0:
            self.start(latent)
        chosen = self.codebook.nearest(latent)
        quantised = self.codebook.embed(chosen)
        commitment = self.commitment * (latent - quantised).square().mean()
        if self.training:
            self._follow(latent.detach().reshape(-1, latent.shape[-1]), chosen.reshape(-1))
        return latent + (quantised - latent).detach(), chosen, commitment

    @torch.no_grad()
    def start(self, latent: Tensor) -> None:
        """Put the codebook onto latents, (..., n_latent), each a little aside so that no two codes are equal."""
        flat = latent.detach().reshape(-1, latent.shape[-1])
        generator = torch.Generator().manual_seed(1)
        n_rounds = -(-len(self.codes) // len(flat))
        picked = torch.cat([torch.randperm(len(flat), generator=generator) for _ in range(n_rounds)])[: len(self.codes)]
        aside = torch.randn(self.codes.shape, generator=generator).to(flat.device)
        spread = flat.std(0).clamp(min=1e-3) if len(flat) > 1 else torch.ones_like(flat[0])
        self.codes.copy_(flat[picked.to(flat.device)] + 0.1 * spread * aside)
        self.sums.copy_(self.codes)
        self.counts.fill_(1.0)
        self.idle.zero_()
        self.n_calls.fill_(1)

    @torch.no_grad()
    def _follow(self, flat: Tensor, chosen: Tensor) -> None:
        """Move the codebook by one batch: (n, n_latent) and the codes that they chose, (n,)."""
        members = torch.zeros_like(self.counts).index_add_(0, chosen, torch.ones_like(flat[:, 0]))
        totals = torch.zeros_like(self.sums).index_add_(0, chosen, flat)
        self.counts.mul_(self.decay).add_(members, alpha=1.0 - self.decay)
        self.sums.mul_(self.decay).add_(totals, alpha=1.0 - self.decay)
        self.idle.add_(1)
        self.idle[members > 0] = 0
        # a code that nobody chose stays where it is: both of its means shrink alike
        is_used = (self.counts > _LEAST_COUNT).unsqueeze(1)
        self.codes.copy_(torch.where(is_used, self.sums / self.counts.unsqueeze(1), self.codes))
        self.n_calls.add_(1)
        self._revive(flat, (flat - self.codebook.embed(chosen)).square().sum(1))

    def _revive(self, flat: Tensor, error: Tensor) -> None:
        """Move dead codes onto latents, (n, n_latent), drawn by their squared errors, (n,), without replacement."""
        dead = torch.nonzero(self.idle >= self.dead_after).flatten()
        n_moved = min(len(dead), int((error > 0).sum()))
        if n_moved == 0:
            return
        generator = torch.Generator().manual_seed(int(self.n_calls))
        drawn = torch.multinomial(error.double().cpu(), n_moved, generator=generator).to(flat.device)
        dead = dead[:n_moved]
        self.codes[dead] = flat[drawn]
        self.counts[dead] = 1.0 - self.decay  # as if the latent had chosen it in this step
        self.sums[dead] = (1.0 - self.decay) * flat[drawn]
        self.idle[dead] = 0

    def utilisation(self, chosen: Tensor) -> tuple[float, float]:
        """Tell how well codes are used.

        Parameters
        ----------
        chosen : Tensor
            (...) codes of many latents

        Returns
        -------
        share : float
            Of the codes that occur.
        perplexity : float
            exp of the entropy of their frequencies: how many codes, used alike, would carry as much.
        """
        frequency = torch.bincount(chosen.flatten(), minlength=len(self.codes)).double()
        share = float((frequency > 0).double().mean())
        frequency = frequency[frequency > 0] / frequency.sum()
        return share, float(torch.exp(-(frequency * frequency.log()).sum()))
