"""Independent samples per CPU-second on the pentapeptide WLALL: exact and guarded jumps against plain MD.

System: amber14 + OBC2, charged termini, hydrogens of 3 amu, 4 fs. Plain MD is made by `generate` in
benchmark_output/wlall_md (resumable; a longer `--md-ns` goes on); its cost is measured beside the runs. GLDP is trained
on the first part of it. Its slow coordinate is the one torsion that makes up the slowest mode, its kernel proposes
wherever data was, and how drives go is tuned on frames of that data, half of them of the rare state, weighted by what
the states' shares are there; all of that ends before production.

The series is the slowest TICA coordinate (lag 100 ps) of that MD's backbone torsions; it is psi of Leu 2 that turns.
Its independent samples are N / (-1 + 2 sum rho), and none where one of its two states is never visited: a run that
stays in one of them samples its fluctuations alone. That measure knows little of plain MD, which changes state but a
few times. So entries into the rarer state are counted beside it, from the outer quarter of the way between the two
states' centres to the other one: taken for Poisson counts, which are no more even than theirs, they say how sure the
gain is.

Guarded runs are reweighted; what they know of the rare state is worth p (1 - p) / error(p)² independent samples. They
cannot gain much here: the ratio of two populations follows from crossings both ways inside relaxations, and the way
into the rare state is crossed no sooner after a jump than in plain MD.

    python benchmarks/exact_wlall.py [--md-ns 40] [--cpu-seconds 600]
"""

import argparse
import hashlib
import multiprocessing
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
import torch
from deeptime.decomposition import TICA
from gldp_wlall import PROPAGATORS
from openmm import app, unit
from results import kept, shared_data, write_results
from scipy import stats

from openmm_latent import LatentModel
from openmm_latent.analysis import (
    ReweightConfig,
    State,
    TorsionTable,
    find_runs,
    read_hybrid_run,
    reweight,
    to_segments,
)
from openmm_latent.bundle import inspect_bundle
from openmm_latent.compiling import compile_bundle
from openmm_latent.data.forcefields import build_system
from openmm_latent.data.generate import GenerateConfig, generate
from openmm_latent.data.trajectories import load_trajectories
from openmm_latent.hybrid import HybridConfig, HybridRun
from openmm_latent.metrics import cluster_centres, effective_sample_size, jsd
from openmm_latent.propagators.proposal import ProposalConfig
from openmm_latent.training import train_gldp
from openmm_latent.tuning import tune_driving

OUTPUT = Path(__file__).parents[1] / "benchmark_output"
WORK = OUTPUT / "exact_wlall"
MD = OUTPUT / "wlall_md"
TOP = MD / "pentapeptide-impl-solv.pdb"
TEMPERATURE, TIMESTEP, HYDROGEN_MASS = 300.0, 0.004, 3.0
SPACING = 0.01  # [ns] between frames of the MD
LAG_FRAMES = 10  # of TICA, 100 ps
STATE = State.parse("-120<psi[2]<60")  # degrees; the rare side of the slowest mode
#: Before tuning: drives without friction lose nothing to the bath, and half the relaxation's step is a faithful one.
UNTUNED = {
    "drivenSteps": 100, "drivenStepsPerDistance": 1000.0, "stepsPerPerturbation": 2, "leastDrivenDistance": 1.0,
    "drivingFriction": 0.0, "drivingStepSize": 0.002,
}  # fmt: skip
CANDIDATES = {
    "step_shares": (1.0,), "sigmas": (0.05,), "steps": (100,), "per_distance": (1000.0, 2000.0), "blocks": (2,),
    "least_distances": (1.0, 2.0),
}  # fmt: skip
N_STARTS = 40  # of each state, for each candidate


def reference_md(nanoseconds: float) -> mdtraj.Trajectory:
    """Return plain MD of that length, made, or taken up where it was left."""
    config = GenerateConfig(
        temperature=TEMPERATURE, duration=1000 * nanoseconds, frame_spacing=1000 * SPACING, equilibration=200.0,
        timestep=TIMESTEP, friction=1.0, hydrogen_mass=HYDROGEN_MASS, seed=101,
    )  # fmt: skip
    (file,) = generate(shared_data("wlall") / TOP.name, MD, config, platform="Reference")
    return mdtraj.load(file, top=TOP)[: round(nanoseconds / SPACING)]


