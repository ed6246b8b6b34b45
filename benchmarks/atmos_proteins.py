"""ATMOS on proteins: the last fifth of one long trajectory of 60 residues, and small proteins that it never saw.

There is one trajectory of 60 residues, so that what MD scores against itself comes from other pieces of it; the small
proteins have a second run from the same start (atmos_replicas.py).
"""

import numpy as np
from atmos_drawing import draw
from atmos_replicas import second_run
from atmos_scores import Target, table
from atmos_training import SIXTY_SPACING, TIME_SPLIT, UNSEEN_PROTEINS, bound, sixty
from confrover_training import protein_data

from openmm_latent.data.complex_frames import ComplexFrames, complex_of
from openmm_latent.geometry import superpose

N_DRAWS = 3  # trajectories of the 60-residue protein
SIXTY_FRAMES = 35  # after the first of the 40 held-out frames
UNSEEN_FRAMES = 55  # frames of 0.5 ps after the start


def alphas_of(frames: ComplexFrames) -> np.ndarray:
    """Return which of the model atoms are Cα."""
    return frames.tokens.frames[:, 1]


def later_part() -> dict:
    """Go on from the first held-out frame of the 60-residue protein."""
    train, test = (complex_of(part, name="sixty") for part in sixty().split_chronological(TIME_SPLIT))
    reference = test.runs[0][: SIXTY_FRAMES + 1]
    targets = [Target(reference, alphas_of(test))] * N_DRAWS
    starts = np.repeat(reference[:1], N_DRAWS, axis=0)
    rng = np.random.default_rng(1)
    before = train.runs[0]
    made = {
        "ATMOS": list(draw(bound("sixty", test.tokens, reference[0]), starts, SIXTY_FRAMES, True, seed=1)),
        "ATMOS, ODE": list(draw(bound("sixty", test.tokens, reference[0], True), starts, SIXTY_FRAMES, True, seed=1)),
        "MD, pieces of the training part": [before[k : k + SIXTY_FRAMES + 1] for k in 4 + 60 * np.arange(N_DRAWS)],
        "training frames at random": [
            np.concatenate([reference[:1], before[rng.integers(len(before), size=SIXTY_FRAMES)]])
            for _ in range(N_DRAWS)
        ],
        "the start, kept": list(np.repeat(starts[:, None], SIXTY_FRAMES + 1, axis=1)),
    }
    return {
        "frames": [len(before), len(test.runs[0])],
        "frame spacing [ps]": SIXTY_SPACING,
        "table 1": table(on_start(made, targets), targets),
    }


def unseen() -> dict:
    """Go on from the first frame of each protein that training never saw."""
    found = [complex_of(protein_data(name), name=name) for name in UNSEEN_PROTEINS]
    targets = [Target(one.runs[0][: UNSEEN_FRAMES + 1], alphas_of(one)) for one in found]
    made: dict[str, list[np.ndarray]] = {"ATMOS": [], "ATMOS, ODE": []}
    for one, target in zip(found, targets, strict=True):
        for name in made:
            module = bound("proteins", one.tokens, target.start, name.endswith("ODE"))
            made[name].append(draw(module, target.start[None], UNSEEN_FRAMES, True, seed=1)[0])
    made["MD, a second run"] = [second_run(one.name)[: UNSEEN_FRAMES + 1, one.tokens.atoms] for one in found]
    made["the start, kept"] = [np.repeat(t.start[None], UNSEEN_FRAMES + 1, axis=0) for t in targets]
    return {
        "residues": {one.name: len(one.tokens) for one in found},
        "table 1": table(on_start(made, targets), targets),
    }


def on_start(made: dict[str, list[np.ndarray]], targets: list[Target]) -> dict[str, list[np.ndarray]]:
    """Superpose all frames on each target's start by all heavy atoms."""
    return {
        name: [superpose(path, target.start) for path, target in zip(paths, targets, strict=True)]
        for name, paths in made.items()
    }


STAGES = {"the 60-residue protein, later": later_part, "unseen proteins": unseen}
