"""Small CODLAD models made without training: one that draws widely, one that knows a single structure."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from openmm import app, unit

from openmm_latent.data.residue_slots import read_residue_slots
from openmm_latent.models.codlad import CONFIGS
from openmm_latent.models.codlad.graphs import Protein
from openmm_latent.models.codlad.module import CODLAD

CONFIG = replace(
    CONFIGS["tiny"],
    n_codes=64,
    n_scalars=2,
    n_vectors=1,
    n_encoder_layers=1,
    embedding=6,
    encoder_hidden=4,
    decoder_width=32,
    n_decoder_layers=2,
    denoiser_width=16,
    n_denoiser_encoder_layers=1,
    n_denoiser_decoder_layers=1,
    n_denoiser_neighbours=6,
    n_sampling_steps=5,
)


def load_l_peptides():
    """Return topology and positions [nm] of a helix of 8 and a strand of 5 residues (see data/make_l_peptides.py)."""
    pdb = app.PDBFile(str(Path(__file__).parent / "data" / "l_peptides.pdb"))
    return pdb.topology, np.array(pdb.positions.value_in_unit(unit.nanometer))


@lru_cache(maxsize=1)
def random_model():
    """Return a model of random weights, whose side chains and peptide planes depend on the latents that are drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CODLAD(CONFIG)
        for parameter in [*model.denoiser.parameters(), *model.autoencoder.decoder.parameters()]:
            if parameter.ndim > 1 and not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.3)
        model.autoencoder.latent_mean.copy_(torch.tensor([0.2, 0.0, -0.1]))
        model.autoencoder.latent_std.copy_(torch.tensor([0.9, 1.1, 1.0]))
    return model.eval()


def taught_model(topology, positions, n_steps=150):
    """Return a model that builds one structure, (n_atoms, 3) [nm], on its own trace, whatever it draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CODLAD(CONFIG)
    slots = read_residue_slots(topology, positions, others="leave out")
    protein = Protein(slots.residues)
    frame = torch.tensor(slots.take(positions)[None], dtype=torch.float32)
    goal = protein.coordinates.to_internal(frame)
    decoder = model.autoencoder.decoder
    with torch.no_grad():
        model.autoencoder.quantiser.codebook.codes.zero_()  # whatever is drawn, this is decoded
    codes = torch.zeros(1, len(slots.residues), 3)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for _ in range(n_steps):
        raw = decoder(codes, frame[:, :, 1], protein.types, protein.chains, protein.anchors)
        wrong = protein.coordinates.bounded(raw) - goal
        loss = (10.0 * wrong[..., 0]).square().sum() + wrong[..., 1].square().sum()
        # a root, whose slope does not vanish half a turn away
        loss = loss + (2.0 - 2.0 * torch.cos(wrong[..., 2]) + 1e-4).sqrt().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def trace_topology(topology, positions):
    """Return the Cα atoms of a topology as a topology of their own, and their positions (n_residues, 3) [nm]."""
    trace, cas = app.Topology(), []
    for chain in topology.chains():
        copied = trace.addChain(chain.id)
        for residue in chain.residues():
            for atom in residue.atoms():
                if atom.name == "CA":
                    cas.append(atom.index)
                    trace.addAtom("CA", app.element.carbon, trace.addResidue(residue.name, copied, residue.id))
    return trace, np.asarray(positions)[cas]
