"""Build the C++ side with CMake against the openmm and torch that this interpreter would import.

Everything else about the package is in pyproject.toml. Nothing is searched for in the environment: paths and versions
come from asking Python, so `pip install --no-build-isolation .` and its editable form need no variable set.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = "openmm_latent"
SWIG_MINIMUM = (4, 4)
OPENMM_MINIMUM = (8, 4)  # the first whose own wrapping is SWIG 4.4's, which shares no types with an older one's
SETUPTOOLS_MINIMUM = 77  # the first to read pyproject.toml's licence

BUILD_INFO = '''"""Written by setup.py: what the C++ side was built against."""

TORCH_VERSION = "{torch}"
OPENMM_VERSION = "{openmm}"
NUMPY_VERSION = "{numpy}"

#: Platform -> why its library was not built.
SKIPPED = {skipped!r}
'''


def refuse(sentence):
    """End the build with one sentence instead of a traceback."""
    sys.exit(f"openmm-latent: {sentence}")


def package_folder(name):
    """Return the folder of an importable package without importing it (torch takes seconds)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        refuse(
            f"{name} is not installed where this build runs; install {name} first, then run "
            f"`pip install --no-build-isolation .` so that the build sees it."
        )
    return Path(spec.origin).parent


def find_openmm():
    """Return OpenMM's version, and the folder that holds its include and lib, both as OpenMM itself states them."""
    package_folder("openmm")
    import openmm

    root = Path(openmm.version.openmm_library_path).parent
    if tuple(int(part) for part in openmm.__version__.split(".")[:2]) < OPENMM_MINIMUM:
        refuse(
            f"openmm in {root} is {openmm.__version__}, 8.4 or newer is needed: what older ones made with SWIG cannot "
            f"be shared with SWIG 4.4; `pip install 'openmm>=8.4'`."
        )
    if not (root / "include" / "swig" / "OpenMMSwigHeaders.i").exists():
        refuse(f"openmm in {root} carries no SWIG headers; install the openmm wheel, 8.4 or newer.")
    return openmm.__version__, root


def find_program(name):
    """Return a program of this interpreter's environment, or one on the PATH."""
    for folder in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent), None):
        found = shutil.which(name, path=folder)
        if found:
            return found
    refuse(f"the program {name} was not found; `pip install {name}` gives it, then run this build again.")


def interpreter():
    """Return this interpreter by one name: it may have been called as python, python3 or python3.11."""
    folder, name = Path(sys.executable).parent, f"python{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(name, path=str(folder)) or sys.executable


def check_header():
    """Refuse to start without Python's own header."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        refuse(f"{header} is missing; on Debian `apt-get install python3-dev` gives it, then run this build again.")


def find_swig():
    """Return swig, new enough to share types with the openmm wheel."""
    swig = find_program("swig")
    text = subprocess.run([swig, "-version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in re.search(r"SWIG Version (\d+)\.(\d+)", text).groups())
    if version < SWIG_MINIMUM:
        refuse(f"swig in {swig} is {version[0]}.{version[1]}, 4.4 or newer is needed; `pip install 'swig>=4.4'`.")
    return swig


def numpy_include():
    """Return the folder with numpy/arrayobject.h."""
    package_folder("numpy")
    import numpy

    return numpy.get_include()


def read_skipped(build_folder):
    """Return the platforms that CMake left out, with its reasons."""
    lines = (build_folder / "skipped.txt").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines)
    return {platform: reason for platform, reason in pairs if reason}


class CMakeBuild(build_ext):
    """Configure, build and install cpp/ into the package folder, whatever that is (a wheel's or the source's)."""

    def run(self):
        """Build all libraries, then write `_build_info.py` beside them."""
        check_header()
        destination = (ROOT if self.inplace else Path(self.build_lib).resolve()) / PACKAGE
        openmm_version, openmm_root = find_openmm()
        options = {
            "LATENT_OPENMM_ROOT": openmm_root,
            "LATENT_TORCH_ROOT": package_folder("torch"),
            "LATENT_NUMPY_INCLUDE": numpy_include(),
            "LATENT_SWIG": find_swig(),
            "Python_EXECUTABLE": interpreter(),
            "CMAKE_MAKE_PROGRAM": find_program("ninja"),
        }
        versions = {
            "torch": importlib.metadata.version("torch"),
            "openmm": openmm_version,  # as `plugin.py` will read it: the wheel 8.4.0.post2 calls itself 8.4
            "numpy": importlib.metadata.version("numpy"),
        }
        # One build folder an environment and set of versions: a second environment never meets a stale CMake cache.
        key = hashlib.sha256(repr((options, versions)).encode()).hexdigest()[:8]
        build_folder = ROOT / "build" / f"cmake-{key}"
        cmake = find_program("cmake")
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        self.cmake(cmake, "-S", ROOT / "cpp", "-B", build_folder, "-G", "Ninja", "--log-level=NOTICE", *definitions)
        self.cmake(cmake, "--build", build_folder, "--parallel", self.parallel or 2)
        self.cmake(cmake, "--install", build_folder, "--prefix", destination)
        skipped = read_skipped(build_folder)
        (destination / "_build_info.py").write_text(BUILD_INFO.format(**versions, skipped=skipped))

    @staticmethod
    def cmake(*command):
        """Run one CMake command; its own output tells what went wrong."""
        if subprocess.run([str(part) for part in command]).returncode:
            refuse("building the C++ side failed; the lines above say where.")

    def get_outputs(self):
        """Return nothing: the libraries are found in the package folder, not named one by one."""
        return []

    def get_output_mapping(self):
        """Return nothing, for the same reason."""
        return {}


if int(setuptools.__version__.split(".")[0]) < SETUPTOOLS_MINIMUM:
    refuse(
        f"setuptools is {setuptools.__version__}, {SETUPTOOLS_MINIMUM} or newer is needed; "
        f"`pip install 'setuptools>={SETUPTOOLS_MINIMUM}'`."
    )
setup(ext_modules=[Extension(f"{PACKAGE}._openmmlatent", sources=[])], cmdclass={"build_ext": CMakeBuild})
