"""CODLAD on small proteins: its autoencoder, what each term of the loss is worth, and samples beside two baselines.

Learned from: structures and short MD that may be used freely (codlad_data.py). Judged on frames, a file and proteins
that were kept apart. Stages, each kept in benchmark_output/codlad_small, so that the same command goes on:

| stage | what |
|---|---|
| train | autoencoder, denoiser in its latent space, and the same denoiser on Cartesian coordinates |
| autoencoder | frames encoded, snapped to codes and decoded |
| limits | what keeps proteins that were not learned from from being rebuilt: encoder, codes, or decoder |
| ablation | the autoencoder trained for a short while without one term of its loss |
| sampling | samples on traces, beside an ideal rebuild by pdbfixer and diffusion in Cartesian space |
| energies | the same after one short minimisation, beside frames of MD minimised in the same way |

    python benchmarks/codlad_small.py [--stages train autoencoder ...]
    python benchmarks/codlad_small.py --ship FILE    # copies the trained weights in half precision, half as large
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from codlad_baselines import CartesianDiffusion, pdbfixer_rebuild
from codlad_data import Data, load_data
from codlad_energies import N_ITERATIONS, Judge, reference_run
from codlad_scores import averaged, rebuilt_scores
from results import write_results
from scipy.stats import bootstrap
from torch import Tensor

from openmm_latent.data.forcefields import FORCE_FIELDS
from openmm_latent.data.residue_slots import ProteinFrames
from openmm_latent.models.codlad import CONFIGS, Autoencoder, Protein
from openmm_latent.models.codlad.config import TERMS
from openmm_latent.models.codlad.losses import LossTables, nearer_names
from openmm_latent.models.codlad.module import CODLAD, BackmappedProtein
from openmm_latent.models.codlad.packing import Packing
from openmm_latent.models.codlad.weights import load_weights
from openmm_latent.nn.residue_geometry import CA
from openmm_latent.training.codlad import train_codlad_autoencoder
from openmm_latent.training.codlad_diffusion import train_codlad

OUT = Path(__file__).parents[1] / "benchmark_output" / "codlad_small"
WEIGHTS = OUT / "codlad.weights.pt"
#: `tiny`, with four times its steps of the denoiser, whose loss on what was kept apart still fell.
CONFIG = replace(CONFIGS["tiny"], diffusion_steps=20_000)
#: Of the ablation, the same for all; the schedule of the clash term shrinks with the training.
SHORT = replace(CONFIG, n_epochs=6, residues_per_batch=128, clash_doubles_after=2, n_exchanged=16)
#: Proteins whose samples are judged: learned from, and unseen.
SAMPLED = ("chignolin", "villin", "adk_nmp", "adk_lid", "bpti", "bbflow60")
MINIMISED = ("chignolin", "trp_cage")
N_FRAMES, N_SAMPLES, N_CANDIDATES = 4, 4, 8
GROUPS = ("held_out_frames", "held_out_files", "unseen_md", "unseen_others")


def spread(example: ProteinFrames, n_frames: int) -> np.ndarray:
    """Return at most so many frames, evenly spread."""
    return example.positions[np.linspace(0, len(example) - 1, min(n_frames, len(example))).round().astype(int)]


# ---------------------------------------------------------------------------------------------------------- training


def train(data: Data) -> dict:
    """Train all three networks; tell CPU seconds, those of the last run where training was interrupted."""
    seconds, began = {}, time.process_time()

    def show(name: str) -> Callable[[int, int, float, float], None]:
        def told(done: int, total: int, loss: float, judged: float) -> None:
            seconds[name] = time.process_time() - began
            print(f"{name} {done}/{total}: loss {loss:.3f}, apart {judged:.3f}, {seconds[name]:.0f} s", flush=True)

        return told

    train_codlad(
        data.learned,
        config=CONFIG,
        validation=data.judged,
        out=WEIGHTS,
        work_directory=OUT / "work",
        device="cpu",
        progress={name: show(name) for name in ("autoencoder", "denoiser")},
        facts={"temperature": 300.0, "force_field": FORCE_FIELDS["obc2"], "files": [one.name for one in data.learned]},
    )
    cartesian(data, show("Cartesian denoiser"))
    return {"CPU seconds since the start, at the end of each": seconds}


def cartesian(data: Data, progress: Callable[[int, int, float, float], None] | None = None) -> CartesianDiffusion:
    """Return the baseline in Cartesian space, trained or found again."""
    baseline = CartesianDiffusion(data.learned, CONFIG)
    baseline.train(data.learned, OUT / "work", progress)
    return baseline


# ------------------------------------------------------------------------------------------------------- autoencoder


@torch.no_grad()
def reconstruct(model: Autoencoder, example: ProteinFrames, frames: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Return frames rebuilt from their codes, (n_frames, n_residues, 15, 3) [nm], and the codes' numbers."""
    protein, built, codes = Protein(example.residues), [], []
    for block in torch.as_tensor(frames).split(4):
        quantised, chosen, _ = model.quantise(model.encode(protein, block))
        built.append(model.decode(protein, quantised, block[:, :, CA])[1])
        codes.append(chosen)
    return torch.cat(built).numpy(), torch.cat(codes)


