"""Learned latent jumps inside OpenMM simulations."""

from openmm_latent import plugin as plugin  # first: it checks versions and loads the C++ side
from openmm_latent.errors import LatentError
from openmm_latent.openmmlatent import LatentRestraintForce
from openmm_latent.reporters import FilledTrajectoryReporter, LatentReporter
from openmm_latent.simulation import LatentIntegrator, LatentModel
from openmm_latent.tuning import tune_driving
from openmm_latent.version import __version__
from openmm_latent.walkers import Walkers

__all__ = [
    "FilledTrajectoryReporter",
    "LatentError",
    "LatentIntegrator",
    "LatentModel",
    "LatentReporter",
    "LatentRestraintForce",
    "Walkers",
    "__version__",
    "tune_driving",
]
