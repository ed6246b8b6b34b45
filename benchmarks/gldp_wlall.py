"""GLDP on the pentapeptide WLALL: free rollouts of the three propagators against MD that training never saw.

Reads ../shared/data/wlall (20 runs of 500 ns, 0.1 ns a frame): files 00-15 train, 16-19 test. Writes
results/gldp_wlall.json. Finished stages stay in the work directory, so that the same command resumes after Ctrl-C.

    python benchmarks/gldp_wlall.py
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from results import shared_data, write_results

from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.metrics import cartesian_gaussian, dihedral_jsd, ramachandran_jsd, tica_timescales
from openmm_latent.models.gldp import CONFIGS, GLDP
from openmm_latent.propagators import autoregressive, koopman, langevin
from openmm_latent.topology import describe_atoms
from openmm_latent.training import train_autoencoder, train_gldp

#: `tiny`, shortened to fit an hour on a slow machine; chosen before any score of the test files was seen.
PROPAGATORS = {
    "autoregressive": replace(autoregressive.CONFIGS["tiny"], n_components=16, n_epochs=20),
    "koopman": koopman.CONFIGS["tiny"],
    "langevin": replace(langevin.CONFIGS["tiny"], n_epochs=20),
}
BACKBONE, SIDE_CHAIN = ("phi", "psi"), ("chi1", "chi2", "chi3", "chi4")
TICA_LAGS_NS = (0.6, 1.2, 2.4)  # whole frames at lag times of 100, 200, 300 and 600 ps
LAG_TIME = 100.0  # ps
N_WALKERS = 20  # as many as there are MD runs, each as long as one: 10 microseconds in all
OUTPUT = Path(__file__).parents[1] / "benchmark_output"


class Torsions:
    """The torsions that scores are made of."""

    def __init__(self, trajectories: TrajectorySet):
        atoms = describe_atoms(trajectories.topology, trajectories.model_atoms)
        backbone = np.concatenate([torsion_quadruples(atoms, kind) for kind in BACKBONE])
        side_chain = np.concatenate([torsion_quadruples(atoms, kind) for kind in SIDE_CHAIN])
        self.quadruples = np.concatenate([backbone, side_chain])
        self.n_backbone = len(backbone)
        phi, psi = (torsion_quadruples(atoms, kind).tolist() for kind in BACKBONE)
        # residues that have both, by their shared N-CA-C
        rows = {tuple(q[1:]): i for i, q in enumerate(phi)}
        self.pairs = [(rows[tuple(q[:3])], len(phi) + i) for i, q in enumerate(psi) if tuple(q[:3]) in rows]

    def angles(self, positions: np.ndarray) -> np.ndarray:
        """Return (n_frames, n_torsions) [rad], backbone first."""
        return np.concatenate([dihedrals(part, self.quadruples) for part in np.array_split(positions, 20)])

    def scores(self, segments: list[np.ndarray], test: list[np.ndarray], frame_spacing: float) -> dict:
        """Score segments of angles against those of the test files."""
        angles, reference = np.concatenate(segments), np.concatenate(test)
        each = dihedral_jsd(angles, reference)
        joint = [ramachandran_jsd(angles[:, pair], reference[:, pair]) for pair in self.pairs]
        return {
            "backbone_jsd": float(each[: self.n_backbone].mean()),
            "side_chain_jsd": float(each[self.n_backbone :].mean()),
            "phi_psi_jsd": float(np.mean(joint)),
            "t1_ns": self.t1(segments, frame_spacing),
        }

    def t1(self, segments: list[np.ndarray], frame_spacing: float) -> dict[str, float]:
        """Return the slowest TICA timescale [ns] at each lag, fitted on the segments themselves."""
        features = [np.concatenate([np.cos(part), np.sin(part)], axis=1) for part in segments]
        found = {}
        for lag_ns in TICA_LAGS_NS:
            lag_frames = round(1000 * lag_ns / frame_spacing)
            if lag_frames >= 1 and min(map(len, features)) > 2 * lag_frames:
                found[f"lag {lag_frames * frame_spacing / 1000:g} ns"] = float(
                    tica_timescales(features, lag_frames, frame_spacing)[0] / 1000
                )
        return found


def roll_out(model: GLDP, starts: np.ndarray, n_steps: int, seed: int) -> list[np.ndarray]:
    """Let walkers propagate freely; return each one's frames as the decoder gives them, (n_steps, n_atoms, 3) [nm]."""
    generator = torch.Generator().manual_seed(seed)
    frames = []
    with torch.inference_mode():
        latent = model.encode(torch.from_numpy(starts))
        for _ in range(n_steps):
            noise = torch.randn(len(starts), model.n_propagate_noise, generator=generator)
            latent, _ = model.propagate(latent, [], noise)
            frames.append(model.decode_superposed(latent).numpy())
    return list(np.stack(frames, axis=1))


