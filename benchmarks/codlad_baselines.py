"""What CODLAD is judged beside: diffusion of Cartesian coordinates, and ideal geometry with pdbfixer's side chains."""

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pdbfixer
import torch
from codlad_scores import topology_of
from openmm import app, unit
from torch import Tensor

from openmm_latent.data.residue_slots import ProteinFrames, read_residue_slots
from openmm_latent.diffusion.gaussian_diffusion import AncestralSampler, GaussianDiffusion
from openmm_latent.models.codlad import CODLADConfig, Protein
from openmm_latent.models.codlad.graphs import trace_frames
from openmm_latent.models.codlad.module import BOUND
from openmm_latent.nn.residue_geometry import CA, CB, INTERNAL_SLOTS, UNKNOWN, C, N, O
from openmm_latent.training.codlad_diffusion import EncodedFrames, Progress, train_denoiser

_N_NUMBERS = 3 * len(INTERNAL_SLOTS)


class CartesianDiffusion:
    """The same denoiser, schedule and training on where atoms lie from their Cα, in the frame of the trace.

    Displacements of each kind of residue, (14, 3) numbers, are standardised one by one. Nothing holds bonds or hands.
    """

    def __init__(self, learned: Sequence[ProteinFrames], config: CODLADConfig):
        self.config = replace(config, n_latent=_N_NUMBERS)
        sums = np.zeros((UNKNOWN + 1, 3, _N_NUMBERS))  # counts, sums, squares of what is there
        for example in learned:
            numbers, is_there = self._displacements(Protein(example.residues), torch.as_tensor(example.positions))
            for kind in np.unique(example.residues.types):
                where = example.residues.types == kind
                rows = numbers[:, where].double().flatten(0, 1).numpy()
                held = is_there[where].repeat(len(example), axis=0)
                sums[kind] += [held.sum(0), (rows * held).sum(0), (rows**2 * held).sum(0)]
        count = np.maximum(sums[:, 0], 1.0)
        mean = sums[:, 1] / count
        variance = sums[:, 2] / count - mean**2
        self.mean = torch.tensor(mean, dtype=torch.float32)
        self.std = torch.tensor(np.where(sums[:, 0] > 1, np.sqrt(np.maximum(variance, 1e-6)), 1.0), dtype=torch.float32)

    @staticmethod
    def _displacements(protein: Protein, frames: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return displacements (n_frames, n_residues, 42) [nm] and which atoms there are, (n_residues, 42)."""
        trace = frames[:, :, CA]
        axes = trace_frames(trace, protein.anchors)
        local = torch.matmul((frames - trace.unsqueeze(2))[:, :, list(INTERNAL_SLOTS)], axes)
        return local.flatten(2), protein.has_atom[:, list(INTERNAL_SLOTS)].repeat_interleave(3, dim=1).numpy()

    def encode(self, example: ProteinFrames) -> EncodedFrames:
        """Return what the denoiser learns from; an atom that is absent has the mean place of its kind."""
        protein, frames = Protein(example.residues), torch.as_tensor(example.positions)
        numbers, is_there = self._displacements(protein, frames)
        standard = (numbers - self.mean[protein.types]) / self.std[protein.types] * torch.as_tensor(is_there)
        return EncodedFrames(protein, frames[:, :, CA], standard)

    def train(self, learned: Sequence[ProteinFrames], work: Path, progress: Progress | None = None) -> None:
        """Train the denoiser, or find it again."""
        taught = [self.encode(example) for example in learned]
        self.denoiser = train_denoiser(taught, self.config, work_directory=work, device="cpu", progress=progress)

    @torch.no_grad()
    def draw(self, example: ProteinFrames, trace: np.ndarray, seed: int) -> np.ndarray:
        """Draw atoms on traces: (n_frames, n_residues, 3) [nm] -> (n_frames, n_residues, 15, 3)."""
        protein, traces = Protein(example.residues), torch.as_tensor(trace, dtype=torch.float32)
        diffusion = GaussianDiffusion(self.config.n_diffusion_steps, self.config.n_sampling_steps, bound=BOUND)
        sampler = AncestralSampler(self.denoiser, diffusion)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(traces), sampler.n_draws, traces.shape[1], _N_NUMBERS, generator=generator)
        context = self.denoiser.prepare(traces, protein.types, protein.chains, protein.anchors)
        numbers = sampler(noise, context) * self.std[protein.types] + self.mean[protein.types]
        local = numbers.unflatten(2, (len(INTERNAL_SLOTS), 3))
        built = traces.unsqueeze(2).repeat(1, 1, 15, 1)
        moved = torch.matmul(local, trace_frames(traces, protein.anchors).transpose(-1, -2))
        built[:, :, list(INTERNAL_SLOTS)] += moved * protein.has_atom[:, list(INTERNAL_SLOTS), None]
        return built.numpy()


def ideal_backbone(example: ProteinFrames, trace: np.ndarray) -> np.ndarray:
    """Return all atoms in ideal geometry on one trace: (n_residues, 3) [nm] -> (n_residues, 15, 3)."""
    coordinates = Protein(example.residues).coordinates
    internal = coordinates.bounded(torch.zeros(1, len(trace), len(INTERNAL_SLOTS), 3))
    return coordinates.to_cartesian(torch.as_tensor(trace, dtype=torch.float32)[None], internal)[0].numpy()


def pdbfixer_rebuild(example: ProteinFrames, trace: np.ndarray) -> np.ndarray:
    """Rebuild one frame: backbone and CB in ideal geometry, the rest of side chains by pdbfixer; no rotamers are known.

    Parameters
    ----------
    example : ProteinFrames
    trace : ndarray
        (n_residues, 3) [nm]

    Returns
    -------
    ndarray
        (n_residues, 15, 3) [nm]
    """
    built, whole = ideal_backbone(example, trace), topology_of(example)
    modeller = app.Modeller(whole, built[example.residues.has_atom] * unit.nanometer)
    kept = ("N", "CA", "C", "O", "OXT", "CB")  # without CB, pdbfixer turned half of the residues over
    modeller.delete([atom for atom in whole.atoms() if atom.name not in kept])
    text = io.StringIO()
    app.PDBFile.writeFile(modeller.topology, modeller.positions, text, keepIds=True)
    fixer = pdbfixer.PDBFixer(pdbfile=io.StringIO(text.getvalue()))
    fixer.missingResidues = {}
    fixer.findMissingAtoms()
    random.seed(1)
    fixer.addMissingAtoms(seed=1)
    positions = np.array(fixer.positions.value_in_unit(unit.nanometer))
    found = read_residue_slots(fixer.topology, positions)
    slots = found.take(positions)
    slots[:, [N, CA, C, O, CB]] = built[:, [N, CA, C, O, CB]]  # beyond the thousandths of a PDB file
    return np.where(example.residues.has_atom[:, :, None], slots, trace[:, None])