def trained_bundle(seen: mdtraj.Trajectory, anew: bool) -> Path:
    """Train on a part of our own MD and compile, once."""
    path = WORK / f"own_{len(seen) * SPACING:g}ns.latent.pt"
    if path.exists() and not anew:
        return path
    WORK.mkdir(parents=True, exist_ok=True)
    seen.save_xtc(str(WORK / "seen.xtc"))
    train_gldp(
        load_trajectories(TOP, [WORK / "seen.xtc"], frame_spacing=1000 * SPACING),
        lag_time=100.0,
        propagator_config=PROPAGATORS["autoregressive"],
        out=path,
        work_directory=WORK / "own_training",
        n_slow=1,
        slow_features="backbone",
        proposal_config=ProposalConfig(kernels=("independence",), flattening=0.25),
        seed=1,
        progress=False,
    )
    compile_bundle(path, path)
    return path


class SlowMode:
    """The slowest TICA coordinate of some MD, and the two states that it tells apart."""

    def __init__(self, run: mdtraj.Trajectory):
        features = self._features(run)
        self.model = TICA(lagtime=LAG_FRAMES, dim=1).fit([features]).fetch_model()
        series = self.model.transform(features)[:, 0]
        self.centres = np.sort(cluster_centres(series[:, None], 2, seed=1)[:, 0])
        self.timescale = float(self.model.timescales()[0] * SPACING)
        self.edges = np.linspace(series.min() - 0.2, series.max() + 0.2, 31)
        self.rare = int(self.sides(series).mean() < 0.5)

    @staticmethod
    def _features(trajectory: mdtraj.Trajectory) -> np.ndarray:
        angles = np.concatenate([mdtraj.compute_phi(trajectory)[1], mdtraj.compute_psi(trajectory)[1]], axis=1)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def sides(self, series: np.ndarray) -> np.ndarray:
        """Return on which side each frame is, 0 or 1; one from the middle half of the way stays where it came from."""
        way = (series - self.centres[0]) / (self.centres[1] - self.centres[0])
        known = np.where(way < 0.25, 0, np.where(way > 0.75, 1, -1))
        known[0] = int(way[0] > 0.5) if known[0] < 0 else known[0]
        last = np.maximum.accumulate(np.where(known >= 0, np.arange(len(known)), 0))
        return known[last]

    def is_rare(self, run: mdtraj.Trajectory) -> np.ndarray:
        """Return which frames are in the rarer state, (n_frames,) bool."""
        return self.sides(self.model.transform(self._features(run))[:, 0]) == self.rare

    def measure(self, runs: list[mdtraj.Trajectory]) -> dict:
        """Return what runs are worth: independent samples of the mode, entries into the rarer state, its share."""
        series = [self.model.transform(self._features(run))[:, 0] for run in runs]
        rare = [self.sides(one) == self.rare for one in series]
        share = float(np.concatenate(rare).mean())
        return {
            "frames": [len(one) for one in series],
            "independent_samples": 0.0 if share in (0.0, 1.0) else float(effective_sample_size(series)),
            "entries_into_rare_state": int(sum((np.diff(one.astype(int)) > 0).sum() for one in rare)),
            "share_of_rare_state": share,
            "histogram": np.histogram(np.concatenate(series), self.edges)[0],
        }


def make_simulation(
    bundle: Path | None, start: np.ndarray, seed: int, relaxation: int = 1, driving: dict | None = None
) -> app.Simulation:
    """Return an exact-mode simulation with so many steps between jumps, or plain MD without a bundle; Reference."""
    topology = app.PDBFile(str(TOP)).topology
    system = build_system(topology, hydrogen_mass=HYDROGEN_MASS)
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    if bundle is not None:
        model = LatentModel(bundle)
        model.addRestraint(system, topology)
        integrator = model.createIntegrator(
            topology, integrator, jumpInterval=relaxation, mode="exact", seed=seed, **(driving or UNTUNED)
        )
    simulation = app.Simulation(topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(start)
    simulation.minimizeEnergy(maxIterations=200)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE * unit.kelvin, seed)
    return simulation


