"""Train the small bundle that the examples jump with: python examples/data/make_adp_bundle.py (minutes).

The "tiny" configuration on all of the shipped 400 K data, with fewer Gaussians so that the file stays below 1 MB.
"""

import sys
from dataclasses import replace
from pathlib import Path

from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.propagators.autoregressive import CONFIGS
from openmm_latent.training import train_gldp

HERE = Path(__file__).parent

if __name__ == "__main__":
    train_gldp(
        load_trajectories(HERE / "adp.pdb", HERE / "adp_400K.xtc"),
        lag_time=40.0,
        propagator="autoregressive",
        propagator_config=replace(CONFIGS["tiny"], n_components=16),
        out=HERE / "adp.latent.pt",
        work_directory=sys.argv[1] if len(sys.argv) > 1 else "demo_output/bundle-work",
        seed=1,
    )
