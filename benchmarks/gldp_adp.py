"""GLDP on alanine dipeptide: free rollouts of the three propagators against the last fifth of each MD run.

Reads ../shared/data/adp_md (70.2 ns at 300 K and 30.7 ns at 400 K, 1 ps a frame); everything is trained on the first
80 % of each file, chosen on the last part of that, and scored on the last 20 %. At each temperature 20 walkers make
10 000 steps of 5 ps: one microsecond. Each walker's 10 000 frames are scored as they come; the mean over walkers and
the worst walker are printed. Writes results/gldp_adp.json and results/gldp_adp.md. Finished stages and rollouts stay
in the work directory, so that the same command resumes after Ctrl-C. About 7 minutes on one free core.

    python benchmarks/gldp_adp.py
"""

import argparse
import hashlib
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from results import FOLDER, shared_data, write_results

from openmm_latent import metrics
from openmm_latent.data.trajectories import TrajectorySet, load_trajectories
from openmm_latent.geometry import dihedrals, torsion_quadruples
from openmm_latent.models.gldp import GLDP
from openmm_latent.topology import describe_atoms
from openmm_latent.training import train_autoencoder, train_gldp

PROPAGATORS = ("autoregressive", "koopman", "langevin")
TEMPERATURES = (300, 400)
N_WALKERS = 20
N_FRAMES = 10_000
TICA_LAGS_PS = (5, 20, 50, 100)
PAIR_LAGS_PS = (5, 20, 50)
N_STATES = 36
N_BLOCKS = 8  # of the 400 K run, for the lagged-pair test's oracle
BOOTSTRAP_BLOCKS = 10
PAPER = {"autoregressive": 0.061, "langevin": 0.164, "koopman": 0.138}
OUTPUT = Path(__file__).parents[1] / "benchmark_output"


class Reference:
    """One temperature's MD: its split, its torsions, and the scores against them."""

    def __init__(self, folder: Path, temperature: int):
        whole = load_trajectories(folder / "adp.pdb", [folder / f"adp_{temperature}K.xtc"])
        self.train, self.test = whole.split_chronological(0.8)
        atoms = describe_atoms(whole.topology, whole.model_atoms)
        self.quadruples = np.concatenate([torsion_quadruples(atoms, kind) for kind in ("phi", "psi")])
        self.whole_angles = self.angles(whole)
        self.train_angles, self.test_angles = self.angles(self.train), self.angles(self.test)
        # A compact structure: the first frame of this data is flat, and superposing on it is ill-conditioned.
        frames = self.train.concatenated().astype(np.float64)
        self.structure = frames[len(frames) // 2]
        for _ in range(3):
            self.structure = metrics.superpose(frames[::20], self.structure).mean(axis=0)

    def angles(self, part: TrajectorySet | np.ndarray) -> np.ndarray:
        """Return phi and psi, (n_frames, 2) [rad]."""
        positions = part if isinstance(part, np.ndarray) else part.concatenated()
        return np.concatenate([dihedrals(block, self.quadruples) for block in np.array_split(positions, 20)])

    def score(self, angles: np.ndarray) -> float:
        """Return the (phi, psi) JSD [nats] against the held-out part, 50 x 50 bins."""
        return metrics.ramachandran_jsd(angles, self.test_angles)

    def baselines(self, seed: int) -> dict[str, float]:
        """Score 10 000 frames of what every rollout must be read beside."""
        random = np.random.default_rng(seed)
        independent = random.choice(len(self.train_angles), N_FRAMES, replace=False)
        gaussian = metrics.cartesian_gaussian(self.train.concatenated(), self.structure, N_FRAMES, seed)
        return {
            "floor: two halves of the whole run": metrics.halves_floor(metrics.ramachandran_jsd, self.whole_angles),
            "floor: two halves of the held-out part": metrics.halves_floor(metrics.ramachandran_jsd, self.test_angles),
            "independent training frames": self.score(self.train_angles[independent]),
            "product of marginals": self.score(metrics.product_of_marginals(self.train_angles, N_FRAMES, seed)),
            "Cartesian Gaussian": self.score(self.angles(gaussian)),
        }


def roll_out(model: GLDP, reference: Reference, options: argparse.Namespace, name: str) -> np.ndarray:
    """Return phi and psi of free rollouts as the decoder gives them, (n_walkers, n_frames, 2) [rad]; kept on disk."""
    weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values()))
    key = f"{name}-{weights.hexdigest()[:12]}-{options.frames}-{options.seed}"
    path = options.work / f"rollout-{key}.npy"
    if path.exists():
        return np.load(path)
    generator = torch.Generator().manual_seed(options.seed)
    everything = reference.train.concatenated()
    starts = everything[np.linspace(0, len(everything) - 1, N_WALKERS).astype(int)]
    blocks, latents = [], []
    with torch.inference_mode():
        latent = model.encode(torch.from_numpy(starts))
        for step in range(options.frames):
            noise = torch.randn(N_WALKERS, model.n_propagate_noise, generator=generator)
            latent, _ = model.propagate(latent, [], noise)
            latents.append(latent)
            if len(latents) == 200 or step == options.frames - 1:
                positions = model.decode_superposed(torch.stack(latents, dim=1).reshape(-1, model.n_latent)).numpy()
                blocks.append(dihedrals(positions, reference.quadruples).reshape(N_WALKERS, -1, 2))
                latents = []
    angles = np.concatenate(blocks, axis=1).astype(np.float32)
    np.save(path, angles)
    return angles


