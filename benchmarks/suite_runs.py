"""Parts 3 to 5 of the suite: a hybrid run beside its parts, MD beside wrapped MD, and training."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
import suite_systems as systems
import torch
from suite_jumps import NEVER, PARTS, compiled_forward, script_forward
from suite_systems import Molecule
from suite_timing import Case, bar, in_own_process, interleave, peak_megabytes, quartiles

from openmm_latent import LatentModel
from openmm_latent.compiling import compile_bundle

EXAMPLES = Path(__file__).parents[1] / "examples" / "data"
INTERVAL = 100  # steps, of part 3
LONG_INTERVAL = 500  # steps, of part 4


def relaxation() -> mm.LangevinMiddleIntegrator:
    integrator = mm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(1)
    return integrator


def measure_hybrid(platform: str, runner: str, n_rounds: int) -> dict[str, Any]:
    """Alanine dipeptide with the bundle of the examples: cycles of 100 steps and a jump, and each part of one alone."""
    torch.set_num_threads(1)
    molecule, path = systems.alanine_dipeptide(), EXAMPLES / "adp.latent.pt"
    with tempfile.TemporaryDirectory() as folder:
        if runner == "aoti":
            path = Path(folder) / "adp.latent.pt"
            compile_bundle(EXAMPLES / "adp.latent.pt", path)
        model = LatentModel(path)
        forward = compiled_forward(path) if runner == "aoti" else script_forward(model)
    integrator = model.createIntegrator(molecule.topology, relaxation(), jumpInterval=INTERVAL, seed=1)
    hybrid, plain = molecule.context(integrator, platform), molecule.context(relaxation(), platform)
    still = molecule.context(relaxation(), platform)  # its positions stay: what is asked of it is always the same work
    frame = torch.tensor(model.manifest.reference_positions)[None]
    noise = torch.randn(1, model.manifest.noise_sizes["jump"], generator=torch.Generator().manual_seed(1))
    n_cycles = 20
    integrator.step(n_cycles * INTERVAL + 1)
    first, accepted = integrator.getNumJumps(), integrator.getNumAccepted()

    def evaluate() -> None:
        still.setPositions(molecule.positions)  # what one iteration of the minimiser does
        still.applyConstraints(1e-5)
        still.getState(energy=True, forces=True)

    cases = {
        "hybrid": Case(lambda: hybrid.getIntegrator().step(n_cycles * INTERVAL), n_cycles),
        "relaxation": Case(lambda: plain.getIntegrator().step(n_cycles * INTERVAL), n_cycles),
        "module": Case(repeated(lambda: forward(frame, noise), 50), 50),
        # Alone, too, but after 100 steps of MD have taken its place in the processor's caches.
        "cold module": Case(lambda: forward(frame, noise), prepare=lambda: plain.getIntegrator().step(INTERVAL)),
        "evaluation": Case(repeated(evaluate, 50), 50),
        "velocities": Case(repeated(lambda: still.setVelocitiesToTemperature(300, 1), 50), 50),
    }
    seconds = interleave(cases, n_rounds, 0.1, time.process_time)
    records = list(integrator.getJumpRecords(first))
    # One evaluation before the jump, one after it, and one an iteration; velocities are drawn if it is accepted.
    n_evaluations = 2 + float(np.mean([record.minimizerIterations for record in records]))
    share = (integrator.getNumAccepted() - accepted) / len(records)
    parts = {
        "relaxation": seconds["relaxation"],
        "module": seconds["module"],
        "minimisation": seconds["evaluation"] * n_evaluations,
        "velocity redraw": seconds["velocities"] * share,
    }
    ratio = seconds["hybrid"] / sum(parts.values())
    inside = {part: np.array([getattr(record, part + "Seconds") for record in records]) for part in PARTS}
    return {
        "runner": runner,
        "jump_interval_steps": INTERVAL,
        "n_cycles": len(records),
        "evaluations_a_jump_mean": round(n_evaluations, 2),
        "accepted_share": round(share, 3),
        "microseconds_a_cycle": {name: quartiles(values, 1e6) for name, values in parts.items()},
        "sum_of_parts_microseconds": quartiles(sum(parts.values()), 1e6),
        "module_after_md_microseconds": quartiles(seconds["cold module"], 1e6),
        "hybrid_microseconds": quartiles(seconds["hybrid"], 1e6),
        "hybrid_over_sum": quartiles(ratio),
        "inside_a_jump_microseconds": {part: quartiles(values, 1e6) for part, values in inside.items()},
    }


def repeated(call, n: int):
    def calls() -> None:
        for _ in range(n):
            call()

    return calls


#: What part 4 runs: the molecule, its platform, and the steps of a turn (about half a second).
MOLECULES: dict[str, tuple[Any, str, int]] = {
    "ADP, implicit": (systems.alanine_dipeptide, "Reference", 4000),
    "chignolin, implicit": (systems.chignolin, "CPU", LONG_INTERVAL),
    "DHFR, implicit": (lambda: systems.dhfr("obc2"), "CPU", 4),
    "DHFR, explicit": (lambda: systems.dhfr("tip3p"), "CPU", 8),
}


def measure_wrapping(name: str, n_rounds: int, n_jumps: int) -> dict[str, Any]:
    """Plain MD of a molecule, the same MD wrapped but never jumping, and what a jump costs; in its own process."""
    torch.set_num_threads(1)
    make, platform, n_steps = MOLECULES[name]
    molecule = make()
    settle(molecule, platform)
    is_explicit = molecule.system.usesPeriodicBoundaryConditions()
    with tempfile.TemporaryDirectory() as folder:
        model = LatentModel(systems.with_untrained_bundle(molecule, Path(folder)).bundle)
        plain = molecule.context(relaxation(), platform)
        if is_explicit:
            model.addRestraint(molecule.system, molecule.topology)
        settings = {"realisation": "steer" if is_explicit else "decode", "mode": "exploratory", "seed": 1}
        wrap = lambda interval: molecule.context(  # noqa: E731
            model.createIntegrator(molecule.topology, relaxation(), jumpInterval=interval, **settings), platform
        )
        contexts = {"plain": plain, "wrapped": wrap(NEVER)}
        if n_steps >= LONG_INTERVAL:
            contexts["jumping"] = wrap(LONG_INTERVAL)
    cases = {
        case: Case(lambda context=context: context.getIntegrator().step(n_steps), n_steps)
        for case, context in contexts.items()
    }
    seconds = interleave(cases, n_rounds, 0.0, time.process_time)
    result: dict[str, Any] = {
        "platform": platform,
        "n_atoms": molecule.system.getNumParticles(),
        "n_model_atoms": len(model.manifest.atoms),
        "milliseconds_a_step": {case: quartiles(values, 1e3) for case, values in seconds.items()},
        "wrapped_over_plain": quartiles(seconds["wrapped"] / seconds["plain"]),
        "peak_megabytes": round(peak_megabytes()),
    }
    if is_explicit:
        return result
    jumper = contexts["wrapped"].getIntegrator()
    steps_before = 5 if n_steps >= LONG_INTERVAL else 1
    case = {"jump": Case(jumper.jump, prepare=lambda: jumper.step(steps_before))}
    jumps = interleave(case, n_jumps, 0.0, time.process_time)["jump"]
    records = list(jumper.getJumpRecords(1))
    result |= {
        "jump_milliseconds": quartiles(jumps, 1e3),
        "minimizer_iterations_mean": float(np.mean([record.minimizerIterations for record in records])),
        "module_milliseconds": quartiles(np.array([record.moduleSeconds for record in records]), 1e3),
        "jump_over_500_steps": float(f"{np.median(jumps) / np.median(seconds['plain']) / LONG_INTERVAL:.4g}"),
    }
    if "jumping" in seconds:
        result["jumping_over_plain"] = quartiles(seconds["jumping"] / seconds["plain"])
        made = list(contexts["jumping"].getIntegrator().getJumpRecords(0))
        result["jumping_minimizer_iterations_mean"] = float(np.mean([record.minimizerIterations for record in made]))
    return result


def settle(molecule: Molecule, platform: str) -> None:
    """Minimise a little, so that the structure that a jump writes is one that a jump may leave the system in."""
    context = molecule.context(mm.VerletIntegrator(0.001), platform)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    molecule.positions = systems.nanometres(context.getState(positions=True).getPositions())


def measure_training(n_steps: int, n_repeats: int) -> dict[str, Any]:
    """Frames a second of both stages of GLDP's autoencoder, `tiny`, on the data of the examples; in its own process."""
    from openmm_latent.data.trajectories import load_trajectories
    from openmm_latent.models.gldp.config import CONFIGS
    from openmm_latent.training.gldp import train_autoencoder

    torch.set_num_threads(1)
    before = peak_megabytes()
    trajectories = load_trajectories(EXAMPLES / "adp.pdb", EXAMPLES / "adp_400K.xtc")

    def train(encoder_steps: int, decoder_steps: int) -> None:
        config = replace(
            CONFIGS["tiny"], encoder_steps=encoder_steps, decoder_steps=decoder_steps, validate_every=n_steps
        )
        with tempfile.TemporaryDirectory() as folder:
            train_autoencoder(trajectories, config, work_directory=folder, seed=1, device="cpu", progress=False)

    runs = {"set-up": (1, 1), "encoder": (n_steps, 1), "decoder": (1, n_steps)}
    cases = {name: Case(lambda steps=steps: train(*steps)) for name, steps in runs.items()}
    seconds = interleave(cases, n_repeats, 0.0, time.process_time)
    n_frames = (n_steps - 1) * CONFIGS["tiny"].batch_size
    rates = {name: n_frames / (seconds[name] - np.median(seconds["set-up"])) for name in ("encoder", "decoder")}
    return {
        "n_steps": n_steps,
        "batch_size": CONFIGS["tiny"].batch_size,
        "n_frames_of_data": trajectories.n_frames,
        "frames_per_second": {name: quartiles(values) for name, values in rates.items()},
        "set_up_seconds": quartiles(seconds["set-up"]),
        "peak_megabytes": round(peak_megabytes()),
        "peak_megabytes_above_imports": round(peak_megabytes() - before),
    }