def reconstruct(model: GLDP, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Return decoded frames placed on `positions` and their mean heavy-atom RMSD [nm]."""
    with torch.inference_mode():
        blocks = torch.from_numpy(positions).split(2048)
        decoded = torch.cat([model.decode(model.encode(b), b, torch.zeros(len(b), 0)) for b in blocks]).numpy()
    return decoded, float(np.sqrt(((decoded - positions) ** 2).sum(axis=2).mean(axis=1)).mean())


def baselines(torsions: Torsions, train: TrajectorySet, test: TrajectorySet, seed: int) -> dict:
    """Score what every rollout must be read beside."""
    spacing = test.frame_spacing
    held_out = [torsions.angles(part) for part in test.positions]
    training = [torsions.angles(part) for part in train.positions]
    structure = train.positions[0][0]
    gaussian = cartesian_gaussian(train.concatenated(), structure, 20_000, seed)
    gaussian_scores = torsions.scores([torsions.angles(gaussian)], held_out, spacing)
    return {
        "floor: test files 16, 17 against 18, 19": torsions.scores(held_out[:2], held_out[2:], spacing),
        "training files 00-15": torsions.scores(training, held_out, spacing),
        "test files 16-19 themselves": {"t1_ns": torsions.t1(held_out, spacing)},
        "Cartesian Gaussian": {k: v for k, v in gaussian_scores.items() if k != "t1_ns"},
    }


def rollout_scores(
    model: GLDP, torsions: Torsions, train: TrajectorySet, test: TrajectorySet, options: argparse.Namespace
) -> dict:
    """Roll out one trained model and score it."""
    started = time.monotonic()
    everything = train.concatenated()
    starts = everything[np.linspace(0, len(everything) - 1, N_WALKERS).astype(int)]
    lag_frames = test.lag_frames(options.lag_time)
    walkers = roll_out(model, starts, options.frames, options.seed)
    seconds = time.monotonic() - started
    held_out = [torsions.angles(part) for part in test.positions]
    made = [torsions.angles(part) for part in walkers]
    spacing = lag_frames * test.frame_spacing
    return torsions.scores(made, held_out, spacing) | {
        "frames": N_WALKERS * options.frames,
        "finite": bool(all(np.isfinite(part).all() for part in walkers)),
        "rollout_seconds": round(seconds, 1),
    }


def print_table(rows: dict[str, dict]) -> None:
    """Print one line a row; JSD in nats."""
    print(f"\n{'':42}{'BB JSD':>9}{'SC JSD':>9}{'(phi,psi)':>10}   t1 [ns] at lag " + ", ".join(map(str, TICA_LAGS_NS)))
    for name, row in rows.items():
        numbers = "".join(
            f"{row[key]:{width}.4f}" if key in row else " " * width
            for key, width in (("backbone_jsd", 9), ("side_chain_jsd", 9), ("phi_psi_jsd", 10))
        )
        times = "  ".join(f"{value:.2f}" for value in row.get("t1_ns", {}).values())
        print(f"{name:42}{numbers}   {times}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lag-time", type=float, default=LAG_TIME, help="ps, of one propagator step")
    parser.add_argument("--frames", type=int, default=5000, help="rollout steps of each of the 20 walkers")
    parser.add_argument("--encoder-steps", type=int, default=4000)
    parser.add_argument("--decoder-steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=OUTPUT / "gldp_wlall")
    parser.add_argument("--no-progress", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train, roll out, score, write."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    folder = shared_data("wlall")
    files = [folder / f"pentapeptide-{i:02d}-500ns-impl-solv.xtc" for i in range(20)]
    train, test = load_trajectories(folder / "pentapeptide-impl-solv.pdb", files).split_by_file(4)
    torsions = Torsions(train)
    config = replace(CONFIGS["tiny"], encoder_steps=options.encoder_steps, decoder_steps=options.decoder_steps)
    shared = {"work_directory": options.work, "seed": options.seed, "progress": not options.no_progress}
    started = time.monotonic()
    autoencoder, _ = train_autoencoder(train, config, **shared)
    seconds = {"autoencoder": round(time.monotonic() - started, 1)}
    decoded, error = reconstruct(autoencoder, test.concatenated())
    held_out = [torsions.angles(part) for part in test.positions]
    rows = baselines(torsions, train, test, options.seed)
    rows["test frames, encoded and decoded"] = torsions.scores([torsions.angles(decoded)], held_out, test.frame_spacing)
    print_table(rows)
    for propagator, settings in PROPAGATORS.items():
        started = time.monotonic()
        chosen = {"propagator": propagator, "propagator_config": settings}
        model = train_gldp(train, lag_time=options.lag_time, config=config, **chosen, **shared)
        seconds[propagator] = round(time.monotonic() - started, 1)
        rows[f"rollout, {propagator}"] = rollout_scores(model, torsions, train, test, options)
        print_table(rows)
    is_default = options.lag_time == LAG_TIME
    write_results(
        "gldp_wlall" if is_default else f"gldp_wlall_lag_{options.lag_time:g}ps",
        {
            "what": "mean JSD [nats]: 100 bins a torsion, 50 x 50 for (phi, psi); t1 of TICA on each row alone",
            "train": "files 00-15",
            "test": "files 16-19",
            "lag_time_ps": options.lag_time,
            "n_latent": autoencoder.n_latent,
            "reconstruction_rmsd_nm": error,
            "seconds_of_this_run": seconds,  # near zero for stages that an earlier run finished
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