def timescales(segments: list[np.ndarray], spacing: float) -> dict[str, float]:
    """Return t1 [ps] of TICA, fitted on the segments themselves, at each lag."""
    features = [metrics.torsion_features(part) for part in segments]
    return {
        f"lag {lag} ps": float(metrics.tica_timescales(features, round(lag / spacing), spacing, 1)[0])
        for lag in TICA_LAGS_PS
    }


def phi_states(angles: np.ndarray) -> np.ndarray:
    """Return whether phi > 0 was the last core visited (30..100 degrees, the other is -180..-30): no recrossings."""
    phi = np.degrees(angles[:, 0])
    return metrics.core_states((phi > 30) & (phi < 100), phi < -30)


def population_reference(angles: np.ndarray) -> dict:
    """Return P(phi > 0) of the whole run with two 95 % intervals, from dwell times and from a block bootstrap."""
    found = metrics.two_state_interval(phi_states(angles), 1.0, seed=1)
    low, high = metrics.block_bootstrap_interval(angles[:, 0] > 0, BOOTSTRAP_BLOCKS, seed=1)
    return {
        "population": float((angles[:, 0] > 0).mean()),
        "interval_dwell_times": [found["low"], found["high"]],
        f"interval_bootstrap_{BOOTSTRAP_BLOCKS}_blocks": [low, high],
        "crossings": found["n_entries"] + found["n_exits"],
        "dwell_phi_positive_ps": found["dwell_inside"],
        "dwell_phi_negative_ps": found["dwell_outside"],
    }


def population_rollout(walkers: np.ndarray, spacing: float) -> dict:
    """Return P(phi > 0), crossings and mean dwell times of a rollout."""
    states = [phi_states(walker) for walker in walkers]
    entries = sum(int((np.diff(s.astype(int)) > 0).sum()) for s in states)
    exits = sum(int((np.diff(s.astype(int)) < 0).sum()) for s in states)
    inside = sum(int(s.sum()) for s in states) * spacing
    outside = sum(int((~s).sum()) for s in states) * spacing
    return {
        "population": float((walkers[..., 0] > 0).mean()),
        "crossings": entries + exits,
        "dwell_phi_positive_ps": inside / max(exits, 1),
        "dwell_phi_negative_ps": outside / max(entries, 1),
    }


