# Every target makes its environment first where there is none, and rebuilds the C++ side where a source is newer.
#   make test                      the whole suite, OpenCL included where a device is found
#   make demo VENV=/path/to/venv   another environment
#   make test VENV=.venv-old TORCH=torch==2.9.1 OPENMM=openmm==8.4.0.post2    other versions, in one of their own
VENV ?= .venv
PYTHON ?= python3
# Installed before all else, so that nothing else draws in another torch. A GPU build: make TORCH="torch==2.13.0 ..."
TORCH ?= torch==2.13.0
OPENMM ?= openmm
# An environment of its own for openmm-torch, whose 1.5 was built with torch 2.9 for CUDA 12: gigabytes of libraries,
# which a machine without a GPU needs as well.
BESIDE ?= .venv-openmm-torch
# Tests an OpenCL device, if one is found; pocl, which runs OpenCL on a CPU, is kept in a folder of its own by some.
ICD := $(firstword $(wildcard /etc/OpenCL/pocl/*.icd /etc/OpenCL/vendors/*.icd $(VENV)/etc/OpenCL/vendors/*.icd))
PYTEST = $(VENV)/bin/python -m pytest -n 2 --dist loadfile
RUN = $(VENV)/bin/python
# Two processes of one thread each are faster than one of two.
export OMP_NUM_THREADS ?= 1
export OPENMM_CPU_THREADS ?= 1

.PHONY: build demo test test-python test-opencl test-openmm-torch bench lint format clean
.DEFAULT_GOAL := test

# What the build and the package need, straight from pyproject.toml.
define NEEDS
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print("\n".join(project["build-system"]["requires"] + project["project"]["dependencies"]))
endef
export NEEDS

# What a machine must have before anything is downloaded, each with the Debian package that gives it.
define CHECKS
import pathlib, shutil, sys, sysconfig
try:
    import ensurepip
except ImportError:
    ensurepip = None
header = pathlib.Path(sysconfig.get_path("include"), "Python.h")
checks = [
    (sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11"),
    (ensurepip, sys.executable + " cannot make environments; on Debian: apt-get install python3-venv"),
    (header.exists(), str(header) + " is missing; on Debian: apt-get install python3-dev"),
    (shutil.which("g++"), "a C++ compiler is needed; on Debian: apt-get install g++"),
]
sys.exit("\n".join("openmm-latent: " + sentence for holds, sentence in checks if not holds) or 0)
endef
export CHECKS

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c "$$CHECKS"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet $(TORCH) $(OPENMM)
	$(RUN) -c "$$NEEDS" > $(VENV)/needs.txt
	$(RUN) -m pip install --quiet -r $(VENV)/needs.txt
	$(RUN) -m pip install --quiet --no-build-isolation -e .[dev]
	touch $@

build: $(VENV)/.ready
	@$(RUN) setup.py --quiet build_ext --inplace

demo: build
	$(RUN) examples/demo.py

test: test-python
ifneq ($(ICD),)
	$(MAKE) --no-print-directory test-opencl
else
	@echo "OpenCL tests were left out: no OpenCL device is installed (make test-opencl says how)."
endif

test-python: build
	$(PYTEST) -m "not opencl" $(ARGS)

test-opencl: build
ifeq ($(ICD),)
	@echo "No OpenCL device was found in /etc/OpenCL. pocl runs OpenCL on the CPU; on Debian:"
	@echo "  apt-get install pocl-opencl-icd ocl-icd-opencl-dev opencl-headers"
	@echo "then move /etc/OpenCL/vendors/pocl.icd to /etc/OpenCL/pocl/, or it becomes OpenMM's default platform."
	@exit 1
else
	OCL_ICD_VENDORS=$(dir $(ICD)) $(PYTEST) -m opencl $(ARGS)
endif

# Installed, not editable: the C++ side in the source tree stays that of $(VENV). A large download; not a part of CI.
test-openmm-torch: $(BESIDE)/.ready
	$(BESIDE)/bin/python -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .
	$(BESIDE)/bin/pytest tests/test_openmm_torch.py "tests/test_examples.py::test_example[05_physics_from_a_torch_force]"

$(BESIDE)/.ready: pyproject.toml
	@$(PYTHON) -c "$$CHECKS"
	test -x $(BESIDE)/bin/python || $(PYTHON) -m venv $(BESIDE)
	$(BESIDE)/bin/python -m pip install --quiet torch==2.9.1 openmmtorch==1.5
	$(BESIDE)/bin/python -c "$$NEEDS" > $(BESIDE)/needs.txt
	$(BESIDE)/bin/python -m pip install --quiet -r $(BESIDE)/needs.txt "pytest>=8"
	touch $@

bench: build
	$(RUN) benchmarks/suite.py $(ARGS)

lint: build
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $$(git ls-files 'cpp/*.h' 'cpp/*.cpp')
	$(RUN) -m mypy

format: build
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(VENV)/bin/clang-format -i $$(git ls-files 'cpp/*.h' 'cpp/*.cpp')

# The environment stays: it takes minutes to make. To drop it too, remove $(VENV).
clean:
	rm -rf build openmm_latent/lib openmm_latent/_openmmlatent*.so openmm_latent/openmmlatent.py openmm_latent/_build_info.py
	rm -rf demo_output lightning_logs .pytest_cache .mypy_cache .ruff_cache
