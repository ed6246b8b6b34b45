"""Frames between others, by the masked variant: those that are masked are drawn one after another."""

from __future__ import annotations

import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.models.confrover.network import ConfRover
from openmm_latent.models.confrover.sampler import FrameSampler
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.residue_geometry import Residues
from openmm_latent.nn.superposition import Superposition


@torch.no_grad()
def fill_masked(
    model: ConfRover,
    residues: Residues,
    positions: Tensor,
    frame_times: Tensor,
    is_masked: Tensor,
    generator: torch.Generator,
    *,
    n_steps: int | None = None,
    features: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Draw the masked frames of one window, in their order; each sees those that are known and those drawn before it.

    Parameters
    ----------
    model : ConfRover
        Trained as the masked variant (`is_causal=False`).
    residues : Residues
    positions : Tensor
        (n_frames, n_residues, 15, 3) [nm] in slots; what masked frames hold is not read
    frame_times : Tensor
        (n_frames,) [ps]
    is_masked : Tensor of bool
        (n_frames,)
    generator : torch.Generator
        Of all noise.
    n_steps : int, optional
        Of the diffusion; the configuration's unless given.
    features : tuple of Tensor, optional
        See `ConfRover.embed`.

    Returns
    -------
    Tensor
        (n_frames, n_residues, 15, 3) [nm]: known frames as they were, drawn ones with ideal lengths and angles within
        residues, superposed on the first known frame, if there is one; peptide bonds between residues are as drawn.

    Raises
    ------
    LatentError
        The model is causal, or the shapes disagree.

    DISCREPANCY(ConfRover): the paper does not say how its masked variant draws; one after another is ours, for frames
    that are drawn all at once would not know of one another.
    """
    n_frames, n = len(is_masked), len(residues)
    require(
        not model.config.is_causal,
        "model is causal and cannot see frames to come; fill with one trained with is_causal=False, or use jump",
    )
    require(
        positions.shape == (n_frames, n, 15, 3) and frame_times.shape == (n_frames,),
        f"positions must have shape (n_frames={n_frames}, n_residues={n}, 15, 3) [nm] and frame_times ({n_frames},), "
        f"got {tuple(positions.shape)} and {tuple(frame_times.shape)}; give one mask and one time a frame",
    )
    coordinates, sampler = FrameCoordinates(residues), FrameSampler(model.decoder, model.config, n_steps)
    protein = model.embed(torch.tensor(residues.types), torch.tensor(residues.chains), features)
    times = (frame_times / model.config.time_unit).float()[None]
    filled, waits = positions.clone(), is_masked.clone()
    known = torch.nonzero(is_masked.logical_not())[:, 0]
    filled[is_masked] = positions[known[0]] if len(known) > 0 else 0.0  # finite, whatever came
    for frame in torch.nonzero(is_masked)[:, 0].tolist():
        rotations, ca = residue_frames(filled)
        shown = [part[None] for part in (rotations, ca, coordinates.torsions(filled))]
        single, pair = model.context(*protein, *shown, times, torch.zeros_like(times), waits[None])
        normals = torch.randn(1, sampler.n_draws, n, 6, generator=generator)
        built = coordinates.to_cartesian(*sampler(single[:, frame], pair[:, frame], *protein, normals))
        filled[frame] = _superposed(built, filled[known[0]])[0] if len(known) > 0 else built[0]
        waits[frame] = False
    return filled


def _superposed(built: Tensor, onto: Tensor) -> Tensor:
    """Put frames, (b, n, 15, 3) [nm], onto the backbone of another, (n, 15, 3) [nm]."""
    backbone, target = built[:, :, :3].flatten(1, 2).double(), onto[:, :3].flatten(0, 1).double()
    centre, goal = backbone.mean(dim=1, keepdim=True), target.mean(dim=0)
    rotation = Superposition().rotation(backbone - centre, target - goal)
    placed = torch.bmm(built.flatten(1, 2).double() - centre, rotation) + goal
    return placed.view(built.shape).to(built.dtype)
