"""Parts 1 and 2 of the suite: what a jump costs, against atoms and against the ways there are without the plugin."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import jump_overhead
import numpy as np
import openmm as mm
import torch
from openmm import unit
from suite_systems import Molecule, chain, with_untrained_bundle
from suite_timing import Case, bar, fit_exponent, in_own_process, interleave, peak_megabytes, quartiles

from openmm_latent import LatentModel
from openmm_latent.compiling import compile_bundle
from openmm_latent.topology import find_riders

LOOPS = ("MLP", "GLDP", "GLDP, compiled")  # part 2
NEVER = 2**31 - 1  # steps
PARTS = ("gather", "module", "scatter", "minimize", "velocity")
#: Cost against atoms is fitted from here on: below, a jump costs what its operations cost to call.
LEAST_FITTED = 2500
#: MD steps before each timed jump, themselves untimed: they make the strain that its minimisation compares with.
WARMING = 5
#: The chain's peptide bonds are not flat: the guard looks at them, and lets them pass.
FLAT = {"maxOmegaDeviation": 4}
_SETTLING_JUMPS = 5  # TorchScript and the allocator settle in the first calls


class PythonLoop:
    """What the plugin does in a jump, written with OpenMM's Python interface: the same calls in the same order.

    Hydrogens follow the atom they hang on; the plugin turns them with it, too.
    """

    def __init__(self, molecule: Molecule, model: LatentModel, context: mm.Context, forward) -> None:
        self.context, self.forward = context, forward
        self.atoms = np.array(model.modelAtoms(molecule.topology))
        riders = np.array(find_riders(molecule.topology, self.atoms.tolist()))
        self.riders, self.origins = riders[:, 0], riders[:, 1]
        self.n_noise = model.manifest.noise_sizes["jump"]
        self.seed = self.n_iterations = 0

    def jump(self) -> None:
        state = self.context.getState(positions=True, energy=True, forces=True)
        frame = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        enough = strain(state)
        centred = frame[self.atoms]
        centred = torch.from_numpy(centred - centred.mean(axis=0)).float()[None]
        moved = self.forward(centred, torch.randn(1, self.n_noise))
        displacement = (moved - centred)[0].double().numpy()
        frame[self.atoms] += displacement
        frame[self.riders] += displacement[self.origins]
        self.context.setPositions(frame)
        self.context.applyConstraints(1e-5)
        self.minimize(enough)
        self.seed += 1
        self.context.setVelocitiesToTemperature(300, self.seed)

    def minimize(self, enough: tuple[float, float]) -> None:
        """Go downhill as the plugin does: until the strain is what it was before the jump, or forces are small."""
        length = 0.005
        state = self.context.getState(energy=True, forces=True, positions=True)
        for _ in range(100):
            energy, largest = strain(state)
            forces = state.getForces(asNumpy=True)._value
            if (energy <= enough[0] and largest <= enough[1]) or np.sqrt((forces**2).mean()) <= 50:
                return
            self.n_iterations += 1
            frame = state.getPositions(asNumpy=True)._value
            self.context.setPositions(frame + forces * (length / largest))
            self.context.applyConstraints(1e-5)
            trial = self.context.getState(energy=True, forces=True, positions=True)
            is_better = strain(trial)[0] < energy
            length, state = (min(1.2 * length, 0.05), trial) if is_better else (0.2 * length, state)


def strain(state: mm.State) -> tuple[float, float]:
    """Energy [kJ/mol] and largest force [kJ/mol/nm]."""
    forces = state.getForces(asNumpy=True)._value
    return state.getPotentialEnergy()._value, float(np.sqrt((forces**2).sum(axis=1).max()))


def python_force_context(molecule: Molecule, model: LatentModel, platform: str) -> mm.Context:
    """A Context whose force group 1 is Python code that reads the model atoms and gives back zeros."""

    def compute(state):
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        return 0.0, np.zeros_like(positions)

    system = mm.System()
    for i in range(molecule.system.getNumParticles()):
        system.addParticle(molecule.system.getParticleMass(i))
    force = mm.PythonForce(compute)
    force.setParticles(model.modelAtoms(molecule.topology))
    force.setForceGroup(1)
    system.addForce(force)
    return Molecule("", molecule.topology, system, molecule.positions).context(mm.VerletIntegrator(0.001), platform)


def wrapped(molecule: Molecule, model: LatentModel, platform: str, interval: int, **settings) -> mm.Context:
    """A Context whose integrator jumps."""
    relaxation = mm.LangevinMiddleIntegrator(300, 1, 0.001)
    relaxation.setRandomNumberSeed(1)
    integrator = model.createIntegrator(molecule.topology, relaxation, jumpInterval=interval, seed=1, **settings)
    return molecule.context(integrator, platform)


def measure_jumps(n_atoms: int, platform: str, n_rounds: int, seconds: float) -> dict[str, Any]:
    """Time the jump of one chain and what it is held against; in a process of its own."""
    torch.set_num_threads(1)
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        molecule = with_untrained_bundle(chain(n_atoms), Path(folder))
        model = LatentModel(molecule.bundle)
        exploring = wrapped(molecule, model, platform, NEVER, mode="exploratory", thresholds=FLAT)
        setup = time.perf_counter() - start
    for _ in range(_SETTLING_JUMPS):
        exploring.getIntegrator().jump()
    memory = peak_megabytes()
    integrator = exploring.getIntegrator()
    plain = molecule.context(mm.LangevinMiddleIntegrator(300, 1, 0.001), platform)
    forward = script_forward(model)
    loop = PythonLoop(molecule, model, plain, forward)
    asked = python_force_context(molecule, model, platform)
    frame = torch.tensor(model.manifest.reference_positions)[None]
    noise = torch.zeros(1, model.manifest.noise_sizes["jump"])
    first = exploring.getIntegrator().getNumJumps()

    def prepare(mode: int):
        def warm() -> None:
            integrator.setMode(mode)
            integrator.step(WARMING)

        return warm

    cases = {
        "jump": Case(integrator.jump, prepare=prepare(integrator.Exploratory)),
        "guarded jump": Case(integrator.jump, prepare=prepare(integrator.Guarded)),
        "module alone": Case(lambda: forward(frame, noise)),
        "jump in Python": Case(loop.jump, prepare=lambda: plain.getIntegrator().step(WARMING)),
        "PythonForce": Case(lambda: asked.getState(energy=True, groups={1})),
        "MD step": Case(lambda: plain.getIntegrator().step(10), 10),
    }
    clock = time.process_time if n_atoms >= LEAST_FITTED else time.perf_counter
    walls = interleave(cases, n_rounds, seconds, clock)
    made = list(integrator.getJumpRecords(first))
    records = [record for record in made if record.mode == integrator.Exploratory]
    guarded = [record for record in made if record.mode == integrator.Guarded]
    split = {part: np.array([getattr(record, part + "Seconds") for record in records]) for part in PARTS}
    return {
        "n_atoms": n_atoms,
        "n_model_atoms": int(frame.shape[1]),
        "n_jumps": len(records),
        "refused_guarded_jumps": f"{sum(not record.accepted for record in guarded)} of {len(guarded)}",
        "minimizer_iterations_mean": float(np.mean([record.minimizerIterations for record in records])),
        "microseconds": {name: quartiles(values, 1e6) for name, values in (split | walls).items()},
        "shim_microseconds": quartiles(split["gather"] + split["scatter"], 1e6),
        "setup_seconds": round(setup, 3),
        "peak_megabytes": round(memory),
        "peak_megabytes_above_imports": round(memory - before),
    }


def script_forward(model: LatentModel):
    """The bundle's TorchScript module as Python calls it."""
    module = model._bundle.module

    def forward(positions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return module.jump(positions, [], noise)[0]

    return forward


def compiled_forward(path: Path):
    """The bundle's compiled method as Python calls it."""
    from torch._inductor import aoti_load_package

    with zipfile.ZipFile(path) as entries:
        name = next(entry for entry in entries.namelist() if entry.endswith("/jump.pt2"))
        package = aoti_load_package(io.BytesIO(entries.read(name)), run_single_threaded=True)

    def forward(positions: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return package(positions, noise)[0]

    return forward


def measure_loops(platform: str, n_rounds: int, seconds: float) -> dict[str, Any]:
    """One step and one jump at 22 atoms, by plugin and in Python, for modules that cost much and little."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        molecule = with_untrained_bundle(chain(22), Path(folder))
        start = time.perf_counter()
        compiled_path = Path(folder) / "compiled.latent.pt"
        compile_bundle(molecule.bundle, compiled_path)
        results["compiling_seconds"] = round(time.perf_counter() - start, 1)
        models = {"GLDP": LatentModel(molecule.bundle), "GLDP, compiled": LatentModel(compiled_path)}
        forwards = {"GLDP": script_forward(models["GLDP"]), "GLDP, compiled": compiled_forward(compiled_path)}
        # And the module that costs least: a small autoencoder of linear layers.
        models["MLP"] = LatentModel(jump_overhead.export(Path(folder), molecule.topology, molecule.positions, 256))
        forwards["MLP"] = script_forward(models["MLP"])
        cases, contexts = {}, {}
        for name, model in models.items():
            runner = "aoti" if name == "GLDP, compiled" else "torchscript"
            context = wrapped(molecule, model, platform, 1, mode="exploratory", runner=runner)
            context.getIntegrator().step(100)
            own = molecule.context(mm.LangevinMiddleIntegrator(300, 1, 0.001), platform)
            loop = PythonLoop(molecule, model, own, forwards[name])
            contexts[name] = context
            cases[f"plugin, {name}"] = Case(lambda context=context: context.getIntegrator().step(1))
            cases[f"Python, {name}"] = Case(lambda own=own, loop=loop: (own.getIntegrator().step(1), loop.jump()))
        walls = interleave(cases, n_rounds, seconds)
    results["step_and_jump_microseconds"] = {name: quartiles(values, 1e6) for name, values in walls.items()}
    for name, context in contexts.items():
        records = list(context.getIntegrator().getJumpRecords(100))
        shim = np.array([record.gatherSeconds + record.scatterSeconds for record in records])
        forward = np.array([record.moduleSeconds for record in records])
        ratio = walls[f"Python, {name}"] / walls[f"plugin, {name}"]
        results[name] = {
            "shim_microseconds": quartiles(shim, 1e6),
            "module_microseconds": quartiles(forward, 1e6),
            "times_faster_than_python": quartiles(ratio),
        }
    return results


def run(sizes: list[int], platform: str, n_rounds: int, seconds: float) -> tuple[dict[str, Any], list[dict]]:
    """Parts 1 and 2: figures, and bars."""
    rows = []
    for n_atoms in sizes:
        print(f"  chain of {n_atoms} atoms", flush=True)
        rows.append(in_own_process(measure_jumps, n_atoms, platform, n_rounds, seconds))
    print("  loops at 22 atoms", flush=True)
    loops = in_own_process(measure_loops, platform, n_rounds, seconds)
    bars = []
    for name in LOOPS:
        shim, module = loops[name]["shim_microseconds"][1], loops[name]["module_microseconds"][1]
        limit = round(10 + 0.01 * module, 2)
        bars.append(bar(f"shim at 22 atoms, {name}", shim, limit, "us, at most", shim <= limit))
        ratio = loops[name]["times_faster_than_python"][1]
        bars.append(bar(f"plugin over Python loop at 22 atoms, {name}", ratio, 3, "times, at least", ratio >= 3))
    large = [row for row in rows if row["n_atoms"] >= LEAST_FITTED]
    exponents: dict[str, Any] = {}
    if len(large) >= 3:
        atoms = np.array([row["n_atoms"] for row in large], dtype=float)
        for name in rows[0]["microseconds"]:
            costs = np.array([row["microseconds"][name][1] for row in large])
            fitted, error = fit_exponent(atoms, costs)
            last = float(np.log(costs[-1] / costs[-2]) / np.log(atoms[-1] / atoms[-2]))
            exponents[name] = {
                "exponent": round(fitted, 3),
                "standard_error": round(error, 3),
                "last_decade": round(last, 3),
            }
        for name in ("jump", "guarded jump", "module"):
            fitted = exponents[name]["exponent"]
            what = f"exponent of {name} in atoms, {atoms[0]:g} to {atoms[-1]:g}"
            bars.append(bar(what, fitted, 1.1, "at most", fitted <= 1.1))
    return {"sizes": rows, "exponents": exponents, "loops_at_22_atoms": loops}, bars
