"""Peptides of any sequence on wound Cα traces, with side chains at random: frames for networks that build atoms."""

import numpy as np
import torch

from openmm_latent.data.residue_slots import ProteinFrames, exchange_symmetric
from openmm_latent.nn.internal_coordinates import TraceCoordinates
from openmm_latent.nn.residue_geometry import RESIDUE_NAMES, describe_residues

#: One letter names of the standard residues, in the order of `RESIDUE_NAMES`.
LETTERS = "ARNDCQEGHILKMFPSTWYV"


def types_of(sequence):
    """Return places in `RESIDUE_NAMES` of a sequence of letters, (n_residues,)."""
    return np.array([LETTERS.index(letter) for letter in sequence])


def wound_trace(n_residues, n_frames=1, seed=1):
    """Return Cα traces like that of a helix, each a little other, (n_frames, n_residues, 3) [nm]."""
    rng = np.random.default_rng(seed)
    turn = np.radians(100.0) * np.arange(n_residues)
    helix = np.stack([0.23 * np.cos(turn), 0.23 * np.sin(turn), 0.15 * np.arange(n_residues)], axis=1)
    return torch.tensor(helix + 0.01 * rng.normal(size=(n_frames, n_residues, 3)), dtype=torch.float32)


def peptide_frames(sequence, n_frames=1, seed=1, chains=None):
    """Return frames of a peptide: lengths and angles near the ideal, chi anywhere."""
    residues = describe_residues(types_of(sequence), chains)
    coordinates = TraceCoordinates(residues)
    generator = torch.Generator().manual_seed(seed)
    raw = 0.05 * torch.randn(n_frames, len(residues), 14, 3, generator=generator)
    turns = coordinates.is_free.clone()
    turns[:, :3] = False  # N, C and O of the backbone
    chi = 2 * torch.pi * torch.rand(raw.shape[:3], generator=generator)
    raw[..., 2] = torch.where(turns, chi, raw[..., 2])
    positions = coordinates.to_cartesian(wound_trace(len(residues), n_frames, seed), coordinates.bounded(raw)).numpy()
    return ProteinFrames("peptide", residues, np.zeros((0, 2), int), exchange_symmetric(residues, positions))


assert len(LETTERS) == len(RESIDUE_NAMES)
