"""What every test shares: one thread, a fixed default platform, and which devices are here."""

import os

# Set before openmm loads. OpenCL devices are hidden unless `make test-opencl` asks for them: with pocl installed,
# OpenCL would become OpenMM's default platform, on which its minimiser crashes.
os.environ.setdefault("OCL_ICD_VENDORS", "/nonexistent")
os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "CPU")
os.environ.setdefault("OPENMM_CPU_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Figures are drawn to files.
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

torch.set_num_threads(1)


def _device_error(platform_name):
    """Return why no Context can be made on a platform; empty when one can."""
    import openmm

    try:
        platform = openmm.Platform.getPlatformByName(platform_name)
        system = openmm.System()
        system.addParticle(1.0)
        openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    except openmm.OpenMMException as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items):
    """Skip tests of a device that is not here, with OpenMM's own reason."""
    for marker, platform_name in (("opencl", "OpenCL"), ("cuda", "CUDA")):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = _device_error(platform_name) if marked else ""
        for item in marked if reason else []:
            item.add_marker(pytest.mark.skip(reason=f"no usable {platform_name} platform: {reason}"))
