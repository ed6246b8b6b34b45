"""The reference free energy of phi > 0 on alanine dipeptide: umbrella windows along phi, exchanged, joined by MBAR.

    F = -kT ln [P(0 < phi < 180 deg) / P(-180 < phi < 0 deg)]   at 300 K, System ../shared/data/adp_md/adp_system.xml

Windows 15 degrees apart lead from -180 over the barrier near phi = 0 to 90. The other barrier, near 120 (above
50 kJ/mol in a run that went all the way round), is left out: nothing crosses it at 300 K, and what lies between 110 and
155 degrees weighs less than 1e-5 of phi > 0; what spills over 180 is sampled by the first window. Each window starts
from its own steered structure; neighbours exchange their centres by a Metropolis test (replica exchange).

Near phi = 0 there are two channels, at psi of 120 and of -120, and psi changes between them slowly. So a short pilot of
the same windows first gives a rough (phi, psi) surface, and production adds its negative, capped, to the energy: psi
then moves freely. Reweighting removes it exactly, however rough it is.

Steps are 4 fs with heavier hydrogens: without constraints masses do not enter configurational averages at all; with
bonds to hydrogen constrained they do only through the angles of the CH3 groups, which phi and psi hardly move.

The estimate takes all samples of a seed; its error is the larger of MBAR's own on samples thinned by the statistical
inefficiency of phi and of the standard error of five consecutive blocks. Writes results/adp_umbrella.json and
results/adp_umbrella.npz (the (phi, psi) surface and the profile along phi). Resumable; a longer --duration goes on.

    python benchmarks/adp_umbrella.py --processes 2

Sources: M. R. Shirts and J. D. Chodera, J. Chem. Phys. 129, 124105 (2008), MBAR; Y. Sugita et al., J. Chem. Phys. 113,
6042 (2000), exchange of umbrella windows; C. W. Hopkins et al., J. Chem. Theory Comput. 11, 1864 (2015), 4 fs.
"""

import argparse
import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import mdtraj
import numpy as np
import openmm as mm
from openmm import unit
from results import FOLDER, shared_data, write_results

from openmm_latent import metrics
from openmm_latent.errors import require
from openmm_latent.geometry import dihedrals

TEMPERATURE = 300.0  # [K]
KT = 0.00831446261815324 * TEMPERATURE  # [kJ/mol]
KT_KCAL = KT / 4.184
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]
# The two peptide bonds, and an improper torsion whose sign is the chirality at CA.
OMEGAS, CHIRALITY = [[1, 4, 6, 8], [8, 14, 16, 18]], [6, 14, 10, 8]
QUADRUPLES = np.array([PHI, PSI, *OMEGAS, CHIRALITY])
CENTRES = np.radians(np.arange(-180.0, 91.0, 15.0))
N_WINDOWS = len(CENTRES)
STIFFNESS = 100.0  # [kJ/mol]
FLATTENING_GROUP = 7
TIMESTEP = 0.004  # [ps]
ROUND_STEPS = 25  # between two samples and exchanges: 0.1 ps, about as long as a window remembers phi
ROUND = ROUND_STEPS * TIMESTEP  # [ps]
STEER_STEPS = 750  # from one window to the next: 3 ps
EQUILIBRATION = 50.0  # [ps] a window, with exchanges, thrown away
PILOT = 200.0  # [ps] a window, for the rough surface
MAP_SIZE = 36  # points an axis of the rough surface
MAP_SMOOTHING = np.radians(8.0)
PSI_CAP, PHI_CAP = 15.0, 40.0  # [kJ/mol] up to which the surface is flattened, along psi and along its valley in phi
SAVE_SECONDS = 60.0
N_BLOCKS = 5
BINS = metrics.RAMACHANDRAN_BINS
PROMISED_ERROR = 0.03  # [kcal/mol]
OUTPUT = Path(__file__).parents[1] / "benchmark_output" / "adp_umbrella"


# --- sampling --------------------------------------------------------------------------------------------------------


