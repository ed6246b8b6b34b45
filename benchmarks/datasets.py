"""Public samples of ATLAS and MISATO and plain files, read end to end; and a large synthetic mdCATH file, streamed.

    python benchmarks/datasets.py

Shows for each: what was found, whether topologies fit, times to open, stream and draw lag pairs, and the memory on top
of what the libraries take. No mdCATH file is at hand, so one is made in its layout (--megabytes) and removed again.
"""

import argparse
import re
import tempfile
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
from results import shared_data, write_results

from openmm_latent.data import open_dataset
from openmm_latent.data.manifest import look_at
from openmm_latent.data.pairs import stream_lag_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2000, help="size of the synthetic mdCATH file")
    arguments = parser.parse_args()
    content = {"samples": {}}
    for folder in ("atlas", "misato/inference_from_pdb.hdf5", "wlall", "bbflow60", "rhodopsin"):
        path = shared_data(folder.split("/")[0]).joinpath(*folder.split("/")[1:])
        content["samples"][folder] = sample(path)
        print(folder, {key: value for key, value in content["samples"][folder].items() if key != "entries"}, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mdcath_dataset_9bigA00.h5"
        make_mdcath(path, shared_data("atlas") / "7jfl_C.pdb", arguments.megabytes)
        content["synthetic_mdcath"] = large(path)
    print(content["synthetic_mdcath"])
    write_results("datasets", content)


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
