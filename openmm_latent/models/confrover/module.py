"""One protein's trajectory model as the exported contract sees it: frames in, the next frame out, and a memory.

| method | what the decoder's context is |
|---|---|
| `jump` | the current frame, encoded anew, and the frames in the memory |
| `sample` | the mask token alone |
| `interpolate` | the end, put before the start |
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import List, Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor

from openmm_latent.errors import require
from openmm_latent.model import LatentModule
from openmm_latent.models.confrover.network import ConfRover
from openmm_latent.models.confrover.sampler import FrameSampler
from openmm_latent.nn.disulphides import Disulphides
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.nn.repair import Repair
from openmm_latent.nn.residue_geometry import CA, N_SLOTS, C, N, Residues, residue_tables
from openmm_latent.nn.superposition import Superposition
from openmm_latent.topology import AtomRecord


class ConfRoverProtein(LatentModule):
    """Draw frame after frame of one protein.

    A drawn frame has ideal bonds and angles within residues; it is put onto the current frame's backbone, and peptide
    bonds and contacts are repaired by `openmm_latent.nn.repair`. There is no explicit latent.

    Parameters
    ----------
    model : ConfRover
        Its weights are copied.
    residues : Residues
    slots : sequence of int
        (n_atoms,) where each model atom is, counted as 15 residue + slot: all heavy atoms, in any order
    atoms : sequence of AtomRecord
        (n_atoms,) the model atoms.
    bonds : ndarray of int
        (n_bonds, 2) between model atoms.
    reference : ndarray
        (n_atoms, 3) [nm], whose bond lengths and angles frames have, and on which `sample` puts them.
    lag_time : float
        [ps] that one jump covers.
    n_steps : int, optional
        Steps of the diffusion; the configuration's unless given. Fewer are quicker and coarser.
    features : tuple of Tensor, optional
        What `read_features` read, where the configuration has precomputed features.
    disulphides : ndarray of int, optional
        (n_bridges, 2) residues whose SG are bonded.

    Attributes
    ----------
    n_noise : int
        Normals of one `jump`, `sample` or `interpolate`: 6 a residue, for n_steps + 1 draws.

    Raises
    ------
    LatentError
        Atoms are missing or there twice, the shapes disagree, the model is the masked variant, or an argument is out
        of range.

    Notes
    -----
    The memory holds keys and values of the last `n_context` frames for each layer, a ring: (b, n_layers, n + n^2,
    n_context, width) twice, and how many frames went before, (b,). It is 4 n_layers (n + n^2) n_context width x 2
    bytes: 30 MB for 60 residues with `tiny`, 6 GB for 300 with `paper`.

    Source: ConfRover, sections 3.1 and 3.2. DISCREPANCY(ConfRover): jumps inside a simulation, in which the memory
    holds relaxed frames and not what was drawn, the window of the memory, and the repair are ours.
    """

    __constants__ = ("half_turn", "lag", "n_atoms", "n_draws", "n_noise", "n_residues", "n_tokens")

    def __init__(
        self,
        model: ConfRover,
        residues: Residues,
        slots: Sequence[int] | np.ndarray,
        atoms: Sequence[AtomRecord],
        bonds: np.ndarray,
        reference: np.ndarray,
        *,
        lag_time: float,
        n_steps: int | None = None,
        features: Tuple[Tensor, Tensor] | None = None,  # noqa: UP006
        disulphides: np.ndarray | None = None,
    ):
        super().__init__()
        config = model.config
        slots = residues.checked_slots(slots)
        require(lag_time > 0, f"lag_time must be a positive time in ps, got {lag_time}")
        require(
            config.is_causal,
            "model is the masked variant, which sees frames to come and so has no memory to jump with; train one with "
            "is_causal=True",
        )
        self.n_residues, self.n_atoms = len(residues), len(slots)
        self.n_latent, self.n_slow, self.n_decode_noise = 0, 0, 0
        self.n_tokens = self.n_residues + self.n_residues**2
        self.lag, self.half_turn = float(lag_time / config.time_unit), math.pi
        with torch.no_grad():
            types, chains = torch.tensor(residues.types), torch.tensor(residues.chains)
            single, pair = model.embed(types, chains, features)
        self.register_buffer("sequence_single", single.detach().clone())
        self.register_buffer("sequence_pair", pair.detach().clone())
        self.encoder, self.trajectory = copy.deepcopy(model.encoder), copy.deepcopy(model.trajectory_module)
        self.sampler = FrameSampler(copy.deepcopy(model.decoder), config, n_steps)
        self.n_draws = self.sampler.n_draws
        self.n_noise = self.n_draws * self.n_residues * 6
        self.n_propagate_noise = self.n_noise
        self.coordinates, self.superposition = FrameCoordinates(residues), Superposition()
        self.bridges = Disulphides(residues, np.zeros((0, 2)) if disulphides is None else disulphides)
        self.has_bridges = disulphides is not None and len(disulphides) > 0
        self._set_places(residues, slots)
        self.repair = Repair(atoms, bonds, self.cas.numpy(), reference)
        centred = torch.tensor(np.asarray(reference, dtype=np.float64))
        self.register_buffer("reference", centred - centred.mean(dim=0))

    def _set_places(self, residues: Residues, slots: np.ndarray) -> None:
        """Note where model atoms are in slots and the other way, and which torsions mean the same half a turn on."""
        place = np.full(N_SLOTS * self.n_residues, -1)
        place[slots] = np.arange(self.n_atoms)
        place = place.reshape(-1, N_SLOTS)
        flips = np.zeros((self.n_residues, 7), dtype=bool)
        flips[:, 3:] = residue_tables().is_half_turn[residues.types]
        self.register_buffer("slots", torch.tensor(slots))
        self.register_buffer("filled", torch.tensor(np.where(place < 0, place[:, CA : CA + 1], place).reshape(-1)))
        self.register_buffer("cas", torch.tensor(place[:, CA].copy()))
        self.register_buffer("backbone", torch.tensor(place[:, [N, CA, C]].reshape(-1)))
        self.register_buffer("flips", torch.tensor(flips))

    def noise_sizes(self) -> dict[str, int]:
        """Numbers of standard normals of `jump`, `sample` and `interpolate`: the same."""
        return {"jump": self.n_noise, "sample": self.n_noise, "interpolate": self.n_noise}

    def initial_state(self, positions: Tensor) -> List[Tensor]:  # noqa: UP006
        """Return an empty memory: the first jump puts its own frame in."""
        trajectory = self.trajectory
        shape = [positions.shape[0], trajectory.n_layers, self.n_tokens, trajectory.n_context, trajectory.width]
        empty = torch.zeros(shape, dtype=torch.float32, device=positions.device)
        length = torch.zeros(positions.shape[0], dtype=torch.int64, device=positions.device)
        return [empty, empty.clone(), length]

    def jump(self, positions: Tensor, state: List[Tensor], noise: Tensor) -> Tuple[Tensor, List[Tensor]]:  # noqa: UP006
        """Encode the current frame, remember it, and draw the frame one lag time later."""
        shown = torch.zeros(positions.shape[0], dtype=torch.bool, device=positions.device)
        single, pair = self.encode_frame(positions, shown)
        single, pair, keys, values = self.trajectory.step(single, pair, state[0], state[1], state[2], self.lag)
        return self.draw(single, pair, positions, noise), [keys, values, state[2] + 1]

    def sample(self, noise: Tensor) -> Tensor:
        """Draw independent conformations: (b, n_noise) -> (b, n_atoms, 3) [nm], put onto the reference."""
        reference = self.reference.to(torch.float32).unsqueeze(0)
        masked = torch.ones(1, dtype=torch.bool, device=noise.device)
        single, pair = self.encode_frame(reference, masked)
        none = torch.zeros(1, 1, dtype=torch.float32, device=noise.device)
        single, pair = self.trajectory(single.unsqueeze(1), pair.unsqueeze(1), none, none, masked.unsqueeze(1))
        n_batch = noise.shape[0]
        return self.draw(
            single[:, 0].expand(n_batch, -1, -1),
            pair[:, 0].expand(n_batch, -1, -1, -1),
            reference.expand(n_batch, -1, -1),
            noise,
        )

    def interpolate(self, start: Tensor, end: Tensor, remaining: Tensor, noise: Tensor) -> Tensor:
        """Draw the next frame on the way from one structure to another.

        Parameters
        ----------
        start, end : Tensor
            (b, n_atoms, 3) [nm]
        remaining : Tensor
            (b,) lag times from the start to the end, at least 1; the answer lies one nearer to the end
        noise : Tensor
            (b, n_noise)

        Returns
        -------
        Tensor
            (b, n_atoms, 3) [nm], put onto the start
        """
        n_batch = start.shape[0]
        shown = torch.zeros(n_batch, dtype=torch.bool, device=start.device)
        of_end, of_start = self.encode_frame(end, shown), self.encode_frame(start, shown)
        single, pair = torch.stack([of_end[0], of_start[0]], dim=1), torch.stack([of_end[1], of_start[1]], dim=1)
        ahead = (self.lag * remaining.to(torch.float32)).view(n_batch, 1)
        times = torch.cat([ahead, torch.zeros_like(ahead)], dim=1)
        gaps = torch.cat([torch.zeros_like(ahead), torch.full_like(ahead, self.lag)], dim=1)
        single, pair = self.trajectory(single, pair, times, gaps, torch.stack([shown, shown], dim=1))
        return self.draw(single[:, 1], pair[:, 1], start, noise)

    def encode_frame(self, positions: Tensor, is_masked: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return features of one frame each: (b, n_atoms, 3) [nm], (b,) -> (b, n, width), (b, n, n, width)."""
        precise = positions.to(torch.float64)
        centred = (precise - precise.mean(dim=1, keepdim=True)).to(torch.float32)
        filled = centred.index_select(1, self.filled).view(positions.shape[0], self.n_residues, -1, 3)
        rotations, ca = residue_frames(filled)
        torsions = self.coordinates.torsions(filled)
        nearest = torsions - self.half_turn * torch.round(torsions / self.half_turn)
        torsions = torch.where(self.flips, nearest, torsions)
        return self.encoder(self.sequence_single, self.sequence_pair, rotations, ca, torsions, is_masked)

    def draw(self, single: Tensor, pair: Tensor, positions: Tensor, noise: Tensor) -> Tensor:
        """Draw frames, put them onto others, and repair them.

        Parameters
        ----------
        single, pair : Tensor
            (b, n, width), (b, n, n, width) the context
        positions : Tensor
            (b, n_atoms, 3) [nm] onto which they are put
        noise : Tensor
            (b, n_noise)

        Returns
        -------
        Tensor
            (b, n_atoms, 3) [nm]
        """
        normals = noise.view(-1, self.n_draws, self.n_residues, 6)
        rotations, ca, torsions = self.sampler(single, pair, self.sequence_single, self.sequence_pair, normals)
        built = self.coordinates.to_cartesian(rotations.double(), ca.double(), torsions.double())
        if self.has_bridges:
            built = self.bridges(built)
        drawn = built.flatten(1, 2).index_select(1, self.slots)  # (b, n_atoms, 3), double precision
        before = positions.to(torch.float64)
        centre = before.index_select(1, self.backbone).mean(dim=1, keepdim=True)
        before = before - centre
        drawn = drawn - drawn.index_select(1, self.backbone).mean(dim=1, keepdim=True)
        products = torch.bmm(
            drawn.index_select(1, self.backbone).transpose(1, 2), before.index_select(1, self.backbone)
        )
        placed = torch.bmm(drawn, self.superposition.best(products.flatten(1)))
        repaired = self.repair.repair(placed, placed.index_select(1, self.cas), before)
        return (repaired + centre).to(torch.float32)
