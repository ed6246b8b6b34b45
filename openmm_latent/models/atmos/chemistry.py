"""What does not move of a complex, as tensors, and its embedding: the context of all frames.

| symbol | variable |
|---|---|
| C, the chemical context | `Chemistry` |
| h_0 = (S_0, Z_0) | `Context.single`, `Context.pair` |

Source: ATMOS, section 3.3; Abramson et al., Nature 630, 493 (2024), supplement, algorithms 3 and 5.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from openmm_latent.data.complex_tokens import N_ORDERS, N_TOKEN_TYPES, NO_SLOT, ComplexTokens
from openmm_latent.errors import require
from openmm_latent.models.atmos.config import ATMOSConfig
from openmm_latent.nn.atom_attention import atom_windows
from openmm_latent.nn.pairformer import PairformerBlock
from openmm_latent.nn.residue_geometry import angle_pairs

#: Residues farther apart along a chain are told no more.
_FARTHEST = 32
#: Classes of a pair of tokens along the chain: -32 to 32, and other chains.
N_PLACES = 2 * _FARTHEST + 2
#: Classes of a pair of atoms or tokens by bonds: none, and an order each.
N_BOND_CLASSES = 1 + N_ORDERS
_N_ELEMENTS = 119
#: Numbers of an atom: hydrogens, heavy neighbours, charge, whether charges are known, whether it is a ligand's.
_N_NUMBERS = 5


class Chemistry(NamedTuple):
    """A complex as tensors.

    Attributes
    ----------
    elements, slots, token : Tensor of int
        (n_atoms,)
    numbers : Tensor
        (n_atoms, 5)
    queries, keys, key_mask : Tensor
        See `AtomWindows`.
    atom_bonds : Tensor of int
        (n_windows, n_queries, n_keys) class of each pair of atoms
    is_same_token : Tensor
        (n_windows, n_queries, n_keys), 1 or 0
    types, centres : Tensor of int
        (n_tokens,)
    frames : Tensor of int
        (n_tokens, 3)
    has_frame, is_ligand : Tensor of bool
        (n_tokens,)
    places, token_bonds : Tensor of int
        (n_tokens, n_tokens) classes
    is_same_residue : Tensor
        (n_tokens, n_tokens), 1 or 0
    edges : Tensor of int
        (n_edges, 2) atoms one or two bonds apart
    lengths : Tensor
        (n_edges,) [nm] how far apart they usually are
    """

    elements: Tensor
    slots: Tensor
    token: Tensor
    numbers: Tensor
    queries: Tensor
    keys: Tensor
    key_mask: Tensor
    atom_bonds: Tensor
    is_same_token: Tensor
    types: Tensor
    centres: Tensor
    frames: Tensor
    has_frame: Tensor
    is_ligand: Tensor
    places: Tensor
    token_bonds: Tensor
    is_same_residue: Tensor
    edges: Tensor
    lengths: Tensor


class Context(NamedTuple):
    """The embedded chemistry, the same for all frames.

    Attributes
    ----------
    single : Tensor
        (1, n_tokens, n_single)
    pair : Tensor
        (1, n_tokens, n_tokens, n_pair)
    atoms : Tensor
        (1, n_atoms, n_atom)
    atom_pairs : Tensor
        (1, n_windows, n_queries, n_keys, n_atom_pair)
    """

    single: Tensor
    pair: Tensor
    atoms: Tensor
    atom_pairs: Tensor


def stiff_edges(tokens: ComplexTokens) -> np.ndarray:
    """Return atoms one or two bonds apart, (n_edges, 2)."""
    return np.concatenate([tokens.bonds, angle_pairs(tokens.bonds)]).astype(np.int64)


def edge_lengths(tokens: ComplexTokens, frames: np.ndarray) -> np.ndarray:
    """Return mean distances over one and two bonds, (n_edges,) [nm], of frames (n_frames, n_atoms, 3) [nm]."""
    edges = stiff_edges(tokens)
    frames = np.asarray(frames, dtype=np.float64)
    return np.linalg.norm(frames[:, edges[:, 0]] - frames[:, edges[:, 1]], axis=2).mean(axis=0)


def describe_complex(tokens: ComplexTokens, config: ATMOSConfig, lengths: np.ndarray) -> Chemistry:
    """Return a complex as tensors, on the CPU; `lengths`, (n_edges,) [nm], are those of `stiff_edges`."""
    n_atoms, n_tokens = tokens.n_atoms, len(tokens)
    windows = atom_windows(n_atoms, config.n_queries, config.n_keys)
    neighbours = np.bincount(tokens.bonds.reshape(-1), minlength=n_atoms)
    numbers = np.stack(
        [
            tokens.hydrogens / 2.0,
            neighbours / 2.0,
            tokens.charges,
            np.full(n_atoms, float(tokens.knows_charges)),
            tokens.is_ligand[tokens.token].astype(float),
        ],
        axis=1,
    )
    queries, keys = windows.queries.numpy(), windows.keys.numpy()
    ends = tokens.token[tokens.bonds]  # (n_bonds, 2)
    between = ends[:, 0] != ends[:, 1]
    apart = np.clip(tokens.residues[None] - tokens.residues[:, None], -_FARTHEST, _FARTHEST) + _FARTHEST
    same_chain = tokens.chains[None] == tokens.chains[:, None]
    wholes = torch.from_numpy
    return Chemistry(
        elements=wholes(tokens.elements),
        slots=wholes(tokens.slots),
        token=wholes(tokens.token),
        numbers=wholes(numbers).float(),
        queries=windows.queries,
        keys=windows.keys,
        key_mask=windows.mask,
        atom_bonds=wholes(_bonds_in_windows(tokens, queries, keys)),
        is_same_token=wholes(tokens.token[queries][:, :, None] == tokens.token[keys][:, None]).float(),
        types=wholes(tokens.types),
        centres=wholes(tokens.centres),
        frames=wholes(tokens.frames),
        has_frame=wholes(tokens.frames[:, 0] != tokens.frames[:, 1]),
        is_ligand=wholes(tokens.is_ligand),
        places=wholes(np.where(same_chain, apart, N_PLACES - 1)),
        token_bonds=wholes(_classes(ends[between], tokens.orders[between], n_tokens)),
        is_same_residue=wholes(tokens.residues[None] == tokens.residues[:, None]).float(),
        edges=wholes(stiff_edges(tokens)),
        lengths=wholes(np.asarray(lengths, dtype=np.float64)).float(),
    )


def _classes(pairs: np.ndarray, orders: np.ndarray, n: int) -> np.ndarray:
    """Return the class of each pair, (n, n), of bonds (n_bonds, 2)."""
    found = np.zeros((n, n), dtype=np.int64)
    for one, other in (pairs.T, pairs.T[::-1]):
        found[one, other] = 1 + orders
    return found


def _bonds_in_windows(tokens: ComplexTokens, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the class of each pair of atoms in windows, (n_windows, n_queries, n_keys)."""
    from scipy.sparse import coo_array

    one, other = tokens.bonds.T
    values = np.concatenate([1 + tokens.orders] * 2)
    rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
    table = coo_array((values, (rows, columns)), shape=(tokens.n_atoms, tokens.n_atoms)).tocsr()
    return np.stack([table[q][:, k].toarray() for q, k in zip(queries, keys, strict=True)]).astype(np.int64)