def reconstruction(model: Autoencoder, data: Data, groups: tuple[str, ...] = GROUPS, n_frames: int = 16) -> dict:
    """Score reconstructions of each group: means over proteins, and each protein; and how codes are used."""
    table, used = {}, []
    for group in groups:
        scores = {}
        for example in getattr(data, group):
            frames = spread(example, n_frames)
            built, codes = reconstruct(model, example, frames)
            scores[example.name] = rebuilt_scores(built[None], example, frames)
            used.append(codes.flatten())
        table[group] = {"mean": averaged(list(scores.values())), "proteins": scores}
        print(group, {name: round(one["mean"], 4) for name, one in table[group]["mean"].items()}, flush=True)
    share, perplexity = model.quantiser.utilisation(torch.cat(used))
    return {**table, "codes": {"share_used": share, "perplexity": perplexity, "residues": sum(map(len, used))}}


def limits(data: Data) -> dict:
    """Tell which part limits proteins that were not learned from: RMSD [Å] by ever better latents.

    "encoder, not snapped": latents before the codebook. "best latents": found by descent through the decoder, from the
    encoder's; "best codes": these snapped. What "best latents" leaves is the decoder's, or too few numbers.
    """
    model = load_weights(WEIGHTS)[0].autoencoder
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    table = {}
    for group in ("held_out_frames", "unseen_md"):
        rows = [_limits_of(model, example) for example in getattr(data, group) if 5 < len(example.residues) < 100]
        table[group] = averaged(rows)
        print(group, {name: round(one["mean"], 3) for name, one in table[group].items()}, flush=True)
    return table


def _limits_of(model: Autoencoder, example: ProteinFrames) -> dict[str, float]:
    frames, protein = torch.as_tensor(spread(example, 4)), Protein(example.residues)
    tables, trace = LossTables(example.residues, example.disulphides), frames[:, :, CA]

    def error(latent: Tensor) -> Tensor:
        built = model.decode(protein, latent, trace)[1]
        squares = (built - nearer_names(built, frames, tables)).square().sum(-1)[:, protein.has_atom]
        return 10.0 * squares.mean(1).sqrt().mean()

    encoded = model.encode(protein, frames).detach()
    latent = encoded.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([latent], lr=0.02)
    for _ in range(100):
        optimiser.zero_grad()
        loss = error(latent)
        loss.backward()
        optimiser.step()
    found = latent.detach()
    with torch.no_grad():
        return {
            "encoder and codes": float(error(model.quantiser.codebook(encoded))),
            "encoder, not snapped": float(error(encoded)),
            "best latents": float(error(found)),
            "best codes": float(error(model.quantiser.codebook(found))),
        }


def ablation(data: Data) -> dict:
    """Train for a short while without one term each, and without exchanged side chains."""
    small = replace(data, learned=[one for one in data.learned if len(one.residues) < 100])
    settings = {"all terms": {}}
    settings |= {f"without {term}": {"terms": tuple(name for name in TERMS if name != term)} for term in TERMS}
    settings["without exchanged side chains"] = {"n_exchanged": 0}
    table: dict[str, list] = {}
    for seed in (1,):
        for name, setting in settings.items():
            model = train_codlad_autoencoder(
                small.learned, config=replace(SHORT, **setting), seed=seed, work_directory=OUT / "ablation"
            )
            print(name, seed, flush=True)
            found = reconstruction(model, small, ("held_out_frames", "unseen_md"), n_frames=8)
            table.setdefault(name, []).append({group: found[group]["mean"] for group in found if group != "codes"})
    return table


