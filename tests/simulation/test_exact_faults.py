"""Deliberate faults: each is put into a copy of the C++ sources, compiled, and must fail the test that the code passes.

A fault is a list of substitutions, each of which must match exactly once, so that a change of the sources cannot turn
it into nothing unseen. The faulty library has the same SONAME as the true one and is loaded first, by LD_PRELOAD.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import openmm
import pytest
import torch

import known_density as kd

SOURCES = Path(__file__).parents[2] / "cpp"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("g++") is None or not sys.platform.startswith("linux"),
        reason="faults are compiled by g++ and loaded by LD_PRELOAD",
    ),
]

DRIVEN, DRIVER, JUMP = "LatentIntegratorDriven.cpp", "Driver.cpp", "LatentIntegratorJump.cpp"

#: The work that the moves of the centre do, as a scheme without heat's bookkeeping would test.
PROTOCOL_WORK = [
    (
        DRIVER,
        "    int blocks = driving.numBlocks();\n",
        "    int blocks = driving.numBlocks();\n    double protocol = 0;\n",
    ),
    (
        DRIVER,
        "        setCentre(centre / (blocks + 1));\n",
        "        if (!isLast) {\n"
        "            setCentre(i / (blocks + 1.0));\n"
        "            double resting = totalEnergy(context, groups);\n"
        "            setCentre((i + 1) / (blocks + 1.0));\n"
        "            protocol += totalEnergy(context, groups) - resting;\n"
        "        }\n"
        "        setCentre(centre / (blocks + 1));\n",
    ),
    (
        DRIVER,
        "    setCentre(1);\n    double end = totalEnergy(context, groups);\n",
        "    setCentre(blocks / (blocks + 1.0));\n    double resting = totalEnergy(context, groups);\n"
        "    setCentre(1);\n    double end = totalEnergy(context, groups);\n    protocol += end - resting;\n",
    ),
    (DRIVER, "? end - start - heat : NAN;", "? protocol : NAN;"),
]
SECOND_B = '"v+0.5*dt*other/m");\n    driver->addConstrainVelocities();\n    driver->addComputeGlobal("driver_pending"'
#: LangevinMiddle's order: a whole kick by all forces at the centre of its own block, then A O A.
KICK_FIRST = [
    (DRIVER, "isFirst ? 1 : isLast ? blocks : i + 0.5;", "isLast ? blocks : i + 1;"),
    (DRIVER, "isFirst || isLast ? 0.5 * blockTime : blockTime", "isLast ? 0 : blockTime"),
    (
        DRIVER,
        '"v+0.5*dt*other/m");\n    driver->addConstrainVelocities();\n    addDrift(*driver);',
        '"v+dt*other/m");\n    driver->addConstrainVelocities();\n    addDrift(*driver);',
    ),
    (DRIVER, SECOND_B, SECOND_B.replace("v+0.5*dt*other/m", "v")),
]
FAULTS = {
    "none": [],
    "sign of the work": [(DRIVEN, "record.logProposalRatio - record.work", "record.logProposalRatio + record.work")],
    "sign of the proposal ratio": [(DRIVEN, "exp(record.logProposalRatio -", "exp(-record.logProposalRatio -")],
    "LangevinMiddle drives": KICK_FIRST + PROTOCOL_WORK,
    "protocol work": PROTOCOL_WORK,
    "longer drives one way round alone": [
        (DRIVEN, "driving.over(lengthOf(way))", "driving.over(way[0] > 0 ? lengthOf(way) : 0)")
    ],
    "velocities redrawn on refusal alone": [
        (
            JUMP,
            "if ((mode == Exact && !isLeft) || (record.accepted && redrawsVelocities))",
            "if (!record.accepted && !isLeft)",
        )
    ],
    "near ways left to MD in one direction alone": [
        (
            DRIVEN,
            "lengthOf(wayOf(record, restraint.getBundle().slowPeriods)) < driving.leastDistance",
            "fabs(record.to[0] - record.from[0]) < (record.to[0] > record.from[0] ? driving.leastDistance : 0)",
        )
    ],
}


def compile_object(source: Path, folder: Path) -> Path:
    """Compile one file of cpp/api, perhaps a changed one, as the build does but with less optimisation."""
    target = folder / f"{source.stem}.o"
    include = Path(openmm.version.openmm_library_path).parent / "include"
    folders = [f"-I{SOURCES / inner}" for inner in ("", "include", "torch", "api")]
    flags = (
        "-O1 -DNDEBUG -std=c++20 -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -DOpenMMLatent_EXPORTS".split()
    )
    subprocess.run(["g++", *flags, *folders, "-isystem", include, "-c", source, "-o", target], check=True)
    return target


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Objects of the sources as they are, by file name: every library but for what a fault changes."""
    folder = tmp_path_factory.mktemp("objects")
    return {source.name: compile_object(source, folder) for source in sorted((SOURCES / "api").glob("*.cpp"))}