def speed_of_md(start: np.ndarray) -> float:
    """Return the CPU seconds of a nanosecond of plain MD."""
    plain = make_simulation(None, start, 1)
    plain.step(1000)
    began = time.process_time()
    plain.step(5000)
    return (time.process_time() - began) / (5000 * TIMESTEP / 1000)


def tuned(bundle: Path, reference: mdtraj.Trajectory, is_rare: np.ndarray, seed: int, relaxation: int) -> dict:
    """Return how drives go best from frames of both states, what else was tried, and the CPU seconds of all that."""
    random = np.random.default_rng(seed)
    both = [random.choice(np.flatnonzero(side), N_STARTS, replace=False) for side in (is_rare, ~is_rare)]
    starts = reference.xyz[np.stack(both, axis=1).ravel()]
    weights = np.tile([is_rare.mean(), 1 - is_rare.mean()], N_STARTS)
    began = time.process_time()
    simulation = make_simulation(bundle, starts[0], seed, relaxation)
    tuning = tune_driving(simulation, n_jumps=2 * N_STARTS, starts=starts, start_weights=weights, **CANDIDATES)
    return {
        "setting": tuning.chosen.setting,
        "trials": [
            t.setting | {"acceptance": t.acceptance, "seconds_per_jump": t.seconds_per_jump, "speed": t.speed}
            for t in tuning.trials
        ],
        "cpu_seconds": time.process_time() - began,
    }


def walk(
    bundle: Path, start: np.ndarray, seed: int, cpu_seconds: float, relaxation: int, driving: dict, out: Path
) -> dict:
    """Jump for so long, and keep the frames in a file; measure the speed of plain MD beside it."""
    torch.set_num_threads(1)
    seconds_per_ns = speed_of_md(start)
    simulation = make_simulation(bundle, start, seed, relaxation, driving)
    integrator = simulation.integrator
    integrator.step(relaxation)
    frames, records = [], []
    began = time.process_time()
    while time.process_time() - began < cpu_seconds:
        simulation.step(relaxation)
        frames.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float32))
        records += integrator.getJumpRecords(integrator.getNumJumps() - 1)
    spent = time.process_time() - began
    np.save(out, np.array(frames))
    return {
        "acceptance": float(np.mean([record.acceptance for record in records])),
        "driven": float(np.mean([record.reason != "near" for record in records])),
        "cpu_seconds": spent,
        "md_cpu_seconds_per_ns": seconds_per_ns,
    }