# ---------------------------------------------------------------------------------------------------------- sampling


def sampled_examples(data: Data) -> dict[str, list[ProteinFrames]]:
    """Return what is sampled: held-out frames of proteins that were learned from, and unseen proteins."""
    known = [example for example in data.held_out_frames if example.name in SAMPLED]
    return {"held_out_frames": known, "unseen_md": data.unseen_md}


class Methods:
    """The three ways to rebuild atoms: name -> samples (n_samples, n_frames, n_residues, 15, 3) [nm] on traces."""

    NAMES = ("CODLAD", "CODLAD as drawn", "Cartesian diffusion", "ideal geometry, pdbfixer")

    def __init__(self, data: Data):
        self.model, self.cartesian = load_weights(WEIGHTS)[0], cartesian(data)

    def draw(self, name: str, example: ProteinFrames, frames: np.ndarray, n_samples: int) -> np.ndarray:
        """Draw; what is not random gives one sample."""
        trace = frames[:, :, CA]
        if name.startswith("CODLAD"):
            return draw_codlad(self.model, example, trace, n_samples, is_packed=name == "CODLAD")
        if name == "Cartesian diffusion":
            return np.stack([self.cartesian.draw(example, trace, seed) for seed in range(n_samples)])
        return np.stack([pdbfixer_rebuild(example, one) for one in trace])[None]


def draw_codlad(
    model: CODLAD, example: ProteinFrames, trace: np.ndarray, n_samples: int, is_packed: bool, seed: int = 1
) -> np.ndarray:
    """Draw samples on traces (n_frames, n_residues, 3) [nm], as `openmm-latent backmap` does if packed."""
    slots, residues = np.flatnonzero(example.residues.has_atom), example.residues
    module = BackmappedProtein(model, residues, slots, disulphides=example.disulphides).eval()
    packing = Packing(module, residues, example.disulphides)
    generator = torch.Generator().manual_seed(seed)
    traces = torch.as_tensor(trace, dtype=torch.float32)
    samples = np.repeat(trace.astype(np.float32)[None, :, :, None], n_samples, axis=0).repeat(15, axis=3)
    flat = samples.reshape(n_samples, len(trace), -1, 3)
    for frame, one in enumerate(traces):
        with torch.no_grad():
            if is_packed:
                noise = torch.randn(max(N_CANDIDATES, n_samples), module.n_noise, generator=generator)
                built = packing.samples(one, noise, [seed, frame], n_samples)
            else:
                noise = torch.randn(n_samples, module.n_noise, generator=generator)
                built = module.backmap(one.expand(n_samples, -1, -1), noise)
        flat[:, frame, slots] = built.numpy()
    return flat.reshape(samples.shape)


def sampling(data: Data) -> dict:
    """Score samples of each way on each protein; and CODLAD's paired differences to the others."""
    methods, table = Methods(data), {}
    for group, examples in sampled_examples(data).items():
        scores: dict[str, list] = {name: [] for name in (*methods.NAMES, "MD itself")}
        for example in examples:
            frames = spread(example, N_FRAMES)
            for name in methods.NAMES:
                began = time.process_time()
                samples = methods.draw(name, example, frames, N_SAMPLES)
                seconds = (time.process_time() - began) / (samples.shape[0] * samples.shape[1])
                scores[name].append(rebuilt_scores(samples, example, frames) | {"seconds": seconds})
            scores["MD itself"].append(rebuilt_scores(frames[None], example, frames))
        table[group] = {name: averaged(rows) for name, rows in scores.items()}
        table[group]["proteins"] = {
            one.name: {name: scores[name][i] for name in scores} for i, one in enumerate(examples)
        }
        table[group]["CODLAD minus"] = {
            name: {score: paired(scores["CODLAD"], scores[name], score) for score in scores[name][0] if score != "div"}
            for name in methods.NAMES[1:]
        }
        for name in scores:
            print(group, name, {key: round(one["mean"], 4) for key, one in table[group][name].items()}, flush=True)
    return table


