"""From a trained CODLAD and one structure to a bundle for that protein."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app

from openmm_latent.data.residue_slots import read_residue_slots, require_nothing_hangs_on
from openmm_latent.models.codlad.module import CODLAD, BackmappedProtein
from openmm_latent.models.codlad.weights import load_weights
from openmm_latent.nn.residue_geometry import N_SLOTS
from openmm_latent.topology import describe_atoms, whole_positions

#: A jump draws what is independent of the frame before; side chains need about so long for it [ps].
LAG_TIME = 100.0

REFERENCES = ("CODLAD, arXiv 2410.13264",)


def bind_codlad(
    weights: str | Path,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    lag_time: float = LAG_TIME,
    n_steps: int | None = None,
) -> Path:
    """Write the bundle of one protein, without training.

    Parameters
    ----------
    weights : path
        What `train codlad` wrote.
    topology : openmm.app.Topology
        Chains of at least three of the 20 amino acids with all heavy atoms, disulphides as bonds. Caps ride on their
        neighbours; what hangs on no residue, water or a ligand, stays out of the model.
    positions : ndarray
        (n_particles, 3) [nm] of the whole topology; they tell breaks of chains, and are the manifest's reference.
    out : path
        The bundle.
    lag_time : float
        [ps] that one jump is taken to cover.
    n_steps : int, optional
        Steps of a sample; the configuration's unless given. Fewer are quicker and coarser.

    Returns
    -------
    Path
        `out`

    Raises
    ------
    LatentError
        The weights are unreadable, the protein has other residues or lacks atoms, or an argument is out of range.
    """
    model, training = load_weights(weights)
    return export_backmapping(model, topology, positions, out, lag_time=lag_time, n_steps=n_steps, training=training)


def export_backmapping(
    model: CODLAD,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    lag_time: float = LAG_TIME,
    n_steps: int | None = None,
    training: dict[str, Any] | None = None,
) -> Path:
    """Write the bundle of a model at hand; for the arguments see `bind_codlad`."""
    from openmm_latent.bundle import export_bundle, training_facts

    module, chosen = backmapped_protein(model, topology, positions, n_steps)
    disulphides = module.bridges.corners[:, :, 0] // N_SLOTS
    everything = list(topology.atoms())
    return export_bundle(
        module,
        out,
        family="CODLAD",
        atoms=describe_atoms(topology, chosen),
        masses=[everything[atom].element.mass._value for atom in chosen],
        lag_time=lag_time,
        config={
            **asdict(model.config),
            "terms": list(model.config.terms),
            "n_steps": module.n_draws,
            "disulphides": disulphides.tolist(),
        },
        training=training_facts(training or {}),
        reference_positions=np.asarray(positions, dtype=np.float64)[chosen],
        references=REFERENCES,
    )


def backmapped_protein(
    model: CODLAD, topology: app.Topology, positions: np.ndarray, n_steps: int | None = None
) -> tuple[BackmappedProtein, list[int]]:
    """Return the contract's module of a topology's protein, and the topology's indices of its model atoms."""
    found = read_residue_slots(topology, whole_positions(topology, positions), others="leave out")
    require_nothing_hangs_on(found, topology, "CODLAD")
    slots, chosen = found.in_order()
    module = BackmappedProtein(model, found.residues, slots, n_steps, found.disulphides)
    return module.eval(), chosen
