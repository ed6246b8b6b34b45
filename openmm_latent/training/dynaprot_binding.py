"""From a trained DynaProt network and one structure, or from a covariance at hand, to a bundle for that protein."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from openmm import app
from torch import Tensor

from openmm_latent.data.backbone import Backbone, read_backbone
from openmm_latent.errors import require
from openmm_latent.models.dynaprot.backmapped import BackmappedGaussian
from openmm_latent.models.dynaprot.module import GaussianProtein
from openmm_latent.models.dynaprot.prediction import predict
from openmm_latent.models.dynaprot.weights import load_weights
from openmm_latent.topology import describe_atoms, heavy_atoms, match_atoms, whole_positions

if TYPE_CHECKING:
    from openmm_latent.bundle import Bundle

#: The Gaussian says nothing of time: these are plausible for a small protein, and the caller's to choose [ps].
LAG_TIME, RELAXATION_TIME = 100.0, 1000.0

REFERENCES = ("DynaProt, ICLR 2026, openreview uKn9PdREBA",)


def bind_dynaprot(
    weights: str | Path,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    lag_time: float = LAG_TIME,
    relaxation_time: float | Sequence[float] = RELAXATION_TIME,
    temperature: float | None = None,
    n_slow: int = 2,
    backmap: str | Path | None = None,
) -> Path:
    """Predict the Gaussian of one structure, which counts as its mean, and write the bundle.

    Parameters
    ----------
    weights : path
        What `save_weights` wrote.
    topology : openmm.app.Topology
        With N, CA and C of each residue; any number of chains.
    positions : ndarray
        (n_particles, 3) [nm] of the whole topology.
    out : path
        The bundle.
    lag_time : float
        [ps] that one jump is taken to cover.
    relaxation_time : float or sequence of float
        [ps] after which a mode has forgotten where it was: one for all modes, or one each; 0 for independent jumps.
        The network does not predict it.
    temperature : float, optional
        [K] of the Gaussian; unless given that of the network's training data.
    n_slow : int
        Leading modes that are slow coordinates, at most 8; the exact mode must drive each to its place: few are better.
    backmap : path, optional
        A bundle with `backmap`, such as CODLAD's, bound to the same protein. A jump then decodes Cα atoms alone, on
        which that bundle draws all others anew; unless given, residues move as rigid bodies and keep their torsions.

    Returns
    -------
    Path
        `out`

    Raises
    ------
    LatentError
        The weights are unreadable, the structure has no protein, or an argument is out of range.

    Source: DynaProt, section 3. As there, the input structure is the mean: for a strained one, minimise it before.
    """
    network, training = load_weights(weights)
    covariance = predict(network, topology, whole_positions(topology, positions)).covariance
    return export_gaussian(
        topology,
        positions,
        covariance,
        out,
        lag_time=lag_time,
        relaxation_time=relaxation_time,
        temperature=training.get("temperature") if temperature is None else temperature,
        n_slow=n_slow,
        backmap=backmap,
        config={"network": asdict(network.config)},
        training=training,
    )


def export_gaussian(
    topology: app.Topology,
    positions: np.ndarray,
    covariance: Tensor | np.ndarray,
    out: str | Path,
    *,
    mean: np.ndarray | None = None,
    lag_time: float = LAG_TIME,
    relaxation_time: float | Sequence[float] = RELAXATION_TIME,
    temperature: float | None = None,
    n_slow: int = 2,
    least_share: float = 1e-6,
    backmap: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write the bundle of a Gaussian, wherever it comes from: a network, MD, an elastic network.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray
        (n_particles, 3) [nm] of the whole topology: the structure whose bond lengths and angles jumps keep.
    covariance : Tensor or ndarray
        (3 n_residues, 3 n_residues) [nm^2] of the Cα atoms of residues with N, CA and C, in the topology's order and in
        the axes of `mean`.
    out : path
    mean : ndarray, optional
        (n_residues, 3) [nm] of those Cα atoms; unless given those in `positions`.
    lag_time, relaxation_time, temperature, n_slow
        As in `bind_dynaprot`.
    least_share : float
        Modes below this share of the whole variance are left to the MD.
    backmap
        As in `bind_dynaprot`.
    config, training : mapping, optional
        What else the manifest should say.

    Returns
    -------
    Path
        `out`

    Raises
    ------
    LatentError
        Shapes disagree, an argument is out of range, or the bundle `backmap` is of another protein or family.
    """
    from openmm_latent.bundle import export_bundle, training_facts

    positions = whole_positions(topology, positions)
    backbone = read_backbone(topology)
    second = None if backmap is None else _backmapping_bundle(backmap)
    drawn = None if second is None else match_atoms(second.manifest.atoms, topology, f"bundle '{second.name}'")
    chosen, bonds, residues = protein_atoms(topology, backbone, drawn)
    covariance = torch.as_tensor(covariance)
    require(
        covariance.shape == (3 * len(backbone), 3 * len(backbone)),
        f"covariance must have shape (3 n_residues, 3 n_residues) = {(3 * len(backbone),) * 2} [nm^2], got "
        f"{tuple(covariance.shape)}; give that of the Cα atoms of residues with N, CA and C",
    )
    atoms = describe_atoms(topology, chosen)
    options = {
        "lag_time": lag_time,
        "relaxation_time": relaxation_time,
        "mean": mean,
        "n_slow": n_slow,
        "least_share": least_share,
    }
    shown = (atoms, bonds, residues, positions[chosen], covariance)
    module: GaussianProtein
    if second is None:
        module = GaussianProtein(*shown, **options)
    else:
        module = BackmappedGaussian(second.module, second.manifest.noise_sizes["backmap"], *shown, **options)
    everything = list(topology.atoms())
    known = dict(training or {})
    return export_bundle(
        module,
        out,
        family="DynaProt",
        atoms=atoms,
        masses=[everything[atom].element.mass._value for atom in chosen],
        lag_time=lag_time,
        config={
            "relaxation_time": np.asarray(relaxation_time, dtype=np.float64).tolist(),
            "n_slow": n_slow,
            "least_share": least_share,
            **(
                {}
                if second is None
                else {"backmap": {"family": second.manifest.family, "sha256": second.manifest.sha256}}
            ),
            **dict(config or {}),
        },
        training=training_facts({**known, "temperature": temperature}),
        reference_positions=module.reference.float().numpy(),
        references=[*REFERENCES, *([] if second is None else second.manifest.references)],
    )


