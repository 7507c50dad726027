# Everything runs in an environment of its own, made on first use and again when what it is made of changes.
#   make demo TORCH=torch==2.11.0 DEMO_ARGS="--scale 0.25"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
# For a torch that brings none: those for GPUs bring the one they were made for.
TRITON := triton==3.9.0
export MAX_JOBS ?= $(shell nproc)
DEMO_ARGS ?=
TEST_ARGS ?= -n $(MAX_JOBS) --dist worksteal
BENCH_ARGS ?=
PAPER_ARGS ?=

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# One name per interpreter and torch, so that another choice of them makes another environment.
CHOICE := $(shell echo '$(PYTHON) $(TORCH)' | cksum | cut -d' ' -f1)
ENVIRONMENT := $(VENV)/.environment-$(CHOICE)
INSTALLED := $(VENV)/.installed-$(CHOICE)

.PHONY: demo test lint bench bench-network paper gpu-check install clean

demo: $(INSTALLED)
	$(RUN) -m examples.render_motorcycle $(DEMO_ARGS)

test: $(INSTALLED)
	$(RUN) -m pytest $(TEST_ARGS)

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(INSTALLED)
	$(RUN) -m benchmarks $(BENCH_ARGS)

bench-network: $(INSTALLED)
	$(RUN) -m benchmarks.network $(BENCH_ARGS)

paper: $(INSTALLED)
	$(RUN) -m benchmarks.paper --overwrite $(PAPER_ARGS)

# With the Python, torch and Triton that the machine has: there need not be a network.
gpu-check:
	$(PYTHON) -m benchmarks.gpu.check

install: $(INSTALLED)

# torch first and by itself: nothing after it may choose another build of it.
$(ENVIRONMENT): constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "gkm_ops wants Python >= 3.10; set PYTHON")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install -c constraints.txt $(TORCH)
	$(PIP) install -c constraints.txt setuptools wheel ninja pybind11 numpy
	$(RUN) -c 'import triton' 2> /dev/null || $(PIP) install -c constraints.txt $(TRITON)
	touch $@

$(INSTALLED): $(ENVIRONMENT) setup.py pyproject.toml $(shell find csrc -type f)
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[demo,test,lint,bench]'
	touch $@

clean:
	rm -rf $(VENV) build out *.egg-info gkm_ops/*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
