"""The decoder: from a state and noisy atoms to clean ones.

| symbol | variable |
|---|---|
| S_t, Z_t | `single`, `pair` |
| x-tilde, tau | `noisy` [nm], `noise_level` [nm] |
| x-hat | what `forward` returns [nm] |

A decoder of shifts draws x_t - x_(t-1) and sees x_(t-1), the anchor; one of positions draws x_t and sees the state
alone.

Source: ATMOS, section 3.3 and A.3; Abramson et al., Nature 630, 493 (2024), supplement, algorithms 20, 21 and 23.
DISCREPANCY(ATMOS, equation 9): the anchor's positions among what the decoder sees are ours, after the remark at
equation 4 that the model predicts the shift in coordinates. A shift of 0.1 nm is learned from little data, where a fold
is not; `CONFIGS["paper"]` does without.
"""

from __future__ import annotations

import math
from typing import List  # noqa: UP035  TorchScript reads these annotations

import torch
from torch import Tensor, nn

from openmm_latent.diffusion.edm import EDM
from openmm_latent.models.atmos.chemistry import Chemistry, Context
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.models.atmos.geometry import ATOM_DISTANCES, DistanceBins, window_distances
from openmm_latent.models.atmos.times import Waves
from openmm_latent.nn.atom_attention import WindowBiases, WindowBlock, mean_by_token, of_pairs
from openmm_latent.nn.pairformer import Transition

#: A length of order one for anchors' positions, and for ways to the next anchor [nm].
_MOLECULE, _WAY = 1.0, 0.2
_N_LEVEL_WAVES = 32
#: Noise level at which half of an error in length is mended at first [nm], and width of the network that decides.
_HALF_LEVEL, _N_HIDDEN = 0.02, 24


class Refinement(nn.Module):
    """Mend distances over one and two bonds, as far as the noise level and the atoms say.

    In each round an edge moves its ends by a share of what its length is off. The share is learned; it starts near one
    where noise is far below a tenth of a bond, and near zero above: the mean of many structures has no bond lengths.

    Parameters
    ----------
    n_atom : int
        Features of atoms.
    n_rounds : int

    DISCREPANCY(ATMOS, A.3): ours. Lengths come from the structure that is modelled; Protenix's decoder knows them.
    """

    def __init__(self, n_atom: int, n_rounds: int):
        super().__init__()
        self.n_rounds = n_rounds
        self.log_half = math.log(_HALF_LEVEL)
        self.norm = nn.LayerNorm(n_atom)
        self.of_ends = nn.Linear(n_atom, _N_HIDDEN)
        self.of_edge = nn.Linear(3, _N_HIDDEN)
        self.to_share = nn.Linear(_N_HIDDEN, n_rounds)
        nn.init.zeros_(self.to_share.weight)
        nn.init.zeros_(self.to_share.bias)

    def forward(self, positions: Tensor, atoms: Tensor, noise_level: Tensor, edges: Tensor, lengths: Tensor) -> Tensor:
        """Mend (b, n_atoms, 3) [nm]; atoms (b, n_atoms, n_atom), level (b,), edges (n_edges, 2), lengths (n_edges,)."""
        first, second = edges[:, 0], edges[:, 1]
        both = torch.ones([2 * edges.shape[0]], dtype=positions.dtype, device=positions.device)
        degree = torch.ones_like(positions[0, :, 0]).index_add(0, edges.flatten(), both)
        ends = self.of_ends(self.norm(atoms))
        level = (torch.log(noise_level) - self.log_half).view(-1, 1, 1)
        ends = ends.index_select(1, first) + ends.index_select(1, second)
        for number in range(self.n_rounds):
            between = positions.index_select(1, first) - positions.index_select(1, second)
            distances = torch.sqrt(between.square().sum(-1, keepdim=True) + 1e-10)
            excess = distances - lengths.view(1, -1, 1)
            told = torch.cat(
                [excess * 50.0, lengths.view(1, -1, 1).expand_as(excess) * 5.0, level.expand_as(excess)], dim=-1
            )
            shares = self.to_share(torch.nn.functional.silu(ends + self.of_edge(told)))[..., number : number + 1]
            pull = torch.sigmoid(shares - 2.0 * level) * excess * between / distances
            moves = torch.zeros_like(positions).index_add(1, first, -pull).index_add(1, second, pull)
            positions = positions + 1.5 * moves / degree.view(1, -1, 1)
        return positions


