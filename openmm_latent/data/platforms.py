"""Which OpenMM platform to run on when the user names none."""

from __future__ import annotations

import openmm

from openmm_latent.errors import require

#: Below this many atoms the CPU platform's threads cost more than they save.
_ONE_THREAD_ATOMS = 1500
#: Below this many atoms the Reference platform beats the CPU platform in implicit solvent.
_REFERENCE_ATOMS = 60


def available_platforms() -> list[str]:
    """Return the names of the platforms that this OpenMM has loaded."""
    return [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]


def choose_platform(
    name: str | None, n_atoms: int, is_periodic: bool = False
) -> tuple[openmm.Platform, dict[str, str], str]:
    """Return a platform, its properties, and the reason in words.

    Parameters
    ----------
    name : str or None
        "CUDA", "HIP", "OpenCL", "CPU" or "Reference", in any case; None chooses the fastest. OpenCL is never chosen
        when it runs on the CPU by way of pocl: its local minimiser crashes there. Name it to have it all the same.
    n_atoms : int
        Size of the system.
    is_periodic : bool
        Whether it has a periodic box (explicit solvent).

    Raises
    ------
    LatentError
        The platform named is not there.
    """
    there = available_platforms()
    if name is not None:
        by_lower = {platform.lower(): platform for platform in there}
        require(
            name.lower() in by_lower,
            f"platform {name!r} is not available; this OpenMM has {', '.join(there)}: name one of these or none",
        )
        return _with_properties(by_lower[name.lower()], n_atoms, "named by the user")
    for fast in ("CUDA", "HIP"):
        if fast in there and _works(fast):
            return _with_properties(fast, n_atoms, "the fastest platform here")
    if "OpenCL" in there and _opencl_is_gpu():
        return _with_properties("OpenCL", n_atoms, "the fastest platform here, on a GPU")
    if n_atoms < _REFERENCE_ATOMS and not is_periodic:
        return _with_properties("Reference", n_atoms, f"the fastest without a GPU below {_REFERENCE_ATOMS} atoms")
    return _with_properties("CPU", n_atoms, "no GPU platform works here")


def _with_properties(name: str, n_atoms: int, reason: str) -> tuple[openmm.Platform, dict[str, str], str]:
    properties = {}
    if name == "CPU" and n_atoms < _ONE_THREAD_ATOMS:
        properties["Threads"] = "1"
        reason += f"; one thread, as more do not pay below {_ONE_THREAD_ATOMS} atoms"
    elif name in ("CUDA", "HIP", "OpenCL"):
        properties["Precision"] = "mixed"
    return openmm.Platform.getPlatform(name), properties, f"{name}: {reason}"


def _probe(name: str) -> openmm.Context | None:
    """Return a Context of one particle, or None where the platform has no working device."""
    system = openmm.System()
    system.addParticle(1.0)
    try:
        return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(name))
    except openmm.OpenMMException:
        return None


def _works(name: str) -> bool:
    return _probe(name) is not None


def _opencl_is_gpu() -> bool:
    context = _probe("OpenCL")
    if context is None:
        return False
    platform = openmm.Platform.getPlatform("OpenCL")
    maker = platform.getPropertyValue(context, "OpenCLPlatformName").lower()
    device = platform.getPropertyValue(context, "DeviceName").lower()
    return "portable computing language" not in maker and "pocl" not in maker and "cpu" not in device
