"""The platforms on which one test body runs: thin entries, like the platform files of OpenMM's own tests."""

import openmm as mm
import pytest

PLATFORMS = [
    "Reference",
    "CPU",
    pytest.param("OpenCL-single", marks=pytest.mark.opencl),
    pytest.param("OpenCL-mixed", marks=pytest.mark.opencl),
    pytest.param("OpenCL-double", marks=pytest.mark.opencl),
    pytest.param("CUDA-single", marks=pytest.mark.cuda),
    pytest.param("CUDA-mixed", marks=pytest.mark.cuda),
    pytest.param("CUDA-double", marks=pytest.mark.cuda),
]
BITWISE = [p for p in PLATFORMS if p != "CPU"]


def get_platform(name):
    """Return (platform, properties) of an entry."""
    name, _, precision = name.partition("-")
    properties = {"Precision": precision} if precision else {}
    if name == "CPU":
        properties = {"Threads": "1"}
    return mm.Platform.getPlatformByName(name), properties


def tolerance(name):
    """How far two positions may differ that should be equal [nm]: the platform's own rounding."""
    return 2e-6 if name.endswith("single") else 1e-6 if name == "CPU" else 2e-7
