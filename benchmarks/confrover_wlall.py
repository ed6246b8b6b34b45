"""ConfRover on the pentapeptide WLALL: its scores, beside MD, GLDP's propagator and frames drawn at random.

Test files 16-19 were seen by nobody. All frames are superposed on one structure; d is the Cα RMSD without superposing
again, or the distance on two principal components of the test files' Cα atoms.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from confrover_training import OUT, wlall
from gldp_wlall import PROPAGATORS, Torsions
from openmm import app, unit
from results import shared_data

from openmm_latent.bundle import Bundle, load_bundle
from openmm_latent.data.restrained import Soundness
from openmm_latent.data.trajectories import load_topology
from openmm_latent.geometry import rmsd, superpose
from openmm_latent.metrics import (
    assign_states,
    cluster_centres,
    lagged_pair_jsd,
    multi_start_scores,
    path_changes,
    principal_components,
    state_recovery,
)
from openmm_latent.models.confrover import ConfRover
from openmm_latent.training import train_gldp
from openmm_latent.training.confrover_binding import confrover_protein

STRIDES = (1, 4, 16)  # in frames of 0.1 ns
N_CHANGES = 8  # frames after a start
N_STARTS = 128
N_WALKERS, N_LONG, LONG_STRIDE = 16, 100, 10  # of 100 ns each
N_SAMPLED = 2000
N_WAYS, WAY_STRIDE, LEAST_WAY = 120, 1, 0.2  # 8 steps of 0.1 ns between ends that lie at least 0.2 nm apart
N_STEPS = 25  # of the diffusion
N_STATES = 36
RESAMPLES = 1000

Paths = list[np.ndarray]  # (n_frames, n_atoms, 3) [nm] each, superposed on one structure


class Data:
    """Heavy atoms of training and test files, superposed, and what scores need."""

    def __init__(self):
        self.training, self.testing = wlall()
        self.pdb = shared_data("wlall") / "pentapeptide-impl-solv.pdb"
        self.topology, self.positions = load_topology(self.pdb)
        self.structure = np.asarray(self.positions)[self.training.model_atoms]
        self.train, self.test = (
            [superpose(part, self.structure) for part in side.positions] for side in (self.training, self.testing)
        )
        names = [list(self.topology.atoms())[atom].name for atom in self.training.model_atoms]
        self.cas = [i for i, name in enumerate(names) if name == "CA"]
        self.torsions = Torsions(self.training)
        self.components = principal_components(self.alphas(np.concatenate(self.test)), None, 2, seed=1)
        self.reference = self.components.project(self.alphas(np.concatenate(self.test)))
        heavy = app.Modeller(self.topology, self.positions * unit.nanometer)
        heavy.delete([atom for atom in self.topology.atoms() if atom.element.symbol == "H"])
        self.soundness = Soundness(heavy.topology, self.structure)
        longest = max(STRIDES) * N_CHANGES
        places = np.linspace(0, len(self.test[0]) - longest - 1, N_STARTS // len(self.test)).astype(int)
        features = np.concatenate([self.features(part[::5]) for part in self.test])
        self.centres = cluster_centres(features, N_STATES, seed=1)
        self.starts = [(run, place) for run in range(len(self.test)) for place in places]

    def alphas(self, frames: np.ndarray) -> np.ndarray:
        """Return Cα atoms superposed on the structure's, (n_frames, 5, 3) [nm]."""
        return superpose(frames[:, self.cas], self.structure[self.cas])

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Return cosines and sines of backbone torsions, (n_frames, n_features)."""
        angles = self.torsions.angles(frames)[:, : self.torsions.n_backbone]
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def states(self, frames: np.ndarray) -> np.ndarray:
        """Return the nearest of 36 states, (n_frames,)."""
        return assign_states(self.features(frames), self.centres)

    def start_frames(self) -> np.ndarray:
        """Return where paths start, (n_starts, n_atoms, 3) [nm]."""
        return np.stack([self.test[run][place] for run, place in self.starts])

    def references(self, stride: int) -> Paths:
        """Return MD's own paths."""
        reach = N_CHANGES * stride
        return [self.test[run][place : place + reach + 1 : stride] for run, place in self.starts]


