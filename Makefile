# Everything a checkout needs: each target sets up .venv by itself, once for each pyproject.toml and constraints.txt.
#
# Paths are relative and quoted, so the folder's name may hold a space. PYTHON picks the interpreter for a new .venv;
# PYTEST_ARGS goes to pytest (make test PYTEST_ARGS="tests/test_shop.py -k planted").

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
PYTEST_ARGS ?=
CANDIDATES := python3.11 python3.12 python3
VENV_PYTHON := .venv/bin/python
READY := .venv/.ready
PIP_INSTALL := $(VENV_PYTHON) -m pip install --quiet --no-input --disable-pip-version-check --constraint constraints.txt
# One thread a test: several would time and wait for each other, not for the code.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(VENV_PYTHON) -m pytest

# gpu: of relduel sweep gpu. wheelhouse: the other machine's Python and pip freeze. install-offline: with PYTHON's torch.
GPU_ARGS ?=
PY ?= 3.12
HAVE ?= freeze.txt
OUT ?= wheelhouse
EXTRAS ?= pyg,test
WHEELHOUSE ?= wheelhouse

.PHONY: help demo gpu test test-slow bench lint types layers check clean wheelhouse install-offline

help: ## say what each target does
	@sed -n -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 24

demo: $(READY) ## sweep PyG and DGL on the embedded shop database; ends with the path of report.html
	@.venv/bin/relduel sweep demo --store runs/demo

gpu: $(READY) ## measure on the GPU for 9 minutes; again: go on (docs/gpu.md)
	@.venv/bin/relduel sweep gpu --budget 9m $(GPU_ARGS)

wheelhouse: $(READY) ## collect what another machine lacks: PY=3.12 HAVE=freeze.txt [OUT= EXTRAS=]
	@$(VENV_PYTHON) -m tools.wheelhouse --python "$(PY)" --have "$(HAVE)" --out "$(OUT)" --extras "$(EXTRAS)"

install-offline: ## make .venv from a wheelhouse beside the torch of PYTHON [WHEELHOUSE=wheelhouse]
	@$(or $(PYTHON),python3) tools/install_offline.py --wheelhouse "$(WHEELHOUSE)"

test: $(READY) ## run the tests, without the slow ones, on up to 4 cores
	@$(PYTEST) -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

test-slow: $(READY) ## run the slow tests only
	@$(PYTEST) -m slow $(PYTEST_ARGS)

bench: $(READY) ## run the benchmarks (tests/bench); wants a quiet machine
	@$(PYTEST) tests/bench --benchmark-enable $(PYTEST_ARGS)

lint: $(READY) ## check format and style
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m ruff check .

types: $(READY) ## check the types
	@$(VENV_PYTHON) -m mypy

layers: $(READY) ## check which room imports which
	@.venv/bin/lint-imports

check: test lint types layers ## everything that CI runs

clean: ## remove caches and build output; .venv and the records in runs/ stay
	@rm -rf build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

# torch comes first and alone, by its exact version: a looser request may choose another, much larger build.
$(READY): pyproject.toml constraints.txt
	@python=""; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then \
	        python="$$candidate"; \
	        break; \
	    fi; \
	done; \
	if ! $(VENV_PYTHON) -m pip --version >/dev/null 2>&1; then \
	    if [ -z "$$python" ]; then \
	        echo "relduel needs Python 3.11 or 3.12, and none answers here as $(or $(PYTHON),$(CANDIDATES));" \
	            "install one, or name it: make PYTHON=/path/of/python3.11" >&2; \
	        exit 1; \
	    fi; \
	    "$$python" -m venv --clear .venv; \
	fi
	@echo "setting up .venv: a few minutes the first time" >&2
	@$(PIP_INSTALL) "$$(grep '^torch==' constraints.txt)"
	@$(PIP_INSTALL) --editable ".[dev]"
	@touch $(READY)