def build(fault: str, objects: dict[str, Path], folder: Path) -> Path:
    """Compile and link the library with a fault."""
    changed: dict[str, str] = {}
    for name, old, new in FAULTS[fault]:
        text = changed.get(name) or (SOURCES / "api" / name).read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} places that read {old!r}; adapt the fault"
        changed[name] = text.replace(old, new)
    chosen = dict(objects)
    for name, text in changed.items():
        (folder / name).write_text(text)
        chosen[name] = compile_object(folder / name, folder)
    library, openmm_folder = folder / "libOpenMMLatent.so", Path(openmm.version.openmm_library_path)
    options = ["-shared", "-Wl,-z,now", "-Wl,-soname,libOpenMMLatent.so", f"-Wl,-rpath,{openmm_folder}"]
    command = ["g++", *options, "-o", library, *chosen.values(), f"-L{openmm_folder}", "-lOpenMM"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="module")
def libraries(objects, tmp_path_factory):
    """Return a function that gives the library with a fault, built once."""
    made = {}

    def give(fault):
        if fault not in made:
            made[fault] = build(fault, objects, tmp_path_factory.mktemp("fault"))
        return made[fault]

    return give


#: Where each fault bites: what is sampled, how, and by which module in place of the target's own.
TARGETS = {"double well": kd.DOUBLE_WELL, "harmonic": kd.HARMONIC}
SETTINGS = {
    "small": replace(kd.SMALL, n_jumps=500),
    "paced": replace(kd.PACED, n_jumps=1500),
    "far": kd.FARTHER,
    "huge": kd.HUGE,
    "ballistic": kd.BALLISTIC,
    "near": replace(kd.SMALL, steps=10, block=1, sigma=0.3, step_size=0.01, relax_steps=4, n_jumps=3000),
}
MODULES = {"": lambda: None, "rebuilt": lambda: kd.Rebuilt(2, 1, step=0.4, drift=0.25)}
CASES = [
    ("sign of the work", "double well", "small", ""),
    ("sign of the proposal ratio", "double well", "small", ""),
    ("LangevinMiddle drives", "double well", "small", ""),
    ("longer drives one way round alone", "double well", "paced", ""),
    ("near ways left to MD in one direction alone", "double well", "far", ""),
    # The step's error goes untested: nothing to see at small steps, see below.
    ("protocol work", "harmonic", "huge", ""),
    # Velocities matter only where friction has not made them forgotten.
    ("velocities redrawn on refusal alone", "harmonic", "ballistic", ""),
    # A graph rebuilt per frame makes the restraint's energy jump where its force says nothing.
    ("protocol work", "harmonic", "near", "rebuilt"),
]


def sample_in_a_process(library: Path, target: str, setting: str, module: str, folder: Path) -> dict:
    """Run the five seeds in an interpreter with the library loaded first; p-value, and which library it was."""
    command = [sys.executable, "-W", "ignore", __file__, target, setting, module, folder / "model.latent.pt"]
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["libraries"] == [str(library)]
    return found


def main(target_name: str, setting: str, module: str, path: str) -> None:
    """Sample in this process; print the smallest p-value and the libraries in use."""
    torch.set_num_threads(1)
    target = TARGETS[target_name]
    chains = kd.sample_seeds(target, kd.export(target, Path(path), MODULES[module]()), SETTINGS[setting])
    maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    print(
        json.dumps(
            {
                "p": min(kd.pvalues(target, chains).values()),
                "acceptance": chains[0].acceptance,
                "libraries": sorted(name for name in maps if Path(name).name == "libOpenMMLatent.so"),
            }
        )
    )


@pytest.mark.parametrize("place", sorted({case[1:] for case in CASES}), ids=" ".join)
def test_the_code_as_it_is_passes_where_a_fault_must_fail(libraries, tmp_path, place):
    found = sample_in_a_process(libraries("none"), *place, tmp_path)
    assert found["p"] > kd.LEVEL, found


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_fault_fails(libraries, tmp_path, case):
    fault, *place = case
    found = sample_in_a_process(libraries(fault), *place, tmp_path)
    assert found["p"] < kd.DECISIVE, found


def test_at_small_steps_protocol_work_is_not_seen(libraries, tmp_path):
    """What `protocol work` fails for is the step's error, or the energy's jumps, and nothing else about it."""
    found = sample_in_a_process(libraries("protocol work"), "harmonic", "near", "", tmp_path)
    assert found["p"] > kd.LEVEL, found


if __name__ == "__main__":
    main(*sys.argv[1:])