def roll(model: ConfRover, data: Data, starts: np.ndarray, stride: int, n_jumps: int, seed: int) -> Paths:
    """Jump from each start, one memory a walker: paths of n_jumps + 1 frames."""
    module, chosen = confrover_protein(model, data.topology, data.positions, 100.0 * stride, N_STEPS)
    assert chosen == list(data.training.model_atoms)
    generator = torch.Generator().manual_seed(seed)
    positions = torch.tensor(starts, dtype=torch.float32)
    state, frames = module.initial_state(positions), [positions]
    with torch.no_grad():
        for _ in range(n_jumps):
            noise = torch.randn(len(positions), module.n_noise, generator=generator)
            positions, state = module.jump(positions, state, noise)
            frames.append(positions)
    paths = torch.stack(frames, dim=1).numpy()
    return [superpose(path, data.structure) for path in paths]


def md_from_nearest(data: Data, stride: int) -> Paths:
    """Return what followed the training frame nearest to each start: the same dynamics, another draw of it."""
    reach = N_CHANGES * stride
    ends = [part[: len(part) - reach] for part in data.train]
    flat = np.concatenate([data.torsions.angles(part) for part in ends])
    features = np.concatenate([np.cos(flat), np.sin(flat)], axis=1)
    wanted = data.torsions.angles(data.start_frames())
    wanted = np.concatenate([np.cos(wanted), np.sin(wanted)], axis=1)
    lengths, paths = np.cumsum([0] + [len(part) for part in ends]), []
    for one in wanted:
        place = int(((features - one) ** 2).sum(axis=1).argmin())
        run = int(np.searchsorted(lengths, place, side="right")) - 1
        first = place - lengths[run]
        paths.append(data.train[run][first : first + reach + 1 : stride])
    return paths


def gldp(data: Data) -> Bundle:
    """Return GLDP with its autoregressive propagator at 0.1 ns, trained on the same files."""
    path = OUT / "gldp.latent.pt"
    if not path.exists():
        train_gldp(
            data.training,
            lag_time=100.0,
            propagator_config=PROPAGATORS["autoregressive"],
            out=path,
            work_directory=OUT / "gldp",
            seed=1,
            progress=False,
        )
    return load_bundle(path)


def gldp_paths(data: Data, starts: np.ndarray, stride: int, n_frames: int, seed: int) -> Paths:
    """Let it propagate from each start in its latent; keep the start and every stride-th frame after it."""
    bundle, generator = gldp(data), torch.Generator().manual_seed(seed)
    module, n_noise = bundle.module, bundle.manifest.noise_sizes["propagate"]
    first = torch.tensor(starts, dtype=torch.float32)
    latent, frames = module.encode(first), [first]
    with torch.no_grad():
        for step in range(1, stride * n_frames + 1):
            latent, _ = module.propagate(latent, [], torch.randn(len(first), n_noise, generator=generator))
            if step % stride == 0:
                frames.append(module.decode(latent, first, torch.zeros(len(first), 0)))
    return [superpose(path, data.structure) for path in torch.stack(frames, dim=1).numpy()]


def random_frames(data: Data, count: int, seed: int) -> np.ndarray:
    """Draw training frames at random, (count, n_atoms, 3) [nm]."""
    rng = np.random.default_rng(seed)
    runs, places = rng.integers(len(data.train), size=count), rng.integers(len(data.train[0]), size=count)
    return np.stack([data.train[run][place] for run, place in zip(runs, places, strict=True)])


# ---- changes from many starts ----------------------------------------------------------------------------------------


