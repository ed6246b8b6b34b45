"""Fixtures of the restraint's tests."""

import numpy as np
import pytest

import toys
from openmm_latent import LatentModel
from openmm_latent.geometry import torsion_quadruples


@pytest.fixture(scope="module")
def adp():
    return toys.load_adp()


@pytest.fixture(scope="module")
def quadruples(adp):
    """Phi and psi of the heavy atoms, (2, 4)."""
    atoms = toys.describe_atoms(adp[0], toys.heavy_atoms(adp[0]))
    return np.concatenate([torsion_quadruples(atoms, "phi"), torsion_quadruples(atoms, "psi")])


@pytest.fixture
def model_of(tmp_path, adp):
    """Return a function that makes a LatentModel of a toy for alanine dipeptide's heavy atoms."""

    def make(module):
        return LatentModel(toys.export_toy(module, tmp_path / f"{type(module).__name__}.latent.pt", *adp))

    return make
