"""DynaProt on small proteins, leave one out, against ProDy's ANM; and what the loss is worth.

Data: short implicit-solvent MD of thirteen non-redundant proteins (small_proteins.py), the same number of frames of
each. A network is shown the prepared structure, before any MD; in training, frames of the MD as well, with the same
labels. For each protein one network is trained on the other twelve. Nothing is tuned on the protein that is left out;
that ANM's spring constant is (as one factor on all training proteins) makes it comparable in size.

Scores on the left-out protein, Cα atoms: Pearson r of RMSF; variance part of RMWD [Å]; symmetric KL of 3 x 3
covariances [nats]; Pearson r of couplings of all pairs. Intervals: 95 %, bootstrap of the paired differences over
proteins. Beside them: the second half of the MD against its first; the elastic network that the small network starts
from, untrained; and a network that starts from nothing, as the paper's do.

    python benchmarks/dynaprot_small.py [--duration 60] [--processes 2]
    python benchmarks/dynaprot_small.py --ship    # trains the weights of `openmm-latent flexibility`, on all free files
"""

import argparse
import json
import multiprocessing
import time
from dataclasses import replace

import mdtraj
import numpy as np
import prody
import torch
from openmm import app, unit
from results import write_results
from scipy.stats import bootstrap
from small_proteins import PROTEINS, Protein, trajectory

from openmm_latent.data.backbone import read_backbone
from openmm_latent.data.fluctuations import ProteinExample, protein_example
from openmm_latent.data.forcefields import FORCE_FIELDS
from openmm_latent.metrics import pearson, rmwd_of_moments, symmetric_kl_of_covariances
from openmm_latent.models.dynaprot import CONFIGS, DynaProt
from openmm_latent.models.dynaprot.covariance import couplings, marginals
from openmm_latent.models.dynaprot.prediction import predict
from openmm_latent.models.dynaprot.weights import SHIPPED_WEIGHTS
from openmm_latent.training.dynaprot import train_dynaprot

SHOWN_FRAMES = 8  # of each training protein's MD, beside its prepared structure
#: Trained networks: loss, and whether they start from an elastic network.
TRAINED = {
    "DynaProt": ("log_frobenius", True),
    "MSE loss": ("mse", True),
    "from nothing": ("log_frobenius", False),
    "MSE loss, from nothing": ("mse", False),
}
SCORES = {"RMSF r": 1, "RMWD variance [Å]": -1, "symmetric KL [nats]": -1, "coupling r": 1}  # sign: what is better


class Data:
    """One protein: its topology, the structure a user would have, and its MD."""

    def __init__(self, protein: Protein, duration: float):
        self.name = protein.name
        self.top, self.files = trajectory(protein, duration)
        read = app.PDBFile(str(self.top))
        self.topology = read.topology
        self.structure = read.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        frames = mdtraj.load([str(file) for file in self.files], top=str(self.top)).xyz.astype(np.float64)
        self.frames = frames[: round(duration / 0.5)]
        self.backbone = read_backbone(self.topology)

    @property
    def ca(self) -> np.ndarray:
        """(n_residues, 3) [nm] of the structure."""
        return self.structure[self.backbone.ca]

    def example(self, structure: np.ndarray | None = None, frames: np.ndarray | None = None) -> ProteinExample:
        """Return the labels, seen from a structure."""
        return protein_example(
            self.backbone,
            [self.frames if frames is None else frames],
            name=self.name,
            structure=self.structure if structure is None else structure,
            keeps_joint=True,
        )

    def training_examples(self) -> list[ProteinExample]:
        """Return what a network learns from this protein."""
        places = np.linspace(0, len(self.frames) - 1, SHOWN_FRAMES).astype(int)
        shown = [self.structure, *self.frames[places]]
        return [replace(self.example(structure), joint=None) for structure in shown]