def multi_start(models: dict[str, ConfRover], data: Data) -> dict:
    """Compare changes at all strides with those of MD; see METRICS "multi-start"."""
    rolled = gldp_paths(data, data.start_frames(), 1, max(STRIDES) * N_CHANGES, seed=1)
    paths: dict[str, list[Paths]] = {}

    def add(name: str, made: Paths) -> None:
        paths.setdefault(name, []).append(made)

    for number, stride in enumerate(STRIDES):
        reference = data.references(stride)
        add("MD", reference)
        for name, model in models.items():
            add(name, roll(model, data, data.start_frames(), stride, N_CHANGES, seed=10 + number))
        add("MD from the nearest training frame", md_from_nearest(data, stride))
        add("GLDP's propagator", [path[: N_CHANGES * stride + 1 : stride] for path in rolled])
        drawn = random_frames(data, N_STARTS * N_CHANGES, seed=number).reshape(N_STARTS, N_CHANGES, -1, 3)
        add("frames at random", [np.concatenate([r[:1], d]) for r, d in zip(reference, drawn, strict=True)])
        add("MD from other starts", [reference[i - N_STARTS // 2] for i in range(N_STARTS)])
    result = {}
    for kind, view in (("Cα", data.alphas), ("two components", lambda f: data.components.project(data.alphas(f)))):
        seen = {name: [[view(path) for path in made] for made in of] for name, of in paths.items()}
        ours, names = seen[next(iter(models))], list(paths)[1:]
        result[kind] = {name: change_scores(seen[name], seen["MD"], ours) for name in names}
        result["lagged pairs"] = lagged_pairs(paths, data)
        result[kind]["by stride"] = {
            f"{0.1 * stride:g} ns": {name: flat_scores(seen[name][k], seen["MD"][k]) for name in names}
            for k, stride in enumerate(STRIDES)
        }
    return result


def lagged_pairs(paths: dict[str, list[Paths]], data: Data) -> dict:
    """Return the divergence of (state now, state one stride later) from that of all test files, at each stride."""
    everything = [data.states(part) for part in data.test]
    result = {}
    for k, stride in enumerate(STRIDES):
        reference = [states[first::stride] for states in everything for first in range(stride)]
        result[f"{0.1 * stride:g} ns"] = {
            name: lagged_pair_jsd([data.states(path) for path in made[k]], reference, 1, N_STATES)
            for name, made in paths.items()
        }
    return result


def flat_scores(made: Paths, reference: Paths) -> dict[str, float]:
    """Return r and MAE [nm] of trajectory, frame and step changes."""
    scores = multi_start_scores(made, reference)
    names = ("trajectory", "frame", "step")
    return {f"{name} {score}": scores[name][score] for name in names for score in ("r", "mae")}


def change_scores(made: list[Paths], reference: list[Paths], ours: list[Paths]) -> dict:
    """Score all strides together, with 95 % intervals over starts, and how much better than this the first model is."""
    moved = [[[path_changes(path) for path in paths] for paths in side] for side in (made, reference, ours)]
    rng, value, scores, gains = np.random.default_rng(1), {}, {}, {}
    for name in ("trajectory", "frame", "step"):
        # (n_starts, n_values): the changes after each start, at all strides
        theirs, true, own = (
            np.stack([np.concatenate([of[k][i][name] for k in range(len(STRIDES))]) for i in range(N_STARTS)])
            for of in moved
        )
        for score in ("r", "mae"):
            value[f"{name} {score}"] = agreement(theirs, true, score)
            scores[f"{name} {score}"], gains[f"{name} {score}"] = [], []
        for _ in range(RESAMPLES):
            starts = rng.integers(N_STARTS, size=N_STARTS)
            for score, sign in (("r", 1), ("mae", -1)):
                first, second = (agreement(one[starts], true[starts], score) for one in (theirs, own))
                scores[f"{name} {score}"].append(first)
                gains[f"{name} {score}"].append(sign * (second - first))
    return {
        name: {
            "value": value[name],
            "interval": interval(scores[name]),
            "the first network better by": interval(gains[name]),
        }
        for name in value
    }


def agreement(values: np.ndarray, reference: np.ndarray, score: str) -> float:
    """Return Pearson's r, or the mean absolute error [nm], of all values together."""
    if score == "mae":
        return float(np.abs(values - reference).mean())
    return float(np.corrcoef(values.ravel(), reference.ravel())[0, 1])


def interval(values: Sequence[float]) -> list[float]:
    """Return the 2.5 and 97.5 percentiles."""
    return [float(np.percentile(values, q)) for q in (2.5, 97.5)]


# ---- states of long runs ---------------------------------------------------------------------------------------------


def long_runs(models: dict[str, ConfRover], data: Data) -> dict:
    """Run 100 ns from 16 test frames: states found, and the distribution of all runs together."""
    runs, places = np.arange(N_WALKERS) % len(data.test), np.linspace(0, len(data.test[0]) - 1, N_WALKERS).astype(int)
    starts = np.stack([data.test[run][place] for run, place in zip(runs, places, strict=True)])
    reach = N_LONG * LONG_STRIDE
    made = {name: roll(model, data, starts, LONG_STRIDE, N_LONG, seed=50) for name, model in models.items()}
    first = [k * (len(part) - reach) // len(data.train) for k, part in enumerate(data.train)]
    made["MD, training files"] = [
        part[a : a + reach + 1 : LONG_STRIDE] for a, part in zip(first, data.train, strict=True)
    ]
    made["GLDP's propagator"] = gldp_paths(data, starts, LONG_STRIDE, N_LONG, seed=2)
    made["frames at random"] = list(random_frames(data, N_WALKERS * N_LONG, seed=9).reshape(N_WALKERS, N_LONG, -1, 3))
    made["the start, kept"] = [np.repeat(one[None], N_LONG, axis=0) for one in starts]
    held_out = [data.torsions.angles(part) for part in data.test]
    result = {}
    for name, paths in made.items():
        each = [state_recovery(data.components.project(data.alphas(path)), data.reference) for path in paths]
        row = {key: float(np.mean([one[key] for one in each])) for key in ("jsd", "precision", "recall", "f1")}
        rng = np.random.default_rng(1)
        spread = [np.mean([each[i]["f1"] for i in rng.integers(len(each), size=len(each))]) for _ in range(RESAMPLES)]
        row["f1 interval"] = interval(spread)
        angles = [data.torsions.angles(path) for path in paths]
        if name != "the start, kept":
            row |= data.torsions.scores(angles, held_out, 100.0 * LONG_STRIDE)
        result[name] = row
    return result


# ---- independent conformations ---------------------------------------------------------------------------------------


def draw_independent(model: ConfRover, data: Data, count: int, seed: int) -> np.ndarray:
    """Sample from the mask token alone, (count, n_atoms, 3) [nm]."""
    module, _ = confrover_protein(model, data.topology, data.positions, 100.0, N_STEPS)
    generator, drawn = torch.Generator().manual_seed(seed), []
    with torch.no_grad():
        for _ in range(0, count, 250):
            drawn.append(module.sample(torch.randn(250, module.n_noise, generator=generator)).numpy())
    return superpose(np.concatenate(drawn), data.structure)


def independent(models: dict[str, ConfRover], data: Data) -> dict:
    """Score independent frames; and how much better those of the first model are than those of the others."""
    made = {name: draw_independent(model, data, N_SAMPLED, seed=3) for name, model in models.items()}
    made["training frames at random"] = random_frames(data, N_SAMPLED, seed=5)
    held_out = np.concatenate([data.torsions.angles(part) for part in data.test])
    angles = {name: data.torsions.angles(frames) for name, frames in made.items()}
    points = {name: data.components.project(data.alphas(frames)) for name, frames in made.items()}

    def scores(name: str, chosen: np.ndarray) -> dict[str, float]:
        torsion = data.torsions.scores([angles[name][chosen]], [held_out], 100.0)
        states = state_recovery(points[name][chosen], data.reference)
        kept = ("backbone_jsd", "side_chain_jsd", "phi_psi_jsd")
        return {key: torsion[key] for key in kept} | {"states JSD": states["jsd"], "states F1": states["f1"]}

    every = np.arange(N_SAMPLED)
    result = {
        name: scores(name, every) | {"sound frames": float(data.soundness.are_sound(frames).mean())}
        for name, frames in made.items()
    }
    first, rng = next(iter(models)), np.random.default_rng(1)
    for name in list(made)[1:]:
        gains = []
        for _ in range(40):
            ours, theirs = (scores(one, rng.integers(N_SAMPLED, size=N_SAMPLED)) for one in (first, name))
            gains.append({key: (theirs[key] - ours[key]) * (-1 if key == "states F1" else 1) for key in ours})
        result[name] = result[name] | {f"{first} better by, {k}": interval([g[k] for g in gains]) for k in gains[0]}
    return result


# ---- ways between two frames -----------------------------------------------------------------------------------------


def ways(models: dict[str, ConfRover], data: Data) -> dict:
    """Interpolate between test frames 0.8 ns apart: Cα RMSD to both ends, in shares of what lies between them."""
    reach, rng, pairs = N_CHANGES * WAY_STRIDE, np.random.default_rng(2), []
    while len(pairs) < N_WAYS:
        run, place = rng.integers(len(data.test)), rng.integers(len(data.test[0]) - reach)
        path = data.test[run][place : place + reach + 1 : WAY_STRIDE]
        if rmsd(path[-1:, data.cas], path[0, data.cas])[0] > LEAST_WAY:
            pairs.append(path)
    made = {"MD": pairs}
    for name, model in models.items():
        made[name] = list(interpolated(model, data, pairs))
    drawn = random_frames(data, N_WAYS * (N_CHANGES - 1), seed=4).reshape(N_WAYS, N_CHANGES - 1, -1, 3)
    made["frames at random"] = [np.concatenate([p[:1], d, p[-1:]]) for p, d in zip(pairs, drawn, strict=True)]
    made["straight line"] = [superpose_ends(path) for path in pairs]
    result = {name: progress_of(paths, data.cas) for name, paths in made.items()}
    first, second = (made[name] for name in models)
    result["MD"]["nearer to the end with the objective"] = nearer_to_end(first, second, data.cas)
    for name, model in models.items():
        led = interpolated(model, data, pairs, towards=[pairs[i - N_WAYS // 2] for i in range(N_WAYS)])
        led = [np.concatenate([way[:-1], path[-1:]]) for way, path in zip(led, pairs, strict=True)]
        result[name]["nearer to the end than when led elsewhere"] = nearer_to_end(made[name], led, data.cas)
    return result


def nearer_to_end(paths: Paths, others: Paths, cas: list[int]) -> list[dict]:
    """Return by how much frames of the first ways lie nearer to the same ends, in shares, paired, frame by frame."""
    gains = []
    for one, other in zip(paths, others, strict=True):
        scale = rmsd(one[-1:, cas], one[0, cas])[0]
        gains.append((rmsd(other[1:-1, cas], one[-1, cas]) - rmsd(one[1:-1, cas], one[-1, cas])) / scale)
    table, rng = np.array(gains), np.random.default_rng(1)
    means = table[rng.integers(len(table), size=(RESAMPLES, len(table)))].mean(axis=1)
    return [{"value": float(v), "interval": interval(means[:, k])} for k, v in enumerate(table.mean(axis=0))]


def superpose_ends(path: np.ndarray) -> np.ndarray:
    """Return the frames on a line between the ends."""
    end = superpose(path[-1], path[0])
    share = np.linspace(0.0, 1.0, len(path))[:, None, None]
    return (1.0 - share) * path[0] + share * end


def interpolated(model: ConfRover, data: Data, pairs: Paths, towards: Paths | None = None) -> np.ndarray:
    """Return ways by a model, (n_ways, 9, n_atoms, 3) [nm], to their own ends or to those of other paths."""
    module, _ = confrover_protein(model, data.topology, data.positions, 100.0 * WAY_STRIDE, N_STEPS)
    generator = torch.Generator().manual_seed(7)
    start = torch.tensor(np.stack([path[0] for path in pairs]), dtype=torch.float32)
    end = torch.tensor(np.stack([path[-1] for path in towards or pairs]), dtype=torch.float32)
    frames = [start]
    with torch.no_grad():
        for done in range(N_CHANGES - 1):
            noise = torch.randn(len(start), module.n_noise, generator=generator)
            remaining = torch.full((len(start),), float(N_CHANGES - done))
            frames.append(module.interpolate(frames[-1], end, remaining, noise))
    return torch.stack([*frames, end], dim=1).numpy()


def progress_of(paths: Paths, cas: list[int]) -> dict:
    """Return mean distances to both ends, in shares of theirs, and how they change over the frames that were drawn."""
    alphas = [path[:, cas] for path in paths]
    scale = np.array([rmsd(path[-1:], path[0])[0] for path in alphas])
    to_start = np.stack([rmsd(path, path[0]) for path in alphas]) / scale[:, None]
    to_end = np.stack([rmsd(path, path[-1]) for path in alphas]) / scale[:, None]
    drawn = slice(1, -1)  # both ends are given
    rng = np.random.default_rng(1)
    chosen = rng.integers(len(paths), size=(RESAMPLES, len(paths)))

    def steps(values: np.ndarray) -> list[dict]:
        change = np.diff(values[:, drawn], axis=1)
        means = change[chosen].mean(axis=1)  # (n_resamples, n_steps)
        return [{"mean": float(m), "interval": interval(means[:, k])} for k, m in enumerate(change.mean(axis=0))]

    slope = [np.polyfit(np.arange(values.shape[1] - 2), values[:, drawn].T, 1)[0] for values in (to_start, to_end)]
    return {
        "to start": to_start.mean(axis=0).tolist(),
        "to end": to_end.mean(axis=0).tolist(),
        "steps to start": steps(to_start),
        "steps to end": steps(to_end),
        "slope to start": {"mean": float(slope[0].mean()), "interval": interval(slope[0][chosen].mean(axis=1))},
        "slope to end": {"mean": float(slope[1].mean()), "interval": interval(slope[1][chosen].mean(axis=1))},
    }


STAGES: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "independent conformations": (independent, ("both", "trajectory alone")),
    "ways between two frames": (ways, ("with interpolation", "as long without")),
    "changes from many starts": (multi_start, ("both", "with interpolation")),
    "states of long runs": (long_runs, ("both", "with interpolation")),
}
