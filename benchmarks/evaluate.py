"""What `openmm-latent evaluate` costs, and the page that it makes of a model's rollout.

Three parts, each a command of its own in a process of its own, so that time and memory are the user's:

- wlall: four MD runs of the pentapeptide WLALL against four others, 5001 frames each (<= 60 s, <= 2 GB);
- rollout: a GLDP rollout of the same size against the MD runs 16-19, which training never saw, with the peers; keeps a
  picture of the page in docs/figures/evaluate_wlall.png where Chromium and playwright are installed. The model is
  that of gldp_wlall.py, trained first if that script has not run;
- large: 2803 heavy atoms of rhodopsin, 50 000 synthetic frames along a few modes as reference and 50 000 as sample
  (<= 15 minutes, <= 6 GB). The files, 0.8 GB, stay in the work folder.

Reads ../shared/data/wlall and rhodopsin. Writes results/evaluate.json.

    python benchmarks/evaluate.py [wlall] [rollout] [large]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
from results import FOLDER, shared_data, write_results

ROOT = Path(__file__).parents[1]
WORK = ROOT / "benchmark_output" / "evaluate"
FIGURE = ROOT / "docs" / "figures" / "evaluate_wlall.png"
N_FRAMES, FRAME_SPACING = 5001, 100.0  # of one WLALL run; [ps]
LARGE_FRAMES, LARGE_MODES = 50_000, 6
LIMITS = {"wlall": (60.0, 2.0), "rollout": (60.0, 2.0), "large": (900.0, 6.0)}  # seconds, GB


def run_evaluate(part: str, *words: object) -> dict:
    """Run the command in a process of its own; return seconds, largest memory and what it found."""
    out = WORK / part
    command = [sys.executable, "-c", "from openmm_latent.cli import app; app()", "evaluate", "--out", out, *words]
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        sys.exit(f"openmm-latent evaluate failed with exit code {os.waitstatus_to_exitcode(status)}")
    found = json.loads((out / "metrics.json").read_text())
    values = {one["key"]: [one["value"], one["floor"], one["verdict"]] for one in found["metrics"]}
    row = {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
        "page_mb": round((out / "report.html").stat().st_size / 1e6, 2),
        "value, floor, verdict": values,
    }
    limit_seconds, limit_memory = LIMITS[part]
    row["is_within_limits"] = bool(row["seconds"] <= limit_seconds and row["peak_memory_gb"] <= limit_memory)
    print(
        f"{part}: {row['seconds']} s of {limit_seconds:g}, {row['peak_memory_gb']} GB of {limit_memory:g}", flush=True
    )
    return row


def wlall_files(numbers: range) -> list[Path]:
    """Return trajectories of the pentapeptide."""
    return [shared_data("wlall") / f"pentapeptide-{i:02d}-500ns-impl-solv.xtc" for i in numbers]


def measure_wlall() -> dict:
    """Score runs 12-15 against runs 16-19."""
    top = shared_data("wlall") / "pentapeptide-impl-solv.pdb"
    files = ["--reference", *wlall_files(range(16, 20)), "--sample", *wlall_files(range(12, 16))]
    return run_evaluate("wlall", "--top", top, *files, "--temperature", 300, "--name", "other runs")


def write_rollout(folder: Path) -> tuple[Path, list[Path]]:
    """Roll out the autoregressive GLDP of gldp_wlall.py; return a PDB of its heavy atoms and one XTC a walker."""
    import torch
    from gldp_wlall import LAG_TIME, OUTPUT, PROPAGATORS, roll_out

    from openmm_latent.data.trajectories import load_trajectories
    from openmm_latent.models.gldp import CONFIGS
    from openmm_latent.training import train_gldp

    top, files = folder / "heavy.pdb", [folder / f"gldp_{i}.xtc" for i in range(4)]
    if all(path.exists() for path in (top, *files)):
        return top, files
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    pdb = shared_data("wlall") / "pentapeptide-impl-solv.pdb"
    train = load_trajectories(pdb, wlall_files(range(16)))
    config = replace(CONFIGS["tiny"], encoder_steps=4000, decoder_steps=6000)  # gldp_wlall.py's
    model = train_gldp(
        train,
        lag_time=LAG_TIME,
        config=config,
        propagator="autoregressive",
        propagator_config=PROPAGATORS["autoregressive"],
        work_directory=OUTPUT / "gldp_wlall",
        seed=1,
        progress=False,
    )
    everything = train.concatenated()
    starts = everything[np.linspace(0, len(everything) - 1, len(files)).astype(int)]
    topology = mdtraj.load(str(pdb)).topology.subset(train.model_atoms)
    mdtraj.Trajectory(starts[0], topology).save_pdb(str(top))
    times = FRAME_SPACING * np.arange(N_FRAMES)
    for path, frames in zip(files, roll_out(model, starts, N_FRAMES, seed=1), strict=True):
        mdtraj.Trajectory(frames, topology, time=times).save_xtc(str(path))
    return top, files


def measure_rollout() -> dict:
    """Score the rollout, with peers, and keep a picture of the page."""
    sample_top, files = write_rollout(WORK / "gldp")
    top = shared_data("wlall") / "pentapeptide-impl-solv.pdb"
    words = ["--top", top, "--reference", *wlall_files(range(16, 20)), "--sample", *files, "--sample-top", sample_top]
    words += ["--peers", "anm,gaussian,md", "--md", *wlall_files(range(4)), "--training", *wlall_files(range(4))]
    labels = ["--name", "GLDP rollout", "--reference-name", "MD, held out", "--temperature", 300]
    row = run_evaluate("rollout", *words, *labels)
    take_picture(WORK / "rollout" / "report.html", FIGURE)
    return row


def take_picture(page: Path, picture: Path) -> None:
    """Keep the top of a page as a PNG; says so where there is no browser."""
    from shutil import which

    chromium = which("chromium") or which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("no picture: Chromium or playwright is not installed")
        return
    options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=options)
        tab = browser.new_page(viewport={"width": 1180, "height": 1500}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("#stage[data-ready]")
        tab.wait_for_timeout(1000)
        tab.screenshot(path=str(picture))
        browser.close()
    shrink(picture)
    print(f"wrote {picture.relative_to(ROOT)}, {picture.stat().st_size / 1e3:.0f} kB")


def shrink(picture: Path) -> None:
    """Write a PNG again in 256 colours."""
    from PIL import Image

    Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)


def write_large(folder: Path) -> tuple[Path, list[Path]]:
    """Write a PDB of rhodopsin's heavy atoms and two XTC files of synthetic frames along its largest modes."""
    top, files = folder / "heavy.pdb", [folder / f"{name}.xtc" for name in ("reference", "sample")]
    if all(path.exists() for path in (top, *files)):
        return top, files
    folder.mkdir(parents=True, exist_ok=True)
    source = shared_data("rhodopsin")
    real = mdtraj.load(str(source / "md_1u19.xtc"), top=str(source / "md_1u19.pdb"))
    real = real.atom_slice(real.topology.select("mass > 2"))
    real.superpose(real)
    real[0].save_pdb(str(top))
    mean = real.xyz.mean(axis=0)
    _, sizes, modes = np.linalg.svd((real.xyz - mean).reshape(len(real), -1), full_matrices=False)
    scale = sizes[:LARGE_MODES] / np.sqrt(len(real))
    relaxation = np.geomspace(400.0, 10.0, LARGE_MODES)  # frames
    for number, path in enumerate(files):
        random = np.random.default_rng(number)
        keep = np.exp(-1.0 / relaxation)
        state = random.standard_normal(LARGE_MODES)
        unfinished = path.with_suffix(".part.xtc")
        with mdtraj.formats.XTCTrajectoryFile(str(unfinished), "w") as handle:
            for start in range(0, LARGE_FRAMES, 500):
                amplitudes = np.empty((500, LARGE_MODES))
                for row in amplitudes:
                    state = keep * state + np.sqrt(1 - keep**2) * random.standard_normal(LARGE_MODES)
                    row[:] = state
                frames = mean + ((amplitudes * scale) @ modes[:LARGE_MODES]).reshape(500, *mean.shape)
                frames += 0.01 * random.standard_normal(frames.shape)
                handle.write(frames.astype(np.float32), time=20.0 * np.arange(start, start + 500, dtype=np.float32))
        unfinished.rename(path)
    return top, files


def measure_large() -> dict:
    """Score 50 000 frames of 2803 atoms against as many."""
    top, files = write_large(WORK / "rhodopsin")
    row = run_evaluate("large", "--top", top, "--reference", files[0], "--sample", files[1])
    return row | {"n_atoms": mdtraj.load(str(top)).n_atoms, "n_frames": [LARGE_FRAMES, LARGE_FRAMES]}


PARTS = {"wlall": measure_wlall, "rollout": measure_rollout, "large": measure_large}


def main() -> None:
    """Measure the parts asked for; keep what an earlier call measured of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="wlall, rollout, large; all of them unless given")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    before = FOLDER / "evaluate.json"
    kept = json.loads(before.read_text())["parts"] if before.exists() else {}
    found = {part: PARTS[part]() for part in chosen}
    write_results("evaluate", {"what": "wall time and peak memory of one process", "parts": kept | found})


if __name__ == "__main__":
    main()
