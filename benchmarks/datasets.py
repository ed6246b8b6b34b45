"""Public samples of ATLAS, mdCATH's and MISATO's layouts and plain files: read, streamed, and evaluated end to end.

Three parts, whose figures are kept from the last run of each in results/datasets.json:

- read: what was found, whether topologies fit, times to open, stream and draw lag pairs;
- large: a synthetic mdCATH file (--megabytes), streamed, with the memory on top of what the libraries take;
- evaluate: `openmm-latent dataset export` where the format needs it, then `openmm-latent evaluate` of one half of each
  sample against the other; the commands run in this process, whose imports their CPU seconds leave out.

No mdCATH file is at hand, so one is written in its layout from a real trajectory, and MISATO's public sample has no
frames, so some are drawn about its structure: these two show that the way works, not how proteins move.

    python benchmarks/datasets.py [read] [large] [evaluate]
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time

import h5py
import mdtraj
import numpy as np
from results import FOLDER, shared_data, write_results
from typer.testing import CliRunner

from openmm_latent.cli import app
from openmm_latent.data import open_dataset
from openmm_latent.data.manifest import look_at
from openmm_latent.data.pairs import stream_lag_pairs

PARTS = ("read", "large", "evaluate")
#: Samples of plain files: topology, trajectory, options of evaluate.
FILES = {
    "XTC, pentapeptide WLALL": ("wlall/pentapeptide-impl-solv.pdb", "wlall/pentapeptide-00-500ns-impl-solv.xtc", ()),
    "XTC, 60 residues (bbflow)": ("bbflow60/equilibrium.pdb", "bbflow60/MD_trajectory.xtc", ()),
    "DCD, adenylate kinase": (
        "adk/adk.psf",
        "adk/adk_dims2.dcd",
        ("--structure", "adk/adk_open.pdb", "--frame-spacing", "1", "--sample-frame-spacing", "1"),
    ),
    "NetCDF, DPDP hairpin": (
        "amber/DPDP.parm7",
        "amber/DPDP.nc",
        ("--frame-spacing", "1", "--sample-frame-spacing", "1"),
    ),
    "HDF5 of mdtraj, alanine dipeptide": ("adp/alanine-dipeptide-nowater.pdb", "adp/mdtraj_ala2.h5", ()),
    "XTC, rhodopsin": ("rhodopsin/md_1u19.pdb", "rhodopsin/md_1u19.xtc", ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS, metavar="read | large | evaluate")
    parser.add_argument("--megabytes", type=int, default=2000, help="size of the synthetic mdCATH file")
    arguments = parser.parse_args()
    earlier = FOLDER / "datasets.json"
    kept = json.loads(earlier.read_text()) if earlier.exists() else {}
    content = {key: kept[key] for key in ("samples", "synthetic_mdcath", "evaluated") if key in kept}
    if "read" in arguments.parts:
        content["samples"] = {}
        for folder in ("atlas", "misato/inference_from_pdb.hdf5", "wlall", "bbflow60", "rhodopsin"):
            path = shared_data(folder.split("/")[0]).joinpath(*folder.split("/")[1:])
            content["samples"][folder] = sample(path)
            told = {key: value for key, value in content["samples"][folder].items() if key != "entries"}
            print(folder, told, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if "large" in arguments.parts:
            path = Path(folder) / "mdcath_dataset_9bigA00.h5"
            make_mdcath(path, shared_data("atlas") / "7jfl_C.pdb", arguments.megabytes)
            content["synthetic_mdcath"] = large(path)
            path.unlink()
            print(content["synthetic_mdcath"])
        if "evaluate" in arguments.parts:
            content["evaluated"] = {}
            for name, row in evaluate_all(Path(folder)):
                content["evaluated"][name] = row
                write_results("datasets", content)
    write_results("datasets", content)


def evaluate_all(folder: Path) -> Iterator[tuple[str, dict]]:
    """Evaluate every sample; give its name and a row for each."""
    for name in open_dataset(shared_data("atlas")).names:
        (file,) = exported(shared_data("atlas"), name, folder / "atlas")
        top = folder / "atlas" / f"{name}.pdb"
        yield f"ATLAS, {name}", evaluated(top, *halves(top, file, folder / "atlas"))
    path = folder / "mdcath_dataset_9realA00.h5"
    write_real_mdcath(path)
    files = exported(path, "9realA00", folder / "mdcath", "--frame-spacing", "500")
    note = {"note": "frames of the bbflow sample, its halves written as two replicas"}
    yield "mdCATH's layout, 60 residues", evaluated(folder / "mdcath" / "9realA00.pdb", *files) | note
    for name, (top, trajectory, options) in FILES.items():
        files = halves(found(top), found(trajectory), folder / name.partition(",")[0])
        words = [str(found(word)) if "/" in word else word for word in options]
        yield name, evaluated(found(top), *files, *words)
    path = folder / "MD.hdf5"
    write_frames_about(path, found("misato/inference_from_pdb.hdf5"), "11gs")
    (file,) = exported(path, "11gs", folder / "misato")
    top = folder / "misato" / "11gs.pdb"
    files = halves(top, file, folder / "misato")
    note = {
        "note": "the public sample has no frames: and no ligand: these are made, its structure bent along long waves"
    }
    yield "MISATO's layout, 11gs", evaluated(top, *files) | note


def found(name: str) -> Path:
    """Return a file of the shared data."""
    return shared_data(name.split("/")[0]).joinpath(*name.split("/")[1:])


def command(*words: object) -> float:
    """Run an `openmm-latent` command; return its CPU seconds."""
    start = process_time()
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exit_code:
        sys.exit(f"openmm-latent {' '.join(map(str, words))} failed: {done.output} {done.exception!r}")
    return process_time() - start


def exported(path: Path, name: str, out: Path, *options: str) -> list[Path]:
    """Export an entry of a data set; return its trajectories."""
    command("dataset", "export", path, name, "--out", out, *options)
    return sorted(out.glob(f"{name}*.xtc"))


def halves(top: Path, trajectory: Path, folder: Path) -> list[Path]:
    """Cut a trajectory in the middle, in its own format."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{trajectory.stem}_half{i}{trajectory.suffix}" for i in range(2)]
    if trajectory.suffix == ".h5":  # mdtraj needs PyTables for its own format
        with h5py.File(trajectory) as whole:
            middle = len(whole["coordinates"]) // 2
            for file, part in zip(files, (slice(0, middle), slice(middle, 2 * middle)), strict=True):
                with h5py.File(file, "w") as store:
                    store["topology"] = whole["topology"][()]
                    for key in set(whole) & {"coordinates", "time", "cell_lengths", "cell_angles"}:
                        store[key] = whole[key][part]
        return files
    whole = mdtraj.load(str(trajectory), top=str(top))
    middle = len(whole) // 2
    whole[:middle].save(str(files[0]))
    whole[middle : 2 * middle].save(str(files[1]))
    return files


