"""ATMOS on the pentapeptide WLALL: trajectories of 20 ns from frames of files that nobody learned from.

All methods start from the same frames of test files 16-19 and give frames 0.1 ns apart; MD from each start is the
reference. ConfRover's and GLDP's networks are those of confrover_small.py, which learned from the same files.
"""

import numpy as np
from atmos_drawing import draw
from atmos_scores import Target, gains, table
from atmos_training import bound, trained
from confrover_training import OUT as CONFROVER_OUT
from confrover_wlall import Data, gldp_paths, roll

from openmm_latent.data.complex_frames import complex_of
from openmm_latent.geometry import superpose
from openmm_latent.metrics import lagged_pair_jsd, mean_pairwise_rmsd
from openmm_latent.models.confrover import load_weights

N_STARTS, N_FRAMES = 32, 200  # frames of 0.1 ns after each start
LAGS = (1, 5, 16)  # frames, of lagged pairs
N_STATES = 36
CHOSEN_FRAMES, CHOSEN_FROM = 100, (1.0, 1.1, 1.15, 1.2)  # noise scales


class Wlall:
    """Starts, references, and trajectories of all methods, superposed on one structure."""

    def __init__(self):
        self.data = Data()
        test = self.data.test
        places = np.linspace(0, len(test[0]) - N_FRAMES - 1, N_STARTS // len(test)).astype(int)
        self.starts = [(run, place) for run in range(len(test)) for place in places]
        self.references = [test[run][place : place + N_FRAMES + 1] for run, place in self.starts]
        self.targets = [Target(reference, np.array(self.data.cas)) for reference in self.references]
        self.tokens = complex_of(self.data.training, name="wlall").tokens
        if self.tokens.atoms.tolist() != list(self.data.training.model_atoms):
            raise SystemExit("Atoms of tokens and of the trajectories lie in different orders.")

    def atmos(
        self, name: str, is_filled: bool, is_ode: bool = False, noise_scale: float | None = None
    ) -> list[np.ndarray]:
        """Draw ATMOS's trajectories."""
        first = np.stack([reference[0] for reference in self.references])
        module = bound(name, self.tokens, self.data.structure, is_ode, noise_scale)
        return [superpose(path, self.data.structure) for path in draw(module, first, N_FRAMES, is_filled, seed=1)]

    def others(self) -> dict[str, list[np.ndarray]]:
        """Return what ATMOS is compared with."""
        data, first = self.data, np.stack([reference[0] for reference in self.references])
        confrover, _ = load_weights(CONFROVER_OUT / "wlall both.weights.pt")
        rng = np.random.default_rng(3)
        runs, places = (rng.integers(len(of), size=(N_STARTS, N_FRAMES)) for of in (data.train, data.train[0]))
        drawn = [
            np.stack([data.train[i][k] for i, k in zip(*pair, strict=True)]) for pair in zip(runs, places, strict=True)
        ]
        return {
            "MD from the nearest training frame": self.md_from_nearest(),
            "GLDP's propagator": gldp_paths(data, first, 1, N_FRAMES, seed=1),
            "ConfRover": roll(confrover, data, first, 1, N_FRAMES, seed=1),
            "training frames at random": [
                np.concatenate([one[None], frames]) for one, frames in zip(first, drawn, strict=True)
            ],
        }

    def md_from_nearest(self) -> list[np.ndarray]:
        """Return what followed the training frame whose torsions are nearest to each start's: another replica."""
        data, paths = self.data, []
        parts = [part[: len(part) - N_FRAMES] for part in data.train]
        angles = [data.torsions.angles(part) for part in parts]
        features = [np.concatenate([np.cos(one), np.sin(one)], axis=1) for one in angles]
        for reference in self.references:
            angle = data.torsions.angles(np.repeat(reference[:1], 20, axis=0))[0]
            wanted = np.concatenate([np.cos(angle), np.sin(angle)])
            far = [((one - wanted) ** 2).sum(axis=1) for one in features]
            run = int(np.argmin([one.min() for one in far]))
            place = int(far[run].argmin())
            paths.append(data.train[run][place : place + N_FRAMES + 1])
        return paths


def compare() -> dict:
    """Draw all, and score them: table 1, torsions, lagged pairs, soundness, and the two differences that matter."""
    wlall = Wlall()
    made = {
        "ATMOS": wlall.atmos("wlall", is_filled=True),
        "ATMOS, one level": wlall.atmos("wlall one level", is_filled=False),
        "ATMOS, ODE": wlall.atmos("wlall", is_filled=True, is_ode=True),
        "ATMOS, noise scale 1": wlall.atmos("wlall", is_filled=True, noise_scale=1.0),
        **wlall.others(),
    }
    made["the start, kept"] = [np.repeat(one[:1], N_FRAMES + 1, axis=0) for one in wlall.references]
    return {
        "table 1": table(made, wlall.targets),
        "torsions and pairs": {
            name: others_of(paths, wlall) for name, paths in {"MD itself": wlall.references, **made}.items()
        },
        "bi-level better than one level by": gains(made, wlall.targets, "ATMOS", "ATMOS, one level"),
        "SDE better than ODE by": gains(made, wlall.targets, "ATMOS", "ATMOS, ODE"),
    }


def choose_noise() -> dict:
    """Compare how far apart frames lie [Å] with MD, from starts in training files: what `NOISE_SCALES` is chosen by."""
    data = Data()
    runs = [(run, place) for run in range(len(data.train) - 4, len(data.train)) for place in range(0, 4800, 1200)]
    references = [data.train[run][place : place + CHOSEN_FRAMES + 1] for run, place in runs]
    first = np.stack([reference[0] for reference in references])
    tokens = complex_of(data.training, name="wlall").tokens

    def spread(paths: np.ndarray | list[np.ndarray]) -> float:
        alphas = [superpose(path, data.structure)[:, data.cas] for path in paths]
        return float(10.0 * np.mean([mean_pairwise_rmsd(one, None, seed=1) for one in alphas]))

    settings = {"ODE": (True, 1.0)} | {f"SDE, noise scale {scale:g}": (False, scale) for scale in CHOSEN_FROM}
    return {"MD": spread(references)} | {
        name: spread(draw(bound("wlall", tokens, data.structure, *how), first, CHOSEN_FRAMES, True, seed=1))
        for name, how in settings.items()
    }


def others_of(paths: list[np.ndarray], wlall: Wlall) -> dict:
    """Return divergences of torsions and of lagged pairs from all test files [nats], and the share of sound frames."""
    data = wlall.data
    held_out = [data.torsions.angles(part) for part in data.test]
    angles = [data.torsions.angles(path) for path in paths]
    scores = data.torsions.scores(angles, held_out, 100.0) if np.ptp(paths[0], axis=0).max() > 0 else {}
    everything = [data.states(part) for part in data.test]
    pairs = {
        f"pairs {0.1 * lag:g} ns": lagged_pair_jsd([data.states(path) for path in paths], everything, lag, N_STATES)
        for lag in LAGS
    }
    some = np.concatenate([path[1::10] for path in paths])
    return scores | pairs | {"sound": float(data.soundness.are_sound(some).mean())}


def facts() -> dict:
    """Return what was drawn and by what."""
    return {
        "starts": N_STARTS,
        "frames of 0.1 ns": N_FRAMES,
        "sampler steps": trained("wlall")[0].config.n_sampling_steps,
        "data scales [nm]": [trained("wlall")[0].config.data_scale, trained("wlall")[0].config.fine_data_scale],
    }


STAGES = {"WLALL": compare, "mean pairwise RMSD from training frames": choose_noise}
