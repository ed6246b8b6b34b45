"""From a trained ConfRover and one structure to a bundle for that protein."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app
from torch import Tensor

from openmm_latent.data.residue_slots import read_residue_slots, require_nothing_hangs_on
from openmm_latent.errors import require
from openmm_latent.models.confrover import ConfRover, load_weights
from openmm_latent.models.confrover.features import read_features
from openmm_latent.models.confrover.module import ConfRoverProtein
from openmm_latent.topology import describe_atoms, whole_positions

REFERENCES = ("ConfRover, arXiv 2505.17478",)


def bind_confrover(
    weights: str | Path,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    lag_time: float | None = None,
    n_steps: int | None = None,
    features: str | Path | None = None,
) -> Path:
    """Write the bundle of one protein, without training.

    Parameters
    ----------
    weights : path
        What `train confrover` wrote.
    topology : openmm.app.Topology
        Chains of the 20 amino acids with all heavy atoms, disulphides as bonds. Caps ride on their neighbours; what
        hangs on no residue, water or a ligand, stays out of the model.
    positions : ndarray
        (n_particles, 3) [nm] of the whole topology; they tell breaks of chains, and frames get their bond lengths.
    out : path
        The bundle.
    lag_time : float, optional
        [ps] that one jump covers: any that training saw, from the frame spacing to the longest stride. Unless given,
        the network's unit of time.
    n_steps : int, optional
        Diffusion steps of a frame; the configuration's unless given. Fewer are quicker and coarser.
    features : path, optional
        A folding network's features of the sequence, for weights that were trained with such.

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
    if lag_time is not None:
        _require_seen(lag_time, model, training)
    read = None
    if features is not None:
        found = read_residue_slots(topology, whole_positions(topology, positions), others="leave out")
        read = read_features(features, found.residues)
    return export_confrover(
        model, topology, positions, out, lag_time=lag_time, n_steps=n_steps, features=read, training=training
    )


def export_confrover(
    model: ConfRover,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    lag_time: float | None = None,
    n_steps: int | None = None,
    features: tuple[Tensor, Tensor] | None = None,
    training: dict[str, Any] | None = None,
) -> Path:
    """Write the bundle of a model at hand; for the arguments see `bind_confrover`."""
    from openmm_latent.bundle import export_bundle, training_facts

    lag = model.config.time_unit if lag_time is None else lag_time
    module, chosen = confrover_protein(model, topology, positions, lag, n_steps, features)
    everything = list(topology.atoms())
    return export_bundle(
        module,
        out,
        family="ConfRover",
        atoms=describe_atoms(topology, chosen),
        masses=[everything[atom].element.mass._value for atom in chosen],
        lag_time=lag,
        config={**asdict(model.config), "n_steps": module.n_draws - 1},
        training=training_facts(training or {}),
        reference_positions=np.asarray(positions, dtype=np.float64)[chosen],
        references=REFERENCES,
    )


def confrover_protein(
    model: ConfRover,
    topology: app.Topology,
    positions: np.ndarray,
    lag_time: float,
    n_steps: int | None = None,
    features: tuple[Tensor, Tensor] | None = None,
) -> tuple[ConfRoverProtein, list[int]]:
    """Return the contract's module of a topology's protein, and the topology's indices of its model atoms.

    Raises
    ------
    LatentError
        See `bind_confrover`.
    """
    positions = whole_positions(topology, positions)
    found = read_residue_slots(topology, positions, others="leave out")
    require_nothing_hangs_on(found, topology, "ConfRover")
    slots, chosen = found.in_order()
    place = {atom: number for number, atom in enumerate(chosen)}
    pairs = [(place[a.index], place[b.index]) for a, b in topology.bonds() if a.index in place and b.index in place]
    module = ConfRoverProtein(
        model,
        found.residues,
        slots,
        describe_atoms(topology, chosen),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        positions[chosen],
        lag_time=lag_time,
        n_steps=n_steps,
        features=features,
        disulphides=found.disulphides,
    )
    return module.eval(), chosen


def _require_seen(lag_time: float, model: ConfRover, training: dict[str, Any]) -> None:
    """Refuse a lag time that no window of the training data had."""
    told = [one for one in training.get("proteins", {}).values() if "frame_spacing" in one]
    least = min((one["frame_spacing"] for one in told), default=0.0)
    longest = [one.get("longest_lag", model.config.max_stride * one["frame_spacing"]) for one in told]
    most = max(longest, default=float("inf"))
    require(
        0.999 * least <= lag_time <= 1.001 * most,
        f"lag_time must lie between {least:g} and {most:g} ps, which these weights were trained on, got {lag_time:g}; "
        f"choose one of those, or train on other frames",
    )