def evaluated(top: Path, reference: Path, sample_file: Path, *options: str) -> dict:
    """Evaluate one file against another; return what came of it."""
    with tempfile.TemporaryDirectory() as out:
        files = ("--reference", reference, "--sample", sample_file)
        seconds = command("evaluate", "--top", top, *files, "--out", out, *options)
        told = json.loads((Path(out) / "metrics.json").read_text())
        page = (Path(out) / "report.html").stat().st_size
    scored = [one for one in told["metrics"] if one["value"] is not None]
    row = {
        "frames": [told[side]["n_frames"] for side in ("reference", "sample")],
        "residues, atoms": [told["n_residues"], told["n_atoms"]],
        "cpu_seconds": round(seconds, 1),
        "page_mb": round(page / 1e6, 2),
        "scores": len(scored),
        "with interval": sum(one["interval"] is not None for one in scored),
        "matches, near, differs": [sum(one["verdict"] == w for one in scored) for w in ("matches", "near", "differs")],
        "not defined": [one["key"] for one in told["metrics"] if one["value"] is None],
        "left out": told["left_out"],
        "cautions": len(told["cautions"]),
    }
    print(sample_file.name, row, flush=True)
    return row


def write_real_mdcath(path: Path) -> None:
    """Write the bbflow sample's halves in mdCATH's layout, as two replicas at 320 K."""
    top = found("bbflow60/equilibrium.pdb")
    whole = mdtraj.load(str(found("bbflow60/MD_trajectory.xtc")), top=str(top))
    with h5py.File(path, "w") as store:
        domain = store.create_group(path.stem.removeprefix("mdcath_dataset_"))
        domain["pdbProteinAtoms"] = top.read_bytes()
        for replica, part in enumerate((whole[:100], whole[100:])):
            run = domain.create_group(f"320/{replica}")
            run.attrs["numFrames"] = len(part)
            run["coords"] = (10.0 * part.xyz).astype(np.float32)
            run["box"] = np.zeros((3, 3))


