"""Heavy atoms to latents: equivariant messages on a graph of atoms and one of residues, with edges across.

Atoms are nodes at their places, residues at their Cα. A layer sends messages between atoms, between residues, and both
ways between an atom and its residue. Of the residues' features only scalars are read out, odd ones with the even: the
latent is invariant to rotation and translation, and tells an image from its mirror image.

Source: CODLAD, hierarchical encoder; tensor products of e3nn, Geiger and Smidt, arXiv 2207.09453.
DISCREPANCY(CODLAD, encoder): cross edges join each atom with its own residue. Messages are averaged with weights that
fall smoothly to 0 at the cutoff, not normalised by a batch's statistics. The `tiny` configuration's readout also sees
each residue's own internal coordinates, which a few hundred frames teach too little to find.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from e3nn import o3
from e3nn.nn import FullyConnectedNet, Gate
from torch import Tensor, nn

from openmm_latent.models.codlad.config import CODLADConfig
from openmm_latent.models.codlad.graphs import Protein, RadialBasis, radius_edges
from openmm_latent.nn.residue_geometry import CA, INTERNAL_SLOTS, N_SLOTS, UNKNOWN

#: No atom of a residue is farther from its Cα than this [nm].
_RESIDUE_REACH = 1.0


@dataclass(frozen=True)
class AtomGraphs:
    """Edges of some frames of one protein, both ways round, on the flattened nodes of all frames.

    Attributes
    ----------
    atoms : Tensor
        (2, n_edges) int64, counted as n_atoms frame + atom, in the order of slots that hold one
    residues : Tensor
        (2, n_edges) int64, counted as n_residues frame + residue
    """

    atoms: Tensor
    residues: Tensor


def atom_graphs(protein: Protein, positions: Tensor, config: CODLADConfig) -> AtomGraphs:
    """Find the edges of frames (batch, n_residues, 15, 3) [nm]."""
    frames = positions.detach().cpu()
    atoms = frames[:, protein.has_atom.cpu()].numpy()
    device = positions.device
    return AtomGraphs(
        torch.as_tensor(radius_edges(atoms, config.atom_cutoff)).to(device),
        torch.as_tensor(radius_edges(frames[:, :, CA].numpy(), config.residue_cutoff)).to(device),
    )


class EquivariantMessages(nn.Module):
    """Messages along edges: tensor products of features and directions, weighted by what ends and distance say.

    An edge weighs each channel of each path; channels are mixed after the sum over edges, as in NequIP (Batzner et al.,
    Nature Communications 13, 2453, 2022): a third of the time of weights that mix them edge by edge.
    """

    def __init__(
        self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, n_scalars: int, config: CODLADConfig, cutoff: float
    ):
        super().__init__()
        self.n_scalars = n_scalars
        self.harmonics = o3.Irreps.spherical_harmonics(config.max_degree)
        self.radial = RadialBasis(config.n_radial, cutoff)
        paths = [
            (i, j, out)
            for i, (_, one) in enumerate(irreps_in)
            for j, (_, other) in enumerate(self.harmonics)
            for out in one * other
            if out in irreps_out
        ]
        between = o3.Irreps([(irreps_in[i].mul, out) for i, _, out in paths])
        instructions = [(i, j, k, "uvu", True) for k, (i, j, _) in enumerate(paths)]
        self.product = o3.TensorProduct(irreps_in, self.harmonics, between, instructions, shared_weights=False)
        self.mix = o3.Linear(between, irreps_out)
        n_edge = config.n_radial + 2 * n_scalars
        self.weights = FullyConnectedNet([n_edge, config.encoder_hidden, self.product.weight_numel], nn.functional.silu)

    def forward(self, sources: Tensor, targets: Tensor, places: tuple[Tensor, Tensor], edges: Tensor) -> Tensor:
        """Return the weighted mean of messages to each target.

        Parameters
        ----------
        sources, targets : Tensor
            (n_sources, irreps_in), (n_targets, irreps_in); scalars come first
        places : tuple of Tensor
            (n_sources, 3), (n_targets, 3) [nm]
        edges : Tensor
            (2, n_edges) int64, source and target

        Returns
        -------
        Tensor
            (n_targets, irreps_out)
        """
        source, target = edges
        arrows = places[0][source] - places[1][target]
        distances = arrows.square().sum(-1).clamp(min=1e-12).sqrt()
        directions = o3.spherical_harmonics(self.harmonics, arrows, normalize=True, normalization="component")
        ends = [sources[source, : self.n_scalars], targets[target, : self.n_scalars]]
        weights = self.weights(torch.cat([self.radial(distances), *ends], dim=1))
        share = self.radial.envelope(distances)
        messages = self.product(sources[source], directions, weights) * share.unsqueeze(1)
        total = messages.new_zeros(len(targets), messages.shape[1]).index_add(0, target, messages)
        count = share.new_ones(len(targets)).index_add(0, target, share)
        return self.mix(total / count.unsqueeze(1))


class HierarchicalLayer(nn.Module):
    """One round of messages: to atoms from atoms and residues, then to residues from residues and atoms."""

    def __init__(self, hidden: o3.Irreps, config: CODLADConfig):
        super().__init__()
        n, v = config.n_scalars, config.n_vectors
        self.gates = nn.ModuleList(
            Gate(
                f"{n}x0e+{n}x0o",
                [torch.nn.functional.silu, torch.tanh],
                f"{2 * v}x0e",
                [torch.sigmoid],
                f"{v}x1o+{v}x1e",
            )
            for _ in range(2)
        )
        before = self.gates[0].irreps_in
        self.own = nn.ModuleList(o3.Linear(hidden, before) for _ in range(2))
        cutoffs = {
            "atoms": config.atom_cutoff,
            "residues": config.residue_cutoff,
            "upwards": _RESIDUE_REACH,
            "downwards": _RESIDUE_REACH,
        }
        self.messages = nn.ModuleDict(
            {name: EquivariantMessages(hidden, before, n, config, cutoff) for name, cutoff in cutoffs.items()}
        )

    def forward(
        self, atoms: Tensor, residues: Tensor, places: tuple[Tensor, Tensor], edges: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Update atoms (n_atoms, hidden) and residues (n_residues, hidden) at their places [nm]."""
        here, there = places
        send = self.messages
        to_atoms = send["atoms"](atoms, atoms, (here, here), edges["atoms"])
        to_atoms = to_atoms + send["downwards"](residues, atoms, (there, here), edges["downwards"])
        atoms = atoms + self.gates[0](self.own[0](atoms) + to_atoms)
        to_residues = send["residues"](residues, residues, (there, there), edges["residues"])
        to_residues = to_residues + send["upwards"](atoms, residues, (here, there), edges["upwards"])
        return atoms, residues + self.gates[1](self.own[1](residues) + to_residues)