def restrained_system(rough_surface: np.ndarray | None = None) -> mm.System:
    """Return the System with hydrogens of 3 amu, a periodic restraint on phi, and the rough surface taken off.

    `rough_surface`: (n, n) [kJ/mol], phi first, angles from -pi on.
    """
    system = mm.XmlSerializer.deserialize((shared_data("adp_md") / "adp_system.xml").read_text())
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        light, heavy = sorted((first, second), key=lambda atom: system.getParticleMass(atom)._value)
        moved = 3.0 - system.getParticleMass(light)._value
        system.setParticleMass(light, 3.0)
        system.setParticleMass(heavy, system.getParticleMass(heavy)._value - moved)
    restraint = mm.CustomTorsionForce("stiffness * (1 - cos(theta - centre))")
    restraint.addGlobalParameter("stiffness", STIFFNESS)
    restraint.addGlobalParameter("centre", 0.0)
    restraint.addTorsion(*PHI, [])
    system.addForce(restraint)
    if rough_surface is not None:
        flattening = mm.CMAPTorsionForce()
        # OpenMM's maps begin at angle 0, ours at -pi, and its first angle runs fastest.
        n_half = len(rough_surface) // 2
        flattening.addMap(len(rough_surface), (-np.roll(rough_surface, (n_half, n_half), (0, 1))).ravel(order="F"))
        flattening.addTorsion(0, *PHI, *PSI)
        flattening.setForceGroup(FLATTENING_GROUP)
        system.addForce(flattening)
    return system


def make_context(system: mm.System, seed: int) -> mm.Context:
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 1 / unit.picosecond, TIMESTEP * unit.picosecond)
    integrator.setRandomNumberSeed(seed)
    return mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))


