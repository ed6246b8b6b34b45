"""The build's promises: versions recorded and checked, platforms that cannot load told in a sentence."""

import runpy
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import openmm
import pytest

import openmm_latent
from openmm_latent import LatentError, plugin

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = Path(plugin.__file__).parent / "lib"


def test_build_info_records_what_is_installed():
    info = plugin.import_compiled("_build_info")
    assert metadata.version("torch") == info.TORCH_VERSION
    assert openmm.__version__ == info.OPENMM_VERSION
    assert metadata.version("numpy") == info.NUMPY_VERSION


def test_another_minor_version_of_torch_is_refused_in_a_sentence():
    with pytest.raises(LatentError, match=r"built against torch 2\.12\.1 but 2\.13\.0\+cpu is installed; rebuild with"):
        plugin.check_versions("2.12.1", "2.13.0+cpu", "8.6.1", "8.6.1")


def test_another_patch_release_or_build_of_torch_is_accepted():
    plugin.check_versions("2.13.0+cpu", "2.13.1+cu130", "8.6.1", "8.6.1")


def test_another_openmm_is_refused_in_a_sentence():
    with pytest.raises(LatentError, match=r"built against openmm 8\.6\.0 but 8\.6\.1 is installed; rebuild with"):
        plugin.check_versions("2.13.0", "2.13.0", "8.6.0", "8.6.1")


def test_a_wrong_torch_at_import_is_a_sentence_and_loads_nothing():
    script = (
        "import torch; torch.__version__ = '1.0.0'\n"
        "try:\n    import openmm_latent\n"
        "except ValueError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.startswith("openmm_latent was built against torch 2.")
    assert "but 1.0.0 is installed; rebuild with `pip install --no-build-isolation" in result.stdout


def test_a_missing_extension_is_a_sentence():
    with pytest.raises(LatentError, match=r"compiled part of openmm_latent could not be loaded .*; build it with `pip"):
        plugin.import_compiled("_not_built")


def test_reference_always_loads_and_every_other_platform_has_a_library_or_a_reason():
    assert (LIBRARIES / "libOpenMMLatentReference.so").exists()
    assert "Reference" not in plugin.load_failures
    for platform in plugin.PLATFORMS:
        assert platform in plugin.load_failures or (LIBRARIES / f"libOpenMMLatent{platform}.so").exists()
    assert all(len(reason) > 20 for reason in plugin.load_failures.values())


def test_a_platform_left_out_of_the_build_gives_the_builds_reason(tmp_path):
    reason = plugin.load_platform("CUDA", tmp_path / "absent.so", {"CUDA": "no CUDA toolkit was found"})
    assert reason == "openmm_latent was built without it: no CUDA toolkit was found"


def test_a_missing_or_broken_library_is_a_reason_and_no_crash(tmp_path):
    assert "Error loading library" in plugin.load_platform("Reference", tmp_path / "absent.so", {})
    broken = tmp_path / "libBroken.so"
    broken.write_bytes(b"not a library")
    assert "libBroken.so" in plugin.load_platform("Reference", broken, {})


def test_an_openmm_without_the_platform_is_a_reason(tmp_path):
    reason = plugin.load_platform("Quantum", tmp_path / "absent.so", {})
    assert reason == "OpenMM itself has no Quantum platform here: its plugin is not installed"


def test_the_libraries_can_be_loaded_without_a_driver():
    # What only this process shows: importing worked, whatever is installed.
    assert issubclass(openmm_latent.LatentIntegrator, openmm.CompoundIntegrator)


@pytest.mark.parametrize("library", sorted(LIBRARIES.glob("*.so")), ids=lambda path: path.stem)
def test_a_library_binds_all_symbols_when_it_is_loaded(library):
    # OpenMM opens plugins lazily: without this a missing symbol would end the process at its first call.
    table = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    assert "NOW" in table


def test_the_cuda_library_lacks_nothing_of_our_own():
    # It is linked against stubs that leave every symbol open, so the linker does not look.
    library = LIBRARIES / "libOpenMMLatentCUDA.so"
    if not library.exists():
        pytest.skip("built without CUDA")
    symbols = {}
    for path in LIBRARIES.glob("*.so"):
        table = subprocess.run(["nm", "-D", str(path)], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in table.splitlines()]
        symbols[path] = {row[-1] for row in rows if len(row) == 3}, {row[-1] for row in rows if row[0] == "U"}
    defined = set().union(*(ours for ours, _ in symbols.values()))
    # "12OpenMMLatent" is the mangled namespace.
    assert {name for name in symbols[library][1] if "12OpenMMLatent" in name} - defined == set()


def test_import_draws_in_none_of_the_slow_packages():
    slow = {"lightning", "matplotlib", "deeptime", "mdtraj", "scipy", "e3nn", "ot"}
    script = "import sys, openmm_latent; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script, *sorted(slow)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("torch", "openmm-latent: torch is not installed where this build runs; install torch first"),
        ("openmm", "openmm-latent: openmm is not installed where this build runs; install openmm first"),
        ("numpy", "openmm-latent: numpy is not installed where this build runs; install numpy first"),
    ],
)
def test_a_build_without_a_needed_package_ends_in_one_sentence(monkeypatch, tmp_path, missing, sentence):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path)])
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as error:
        runpy.run_path("setup.py", run_name="__main__")
    assert str(error.value).startswith(sentence)


def test_a_build_against_an_old_openmm_ends_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(openmm, "__version__", "8.3.1")
    monkeypatch.setattr(sys, "argv", ["setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path("setup.py", run_name="__main__")
    assert "is 8.3.1, 8.4 or newer is needed: " in str(error.value)


def test_a_build_without_pythons_header_ends_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path("setup.py", run_name="__main__")
    assert f"{tmp_path / 'Python.h'} is missing; on Debian `apt-get install python3-dev`" in str(error.value)


def test_a_build_with_an_old_swig_ends_in_one_sentence(monkeypatch, tmp_path):
    swig = tmp_path / "swig"
    swig.write_text("#!/bin/sh\necho 'SWIG Version 4.1.1'\n")
    swig.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path("setup.py", run_name="__main__")
    assert f"swig in {swig} is 4.1, 4.4 or newer is needed" in str(error.value)


def test_every_dependency_bound_states_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    listed = lines[start + 1 : lines.index("]", start)]
    assert len(listed) == len(tomllib.loads("\n".join(lines))["project"]["dependencies"])
    assert [line for line in listed if "#" not in line] == []