class Decoder(nn.Module):
    """Denoise all atoms of a complex.

    Parameters
    ----------
    config : ATMOSConfig
    data_scale : float
        [nm] of one coordinate of what is drawn; 0 where it is not known yet, which serves for counting alone.
    """

    def __init__(self, config: ATMOSConfig, data_scale: float):
        super().__init__()
        n_single, n_pair, n_atom, n_token = config.n_single, config.n_pair, config.n_atom, config.n_token
        self.n_atom_blocks = config.n_atom_blocks
        self.per_molecule, self.per_way = 1.0 / _MOLECULE, 1.0 / _WAY
        self.edm = EDM(data_scale if data_scale > 0 else 1.0, config.log_mean, config.log_std)
        # conditions: what the state and the chemistry say, once a sample
        self.of_single = nn.Sequential(nn.LayerNorm(2 * n_single), nn.Linear(2 * n_single, n_single))
        self.single_transition = Transition(n_single, 2)
        self.of_pair = nn.Sequential(nn.LayerNorm(2 * n_pair), nn.Linear(2 * n_pair, n_pair))
        self.pair_transition = Transition(n_pair, 2)
        self.token_biases = WindowBiases(n_pair, config.n_token_blocks, config.n_token_heads)
        self.atom_of_single = nn.Sequential(nn.LayerNorm(n_single), nn.Linear(n_single, n_atom))
        self.atom_of_anchor = nn.Linear(6, n_atom, bias=False)
        self.atom_pair_of_pair = nn.Sequential(nn.LayerNorm(n_pair), nn.Linear(n_pair, config.n_atom_pair))
        self.atom_bins = DistanceBins(config.n_atom_distance_bins, ATOM_DISTANCES)
        self.atom_pair_of_anchor = nn.Linear(config.n_atom_distance_bins, config.n_atom_pair, bias=False)
        self.atom_biases = WindowBiases(config.n_atom_pair, 2 * config.n_atom_blocks, config.n_atom_heads)
        # what is done at each noise level
        self.waves = Waves(_N_LEVEL_WAVES)
        self.of_level = nn.Linear(_N_LEVEL_WAVES, n_single)
        self.of_noisy = nn.Linear(3, n_atom, bias=False)
        self.atoms_in = nn.ModuleList(
            WindowBlock(n_atom, config.n_atom_heads, n_atom) for _ in range(config.n_atom_blocks)
        )
        self.to_token = nn.Linear(n_atom, n_token)
        self.token_of_single = nn.Linear(n_single, n_token)
        self.tokens = nn.ModuleList(
            WindowBlock(n_token, config.n_token_heads, n_single) for _ in range(config.n_token_blocks)
        )
        self.norm_token = nn.LayerNorm(n_token)
        self.to_atoms = nn.Linear(n_token, n_atom, bias=False)
        self.atoms_out = nn.ModuleList(
            WindowBlock(n_atom, config.n_atom_heads, n_atom) for _ in range(config.n_atom_blocks)
        )
        self.to_positions = nn.Sequential(nn.LayerNorm(n_atom), nn.Linear(n_atom, 3, bias=False))
        nn.init.zeros_(self.to_positions[1].weight)
        self.refinement = Refinement(n_atom, config.n_refinements) if config.n_refinements > 0 else None

    def prepare(
        self,
        single: Tensor,
        pair: Tensor,
        anchor: Tensor,
        way: Tensor,
        chemistry: Chemistry,
        context: Context,
    ) -> List[Tensor]:  # noqa: UP006
        """Return what `forward` needs at every noise level.

        Parameters
        ----------
        single, pair : Tensor
            (b, n, n_single), (b, n, n, n_pair), the state
        anchor : Tensor
            (b, n_atoms, 3) [nm], centred, in the axes of what is drawn; zeros where positions are drawn
        way : Tensor
            (b, n_atoms, 3) [nm] from the anchor to the frame that is to be reached; zeros where there is none
        chemistry : Chemistry
        context : Context
        """
        n_batch, n_tokens = single.shape[0], single.shape[1]
        single = self.of_single(torch.cat([single, context.single.expand(n_batch, -1, -1)], dim=-1))
        single = single + self.single_transition(single)
        pair = self.of_pair(torch.cat([pair, context.pair.expand(n_batch, -1, -1, -1)], dim=-1))
        pair = pair + self.pair_transition(pair)
        everyone = torch.arange(n_tokens, device=single.device).unsqueeze(0)
        token_bias = self.token_biases(pair.unsqueeze(1), torch.ones_like(everyone, dtype=torch.bool))

        seen = torch.cat([anchor * self.per_molecule, way * self.per_way], dim=-1)
        atoms = context.atoms + self.atom_of_anchor(seen)
        atoms = atoms + self.atom_of_single(single).index_select(1, chemistry.token)
        of_query, of_key = chemistry.token[chemistry.queries], chemistry.token[chemistry.keys]
        atom_pairs = context.atom_pairs + of_pairs(self.atom_pair_of_pair(pair), of_query, of_key)
        near = self.atom_bins(window_distances(anchor, chemistry.queries, chemistry.keys))
        atom_pairs = atom_pairs + self.atom_pair_of_anchor(near)
        atom_bias = self.atom_biases(atom_pairs, chemistry.key_mask)
        indices = [chemistry.token, chemistry.queries, chemistry.keys, everyone, chemistry.edges]
        return [single, atoms] + indices + [chemistry.lengths, anchor] + token_bias + atom_bias  # noqa: RUF005  TorchScript unpacks no lists

    def forward(self, noisy: Tensor, noise_level: Tensor, prepared: List[Tensor]) -> Tensor:  # noqa: UP006
        """Denoise.

        Parameters
        ----------
        noisy : Tensor
            (m b, n_atoms, 3) [nm]: m samples of the first prepared state, then m of the second, ...
        noise_level : Tensor
            (m b,) [nm]
        prepared : list of Tensor
            What `prepare` returned for b states.

        Returns
        -------
        Tensor
            (m b, n_atoms, 3) [nm]
        """
        n_times = noisy.shape[0] // prepared[0].shape[0]
        token, queries, keys, everyone = prepared[2], prepared[3], prepared[4], prepared[5]
        n_tokens = prepared[0].shape[1]
        told = self.of_level(self.waves(self.edm.told(noise_level))).unsqueeze(1)
        single = prepared[0].repeat_interleave(n_times, dim=0) + told
        given = prepared[1].repeat_interleave(n_times, dim=0)
        token_bias = prepared[9 : len(prepared) - 2 * self.n_atom_blocks]
        atom_bias = prepared[len(prepared) - 2 * self.n_atom_blocks :]

        atoms = given + self.of_noisy(self.edm.scaled(noisy, noise_level))
        for number, block in enumerate(self.atoms_in):
            atoms = block(atoms, atom_bias[number], given, queries, keys)
        tokens = mean_by_token(torch.relu(self.to_token(atoms)), token, n_tokens) + self.token_of_single(single)
        for number, block in enumerate(self.tokens):
            tokens = block(tokens, token_bias[number], single, everyone, everyone)
        atoms = atoms + self.to_atoms(self.norm_token(tokens)).index_select(1, token)
        for number, block in enumerate(self.atoms_out):
            atoms = block(atoms, atom_bias[self.n_atom_blocks + number], given, queries, keys)
        denoised = self.edm.denoised(noisy, self.to_positions(atoms), noise_level)
        if self.refinement is None:
            return denoised
        anchor = prepared[8].repeat_interleave(n_times, dim=0)
        return self.refinement(anchor + denoised, atoms, noise_level, prepared[6], prepared[7]) - anchor