class ContextEmbedding(nn.Module):
    """Embed chemistry: tokens, their pairs, atoms and their pairs in windows.

    Parameters
    ----------
    config : ATMOSConfig

    Source: AlphaFold 3, algorithms 3 and 5. DISCREPANCY(AlphaFold 3, algorithm 5): atoms are told by element, place in
    their residue, hydrogens, neighbours and charge instead of a reference conformer's positions and names: bonds, with
    their orders, say as much and need no conformer. DISCREPANCY(ATMOS, A.1): the paper fine-tunes Protenix's trunk,
    with its alignments; here are learned embeddings and, where given, features that another trunk has computed.
    """

    def __init__(self, config: ATMOSConfig):
        super().__init__()
        n_single, n_pair, n_atom, n_atom_pair = config.n_single, config.n_pair, config.n_atom, config.n_atom_pair
        self.of_element = nn.Embedding(_N_ELEMENTS, n_atom)
        self.of_slot = nn.Embedding(NO_SLOT + 1, n_atom)
        self.of_numbers = nn.Linear(_N_NUMBERS, n_atom)
        self.atom_hidden = nn.Sequential(nn.LayerNorm(n_atom), nn.Linear(n_atom, n_atom), nn.SiLU())
        self.atom_out = nn.Linear(n_atom, n_atom)
        self.of_atom_bond = nn.Embedding(N_BOND_CLASSES, n_atom_pair)
        self.of_same_token = nn.Parameter(torch.zeros(n_atom_pair))
        self.of_query, self.of_key = nn.Linear(n_atom, n_atom_pair), nn.Linear(n_atom, n_atom_pair)
        self.atom_pair_out = nn.Sequential(nn.SiLU(), nn.Linear(n_atom_pair, n_atom_pair))
        self.of_type = nn.Embedding(N_TOKEN_TYPES, n_single)
        self.of_atoms = nn.Linear(n_atom, n_single)
        self.of_place = nn.Embedding(N_PLACES, n_pair)
        self.of_token_bond = nn.Embedding(N_BOND_CLASSES, n_pair)
        self.of_same_residue = nn.Parameter(torch.zeros(n_pair))
        self.of_first, self.of_second = nn.Linear(n_single, n_pair), nn.Linear(n_single, n_pair)
        self.of_trunk_single = _optional(config.n_trunk_single, n_single)
        self.of_trunk_pair = _optional(config.n_trunk_pair, n_pair)
        self.blocks = nn.ModuleList(
            PairformerBlock(
                n_single,
                n_pair,
                config.n_heads,
                config.n_triangle_heads,
                config.triangle_head_width,
                config.transition_factor,
                config.dropout,
            )
            for _ in range(config.n_context_blocks)
        )

    def forward(self, chemistry: Chemistry, trunk_single: Tensor, trunk_pair: Tensor) -> Context:
        """Embed.

        Parameters
        ----------
        chemistry : Chemistry
        trunk_single, trunk_pair : Tensor
            (n_tokens, n_trunk_single), (n_tokens, n_tokens, n_trunk_pair); of no features where none are used

        Returns
        -------
        Context
        """
        atoms = self.of_element(chemistry.elements) + self.of_slot(chemistry.slots)
        atoms = (atoms + self.of_numbers(chemistry.numbers)).unsqueeze(0)
        atoms = atoms + self.atom_out(self.atom_hidden(atoms))
        atom_pairs = self.of_atom_bond(chemistry.atom_bonds)
        atom_pairs = atom_pairs + chemistry.is_same_token.unsqueeze(-1) * self.of_same_token
        asking = self.of_query(atoms[0])[chemistry.queries].unsqueeze(2)
        atom_pairs = atom_pairs + asking + self.of_key(atoms[0])[chemistry.keys].unsqueeze(1)
        atom_pairs = (atom_pairs + self.atom_pair_out(atom_pairs)).unsqueeze(0)

        n_tokens = chemistry.types.shape[0]
        single = self.of_type(chemistry.types).unsqueeze(0)
        # a token's centre stands for its atoms: a residue's type tells the rest
        single = single + self.of_atoms(atoms.index_select(1, chemistry.centres))
        if trunk_single.shape[1] > 0:
            single = single + self.of_trunk_single(trunk_single).unsqueeze(0)
        pair = self.of_place(chemistry.places) + self.of_token_bond(chemistry.token_bonds)
        pair = (pair + chemistry.is_same_residue.unsqueeze(-1) * self.of_same_residue).unsqueeze(0)
        pair = pair + self.of_first(single).unsqueeze(2) + self.of_second(single).unsqueeze(1)
        if trunk_pair.shape[2] > 0:
            pair = pair + self.of_trunk_pair(trunk_pair).unsqueeze(0)
        mask = torch.ones([1, n_tokens], dtype=torch.bool, device=single.device)
        for block in self.blocks:
            single, pair = block(single, pair, mask)
        return Context(single, pair, atoms, atom_pairs)


def _optional(n_in: int, n_out: int) -> nn.Module:
    """Return a norm and a linear map, or nothing where there are no features to take in."""
    return nn.Sequential(nn.LayerNorm(n_in), nn.Linear(n_in, n_out)) if n_in > 0 else nn.Identity()


def check_trunk(tokens: ComplexTokens, single: np.ndarray, pair: np.ndarray, config: ATMOSConfig) -> None:
    """Refuse trunk features of another shape than the configuration's and the complex's."""
    n = len(tokens)
    wanted = ((n, config.n_trunk_single), (n, n, config.n_trunk_pair))
    require(
        single.shape == wanted[0] and pair.shape == wanted[1],
        f"trunk features must have shapes {wanted[0]} and {wanted[1]} for this complex of {n} tokens and this "
        f"configuration, got {single.shape} and {pair.shape}; compute them anew, or train for these sizes",
    )
