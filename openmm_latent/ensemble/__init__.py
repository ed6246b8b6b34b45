"""Many walkers of a hybrid simulation on the workers of dask.distributed."""

from openmm_latent.ensemble.cluster import connect
from openmm_latent.ensemble.config import (
    AdaptiveConfig,
    ClusterConfig,
    EnsembleConfig,
    SlurmConfig,
    StartsConfig,
    load_config,
)
from openmm_latent.ensemble.running import Report, run_walkers
from openmm_latent.ensemble.store import open_store
from openmm_latent.ensemble.walkers import WalkerResult, WalkerTask, run_walker

__all__ = [
    "AdaptiveConfig",
    "ClusterConfig",
    "EnsembleConfig",
    "Report",
    "SlurmConfig",
    "StartsConfig",
    "WalkerResult",
    "WalkerTask",
    "connect",
    "load_config",
    "open_store",
    "run_walker",
    "run_walkers",
]
