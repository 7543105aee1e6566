# Sets everything up by itself in .venv: `make demo`, `make test`. Needs Python 3.11 or 3.12 with
# its venv module, git and make; says so where anything else is missing.

SHELL := /bin/bash
VENV := .venv
READY := $(VENV)/.ready
RENDERS := $(VENV)/.renders
# The first of these that is fit: the versions in constraints.txt go with Python 3.11 and 3.12.
FIT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c '$(FIT)' 2>/dev/null && echo $$p && break; done)
# ROS 2 traffic of the demo and of the tests stays on this machine.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak fuzz lint clean check-python check-shm

help: ## Show the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv (about 6 GB; a few minutes, once)

demo: $(READY) check-shm ## Play a bag into the real node and report (under 3 minutes)
	@$(VENV)/bin/mspn demo

# Two files at a time (WORKERS=1: one), since most of a test is waiting for processes. One thread a
# process: tests start several, and OpenMP's threads spin while they wait for a core.
test: lint $(RENDERS) check-shm ## Lint, then run all tests (under 15 minutes)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(VENV)/bin/pytest --numprocesses $(or $(WORKERS),2) --dist loadfile

# MINUTES, CAMERAS, HZ and OUTPUT may be given: make soak MINUTES=5
soak: $(READY) check-shm ## Run a changing node for half an hour under four cameras and count every frame
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(VENV)/bin/python test/soak.py --minutes $(or $(MINUTES),30) \
		--cameras $(or $(CAMERAS),4) --hz $(or $(HZ),30) --output $(or $(OUTPUT),soak)

# SEED, MESSAGES and FIRST (the number of the first one) may be given: make fuzz SEED=3 MESSAGES=1000
fuzz: $(READY) check-shm ## Send a node 100,000 broken and hostile messages (about 15 minutes)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(VENV)/bin/python test/fuzz.py --seed $(or $(SEED),0) \
		--messages $(or $(MESSAGES),100000) --first $(or $(FIRST),0)

lint: $(READY) ## Check style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

clean: ## Remove .venv and what the tools left
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# The stamp comes last: an interrupted installation is taken up again by the next call.
$(READY): setup.py setup.cfg pyproject.toml package.xml constraints.txt mspn_ros/__init__.py \
		$(wildcard launch/*.py config/*.* scripts/*) | check-python
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@rm -f $@
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[ros,openvino,sfm,synthetic,test]'
	@touch $@

# Synthetic rooms are drawn by VTK, which ends with a crash where it cannot.
$(RENDERS): $(READY)
	@$(VENV)/bin/python -c 'import pyvista; \
		pyvista.Plotter(off_screen=True).screenshot(return_img=True)' >$(VENV)/renders.log 2>&1 || { \
		echo "make: VTK cannot draw without a screen here ($(VENV)/renders.log);" \
			"run: apt-get install libegl1 libgl1-mesa-dri" >&2; exit 1; }
	@touch $@

check-python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FIT)' 2>/dev/null || { \
		echo "make: needs Python 3.11 or 3.12, found $$($(or $(PYTHON),python3) --version 2>/dev/null || echo none);" \
			"install one and run: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "make: $(PYTHON) lacks its venv module; run: apt-get install python3-venv" >&2; exit 1; }

# Camera images go through shared memory, 16 MB a process (config/fastdds.xml).
check-shm:
	@free=$$(df --output=avail -m /dev/shm 2>/dev/null | tail -n 1); \
	test "$${free:-0}" -ge 56 || { \
		echo "make: /dev/shm has $${free:-0} MB free, ROS 2 needs 56;" \
			"in Docker, run with --shm-size=256m" >&2; exit 1; }
