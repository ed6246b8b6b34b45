"""From a trained ATMOS and one structure to a bundle for that complex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app

from openmm_latent.data.complex_tokens import ComplexTokens, read_tokens
from openmm_latent.data.trunk_features import read_trunk_features
from openmm_latent.errors import require
from openmm_latent.models.atmos import ATMOS
from openmm_latent.models.atmos.module import BoundComplex
from openmm_latent.models.atmos.weights import chemistry_key, load_weights
from openmm_latent.topology import describe_atoms, whole_positions

REFERENCES = ("ATMOS, Atomic Trajectory Modeling with State Space Models for Biomolecular Dynamics",)


def bind_atmos(
    weights: str | Path,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    system: openmm.System | None = None,
    ligands: Sequence[str | Path] = (),
    features: str | Path | None = None,
    n_steps: int | None = None,
    is_ode: bool = False,
) -> Path:
    """Write the bundle of one complex, without training.

    Parameters
    ----------
    weights : path
        What `train atmos` wrote.
    topology : openmm.app.Topology
        All heavy atoms but those of water and ions become model atoms, ligands included.
    positions : ndarray
        (n_particles, 3) [nm] of the whole topology: the reference on which frames are superposed.
    out : path
        The bundle.
    system : openmm.System, optional
        Made from the topology; needed where the weights were trained with a System's charges.
    ligands : sequence of path
        SDF files that tell bond orders, see `read_tokens`.
    features : path, optional
        Those of another model's trunk, see `read_trunk_features`; needed where the weights were trained with such.
    n_steps : int, optional
        Of the diffusion; the configuration's unless given.
    is_ode : bool
        Sample by the ordinary differential equation.

    Returns
    -------
    Path
        `out`

    Raises
    ------
    LatentError
        The weights are unreadable or know nothing of this complex, or an argument is out of range.
    """
    model, training = load_weights(weights)
    tokens = read_tokens(topology, system, ligands)
    require(
        tokens.knows_charges == bool(training.get("knows_charges", False)),
        f"weights {weights} were trained {'with' if training.get('knows_charges') else 'without'} charges of a System; "
        f"{'pass system' if training.get('knows_charges') else 'leave system out'} (--system), so that the model sees "
        f"what it knows",
    )
    knew_orders = bool(training.get("knows_orders", tokens.knows_orders))  # files of before do not tell
    require(
        tokens.knows_orders == knew_orders or not tokens.is_ligand.any(),
        f"weights {weights} were trained {'with' if knew_orders else 'without'} orders of bonds in ligands; "
        f"{'pass ligands (--ligand), SDF files that tell them' if knew_orders else 'leave ligands (--ligand) out'}, so "
        f"that the model sees what it knows",
    )
    trunk = None if features is None else read_trunk_features(features, tokens)
    return export_complex(
        model, topology, positions, out, tokens=tokens, trunk=trunk, n_steps=n_steps, is_ode=is_ode, training=training
    )


def export_complex(
    model: ATMOS,
    topology: app.Topology,
    positions: np.ndarray,
    out: str | Path,
    *,
    tokens: ComplexTokens | None = None,
    trunk: tuple[np.ndarray, np.ndarray] | None = None,
    n_steps: int | None = None,
    is_ode: bool = False,
    training: dict[str, Any] | None = None,
) -> Path:
    """Write the bundle of a model at hand; for the arguments see `bind_atmos`."""
    from openmm_latent.bundle import export_bundle, training_facts

    tokens = read_tokens(topology) if tokens is None else tokens
    known = dict(training or {})
    reference, lengths = reference_of(model, tokens, whole_positions(topology, positions)[tokens.atoms], known)
    module = BoundComplex(model, tokens, reference, trunk, lengths, n_steps, is_ode).eval()
    everything = list(topology.atoms())
    return export_bundle(
        module,
        out,
        family="ATMOS",
        atoms=describe_atoms(topology, tokens.atoms.tolist()),
        masses=[everything[atom].element.mass._value for atom in tokens.atoms],
        lag_time=model.key_time,
        config={**asdict(model.config), "fine_time": model.fine_time, "is_ode": is_ode},
        training=training_facts(known),
        reference_positions=module.reference.numpy(),
        references=REFERENCES,
    )


def reference_of(
    model: ATMOS, tokens: ComplexTokens, positions: np.ndarray, training: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the structure on which frames are superposed, (n_atoms, 3) [nm], and lengths of bonds where known.

    Raises
    ------
    LatentError
        The model was taught without random turns, and not on this complex.
    """
    if model.config.turns:
        return positions, None
    known = training.get("references", {})
    key = chemistry_key(tokens)
    require(
        key in known,
        f"weights were trained without random turns, on {', '.join(training.get('complexes', {})) or 'one complex'} "
        f"alone, and know no other complex; train with turns=True in the configuration, or on this one",
    )
    return np.array(known[key]["positions"]), np.array(known[key]["lengths"])
