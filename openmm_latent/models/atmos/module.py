"""One complex as the exported contract sees it: key frames with memory, frames between them, and independent ones."""

from __future__ import annotations

import copy
from typing import List, Optional, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from openmm.app import Element
from torch import Tensor, nn

from openmm_latent.data.complex_tokens import ComplexTokens
from openmm_latent.diffusion.edm import EDMSampler, karras_levels
from openmm_latent.errors import require
from openmm_latent.model import LatentModule
from openmm_latent.models.atmos.alignment import superpose_each
from openmm_latent.models.atmos.chemistry import (
    Chemistry,
    Context,
    check_trunk,
    describe_complex,
    edge_lengths,
    stiff_edges,
)
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.models.atmos.network import ATMOS, StateSpaceNetwork
from openmm_latent.nn.repair import Repair
from openmm_latent.nn.superposition import Superposition
from openmm_latent.topology import AtomRecord


class BoundNetwork(nn.Module):
    """A network with the chemistry of one complex, embedded once.

    Parameters
    ----------
    network : StateSpaceNetwork
        Copied.
    chemistry : Chemistry
    trunk : tuple of Tensor
        (n_tokens, n_trunk_single), (n_tokens, n_tokens, n_trunk_pair)
    config : ATMOSConfig
    time_step : float
        [ps] that a step covers.
    n_steps : int
        Of the sampler.
    is_ode : bool
        Take no fresh noise on the way.
    """

    def __init__(
        self,
        network: StateSpaceNetwork,
        chemistry: Chemistry,
        trunk: Tuple[Tensor, Tensor],  # noqa: UP006
        config: ATMOSConfig,
        time_step: float,
        n_steps: int,
        is_ode: bool,
    ):
        super().__init__()
        network = copy.deepcopy(network).cpu().eval()
        with torch.no_grad():
            context = network.context(chemistry, *trunk)
        for name, value in zip(Chemistry._fields, chemistry, strict=True):
            self.register_buffer(f"of_{name}", value.clone())
        for name, value in zip(Context._fields, context, strict=True):
            self.register_buffer(f"context_{name}", value.clone())
        decoder = network.decoder
        network.context, network.decoder, network.to_distogram = nn.Identity(), nn.Identity(), nn.Identity()
        self.network, self.time_step = network, float(time_step)
        levels = karras_levels(n_steps, decoder.edm.data_scale, config.level_least, config.level_most, config.rho)
        self.sampler = EDMSampler(
            decoder,
            levels,
            churn=0.0 if is_ode else config.churn,
            churn_above=config.churn_above,
            noise_scale=config.noise_scale,
            step_scale=config.step_scale,
        )

    def chemistry(self) -> Chemistry:
        """Return the complex as tensors."""
        return Chemistry(
            self.of_elements,
            self.of_slots,
            self.of_token,
            self.of_numbers,
            self.of_queries,
            self.of_keys,
            self.of_key_mask,
            self.of_atom_bonds,
            self.of_is_same_token,
            self.of_types,
            self.of_centres,
            self.of_frames,
            self.of_has_frame,
            self.of_is_ligand,
            self.of_places,
            self.of_token_bonds,
            self.of_is_same_residue,
            self.of_edges,
            self.of_lengths,
        )

    def context(self) -> Context:
        """Return the embedded chemistry."""
        return Context(self.context_single, self.context_pair, self.context_atoms, self.context_atom_pairs)

    def initial_state(self, n_batch: int) -> List[Tensor]:  # noqa: UP006
        """Return the state before any frame."""
        return self.network.initial_state(self.context(), n_batch)

    def advance(
        self,
        state: List[Tensor],  # noqa: UP006
        frame: Optional[Tensor],  # noqa: UP045
        end: Optional[Tensor],  # noqa: UP045
        remaining: Tensor,
    ) -> List[Tensor]:  # noqa: UP006
        """Return the next state.

        Parameters
        ----------
        state : list of Tensor
        frame : Tensor, optional
            (b, n_atoms, 3) [nm]; without it what is drawn depends on no frame
        end : Tensor, optional
            (b, n_atoms, 3) [nm] to be reached, of an interpolator
        remaining : Tensor
            (b,) steps from `frame` to `end`; without these not read
        """
        time_step = torch.full_like(remaining, self.time_step)
        if frame is None:
            return self.network.advance_blank(state, time_step)
        if end is None:
            return self.network.advance(state, frame, time_step, self.chemistry(), self.context())
        left = remaining * self.time_step
        return self.network.advance_towards(state, frame, end, time_step, left, self.chemistry(), self.context())

    def draw(self, state: List[Tensor], anchor: Tensor, way: Tensor, noise: Tensor) -> Tensor:  # noqa: UP006
        """Draw what the decoder draws, shifts or positions: (b, n_draws n_atoms 3) -> (b, n_atoms, 3) [nm]."""
        prepared = self.sampler.denoiser.prepare(state[0], state[1], anchor, way, self.chemistry(), self.context())
        return self.sampler(noise.view(noise.shape[0], self.sampler.n_draws, -1, 3), prepared)