def positions_of(context: mm.Context) -> np.ndarray:
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def steered_structures(system: mm.System, seed: int) -> list[np.ndarray]:
    """Drag phi from a frame of the MD near -75 degrees both ways round; return each window's structure."""
    data = shared_data("adp_md")
    frames = mdtraj.load(data / "adp_300K.xtc", top=data / "adp.pdb", stride=10).xyz
    start = int(np.argmin(np.abs(CENTRES - np.radians(-75.0))))
    away = np.abs(np.angle(np.exp(1j * (dihedrals(frames, QUADRUPLES[:1])[:, 0] - CENTRES[start]))))
    # Another frame for another seed, so that psi does not start alike.
    first = frames[np.flatnonzero(away < np.radians(3.0))[17 * seed]]
    structures: dict[int, np.ndarray] = {}
    context = make_context(system, 1000 * seed)
    for direction in (1, -1):
        context.setPositions(first)
        context.setVelocitiesToTemperature(TEMPERATURE, 1000 * seed)
        previous = start
        for window in range(start, N_WINDOWS if direction > 0 else -1, direction):
            for fraction in (0.25, 0.5, 0.75, 1.0):
                centre = CENTRES[previous] + fraction * (CENTRES[window] - CENTRES[previous])
                context.setParameter("centre", centre)
                context.getIntegrator().step(STEER_STEPS // 4)
            structures[window] = positions_of(context)
            previous = window
    return [structures[window] for window in range(N_WINDOWS)]


class Sampler:
    """The windows of one seed, advanced in rounds: steps, a sample of each window, exchanges of neighbours."""

    def __init__(self, seed: int, file: Path, rough_surface: np.ndarray | None = None):
        self.seed, self.file = seed, file
        self.is_flattened = rough_surface is not None
        self.system = restrained_system(rough_surface)
        self.contexts = [make_context(self.system, 1000 * seed + 1 + index) for index in range(N_WINDOWS)]
        self.setting = json.dumps(
            {
                "windows": N_WINDOWS,
                "stiffness": STIFFNESS,
                "timestep": TIMESTEP,
                "round": ROUND_STEPS,
                "seed": seed,
                "map": hashlib.sha256(rough_surface.tobytes()).hexdigest() if self.is_flattened else None,
            }
        )
        self.samples: list[np.ndarray] = []  # each (n_windows, 3), by window: see `_round`
        self.window = np.arange(N_WINDOWS)  # of each context
        self.n_rounds, self.cpu_seconds = 0, 0.0
        self.n_accepted, self.n_tried = 0, 0
        if self.file.exists():
            self._load()
        else:
            self._start()

    def _start(self) -> None:
        for index, structure in enumerate(steered_structures(self.system, self.seed)):
            context = self.contexts[index]
            context.setParameter("centre", CENTRES[index])
            context.setPositions(structure)
            context.setVelocitiesToTemperature(TEMPERATURE, 1000 * self.seed + 1 + index)

    def _load(self) -> None:
        with np.load(self.file) as saved:
            require(
                str(saved["setting"]) == self.setting,
                f"{self.file} holds a run with {saved['setting']}, not {self.setting}; give another --work",
            )
            self.samples, self.window = list(saved["samples"]), saved["window"]
            self.n_rounds, self.cpu_seconds = int(saved["n_rounds"]), float(saved["cpu_seconds"])
            self.n_accepted, self.n_tried = int(saved["n_accepted"]), int(saved["n_tried"])
            for index, context in enumerate(self.contexts):
                context.loadCheckpoint(saved[f"checkpoint_{index}"].tobytes())

    def save(self) -> None:
        checkpoints = {
            f"checkpoint_{index}": np.frombuffer(context.createCheckpoint(), dtype=np.uint8)
            for index, context in enumerate(self.contexts)
        }
        partial = self.file.with_suffix(".partial.npz")
        np.savez(
            partial,
            setting=self.setting,
            samples=np.array(self.samples, dtype=np.float32).reshape(-1, N_WINDOWS, 3),
            window=self.window,
            n_rounds=self.n_rounds,
            cpu_seconds=self.cpu_seconds,
            n_accepted=self.n_accepted,
            n_tried=self.n_tried,
            **checkpoints,
        )
        os.replace(partial, self.file)

    def run(self, duration: float) -> None:
        """Go on until each window has `duration` [ps] after equilibration."""
        n_equilibration = round(EQUILIBRATION / ROUND)
        n_rounds = n_equilibration + round(duration / ROUND)
        before, last_save = time.process_time(), time.monotonic()
        while self.n_rounds < n_rounds:
            sample = self._round()
            if self.n_rounds >= n_equilibration:
                self.samples.append(sample)
            self.n_rounds += 1
            is_last = self.n_rounds == n_rounds
            if is_last or time.monotonic() - last_save > SAVE_SECONDS:
                self.cpu_seconds, before = self.cpu_seconds + time.process_time() - before, time.process_time()
                self.save()
                last_save = time.monotonic()
                print(f"{self.file.stem}: round {self.n_rounds} of {n_rounds}, {self.cpu_seconds:.0f} s", flush=True)

    def _round(self) -> np.ndarray:
        """Advance all windows, note phi, psi [rad] and the flattening energy [kT] of each, then exchange."""
        frames, flattening = np.empty((N_WINDOWS, self.system.getNumParticles(), 3)), np.zeros(N_WINDOWS)
        for index, context in enumerate(self.contexts):
            context.getIntegrator().step(ROUND_STEPS)
            frames[self.window[index]] = positions_of(context)
            if self.is_flattened:
                state = context.getState(energy=True, groups={FLATTENING_GROUP})
                flattening[self.window[index]] = state.getPotentialEnergy()._value / KT
        angles = dihedrals(frames, QUADRUPLES)
        require(
            bool(np.all(np.abs(angles[:, 2:4]) > np.pi / 2) and np.all(angles[:, 4] * angles[0, 4] > 0)),
            "a peptide bond turned to cis, or CA changed its chirality; the windows no longer sample one molecule",
        )
        self._exchange(angles[:, 0])
        return np.column_stack([angles[:, :2], flattening]).astype(np.float32)  # (n_windows, 3)

    def _exchange(self, phi: np.ndarray) -> None:
        """Swap neighbouring centres, even and odd pairs in turn, with what keeps the joint density."""
        # Drawn from (seed, round) alone: a restart needs no generator state.
        uniform = np.random.default_rng([self.seed, self.n_rounds]).uniform(size=N_WINDOWS)
        context_of = np.argsort(self.window)
        for low in range(self.n_rounds % 2, N_WINDOWS - 1, 2):
            high = low + 1
            stay = bias(phi[low], CENTRES[low]) + bias(phi[high], CENTRES[high])
            swap = bias(phi[high], CENTRES[low]) + bias(phi[low], CENTRES[high])
            self.n_tried += 1
            if np.log(uniform[low]) < stay - swap:
                self.n_accepted += 1
                for context, window in ((context_of[low], high), (context_of[high], low)):
                    self.window[context] = window
                    self.contexts[context].setParameter("centre", CENTRES[window])


def bias(phi: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the restraint's energy in kT."""
    return STIFFNESS / KT * (1.0 - np.cos(phi - centre))


# --- analysis --------------------------------------------------------------------------------------------------------


def joined(windows: list[np.ndarray]) -> tuple[object, np.ndarray, np.ndarray]:
    """Join windows by MBAR: a list of (n, 3) -> pymbar's MBAR, (n_samples, 3) in its order, (n_samples,) weights."""
    from pymbar import MBAR

    samples = np.concatenate(windows).astype(np.float64)
    # (n_windows, n_samples) [kT], less the flattening that all windows share
    energies = bias(samples[None, :, 0], CENTRES[:, None])
    counts = np.array([len(window) for window in windows])
    mbar = MBAR(energies, counts, initialize="BAR", relative_tolerance=1e-8)
    exponents = np.log(counts)[:, None] + np.asarray(mbar.f_k)[:, None] - energies
    largest = exponents.max(axis=0)
    # The density sought is the windows' common one without the flattening.
    log_weights = samples[:, 2] - largest - np.log(np.exp(exponents - largest).sum(axis=0))
    weights = np.exp(log_weights - log_weights.max())
    return mbar, samples, weights / weights.sum()


def by_window(samples: np.ndarray) -> list[np.ndarray]:
    """(n_rounds, n_windows, 3) -> list of (n_rounds, 3)."""
    return list(samples.transpose(1, 0, 2))


def free_energy(windows: list[np.ndarray]) -> float:
    """Return F [kcal/mol] of phi > 0 against phi < 0."""
    _, samples, weights = joined(windows)
    is_positive = samples[:, 0] > 0
    return float(-KT_KCAL * np.log(weights[is_positive].sum() / weights[~is_positive].sum()))


def rough_surface(samples: np.ndarray) -> np.ndarray:
    """Return what production takes off the energy: (n_rounds, n_windows, 3) -> (36, 36) [kJ/mol].

    Smoothed and capped, so that no gap of the pilot becomes a hole or a wall.
    """
    _, angles, weights = joined(by_window(samples))
    grid = np.linspace(-np.pi, np.pi, MAP_SIZE, endpoint=False)
    # von Mises kernels, (n_grid, n_samples) an angle
    phi, psi = (np.exp((np.cos(grid[:, None] - angles[None, :, k]) - 1) / MAP_SMOOTHING**2) for k in (0, 1))
    density = (phi * weights) @ psi.T
    energy = -KT * np.log(density / density.max() + 1e-30)
    valley = energy.min(axis=1, keepdims=True)
    return np.minimum(energy - valley, PSI_CAP) + np.minimum(valley - valley.min(), PHI_CAP)


def thinned(samples: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return nearly independent samples of each window, and each window's statistical inefficiency [samples].

    The inefficiency is that of phi (the larger of sine and cosine): the windows' energies depend on nothing else. What
    psi remembers for longer shows in the blocks and between the seeds.
    """
    from pymbar import timeseries

    kept, inefficiencies = [], []
    for window in by_window(samples):
        inefficiency = max(timeseries.statistical_inefficiency(one(window[:, 0])) for one in (np.cos, np.sin))
        kept.append(window[:: int(np.ceil(inefficiency))])
        inefficiencies.append(inefficiency)
    return kept, np.array(inefficiencies)


def analyse(samples: np.ndarray) -> dict:
    """Return a seed's free energy with both errors: (n_rounds, n_windows, 3)."""
    kept, inefficiencies = thinned(samples)
    mbar, kept_samples, _ = joined(kept)
    found = mbar.compute_expectations((kept_samples[:, 0] > 0).astype(float), u_kn=-kept_samples[:, 2])
    population, spread = float(np.ravel(found["mu"])[0]), float(np.ravel(found["sigma"])[0])
    blocks = np.array([free_energy(by_window(block)) for block in np.array_split(samples, N_BLOCKS)])
    estimate = free_energy(by_window(samples))
    # F = -kT ln(p / (1 - p)), so dF = kT dp / (p (1 - p)).
    error_mbar = KT_KCAL * spread / (population * (1.0 - population))
    error_blocks = float(blocks.std(ddof=1) / np.sqrt(N_BLOCKS))
    return {
        "free_energy_kcal": estimate,
        "error_kcal": max(error_mbar, error_blocks),
        "error_mbar_kcal": error_mbar,
        "error_blocks_kcal": error_blocks,
        "free_energy_thinned_kcal": float(-KT_KCAL * np.log(population / (1.0 - population))),
        "blocks_kcal": blocks.round(4).tolist(),
        "population": float(1.0 / (1.0 + np.exp(estimate / KT_KCAL))),
        "nanoseconds": samples.shape[0] * samples.shape[1] * ROUND / 1000,
        "thinned_samples": int(sum(len(window) for window in kept)),
        "inefficiency_ps_largest": float(inefficiencies.max() * ROUND),
        "inefficiency_ps_median": float(np.median(inefficiencies) * ROUND),
        "smallest_neighbour_overlap": float(np.min(neighbour_overlaps(mbar))),
    }


def neighbour_overlaps(mbar: object) -> np.ndarray:
    """Return MBAR's overlap matrix beside its diagonal; below 0.03 a link is weak."""
    return np.diagonal(np.asarray(mbar.compute_overlap()["matrix"]), offset=1)


def surface(samples: np.ndarray) -> np.ndarray:
    """Return the unbiased (phi, psi) probabilities: (n_rounds, n_windows, 3) -> (50, 50), sum 1."""
    _, angles, weights = joined(by_window(samples))
    edges = np.linspace(-np.pi, np.pi, BINS + 1)
    return np.histogram2d(angles[:, 0], angles[:, 1], bins=(edges, edges), weights=weights)[0]


def profile(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the free energy along phi in bins [kJ/mol], zero at its minimum, infinite where no window goes."""
    _, angles, weights = joined(by_window(samples))
    density = np.histogram(angles[:, 0], edges, weights=weights)[0]
    with np.errstate(divide="ignore"):
        return -KT * np.log(density / density.max())


def check_against_md(probabilities: np.ndarray) -> dict:
    """Compare the half phi < 0 with the plain MD, which covers that half alone."""
    data = shared_data("adp_md")
    frames = mdtraj.load(data / "adp_300K.xtc", top=data / "adp.pdb").xyz
    angles = dihedrals(frames, QUADRUPLES[:2])
    counts = metrics.ramachandran_counts(angles)[: BINS // 2]
    middle = len(angles) // 2
    halves = [metrics.ramachandran_counts(part)[: BINS // 2] for part in (angles[:middle], angles[middle:])]
    return {
        "jsd_umbrella_and_md_nats": metrics.jsd(probabilities[: BINS // 2], counts),
        "jsd_of_halves_of_md_nats": metrics.jsd(*halves),
        "md_frames": len(angles),
    }


def combine(seeds: dict[str, dict], samples: list[np.ndarray]) -> dict:
    """Return the weighted mean of the seeds, whether they agree, and what the pooled samples say."""
    values = np.array([seed["free_energy_kcal"] for seed in seeds.values()])
    errors = np.array([seed["error_kcal"] for seed in seeds.values()])
    share = errors**-2 / (errors**-2).sum()
    mean, error = float(share @ values), float((errors**-2).sum() ** -0.5)
    probabilities = surface(np.concatenate(samples))
    phi_edges, edges = np.radians(np.arange(-180.0, 181.0, 10.0)), np.linspace(-np.pi, np.pi, BINS + 1)
    along_phi = profile(np.concatenate(samples), phi_edges)
    np.savez(
        FOLDER / "adp_umbrella.npz", probabilities=probabilities, edges=edges, phi_edges=phi_edges, profile=along_phi
    )
    found = {
        "free_energy_kcal": mean,
        "error_kcal": error,
        "population_phi_positive": float(1.0 / (1.0 + np.exp(mean / KT_KCAL))),
        "is_within_promised_error": bool(error <= PROMISED_ERROR),
        "barrier_near_0_kj": float(along_phi[np.abs(phi_edges[:-1]) < np.radians(35.0)].max()),
        "check_on_phi_negative": check_against_md(probabilities),
    }
    if len(values) == 2:
        difference, allowed = float(abs(values[0] - values[1])), float(2.0 * np.hypot(*errors))
        found |= {"seeds_differ_kcal": difference, "two_sigma_kcal": allowed, "seeds_agree": difference <= allowed}
        found["jsd_between_seeds_nats"] = metrics.jsd(surface(samples[0]), surface(samples[1]))
    return found


def sample(seed: int, duration: float, folder: Path) -> None:
    """Run pilot and production of one seed, or what is left of them."""
    pilot = Sampler(seed, folder / f"seed_{seed}_pilot.npz")
    pilot.run(PILOT)
    rough = rough_surface(np.array(pilot.samples))
    Sampler(seed, folder / f"seed_{seed}.npz", rough).run(duration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=2000.0, help="ps of each of the 19 windows, a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--processes", type=int, default=1, help="seeds run side by side")
    parser.add_argument("--work", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Fresh processes: a forked one would inherit OpenMM's platforms half made.
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(sample, seed, arguments.duration, arguments.work) for seed in arguments.seeds]
        for job in jobs:
            job.result()
    seeds, all_samples = {}, []
    for seed in arguments.seeds:
        with np.load(arguments.work / f"seed_{seed}.npz") as saved:
            samples = saved["samples"][: round(arguments.duration / ROUND)]
            run = {
                "cpu_minutes_production": round(float(saved["cpu_seconds"]) / 60, 2),
                "exchange_acceptance": float(saved["n_accepted"] / saved["n_tried"]),
            }
        all_samples.append(samples)
        seeds[str(seed)] = analyse(samples) | run
        print(f"seed {seed}", json.dumps(seeds[str(seed)], indent=1), flush=True)
    result = combine(seeds, all_samples)
    print(json.dumps(result, indent=1))
    setting = {
        "windows": N_WINDOWS,
        "stiffness_kj": STIFFNESS,
        "timestep_ps": TIMESTEP,
        "duration_ps_a_window": arguments.duration,
        "equilibration_ps_a_window": EQUILIBRATION,
        "pilot_ps_a_window": PILOT,
        "sample_spacing_ps": ROUND,
        "temperature_kelvin": TEMPERATURE,
        "definition": "F = -kT ln[P(0 < phi < 180 deg) / P(-180 deg < phi < 0)], kcal/mol",
    }
    from importlib.metadata import version

    write_results(
        "adp_umbrella", {"setting": setting, "pymbar": version("pymbar"), "reference": result, "seeds": seeds}
    )


if __name__ == "__main__":
    main()