class LaggedPairs:
    """The lagged-pair test, calibrated on the whole run cut into eight blocks.

    Oracle: JSD between four blocks and the other four, for all 35 ways to choose. Threshold: the largest of the 35.
    A rollout's number: its mean JSD against all 70 halves. Independent frames of the run must exceed the threshold.
    """

    def __init__(self, angles: np.ndarray):
        features = metrics.torsion_features(angles)
        self.centres = metrics.cluster_centres(features, N_STATES, seed=1)
        states = metrics.assign_states(features, self.centres)
        blocks = np.array_split(states, N_BLOCKS)
        self.halves, self.oracle = {}, {}
        for lag in PAIR_LAGS_PS:
            counts = [metrics.lagged_pair_counts([block], lag, N_STATES) for block in blocks]
            halves = [sum(counts[k] for k in chosen) for chosen in combinations(range(N_BLOCKS), N_BLOCKS // 2)]
            self.halves[lag] = halves
            self.oracle[lag] = [metrics.jsd(half, sum(counts) - half) for half in halves[: len(halves) // 2]]
        independent = np.random.default_rng(1).choice(states, N_WALKERS * N_FRAMES)
        self.independent = {lag: self._score([independent], 1, lag) for lag in PAIR_LAGS_PS}

    def _score(self, segments: list[np.ndarray], lag_frames: int, lag: int) -> float:
        counts = metrics.lagged_pair_counts(segments, lag_frames, N_STATES)
        return float(np.mean([metrics.jsd(counts, half) for half in self.halves[lag]]))

    def calibration(self) -> dict:
        """Return thresholds, and what the oracle and independent frames score."""
        return {
            f"lag {lag} ps": {
                "threshold": max(self.oracle[lag]),
                "oracle_mean": float(np.mean(self.oracle[lag])),
                "independent_frames": self.independent[lag],
                "independent_fails": self.independent[lag] > max(self.oracle[lag]),
            }
            for lag in PAIR_LAGS_PS
        }

    def test(self, walkers: np.ndarray, spacing: float) -> dict:
        """Score a rollout, (n_walkers, n_frames, 2) [rad]."""
        states = [metrics.assign_states(metrics.torsion_features(walker), self.centres) for walker in walkers]
        scores = {lag: self._score(states, round(lag / spacing), lag) for lag in PAIR_LAGS_PS}
        passed = all(scores[lag] <= max(self.oracle[lag]) for lag in PAIR_LAGS_PS)
        return {**{f"lag {lag} ps": score for lag, score in scores.items()}, "passed": passed}


def run_temperature(temperature: int, folder: Path, options: argparse.Namespace) -> dict:
    """Train, roll out and score everything at one temperature."""
    reference = Reference(folder, temperature)
    work = options.work / f"{temperature}K"
    shared = {"work_directory": work, "seed": options.seed, "progress": not options.no_progress}
    seconds, started = {}, time.monotonic()
    train_autoencoder(reference.train, "tiny", **shared)
    seconds["autoencoder"] = round(time.monotonic() - started, 1)
    rows = {"baselines": reference.baselines(options.seed), "rollouts": {}}
    rows["reference"] = {"t1_ps": timescales([reference.whole_angles], 1.0)}
    pairs = None
    if temperature == 400:
        rows["reference"]["phi_positive"] = population_reference(reference.whole_angles)
        pairs = LaggedPairs(reference.whole_angles)
        rows["reference"]["lagged_pairs"] = pairs.calibration()
    for name in PROPAGATORS:
        started = time.monotonic()
        model = train_gldp(reference.train, lag_time=options.lag_time, config="tiny", propagator=name, **shared)
        seconds[name] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        walkers = roll_out(model, reference, options, f"{temperature}K-{name}")
        seconds[f"{name} rollout"] = round(time.monotonic() - started, 1)
        scores = [reference.score(walker) for walker in walkers]
        row = {
            "jsd_mean": float(np.mean(scores)),
            "jsd_worst": float(np.max(scores)),
            "jsd_each_walker": scores,
            "jsd_whole_microsecond": reference.score(walkers.reshape(-1, 2)),
            "all_finite": bool(np.isfinite(walkers).all()),
            "t1_ps": timescales(list(walkers), options.lag_time),
        }
        if pairs is not None:
            row["phi_positive"] = population_rollout(walkers, options.lag_time)
            row["lagged_pairs"] = pairs.test(walkers, options.lag_time)
        rows["rollouts"][name] = row
        print(f"{temperature} K {name}: (phi, psi) JSD {row['jsd_mean']:.4f}, worst walker {row['jsd_worst']:.4f}")
    rows["seconds_of_this_run"] = seconds  # near zero for stages that an earlier run finished
    return rows


def judge(results: dict[str, dict]) -> dict[str, bool]:
    """Return each promise and whether it is kept."""
    cool, hot = results["300 K"], results["400 K"]
    made, based = cool["rollouts"], cool["baselines"]
    walk = hot["rollouts"]["autoregressive"]
    phi = hot["reference"]["phi_positive"]
    intervals = [value for key, value in phi.items() if key.startswith("interval")]
    inside = all(low <= walk["phi_positive"]["population"] <= high for low, high in intervals)
    ratios = [walk["t1_ps"][lag] / hot["reference"]["t1_ps"][lag] for lag in walk["t1_ps"]]
    calibration = hot["reference"]["lagged_pairs"].values()
    return {
        "300 K autoregressive JSD <= 0.03": made["autoregressive"]["jsd_mean"] <= 0.03,
        "300 K Langevin JSD <= 0.04": made["langevin"]["jsd_mean"] <= 0.04,
        "300 K Koopman JSD below the Cartesian Gaussian's": made["koopman"]["jsd_mean"] < based["Cartesian Gaussian"],
        "400 K autoregressive JSD <= 1.3 x independent training frames'": walk["jsd_mean"]
        <= 1.3 * hot["baselines"]["independent training frames"],
        "400 K autoregressive P(phi > 0) inside both 95 % intervals": inside,
        "400 K autoregressive t1 within a factor 2 at every lag": all(0.5 <= ratio <= 2.0 for ratio in ratios),
        "400 K autoregressive passes the lagged-pair test": walk["lagged_pairs"]["passed"],
        "400 K independent frames fail the lagged-pair test at every lag": all(
            row["independent_fails"] for row in calibration
        ),
    }


def markdown(results: dict[str, dict], promises: dict[str, bool]) -> str:
    """Return the figures as Markdown tables."""
    lines = [
        "# Free rollouts of GLDP on alanine dipeptide",
        "",
        "Made by `python benchmarks/gldp_adp.py`; versions, date and all figures are in gldp_adp.json. (phi, psi) JSD",
        "in nats, 50 x 50 bins, against the last 20 % of each run; t1 by TICA on sin and cos of phi and psi.",
        "Rollouts: mean over 20 walkers of 10 000 frames of 5 ps each (worst walker in brackets).",
        "",
        "| (phi, psi) JSD [nats] | 300 K | 400 K | paper |",
        "|---|---|---|---|",
    ]
    for name in results["300 K"]["baselines"]:
        values = " | ".join(f"{results[key]['baselines'][name]:.4f}" for key in results)
        lines.append(f"| {name} | {values} | |")
    for name in PROPAGATORS:
        rows = [results[key]["rollouts"][name] for key in results]
        values = " | ".join(f"{row['jsd_mean']:.4f} ({row['jsd_worst']:.4f})" for row in rows)
        lines.append(f"| rollout, {name} | {values} | {PAPER[name]} |")
    lags = list(results["300 K"]["reference"]["t1_ps"])
    lines += ["", "| t1 [ps] at " + ", ".join(lags) + " | 300 K | 400 K |", "|---|---|---|"]
    for name in ("reference", *PROPAGATORS):
        rows = [(results[k]["rollouts"][name] if name != "reference" else results[k]["reference"]) for k in results]
        lines.append(
            f"| {name} | " + " | ".join(", ".join(f"{v:.0f}" for v in r["t1_ps"].values()) for r in rows) + " |"
        )
    lines += ["", *_hot_table(results["400 K"]), "", "| promise | kept |", "|---|---|"]
    lines += [f"| {name} | {'yes' if kept else 'NO'} |" for name, kept in promises.items()]
    return "\n".join(lines) + "\n"


def _hot_table(hot: dict) -> list[str]:
    """Return populations, dwell times and the lagged-pair test at 400 K as Markdown lines."""
    phi, pairs = hot["reference"]["phi_positive"], hot["reference"]["lagged_pairs"]
    intervals = "; ".join(
        f"{value[0]:.3f}-{value[1]:.3f} ({key.removeprefix('interval_').replace('_', ' ')})"
        for key, value in phi.items()
        if key.startswith("interval")
    )
    lines = [
        "| 400 K | P(phi > 0) | dwell phi > 0, phi < 0 [ps] | lagged-pair JSD at " + ", ".join(pairs) + " |",
        "|---|---|---|---|",
        f"| reference, {phi['crossings']} crossings | {phi['population']:.3f}; 95 %: {intervals} | "
        f"{phi['dwell_phi_positive_ps']:.0f}, {phi['dwell_phi_negative_ps']:.0f} | threshold "
        + ", ".join(f"{row['threshold']:.4f}" for row in pairs.values())
        + " |",
        "| independent frames | | | " + ", ".join(f"{row['independent_frames']:.4f}" for row in pairs.values()) + " |",
    ]
    for name in PROPAGATORS:
        row = hot["rollouts"][name]
        made, scores = row["phi_positive"], ", ".join(f"{row['lagged_pairs'][lag]:.4f}" for lag in pairs)
        lines.append(
            f"| {name}, {made['crossings']} crossings | {made['population']:.3f} | "
            f"{made['dwell_phi_positive_ps']:.0f}, {made['dwell_phi_negative_ps']:.0f} | {scores}: "
            f"{'passed' if row['lagged_pairs']['passed'] else 'failed'} |"
        )
    return lines


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lag-time", type=float, default=5.0, help="ps, of one propagator step")
    parser.add_argument("--frames", type=int, default=N_FRAMES, help="rollout steps of each of the 20 walkers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=OUTPUT / "gldp_adp")
    parser.add_argument("--no-progress", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train, roll out, score, write."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    folder = shared_data("adp_md")
    options.work.mkdir(parents=True, exist_ok=True)
    results = {f"{temperature} K": run_temperature(temperature, folder, options) for temperature in TEMPERATURES}
    promises = judge(results)
    table = markdown(results, promises)
    print("\n" + table)
    setting = {
        "lag_time_ps": options.lag_time,
        "walkers": N_WALKERS,
        "frames_each": options.frames,
        "threads": options.threads,
    }
    write_results("gldp_adp", {"setting": setting, "promises": promises, "results": results})
    (FOLDER / "gldp_adp.md").write_text(table)


if __name__ == "__main__":
    main()