def paired(ours: list[dict], theirs: list[dict], score: str) -> dict[str, float]:
    """Return the mean difference over proteins with its 95 % bootstrap interval."""
    differences = np.array([one[score] - other[score] for one, other in zip(ours, theirs, strict=True)])
    if np.ptp(differences) == 0:
        return {"mean": float(differences[0]), "low": float(differences[0]), "high": float(differences[0])}
    found = bootstrap((differences,), np.mean, n_resamples=10_000, rng=np.random.default_rng(1), method="percentile")
    low, high = found.confidence_interval
    return {"mean": float(differences.mean()), "low": float(low), "high": float(high)}


def energies(data: Data) -> dict:
    """Minimise samples of each way and frames of MD alike; tell the share within MD's range."""
    methods, table = Methods(data), {}
    known = {example.name: example for example in (*data.held_out_frames, *data.unseen_md)}
    whole = {name: known[name] for name in MINIMISED}
    for name, example in whole.items():
        judge, table[name] = Judge(reference_run(name, OUT)), {}

        def shares(method: str, energies: list[float], judge: Judge = judge, name: str = name) -> dict[str, float]:
            found = judge.shares(energies)
            print(name, method, {key: round(value, 1) for key, value in found.items()}, flush=True)
            return found

        # What a perfect sampler would score: the run from which the traces come, against the other.
        own = judge.minimised(example.positions)["energies"]
        table[name]["MD itself"] = {**shares("MD itself", own), "energies": own}
        for method, n_frames, n_samples in zip(methods.NAMES, (16, 8, 4, 6), (6, 3, 2, 1), strict=True):
            frames = spread(example, n_frames)
            samples = methods.draw(method, example, frames, n_samples)
            flat = samples.reshape(-1, *samples.shape[2:])
            found = judge.minimised(flat)
            heavy = found["heavy"].reshape(samples.shape)
            table[name][method] = {
                **shares(method, found["energies"]),
                "seconds": found["seconds"],
                "before": rebuilt_scores(samples, example, frames),
                "after": rebuilt_scores(heavy, example, frames),
                "energies": found["energies"],
            }
        table[name]["MD"] = {"energies": judge.energies}
    return table


# -------------------------------------------------------------------------------------------------------------- main


def autoencoder(data: Data) -> dict:
    """Score the trained autoencoder."""
    return reconstruction(load_weights(WEIGHTS)[0].autoencoder, data)


def ship(path: Path) -> None:
    """Copy the weights in half precision; loading makes single precision of them again."""
    content = torch.load(WEIGHTS, weights_only=True)
    halved = {name: one.half() if one.is_floating_point() else one for name, one in content["state_dict"].items()}
    torch.save({**content, "state_dict": halved}, path)
    print(f"wrote {path.name}, {path.stat().st_size / 1000:.0f} kB")


STAGES = {
    "train": train,
    "autoencoder": autoencoder,
    "limits": limits,
    "ablation": ablation,
    "sampling": sampling,
    "energies": energies,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--again", action="store_true", help="do these stages anew")
    parser.add_argument("--ship", type=Path, help="write the trained weights here, in half precision, and end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OPENMM_CPU_THREADS", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    if options.ship:
        ship(options.ship)
        return
    data = load_data()
    for name in options.stages:
        kept = OUT / f"{name}.json"
        if options.again or not kept.exists():
            print(f"-- {name}", flush=True)
            kept.write_text(json.dumps(STAGES[name](data), indent=1))
    done = {name: json.loads((OUT / f"{name}.json").read_text()) for name in STAGES if (OUT / f"{name}.json").exists()}
    settings = {
        "config": "tiny",
        "frames": N_FRAMES,
        "samples": N_SAMPLES,
        "candidates": N_CANDIDATES,
        "ablation": f"{SHORT.n_epochs * SHORT.steps_per_epoch} steps, proteins below 100 residues, one seed",
        "minimisation steps": N_ITERATIONS,
        "learned": {example.name: len(example) for example in data.learned},
    }
    write_results("codlad_small", {"settings": settings, **done})


if __name__ == "__main__":
    main()