def both_walks(bundle: Path, starts: list[np.ndarray], options: argparse.Namespace, setting: dict, out: Path) -> list:
    """Walk from a frame of each state, side by side."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.starmap(
            walk,
            [
                (
                    bundle,
                    start,
                    options.seed + i,
                    options.cpu_seconds,
                    options.relaxation,
                    setting,
                    out / f"walk_{i}.npy",
                )
                for i, start in enumerate(starts)
            ],
            chunksize=1,
        )


def stages_folder(bundle: Path, options: argparse.Namespace) -> Path:
    """Return where stages keep what they found with this model and these settings."""
    settings = [inspect_bundle(bundle)["sha256"], UNTUNED, CANDIDATES, N_STARTS, options.cpu_seconds]
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    out = WORK / f"stages_{digest}_seed{options.seed}_relaxation{options.relaxation}"
    out.mkdir(exist_ok=True)
    return out


def gain(samples: float, seconds: float, of_md: dict) -> float | None:
    """Return how many times more independent samples a CPU-second brings than plain MD."""
    return samples / seconds / of_md["per_cpu_second"] if of_md["per_cpu_second"] > 0 else None


def gain_by_entries(exact: dict, plain: dict) -> dict:
    """Return how many times as often a CPU-second the exact mode enters the rarer state; None where nothing bounds it.

    Given the sum of two Poisson counts one of them is binomial: the 95 % limits are those of Clopper and Pearson.
    """
    n, m = exact["entries_into_rare_state"], plain["entries_into_rare_state"]
    ratio = plain["cpu_seconds"] / exact["cpu_seconds"]
    low = stats.beta.ppf(0.025, n, m + 1) if n else 0.0
    high = stats.beta.ppf(0.975, n + 1, m) if m else None
    limits = [None if x is None else float(ratio * x / (1 - x)) for x in (low, high)]
    return {"gain": ratio * n / m if m else None, "interval": limits}


def guarded_run(bundle: Path, folder: Path, nanoseconds: float, seed: int) -> dict:
    """Make guarded jumps, reweight the relaxations between them, and say what they know of the rare state."""
    config = HybridConfig(
        temperature=TEMPERATURE, duration=1000 * nanoseconds, jump_interval=2500, timestep=TIMESTEP, friction=1.0,
        hydrogen_mass=HYDROGEN_MASS, report_interval=125, seed=seed,
    )  # fmt: skip
    started = time.process_time()
    told = {"run": str(HybridRun(bundle, TOP, folder, config, "Reference").run())}
    told["cpu_seconds"] = time.process_time() - started
    torsions = TorsionTable.from_topology(TOP)
    run = read_hybrid_run(find_runs([folder])[0], torsions)
    features = [name for name in torsions.names if name.startswith(("phi", "psi"))]
    segments = to_segments([run], torsions, [STATE], features)
    result = reweight(segments, run.frame_spacing, [STATE.name], ReweightConfig(temperature=TEMPERATURE))
    (rare,) = result.populations
    if rare.refusals:
        return told | {"refused": rare.refusals}
    p = rare.population
    error = (rare.high - rare.low) / 4.0
    return told | {"share_of_state": p, "error": error, "independent_samples": p * (1 - p) / error**2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--md-ns", type=float, default=40.0, help="of plain MD")
    parser.add_argument("--training-ns", type=float, default=10.0, help="of it, from its start, to learn from")
    parser.add_argument("--cpu-seconds", type=float, default=600.0, help="of each of two exact walkers")
    parser.add_argument("--relaxation", type=int, default=100, help="MD steps of 4 fs between two exact jumps")
    parser.add_argument("--guarded-ns", type=float, default=3.0, help="of relaxation in the guarded run; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--anew", action="store_true", help="train again, and do again what was kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reference = reference_md(options.md_ns)
    seen = reference[: round(options.training_ns / SPACING)]
    bundle = trained_bundle(seen, options.anew)
    is_rare = SlowMode(seen).is_rare(seen)
    starts = [seen.xyz[np.flatnonzero(side)[side.sum() // 2]] for side in (~is_rare, is_rare)]
    out = stages_folder(bundle, options)

    def stage(name: str, make) -> dict:
        return kept(out / f"{name}.json", make, options.anew)

    tuning = stage("tuning", lambda: tuned(bundle, seen, is_rare, options.seed + 100, options.relaxation))
    walks = stage("walks", lambda: both_walks(bundle, starts, options, tuning["setting"], out))
    walked = [np.load(out / f"walk_{i}.npy") for i in range(2)]
    seconds_per_ns = float(np.mean([w["md_cpu_seconds_per_ns"] for w in walks]))
    mode = SlowMode(reference)
    plain = mode.measure([reference])
    ns = len(reference) * SPACING
    plain |= {"ns": ns, "cpu_seconds": ns * seconds_per_ns}
    plain["per_cpu_second"] = plain["independent_samples"] / plain["cpu_seconds"]
    exact = mode.measure([mdtraj.Trajectory(frames, reference.topology) for frames in walked])
    exact["cpu_seconds"] = sum(w["cpu_seconds"] for w in walks)
    exact["jsd_nats_to_md"] = float(jsd(exact["histogram"], plain["histogram"]))
    exact["gain"] = gain(exact["independent_samples"], exact["cpu_seconds"], plain)
    exact["gain_by_entries"] = gain_by_entries(exact, plain)
    exact |= {"walks": walks, "tuning": tuning}
    guarded = {}
    if options.guarded_ns > 0:
        guarded = stage("guarded", lambda: guarded_run(bundle, out / "guarded", options.guarded_ns, options.seed))
    told = {name: one | {"histogram": one["histogram"].tolist()} for name, one in (("MD", plain), ("exact", exact))}
    write_results(
        "exact_wlall",
        {
            "settings": vars(options),
            "slow_mode": {
                "timescale_ns": mode.timescale,
                "centres": mode.centres.tolist(),
                "edges": mode.edges.tolist(),
            },
            **told,
            "guarded": guarded,
        },
    )


if __name__ == "__main__":
    main()