def run_hybrid(platform: str, runners: list[str], n_rounds: int) -> tuple[dict[str, Any], list[dict]]:
    """Part 3: figures, and bars."""
    found, bars = {}, []
    for runner in runners:
        print(f"  hybrid ADP, {runner}", flush=True)
        found[runner] = in_own_process(measure_hybrid, platform, runner, n_rounds)
        ratio = found[runner]["hybrid_over_sum"][1]
        is_met = abs(ratio - 1) <= 0.05
        bars.append(bar(f"hybrid ADP over the sum of its parts, {runner}", ratio, 1.05, "within 5 % of 1", is_met))
    return found, bars


def run_wrapping(names: list[str], n_rounds: int, n_jumps: int) -> tuple[dict[str, Any], list[dict]]:
    """Part 4: figures, and bars."""
    found, bars = {}, []
    for name in names:
        print(f"  {name}", flush=True)
        found[name] = in_own_process(measure_wrapping, name, n_rounds, n_jumps)
        ratio = found[name]["wrapped_over_plain"][1]
        bars.append(bar(f"wrapped over plain MD, {name}", ratio, 1.02, "at most", ratio <= 1.02))
    return found, bars


def run_training(n_steps: int, n_repeats: int) -> dict[str, Any]:
    """Part 5: figures."""
    print("  training", flush=True)
    return in_own_process(measure_training, n_steps, n_repeats)
