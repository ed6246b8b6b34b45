"""Train a model on MD trajectories and export it.

python examples/02_train_on_your_trajectory.py [TOP LAG_TIME_PS TRAJ...]

Without arguments it trains for a few seconds on alanine dipeptide, to show how: such a model is of no use.
"""

import sys
from pathlib import Path

from openmm_latent.bundle import inspect_bundle
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.propagators.autoregressive import AutoregressiveConfig
from openmm_latent.training import train_gldp

DATA = Path(__file__).parent / "data"
SHORT = {"encoder_steps": 100, "decoder_steps": 100, "propagator_config": AutoregressiveConfig(n_epochs=2)}


def main() -> None:
    if len(sys.argv) > 3:
        top, lag_time, files, settings = sys.argv[1], float(sys.argv[2]), sys.argv[3:], {}
    else:
        top, lag_time, files, settings = DATA / "adp.pdb", 20.0, [DATA / "adp_400K.xtc"], SHORT

    trajectories = load_trajectories(top, files)  # heavy atoms; reads temperature and force field from beside the files
    train, test = trajectories.split_chronological(0.8)
    print(f"{train.n_frames} frames to train on, {test.n_frames} held out, {train.frame_spacing} ps apart")

    # Stop it with Ctrl-C and run it again: it goes on. The same folder serves the other propagators, too:
    # propagator="koopman" or "langevin" uses the autoencoder that is already there.
    model = train_gldp(
        train, lag_time=lag_time, config="tiny", propagator="autoregressive", out="my.latent.pt", seed=1, **settings
    )
    print(
        f"{train.positions[0].shape[1]} model atoms became {model.n_latent} latent and {model.n_slow} slow coordinates"
    )

    manifest = inspect_bundle("my.latent.pt")
    print(f"my.latent.pt jumps {manifest['lag_time']} ps and can {', '.join(manifest['capabilities'])}")


if __name__ == "__main__":
    main()