class Encoder(nn.Module):
    """Heavy atoms to `n_latent` numbers a residue.

    Parameters
    ----------
    config : CODLADConfig
    """

    def __init__(self, config: CODLADConfig):
        super().__init__()
        self.config = config
        n, v, width = config.n_scalars, config.n_vectors, config.embedding
        hidden = o3.Irreps(f"{n}x0e+{n}x0o+{v}x1o+{v}x1e")
        self.n_hidden, self.n_scalars = hidden.dim, n
        self.atom_embedding = nn.Embedding((UNKNOWN + 1) * N_SLOTS, n)
        self.residue_embedding = nn.Embedding(UNKNOWN + 1, n)
        self.layers = nn.ModuleList(HierarchicalLayer(hidden, config) for _ in range(config.n_encoder_layers))
        self.readout = nn.Linear(2 * n, width)
        if config.uses_internal_inputs:
            self.type_embedding = nn.Embedding(UNKNOWN + 1, width)
            self.from_internal = nn.Sequential(
                nn.Linear(4 * len(INTERNAL_SLOTS) + width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
            )
        self.to_latent = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        # each type of residue has its own weights: its torsions are others
        self.weight = nn.Parameter(torch.randn(UNKNOWN + 1, width, config.n_latent) / width**0.5)

    def forward(self, protein: Protein, positions: Tensor, graphs: AtomGraphs | None = None) -> Tensor:
        """Encode.

        Parameters
        ----------
        protein : Protein
        positions : Tensor
            (batch, n_residues, 15, 3) [nm]
        graphs : AtomGraphs, optional

        Returns
        -------
        Tensor
            (batch, n_residues, n_latent)
        """
        n_batch, n_residues = positions.shape[:2]
        if graphs is None:
            graphs = atom_graphs(protein, positions, self.config)
        positions = positions - positions[:, :, CA : CA + 1].mean(1, keepdim=True)
        chosen = protein.has_atom.flatten().nonzero().flatten()  # (n_atoms,) flat slots
        places = (positions.flatten(1, 2)[:, chosen].flatten(0, 1), positions[:, :, CA].flatten(0, 1))
        kinds = (protein.types.unsqueeze(1) * N_SLOTS + torch.arange(N_SLOTS, device=chosen.device)).flatten()[chosen]
        atoms = self._scalars(self.atom_embedding(kinds), n_batch)
        residues = self._scalars(self.residue_embedding(protein.types), n_batch)
        edges = _edges(graphs, chosen // N_SLOTS, n_batch, n_residues)
        for layer in self.layers:
            atoms, residues = layer(atoms, residues, places, edges)
        embedding = self.readout(residues[:, : 2 * self.n_scalars]).view(n_batch, n_residues, -1)
        if self.config.uses_internal_inputs:
            kind = self.type_embedding(protein.types).expand(n_batch, -1, -1)
            embedding = embedding + self.from_internal(torch.cat([_internal_features(protein, positions), kind], dim=2))
        return torch.einsum("bni,nio->bno", self.to_latent(embedding), self.weight[protein.types])

    def _scalars(self, embedded: Tensor, n_batch: int) -> Tensor:
        """Return features of the nodes of all frames, (n_batch n_nodes, n_hidden), of their even scalars."""
        padded = nn.functional.pad(embedded, (0, self.n_hidden - self.n_scalars))
        return padded.repeat(n_batch, 1)


def _edges(graphs: AtomGraphs, owners: Tensor, n_batch: int, n_residues: int) -> dict[str, Tensor]:
    """Return all edges, (2, n_edges) source and target; `owners`, (n_atoms,), are the residues of the atoms."""
    frames = torch.arange(n_batch, device=owners.device).unsqueeze(1)
    atoms = torch.arange(n_batch * len(owners), device=owners.device)
    residues = (owners + n_residues * frames).flatten()
    return {
        "atoms": graphs.atoms,
        "residues": graphs.residues,
        "upwards": torch.stack([atoms, residues]),
        "downwards": torch.stack([residues, atoms]),
    }


def _internal_features(protein: Protein, positions: Tensor) -> Tensor:
    """Return offsets of lengths and angles from the ideal, cosines and sines of torsions', (batch, n_residues, 56)."""
    coordinates = protein.coordinates
    offset = coordinates.to_internal(positions) - coordinates.ideal
    there = (coordinates.ideal[..., 0] > 0).to(positions.dtype).unsqueeze(-1)
    parts = [10.0 * offset[..., 0], offset[..., 1], torch.cos(offset[..., 2]), torch.sin(offset[..., 2])]
    return (torch.stack(parts, dim=-1) * there).flatten(2)