def write_frames_about(path: Path, source: Path, name: str, n_frames: int = 200) -> None:
    """Write a MISATO file with frames: its structure, bent along six long waves of about 0.5 Å."""
    random = np.random.default_rng(1)
    with h5py.File(source) as whole, h5py.File(path, "w") as store:
        whole.copy(name, store)
        places = store[name]["atoms_coordinates_ref"][()]
        waves = random.normal(size=(6, 3))  # long waves through space: neighbours move together
        phases = np.sin(0.05 * places @ waves.T)  # (n_atoms, 6)
        sizes = random.normal(scale=0.5, size=(n_frames, 6, 3))
        store[name]["trajectory_coordinates"] = (places + np.einsum("ak,fkd->fad", phases, sizes)).astype(np.float32)


def sample(path: Path) -> dict:
    """Open a data set, check every entry, stream all frames and draw pairs one frame spacing apart."""
    start = perf_counter()
    dataset = open_dataset(path)
    opened = perf_counter()
    entries = {}
    for entry in dataset:
        found = look_at(entry)
        n_streamed = sum(len(chunk) for run in entry.runs for chunk in entry.stream(run))
        if n_streamed != found.n_frames:
            raise SystemExit(f"{entry.name}: {n_streamed} frames streamed of {found.n_frames}")
        entries[entry.name] = {
            "atoms": found.n_atoms,
            "residues": found.n_residues,
            "runs": len(entry.runs),
            "frames": found.n_frames,
            "lacking atoms": found.missing,
            "gaps": len(found.gaps),
            "stretched runs": found.stretched,
            "notes": found.notes,
        }
    streamed = perf_counter()
    spacings = [run.frame_spacing for entry in dataset for run in entry.runs[:1]]
    pairs = 0
    if spacings:
        pairs = sum(len(b.now) for b in stream_lag_pairs(dataset, spacings[0], batch_size=32, n_batches=50))
    return {
        "kind": dataset.kind,
        "open_s": round(opened - start, 3),
        "check_and_stream_s": round(streamed - opened, 3),
        "frames": sum(told["frames"] for told in entries.values()),
        "pairs_per_s": round(pairs / (perf_counter() - streamed)) if pairs else None,
        "entries": entries,
    }


def make_mdcath(path: Path, pdb: Path, megabytes: int) -> None:
    """Write a domain in mdCATH's layout: one structure with noise, five temperatures, five replicas."""
    text = "".join(line for line in pdb.read_text().splitlines(keepends=True) if line.startswith("ATOM"))
    places = np.array([[float(line[30 + 8 * k : 38 + 8 * k]) for k in range(3)] for line in text.splitlines()])
    n_frames = int(megabytes * 1e6 / (25 * places.size * 4))
    with h5py.File(path, "w") as store:
        domain = store.create_group(path.stem.removeprefix("mdcath_dataset_"))
        domain["pdbProteinAtoms"] = text.encode()
        rng = np.random.default_rng(1)
        for temperature in ("320", "348", "379", "413", "450"):
            for replica in range(5):
                run = domain.create_group(f"{temperature}/{replica}")
                noise = rng.normal(scale=0.1, size=(n_frames, *places.shape)).astype(np.float32)
                run["coords"] = places.astype(np.float32) + noise
                run["box"] = 9.0 * np.eye(3)


def large(path: Path) -> dict:
    """Stream a large file and draw pairs from it; report rates and the peak of memory."""
    dataset = open_dataset(path)
    entry = next(iter(dataset))
    entry.frames(entry.runs[0], [0])
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = perf_counter()
    n_frames = sum(len(chunk) for run in entry.runs for chunk in entry.stream(run))
    streamed = perf_counter()
    n_pairs = sum(len(b.now) for b in stream_lag_pairs(dataset, 5000.0, batch_size=64, n_batches=100))
    drawn = perf_counter()
    return {
        "file_MB": round(path.stat().st_size / 1e6),
        "atoms": entry.topology.getNumAtoms(),
        "frames": n_frames,
        "stream_MB_per_s": round(path.stat().st_size / 1e6 / (streamed - start)),
        "pairs_per_s": round(n_pairs / (drawn - streamed)),
        "peak_memory_on_top_MB": round((status("VmHWM") - before) / 1024, 1),
    }


def status(key: str) -> int:
    """Return a line of /proc/self/status [kB]."""
    return int(re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    main()