def scores(covariance: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare two joint covariances (3 n, 3 n) [nm^2] in the same axes."""
    ours, theirs = (marginals(torch.from_numpy(one)).numpy() for one in (covariance, reference))
    rmsf = [np.sqrt(np.trace(one, axis1=1, axis2=2)) for one in (ours, theirs)]
    means = np.zeros((len(ours), 3))
    pairs = np.triu_indices(len(ours), 1)
    coupled = [couplings(torch.from_numpy(one)).numpy()[pairs] for one in (covariance, reference)]
    return {
        "RMSF r": pearson(*rmsf),
        "RMWD variance [Å]": 10.0 * rmwd_of_moments((means, ours), (means, theirs))["variance"],
        "symmetric KL [nats]": symmetric_kl_of_covariances(ours, theirs),
        "coupling r": pearson(*coupled),
    }


def in_axes_of_labels(covariance: np.ndarray, structure: np.ndarray, superposed: np.ndarray) -> np.ndarray:
    """Turn a covariance from a structure's own axes into those of its superposed copy, (n_residues, 3) [nm] each."""
    turn = np.linalg.svd((structure - structure.mean(0)).T @ (superposed - superposed.mean(0)))
    rotation = turn[0] @ np.diag([1.0, 1.0, np.linalg.det(turn[0] @ turn[2])]) @ turn[2]
    full = np.kron(np.eye(len(structure)), rotation)
    return full.T @ covariance @ full


def anm_covariance(ca: np.ndarray) -> np.ndarray:
    """Return the covariance of an anisotropic network model of (n_residues, 3) [nm], up to one factor."""
    anm = prody.ANM()
    anm.buildHessian(10.0 * ca)
    anm.calcModes(n_modes=None)
    return anm.getCovariance()


def covariance_of(model: DynaProt, one: Data) -> np.ndarray:
    """Return the covariance that a network predicts, (3 n, 3 n) [nm^2], in the axes of the structure."""
    return predict(model, one.topology, one.structure).covariance.numpy()


def fold(left_out: int, duration: float) -> dict:
    """Train on all proteins but one and score that one."""
    torch.set_num_threads(1)
    prody.confProDy(verbosity="none")
    data = [Data(protein, duration) for protein in PROTEINS]
    test, training = data[left_out], [one for i, one in enumerate(data) if i != left_out]
    label = test.example()
    halves = [test.example(frames=half) for half in np.array_split(test.frames, 2)]
    halves = [in_axes_of_labels(half.joint, half.positions, label.positions) for half in halves]
    found = {"name": test.name, "residues": len(label), "halves of the MD": scores(*halves)}
    torch.manual_seed(1)
    start = DynaProt(CONFIGS["tiny"]).eval()
    untrained = {"ANM": lambda one: anm_covariance(one.ca), "elastic start": lambda one: covariance_of(start, one)}
    for name, covariance in untrained.items():
        sizes = [(np.trace(one.example().joint), np.trace(covariance(one))) for one in training]
        scale = np.exp(np.mean([np.log(md / model) for md, model in sizes]))
        found[name] = scores(in_axes_of_labels(scale * covariance(test), test.ca, label.positions), label.joint)
    examples = [example for one in training for example in one.training_examples()]
    for name, (loss, is_elastic) in TRAINED.items():
        began = time.process_time()
        config = replace(CONFIGS["tiny"], uses_elastic_network=is_elastic)
        model = train_dynaprot(examples, config=config, loss=loss, seed=1)
        found[f"{name}, seconds of training"] = time.process_time() - began
        found[name] = scores(in_axes_of_labels(covariance_of(model, test), test.ca, label.positions), label.joint)
    print(found, flush=True)
    return found


def ship(duration: float) -> None:
    """Train on all proteins whose structures are free to use, and write the weights that come with the package."""
    data = [Data(protein, duration) for protein in PROTEINS if protein.is_free]
    train_dynaprot(
        [example for one in data for example in one.training_examples()],
        config=CONFIGS["tiny"],
        out=SHIPPED_WEIGHTS,
        seed=1,
        facts={"temperature": 300.0, "force_field": FORCE_FIELDS["obc2"], "files": [one.name for one in data]},
    )
    print(f"wrote {SHIPPED_WEIGHTS.name}, {SHIPPED_WEIGHTS.stat().st_size / 1000:.0f} kB")


def compare(folds: list[dict], name: str, other: str) -> dict:
    """Return the mean paired differences `name` - `other` with 95 % intervals, positive where `name` is better."""
    table = {}
    for score, sign in SCORES.items():
        differences = np.array([sign * (one[name][score] - one[other][score]) for one in folds])
        interval = bootstrap((differences,), np.mean, n_resamples=20_000, rng=np.random.default_rng(1))
        low, high = interval.confidence_interval
        table[score] = {"better by": float(differences.mean()), "low": float(low), "high": float(high)}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--duration", type=float, default=60.0, help="[ps] of each protein's MD")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--ship", action="store_true", help="train the shipped weights instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.ship:
        ship(options.duration)
        return
    for protein in PROTEINS:
        trajectory(protein, options.duration)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        folds = pool.starmap(fold, [(i, options.duration) for i in range(len(PROTEINS))], chunksize=1)
    summary = {
        name: {
            score: {"mean": float(np.mean(values)), "median": float(np.median(values))}
            for score in SCORES
            for values in [[one[name][score] for one in folds]]
        }
        for name in ("halves of the MD", *TRAINED, "elastic start", "ANM")
    }
    pairs = [("DynaProt", other) for other in ("ANM", "elastic start", "MSE loss", "from nothing")]
    pairs.append(("from nothing", "MSE loss, from nothing"))
    against = {f"{name} than {other}": compare(folds, name, other) for name, other in pairs}
    print(json.dumps({"summary": summary, "better": against}, indent=1))
    write_results(
        "dynaprot_small",
        {
            "settings": {"duration_ps": options.duration, "shown frames": SHOWN_FRAMES, "config": "tiny"},
            "summary": summary,
            "better": against,
            "proteins": folds,
        },
    )


if __name__ == "__main__":
    main()
