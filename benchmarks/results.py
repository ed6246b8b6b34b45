"""Where benchmark figures go: one JSON file a benchmark, with the command, the versions, the machine and the date."""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def provenance() -> dict:
    """Return what a reader needs to judge or repeat a figure."""
    return {
        "command": "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()} {_processor()}, {os.cpu_count()} cores, no GPU used",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("openmm", "torch", "numpy", "mdtraj", "deeptime")},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_results(name: str, content: dict) -> Path:
    """Write `content` with its provenance to results/<name>.json and say where."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(provenance() | content, indent=1) + "\n")
    print(f"wrote benchmarks/results/{path.name}")
    return path


def kept(path: Path, make: Callable[[], Any], anew: bool) -> Any:
    """Return a stage's result from its file, or compute it and keep it there with the CPU seconds it took."""
    if anew or not path.exists():
        began = time.process_time()
        result = make()
        seconds = round(time.process_time() - began, 1)
        path.write_text(json.dumps({"result": result, "CPU seconds": seconds}, indent=1))
        print(f"{path.stem}: {seconds:.0f} CPU-s", flush=True)
    return json.loads(path.read_text())["result"]


def run_stages(folder: Path, stages: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the results of the stages asked for, and of those that were kept in the folder before."""
    found = {}
    for name, make in stages.items():
        is_asked = not options.stages or name in options.stages
        path = folder / f"{name}.json"
        if is_asked or path.exists():
            found[name] = kept(path, make, options.anew and is_asked)
    return found


def stage_options(description: str) -> argparse.Namespace:
    """Return which stages the command line asks for, and whether anew."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--stages", nargs="*", default=[], help="only these, by name; all unless given")
    parser.add_argument("--anew", action="store_true", help="score again what was scored; networks are kept")
    return parser.parse_args()


def shared_data(folder: str) -> Path:
    """Return a folder of the data that benchmarks read, or end with a sentence if it is not here."""
    path = SHARED_DATA / folder
    if not path.is_dir():
        sys.exit(f"This benchmark reads ../shared/data/{folder} beside the project, which is not here.")
    return path
