"""Load the C++ side: check versions, then load one library a platform and keep why any did not load.

Importing this module does the work, once. torch and openmm come first, so that the loader finds their libraries by
name wherever this package lies; torch before openmm, which opens openmm-torch's plugin as soon as it is imported.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import torch

# isort: split
import openmm

from openmm_latent.errors import LatentError, require

#: Platforms with a library of their own; CPU is served by Reference's.
PLATFORMS = ("Reference", "OpenCL", "CUDA")

_REBUILD = "rebuild with `pip install --no-build-isolation --force-reinstall --no-deps .`"


def minor_version(version: str) -> str:
    """Return "2.13" of "2.13.0+cpu"."""
    return ".".join(version.split("+")[0].split(".")[:2])


def check_versions(torch_built: str, torch_found: str, openmm_built: str, openmm_found: str) -> None:
    """Refuse libraries that the C++ side was not compiled for, before anything of it is loaded.

    Parameters
    ----------
    torch_built, torch_found : str
        Versions at build and at run time; only major and minor must agree (libtorch's C++ ABI follows them).
    openmm_built, openmm_found : str
        The same for openmm, whose internal classes may change with any release: they must be equal.

    Raises
    ------
    LatentError
        They differ.
    """
    require(
        minor_version(torch_built) == minor_version(torch_found),
        f"openmm_latent was built against torch {torch_built} but {torch_found} is installed; {_REBUILD}",
    )
    require(
        openmm_built == openmm_found,
        f"openmm_latent was built against openmm {openmm_built} but {openmm_found} is installed; {_REBUILD}",
    )


def import_compiled(name: str) -> ModuleType:
    """Import a module that the build makes; a missing one becomes a sentence."""
    try:
        return importlib.import_module(f"openmm_latent.{name}")
    except ImportError as error:
        raise LatentError(
            f"the compiled part of openmm_latent could not be loaded ({error}); build it with "
            f"`pip install --no-build-isolation -e .` in the source folder, or start Python outside that folder"
        ) from error


def why_openmm_lacks(platform: str) -> str:
    """Tell why OpenMM itself has no such platform, in its own words where it has any."""
    failures = [line for line in openmm.Platform.getPluginLoadFailures() if f"libOpenMM{platform}" in line]
    plugins = Path(openmm.version.openmm_library_path) / "plugins"
    if failures:
        detail = failures[0]
    elif (plugins / f"libOpenMM{platform}.so").exists():
        detail = "its plugin found no driver or device"
    else:
        detail = "its plugin is not installed"
    return f"OpenMM itself has no {platform} platform here: {detail}"


def load_platform(platform: str, library: Path, skipped: dict[str, str]) -> str:
    """Load one platform's library.

    Parameters
    ----------
    platform : str
        OpenMM's name of it.
    library : Path
        The library to load.
    skipped : dict of str to str
        Platform -> why the build left it out.

    Returns
    -------
    str
        Why it could not be loaded; empty when it was.
    """
    if platform in skipped:
        return f"openmm_latent was built without it: {skipped[platform]}"
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if platform not in names:
        return why_openmm_lacks(platform)
    if platform == "CUDA" and torch.version.cuda is None:
        return (
            f"the installed torch {torch.__version__} is a CPU build; install a CUDA build, then rebuild this package"
        )
    try:
        openmm.Platform.loadPluginLibrary(str(library))
    except openmm.OpenMMException as error:
        return str(error)
    return ""


def load_platforms(folder: Path, skipped: dict[str, str]) -> dict[str, str]:
    """Load every platform library that can load.

    Returns
    -------
    dict of str to str
        Platform -> why it could not be loaded; empty when all were.
    """
    reasons = {name: load_platform(name, folder / f"libOpenMMLatent{name}.so", skipped) for name in PLATFORMS}
    return {name: reason for name, reason in reasons.items() if reason}


_built = import_compiled("_build_info")
check_versions(_built.TORCH_VERSION, torch.__version__, _built.OPENMM_VERSION, openmm.__version__)

# The generated module with the C++ classes; other modules import it plainly once it has loaded here.
import_compiled("openmmlatent")

#: Platform -> why jumps are not available on it. A Context on such a platform is refused by OpenMM with its own words.
load_failures = load_platforms(Path(__file__).parent / "lib", _built.SKIPPED)
