"""ATMOS on thrombin's pocket with its ligand: a replica of MD that it never saw, and jumps in a Simulation."""

import numpy as np
import openmm
import torch
from atmos_drawing import draw
from atmos_pocket import FRICTION, SEEDS, TEMPERATURE, TIMESTEP, pocket, simulation_of
from atmos_scores import ANGSTROM, complex_scores
from atmos_training import OUT, bound, pocket_complex, pocket_replica, trained
from openmm import app, unit

from openmm_latent import LatentModel
from openmm_latent.geometry import rmsd, superpose
from openmm_latent.metrics import clash_counts
from openmm_latent.training.atmos_binding import export_complex

N_DRAWS, N_FRAMES = 3, 135  # trajectories from the held-out replica's first frame, of 1 ps a frame
DRIFT_TIMES = (5, 15, 30, 60, 100, 135)  # [ps]
N_JUMPS, JUMP_INTERVAL = 25, 250  # MD steps of 4 fs after each jump
ITERATIONS = (100, 1000)  # of the minimisation after a jump, at most; 100 is the guard's default
BURN_IN = 250


def replica() -> dict:
    """Draw trajectories from the first frame of the held-out replica, and score them as table 3."""
    tokens = pocket_complex()[1]
    ligand = np.flatnonzero(tokens.is_ligand[tokens.token])
    reference = pocket_replica(SEEDS[-1])[: N_FRAMES + 1]
    training = [pocket_replica(seed) for seed in SEEDS[:-1]]
    starts, rng = np.repeat(reference[:1], N_DRAWS, axis=0), np.random.default_rng(1)
    both = np.concatenate(training)
    made = {
        "ATMOS": draw(bound("pocket", tokens, reference[0]), starts, N_FRAMES, True, seed=1),
        "ATMOS, one level": draw(bound("pocket one level", tokens, reference[0]), starts, N_FRAMES, False, seed=1),
        "ATMOS, ODE": draw(bound("pocket", tokens, reference[0], True), starts, N_FRAMES, True, seed=1),
        "MD, the training replicas": [run[: N_FRAMES + 1] for run in training],
        "training frames at random": [
            np.concatenate([reference[:1], both[rng.integers(len(both), size=N_FRAMES)]]) for _ in range(N_DRAWS)
        ],
        "the start, kept": [np.repeat(reference[:1], N_FRAMES + 1, axis=0)],
    }
    result = {"atoms": tokens.n_atoms, "tokens": len(tokens), "ligand atoms": len(ligand), "frames": N_FRAMES}
    for name, paths in made.items():
        np.save(OUT / f"pocket {name}.npy", np.asarray(paths, dtype=np.float32))
        each = [complex_scores(superpose(path, reference[0]), reference, tokens.bonds, ligand) for path in paths]
        result[name] = {
            part: {
                key: {
                    "value": _mean([one[part][key] for one in each]),
                    "each": [one[part][key] for one in each],
                }
                for key in each[0][part]
            }
            for part in each[0]
        } | {
            "RMSD to the start [Å]": {
                f"{time} ps": ANGSTROM * float(np.mean([rmsd(path[time : time + 1], path[0])[0] for path in paths]))
                for time in DRIFT_TIMES
            }
        }
    return result


def _mean(values: list) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def guarded() -> dict:
    """Jump in a guarded Simulation of the pocket, with less and with more minimisation."""
    return {f"{n} iterations": jumps(n) for n in ITERATIONS}


def jumps(n_iterations: int) -> dict:
    """Jump; count clashes of what is drawn and of what stands."""
    topology, tokens = pocket_complex()
    positions = pocket()[1]
    model, training = trained("pocket")
    bundle = OUT / "pocket.latent.pt"
    export_complex(model, topology, positions, bundle, tokens=tokens, training=training)
    simulation = simulation_of(4)  # a seed that no replica had
    simulation.step(BURN_IN)
    relaxation = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, TIMESTEP)
    relaxation.setRandomNumberSeed(4)
    integrator = LatentModel(bundle).createIntegrator(
        topology,
        relaxation,
        jumpInterval=JUMP_INTERVAL,
        seed=1,
        thresholds={"maxMinimizerIterations": n_iterations},
    )
    jumping = app.Simulation(
        topology, simulation.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
    )
    state = simulation.context.getState(positions=True)
    jumping.context.setPositions(state.getPositions())
    jumping.context.setVelocitiesToTemperature(TEMPERATURE, 4)
    frames = []
    jumping.step(JUMP_INTERVAL)
    for _ in range(N_JUMPS):
        jumping.step(JUMP_INTERVAL)
        state = jumping.context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[tokens.atoms])
    ligand = np.flatnonzero(tokens.is_ligand[tokens.token])
    module, stood = bound("pocket", tokens, positions[tokens.atoms]), torch.tensor(np.stack(frames)).float()
    noise = torch.randn(len(stood), module.noise_sizes()["jump"], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn = module.jump(stood, module.initial_state(stood), noise)[0].numpy()
    before, relaxed = (clash_counts(part, tokens.bonds, ligand) for part in (drawn, np.stack(frames)))
    refused = {reason: count for reason, count in integrator.getRefusals().items() if count}
    return {
        "jumps": integrator.getNumJumps(),
        "accepted": integrator.getNumAccepted(),
        "refused": refused,
        "energy after less energy before, median [kJ/mol]": float(
            np.median([record.energyAfter - record.energyBefore for record in integrator.getJumpRecords(0)])
        ),
        "iterations, median": float(np.median([r.minimizerIterations for r in integrator.getJumpRecords(0)])),
        "relaxation after each [ps]": JUMP_INTERVAL * TIMESTEP,
        "clashes protein-ligand a frame, drawn from the same frames": float(before["between"].mean()),
        "clashes of all kinds a frame, drawn from the same frames": float(before["total"].mean()),
        "clashes protein-ligand a frame, relaxed": float(relaxed["between"].mean()),
        "clashes of all kinds a frame, relaxed": float(relaxed["total"].mean()),
        "ligand's largest move [nm]": float(
            np.linalg.norm(superpose(np.stack(frames), frames[0]) - frames[0], axis=2)[:, ligand].mean(axis=1).max()
        ),
    }


STAGES = {"the pocket's third replica": replica, "guarded jumps in the pocket": guarded}