class BoundComplex(LatentModule):
    """A complex whose frames follow one another.

    A jump encodes the frame as it is, advances the state by it and draws the next key frame from the state; the state
    is memory, not the last frame. `interpolate` draws the next of the frames between two key frames, `fill` all. They
    know shapes alone: what is drawn is placed on the frame that was given, and turns and moves with it.

    Parameters
    ----------
    model : ATMOS
        Its weights are copied.
    tokens : ComplexTokens
        All model atoms, in order.
    reference : ndarray
        (n_atoms, 3) [nm]
    trunk : tuple of ndarray, optional
        Features of another model's trunk, (n_tokens, n_trunk_single) and (n_tokens, n_tokens, n_trunk_pair); needed
        where the configuration has such features.
    lengths : ndarray, optional
        (n_edges,) [nm] of `stiff_edges`; those of the reference unless given.
    n_steps : int, optional
        Of the diffusion; the configuration's unless given.
    is_ode : bool
        Sample by the ordinary differential equation: less diverse, and noise enters only at its start.

    Raises
    ------
    LatentError
        Shapes disagree, features are missing, or the model's data scale was never measured.

    Source: ATMOS, algorithms 4 and 5. DISCREPANCY(AlphaFold 3, algorithm 18): frames are not turned at random between
    the steps of the diffusion; the noise that it starts from has no orientation.
    """

    __constants__ = ("n_atoms", "n_tokens", "predicts_shift", "uses_interpolator", "upsampling")

    def __init__(
        self,
        model: ATMOS,
        tokens: ComplexTokens,
        reference: np.ndarray,
        trunk: Optional[Tuple[np.ndarray, np.ndarray]] = None,  # noqa: UP006, UP045
        lengths: Optional[np.ndarray] = None,  # noqa: UP045
        n_steps: int | None = None,
        is_ode: bool = False,
    ):
        super().__init__()
        config = model.config
        reference = np.asarray(reference, dtype=np.float64)
        require(
            reference.shape == (tokens.n_atoms, 3) and bool(np.isfinite(reference).all()),
            f"reference must be finite and of shape (n_atoms={tokens.n_atoms}, 3) [nm], got {reference.shape}; give "
            f"the model atoms' positions",
        )
        require(config.data_scale > 0, "model has no data_scale: train it, or give its configuration a positive one")
        n_tokens, n_steps = len(tokens), config.n_sampling_steps if n_steps is None else n_steps
        empty = np.zeros((n_tokens, 0)), np.zeros((n_tokens, n_tokens, 0))
        single, pair = empty if trunk is None else trunk
        check_trunk(tokens, single, pair, config)
        features = torch.from_numpy(single).float(), torch.from_numpy(pair).float()
        lengths = edge_lengths(tokens, reference[None]) if lengths is None else lengths
        chemistry = describe_complex(tokens, config, lengths)
        self.n_atoms, self.n_tokens = tokens.n_atoms, n_tokens
        self.n_latent, self.n_slow, self.n_decode_noise = 0, 0, 0
        self.predicts_shift, self.upsampling = config.predicts_shift, config.upsampling
        self.uses_interpolator = model.interpolator is not None
        self.keyframes = BoundNetwork(model.keyframes, chemistry, features, config, model.key_time, n_steps, is_ode)
        self.finer = self.keyframes
        if model.interpolator is not None:
            self.finer = BoundNetwork(model.interpolator, chemistry, features, config, model.fine_time, n_steps, is_ode)
        self.n_propagate_noise = 3 * self.n_atoms * self.keyframes.sampler.n_draws
        self.superposition = Superposition()
        self.repair = _repair(tokens, reference, lengths, config.n_sweeps) if config.n_sweeps > 0 else None
        self.register_buffer("reference", torch.from_numpy(reference - reference.mean(axis=0)))
        self.register_buffer("weights", torch.ones(self.n_atoms))

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals, three for each atom and draw."""
        sizes = {"jump": self.n_propagate_noise, "sample": self.n_propagate_noise}
        finer = 3 * self.n_atoms * self.finer.sampler.n_draws
        between = {"interpolate": finer, "fill": (self.upsampling - 1) * finer}
        return {**sizes, **between} if self.uses_interpolator else sizes

    def capabilities(self) -> list[str]:
        """Contract methods, `interpolate` and `fill` only with an interpolator."""
        absent = () if self.uses_interpolator else ("interpolate", "fill")
        return [name for name in super().capabilities() if name not in absent]

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return (b, n_tokens, n_single) and (b, n_tokens, n_tokens, n_pair): chemistry, before any frame."""
        return self.keyframes.initial_state(positions.shape[0])

    def jump(
        self,
        positions: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Draw the next key frame: (b, n_atoms, 3) [nm], state, (b, n_noise) -> (b, n_atoms, 3) [nm], state."""
        superposed, rotation, centre = self.superposition(positions, self.reference)
        frame = superposed.to(torch.float32)
        state = self.keyframes.advance(state, frame, None, torch.ones_like(frame[:, 0, 0]))
        drawn = self.placed(self.keyframes.draw(state, self.anchor(frame), torch.zeros_like(frame), noise), frame)
        return self.back(drawn, rotation, centre), state

    def sample(self, noise: Tensor) -> Tensor:
        """Draw frames that depend on no other: (b, n_noise) -> (b, n_atoms, 3) [nm], placed on the reference."""
        frame = self.reference.to(torch.float32).unsqueeze(0).expand(noise.shape[0], -1, -1).contiguous()
        state = self.keyframes.initial_state(noise.shape[0])
        state = self.keyframes.advance(state, None, None, torch.ones_like(frame[:, 0, 0]))
        return self.placed(self.keyframes.draw(state, self.anchor(frame), torch.zeros_like(frame), noise), frame)

    def interpolate(self, start: Tensor, end: Tensor, remaining: Tensor, noise: Tensor) -> Tensor:
        """Draw the frame one fine step on from `start` to `end`; with one step left it is `end`.

        Parameters
        ----------
        start, end : Tensor
            (b, n_atoms, 3) [nm]
        remaining : Tensor
            (b,) fine steps from `start` to `end`, of which a key frame's step has `upsampling`
        noise : Tensor
            (b, n_noise)

        Returns
        -------
        Tensor
            (b, n_atoms, 3) [nm], placed on `start`
        """
        return self.towards(start, end, remaining, self.finer.initial_state(start.shape[0]), noise)[0]

    def fill(self, start: Tensor, end: Tensor, noise: Tensor) -> Tensor:
        """Draw all frames between two key frames, each with the memory of those before it.

        Parameters
        ----------
        start, end : Tensor
            (b, n_atoms, 3) [nm], a key frame's step apart
        noise : Tensor
            (b, n_noise)

        Returns
        -------
        Tensor
            (b, upsampling - 1, n_atoms, 3) [nm], placed on `start`

        Source: ATMOS, algorithm 5.
        """
        n_batch, n_between = start.shape[0], self.upsampling - 1
        of_step = noise.view(n_batch, n_between, -1)
        state, frame = self.finer.initial_state(n_batch), start
        drawn: List[Tensor] = []  # noqa: UP006
        for step in range(n_between):
            left = torch.full([n_batch], float(self.upsampling - step), device=start.device)
            frame, state = self.towards(frame, end, left, state, of_step[:, step])
            drawn.append(frame)
        return torch.stack(drawn, dim=1)

    def towards(
        self,
        start: Tensor,
        end: Tensor,
        remaining: Tensor,
        state: List[Tensor],  # noqa: UP006
        noise: Tensor,
    ) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Do what `interpolate` does, with the memory of the frames since the last key frame."""
        superposed, rotation, centre = self.superposition(start, self.reference)
        frame = superposed.to(torch.float32)
        goal = superpose_each(self.superposition, end, frame, self.weights)
        left = remaining.to(torch.float32)
        state = self.finer.advance(state, frame, goal, left.clamp(min=1.0))
        way = goal - frame if self.predicts_shift else torch.zeros_like(frame)
        drawn = self.placed(self.finer.draw(state, self.anchor(frame), way, noise), frame)
        drawn = torch.where((left < 1.5).view(-1, 1, 1), goal, drawn)
        return self.back(drawn, rotation, centre), state

    def anchor(self, frame: Tensor) -> Tensor:
        """Return what the decoder sees of the frame before: (b, n_atoms, 3) [nm]."""
        return frame if self.predicts_shift else torch.zeros_like(frame)

    def placed(self, drawn: Tensor, frame: Tensor) -> Tensor:
        """Return positions on the frame before from what the decoder drew: (b, n_atoms, 3) [nm]."""
        moved = drawn + frame if self.predicts_shift else superpose_each(self.superposition, drawn, frame, self.weights)
        if self.repair is None:
            return moved
        precise = moved.double()
        held = precise.index_select(1, self.repair.cas)
        return self.repair.repair(precise, held, frame.double()).to(torch.float32)

    def back(self, frame: Tensor, rotation: Tensor, centre: Tensor) -> Tensor:
        """Return a frame to where the given one was: (b, n_atoms, 3) [nm]."""
        return (torch.bmm(frame.double(), rotation.transpose(1, 2)) + centre).to(torch.float32)


def _repair(tokens: ComplexTokens, reference: np.ndarray, lengths: np.ndarray, n_sweeps: int) -> Repair:
    """Return what mends a drawn frame: residues stay where their CA is, other molecules where their atoms are.

    DISCREPANCY(ATMOS): ours, see `openmm_latent.nn.repair`.
    """
    places = zip(tokens.chains[tokens.token], tokens.residues[tokens.token], tokens.elements, strict=True)
    atoms = [
        AtomRecord(str(chain), "", int(residue), "", Element.getByAtomicNumber(int(number)).symbol)
        for chain, residue, number in places
    ]
    repair = Repair(atoms, tokens.bonds, tokens.frames[:, 1], reference, n_sweeps)
    usual = {tuple(sorted(edge)): length for edge, length in zip(stiff_edges(tokens).tolist(), lengths, strict=True)}
    for number, pair in enumerate(repair.pairs.tolist()):  # the others, over peptide bonds, stay as in the reference
        repair.lengths[number] = usual.get(tuple(pair), repair.lengths[number])
    return repair