def _backmapping_bundle(path: str | Path) -> Bundle:
    """Load the bundle that draws atoms on Cα atoms."""
    from openmm_latent.bundle import load_bundle

    bundle = load_bundle(path)
    require(
        "backmap" in bundle.manifest.capabilities,
        f"backmap: bundle '{bundle.name}' of family {bundle.manifest.family} cannot build atoms on a trace; give one "
        f"that `openmm-latent bind` made of weights of `train codlad`",
    )
    return bundle


def protein_atoms(
    topology: app.Topology, backbone: Backbone, drawn: Sequence[int] | None = None
) -> tuple[list[int], np.ndarray, list[dict[str, int]]]:
    """Choose the heavy atoms that move with a backbone: those of its residues, and what hangs on them by bonds.

    Parameters
    ----------
    topology : openmm.app.Topology
    backbone : Backbone
    drawn : sequence of int, optional
        The topology's indices of the atoms instead, in the order that is wanted.

    Returns
    -------
    chosen : list of int
        (n_atoms,) the topology's indices, in its order unless `drawn` gives another.
    bonds : ndarray of int
        (n_bonds, 2) places in `chosen`.
    residues : list of dict
        For each residue of the backbone, name -> place in `chosen`.
    """
    heavy = set(heavy_atoms(topology))
    pairs = [(a.index, b.index) for a, b in topology.bonds() if a.index in heavy and b.index in heavy]
    neighbours: dict[int, set[int]] = {}
    for first, second in pairs:
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    found = set(backbone.ca.tolist())
    front = list(found)
    while front:
        front = [other for atom in front for other in neighbours.get(atom, ()) if other not in found]
        found.update(front)
    chosen = sorted(found) if drawn is None else list(drawn)
    place = {atom: i for i, atom in enumerate(chosen)}
    members = list(topology.residues())
    absent = [members[i] for i, ca in zip(backbone.residue_index, backbone.ca, strict=True) if ca not in place]
    require(
        not absent,
        f"backmap draws no atoms of {', '.join(f'{one.name} {one.id}' for one in absent[:3])}, which has N, CA and C; "
        f"leave modified residues to the rigid bodies of a bundle without it",
    )
    bonds = np.array([(place[a], place[b]) for a, b in pairs if a in place and b in place], dtype=np.int64)
    residues = [
        {atom.name: place[atom.index] for atom in members[number].atoms() if atom.index in place}
        for number in backbone.residue_index
    ]
    return chosen, bonds.reshape(-1, 2), residues
