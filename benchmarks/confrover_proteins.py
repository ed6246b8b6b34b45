"""ConfRover on small proteins held out whole, and from one structure of ATLAS 6j56_A to the other.

Data: short implicit-solvent MD (small_proteins.py). Scored on proteins that the network never saw: changes from several
starts, beside MD from other starts of the same protein and a protein that does not move. There is no second run of
60 ps to serve as an oracle, and GLDP is trained for one protein alone: both are in the part on WLALL.
"""

import numpy as np
import torch
from confrover_training import OUT, UNSEEN_PROTEINS, protein_data, protein_weights, trained_on_proteins
from results import shared_data

from openmm_latent.conformations import (
    interpolate_conformations,
    load_able,
    model_topology,
    read_model_atoms,
)
from openmm_latent.data.restrained import Relaxation, RestrainedMinimiser, Soundness
from openmm_latent.data.trajectories import load_topology
from openmm_latent.geometry import rmsd, superpose
from openmm_latent.metrics import path_changes
from openmm_latent.training.confrover_binding import bind_confrover, confrover_protein

STRIDES = (2, 12)  # frames of 0.5 ps
N_CHANGES, N_STARTS, N_STEPS = 8, 4, 25


def changes() -> dict:
    """Jump from several frames of unseen proteins; compare changes with those of MD, all proteins together."""
    model, made = trained_on_proteins(), {}
    for name in UNSEEN_PROTEINS:
        data = protein_data(name)
        structure = data.positions[0][0]
        frames = superpose(np.concatenate(data.positions), structure)
        cas = [i for i, atom in enumerate(data.model_atoms) if list(data.topology.atoms())[atom].name == "CA"]
        whole = np.zeros((data.topology.getNumAtoms(), 3))
        whole[data.model_atoms] = structure
        for number, stride in enumerate(STRIDES):
            reach = N_CHANGES * stride
            places = np.linspace(0, len(frames) - reach - 1, N_STARTS).astype(int)
            reference = [frames[place : place + reach + 1 : stride][:, cas] for place in places]
            module, _ = confrover_protein(model, data.topology, whole, stride * data.frame_spacing, N_STEPS)
            paths = jumps(module, frames[places], seed=number)
            drawn = [superpose(path, structure)[:, cas] for path in paths]
            for kind, found in (
                ("MD", reference),
                ("ConfRover", drawn),
                ("MD from other starts", [reference[i - 1] for i in range(N_STARTS)]),
                ("the start, kept", [np.repeat(path[:1], N_CHANGES + 1, axis=0) for path in reference]),
            ):
                made.setdefault(kind, {}).setdefault(stride, []).append(found)
    return {
        f"{0.5 * stride:g} ps": {kind: pooled(of[stride], made["MD"][stride]) for kind, of in made.items()}
        for stride in STRIDES
    }


def pooled(paths: list[list[np.ndarray]], references: list[list[np.ndarray]]) -> dict:
    """Return r and MAE [nm] of changes, those of all proteins together."""
    totals: dict[str, list] = {}
    for ours, theirs in zip(paths, references, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            moved, wanted = path_changes(one), path_changes(other)
            for name in moved:
                totals.setdefault(name, []).append((moved[name], wanted[name]))
    result = {}
    for name, parts in totals.items():
        a, b = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        varies = np.ptp(a) > 0 and np.ptp(b) > 0
        r = float(np.corrcoef(a, b)[0, 1]) if varies else None
        result[name] = {"r": r, "mae": float(np.abs(a - b).mean())}
    return result


def jumps(module, starts: np.ndarray, seed: int) -> list[np.ndarray]:
    """Jump from each start: paths (n_frames, n_atoms, 3) [nm]."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.tensor(starts, dtype=torch.float32)
    state, frames = module.initial_state(positions), [positions]
    with torch.no_grad():
        for _ in range(N_CHANGES):
            positions, state = module.jump(
                positions, state, torch.randn(len(starts), module.n_noise, generator=generator)
            )
            frames.append(positions)
    return list(torch.stack(frames, dim=1).numpy())


def way_of_6j56() -> dict:
    """Go from one structure of 6j56_A to the other as the command does, relax, and count what the guard refuses."""
    trained_on_proteins()
    folder = shared_data("atlas")
    ends = [folder / f"6j56_A_{end}.pdb" for end in ("start", "end")]
    topology, positions = load_topology(ends[0])
    bundle_path = bind_confrover(
        protein_weights(), topology, positions, OUT / "6j56.latent.pt", lag_time=6.0, n_steps=N_STEPS
    )
    bundle = load_able(bundle_path, "interpolate")
    given = [read_model_atoms(path, bundle.manifest, bundle.name, "start") for path in ends]
    way = np.array(list(interpolate_conformations(bundle, *given, N_CHANGES + 1, seed=1)))
    np.save(OUT / "6j56.npy", way)
    heavy = model_topology(bundle.manifest)
    minimiser = RestrainedMinimiser(heavy, way[0], "vacuum")
    done = [minimiser.relax(frame) for frame in way]
    minimiser.relax(way[0])
    pulled = [minimiser.relax(frame, may_pull=True) for frame in way]
    cas = [atom.index for atom in heavy.atoms() if atom.name == "CA"]
    return {
        "Cα RMSD to the start [nm]": rmsd(way[:, cas], way[0, cas]).tolist(),
        "Cα RMSD to the end [nm]": rmsd(way[:, cas], way[-1, cas]).tolist(),
        "before": counted(Soundness(heavy, way[0]), way),
        "minimised": told(minimiser, way, done),
        "minimised, or pulled from the frame before where that is not sound": told(minimiser, way, pulled),
    }


def told(minimiser: RestrainedMinimiser, way: np.ndarray, done: list[Relaxation]) -> dict:
    """Return how sound relaxed frames are, their energies, and how far their Cα atoms are from those drawn."""
    frames, cas = np.array([one.positions for one in done]), np.isin(minimiser.heavy, minimiser.cas)
    traces = frames[:, minimiser.heavy][:, cas]
    return counted(minimiser.soundness, frames) | {
        "pulled": sum(one.is_pulled for one in done),
        "energy [kJ/mol]": [one.energy for one in done],
        "Cα RMSD to the frame drawn [nm]": [float(rmsd(a[None], b[cas])[0]) for a, b in zip(traces, way, strict=True)],
        "Cα RMSD to the start [nm]": rmsd(traces, way[0, cas]).tolist(),
        "Cα RMSD to the end [nm]": rmsd(traces, way[-1, cas]).tolist(),
    }


def counted(soundness: Soundness, frames: np.ndarray) -> dict:
    """Return what is wrong with each frame, and how many are sound."""
    counts = soundness(frames)
    sound = sum(counts.values()) == 0
    return {name: values.tolist() for name, values in counts.items()} | {"sound frames": int(sound.sum())}


STAGES = {"changes of unseen proteins": changes, "from one structure of 6j56_A to the other": way_of_6j56}
