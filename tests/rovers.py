"""Small ConfRover models made without training, and one that draws a single structure."""

from dataclasses import replace
from functools import lru_cache
from typing import Tuple  # noqa: UP035  TorchScript reads these annotations

import numpy as np
import torch
from torch import Tensor, nn

from backmapped import load_l_peptides
from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.diffusion.rotations import RotationDiffusion
from openmm_latent.diffusion.translations import TranslationDiffusion
from openmm_latent.models.confrover import CONFIGS, ConfRover
from openmm_latent.models.confrover.module import ConfRoverProtein
from openmm_latent.nn.frame_coordinates import FrameCoordinates, residue_frames
from openmm_latent.topology import describe_atoms

CONFIG = replace(
    CONFIGS["tiny"],
    type_width=6,
    n_distance_bins=8,
    encoder_width=8,
    encoder_head_width=4,
    width=16,
    n_temporal_layers=3,
    temporal_hidden=16,
    n_temporal_heads=2,
    n_single_heads=2,
    triangle_head_width=4,
    n_context=4,
    decoder_width=16,
    decoder_pair_width=8,
    n_decoder_blocks=2,
    n_decoder_heads=2,
    n_scalar=4,
    n_query_points=2,
    n_value_points=2,
    n_transformer_heads=2,
    skip_width=4,
    n_sampling_steps=4,
)


def random_model(**changes):
    """Return a model of random weights, those that start at zero among them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = ConfRover(replace(CONFIG, **changes))
        for parameter in model.decoder.parameters():
            if not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@lru_cache(maxsize=1)
def peptides():
    """Return topology, positions [nm], slots, model atoms, their places in slots, and bonds, of 13 residues."""
    topology, positions = load_l_peptides()
    found = read_residue_slots(topology, positions)
    flat = found.atoms.reshape(-1)
    slots = np.flatnonzero(flat >= 0)
    slots = slots[np.argsort(flat[slots])]
    chosen = flat[slots].tolist()
    place = {atom: i for i, atom in enumerate(chosen)}
    pairs = [(a.index, b.index) for a, b in topology.bonds()]
    bonds = np.array([(place[a], place[b]) for a, b in pairs if a in place and b in place])
    return topology, positions, found, chosen, slots, bonds


def module_of(model, **arguments):
    """Return the contract's module of the two peptides."""
    topology, positions, found, chosen, slots, bonds = peptides()
    arguments = {"lag_time": 50.0} | arguments
    atoms = describe_atoms(topology, chosen)
    return ConfRoverProtein(model, found.residues, slots, atoms, bonds, positions[chosen], **arguments).eval()


class KnownFrame(nn.Module):
    """A decoder that takes one frame for clean, whatever it is shown."""

    def __init__(self, config, rotations: Tensor, ca: Tensor, torsions: Tensor):
        super().__init__()
        self.translations = TranslationDiffusion(config.beta_first, config.beta_last)
        self.noise_of_rotations = RotationDiffusion(config.sigma_first, config.sigma_last)
        self.register_buffer("rotations", rotations)
        self.register_buffer("ca", ca - ca.mean(dim=0))
        self.register_buffer("torsions", torch.stack([torch.sin(torsions), torch.cos(torsions)], dim=-1))

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        sequence_single: Tensor,
        sequence_pair: Tensor,
        noisy_rotations: Tensor,
        noisy_ca: Tensor,
        diffusion_time: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
        n_batch = noisy_ca.shape[0]
        return (
            self.rotations.unsqueeze(0).expand(n_batch, -1, -1, -1),
            self.ca.unsqueeze(0).expand(n_batch, -1, -1),
            self.torsions.unsqueeze(0).expand(n_batch, -1, -1, -1),
        )


def knowing_module(**arguments):
    """Return a module whose every draw is the peptides' structure, but for ideal lengths and angles."""
    model = random_model()
    module = module_of(model, **arguments)
    _, positions, found, _, _, _ = peptides()
    frame = torch.tensor(found.take(positions)[None], dtype=torch.float32)
    rotations, ca = residue_frames(frame)
    torsions = FrameCoordinates(found.residues).torsions(frame)
    module.sampler.decoder = KnownFrame(CONFIG, rotations[0], ca[0], torsions[0])
    return module
