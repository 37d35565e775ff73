# K2: every step that a person or CI needs, by name. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 1
RUNS ?= 1000
REAL_RUNS ?= 0
FUZZ ?= 1000000
TEST_PROCESSES ?= 2
IN_PROCESSES = --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder
export UV_LINK_MODE ?= copy

.DEFAULT_GOAL := help
.PHONY: help setup run test check quick gates bench faults mutants references lock clean format

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "K2 needs Python 3.11 or newer as '$(PYTHON)'. Install it (Debian: apt-get install python3), or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python has no venv or pip. Debian: apt-get install python3-venv"; exit 1; }
	@echo "setup: making the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(VENV)/.ready: $(BIN)/uv requirements.lock pyproject.toml
	@echo "setup: installing locked packages (a first run downloads about 400 MB)"
	@set -o pipefail; VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip sync --compile-bytecode --require-hashes requirements.lock 2>&1 \
	  | sed -u '/^ [-+~] /d' # progress and errors, not a line for each package
	@VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src/k2 # where the environment forbids to write bytecode, each start would compile
	@touch $@

setup: $(VENV)/.ready ## put everything into .venv

run: setup ## start the platform with a live simulated market
	@$(BIN)/k2 up --simulate

test: setup ## set everything up and pass all tests
	@$(BIN)/python -m pytest --cov --cov-report=term $(IN_PROCESSES)

check: gates ## format, lint, types, imports, tests: the gate
	@$(MAKE) --no-print-directory test

quick: gates ## the same with the unit tests alone: for daily work
	@$(BIN)/python -m pytest tests/unit --quiet $(IN_PROCESSES)

gates: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup ## measure, side by side; a table, and JSON in results/
	@$(BIN)/python -m benchmarks

faults: setup ## the fault campaign: SEED, RUNS (simulated), REAL_RUNS (processes), FUZZ (messages); JSON in results/
	@POLARS_MAX_THREADS=1 $(BIN)/python -m k2.testing.faults --seed $(SEED) --runs $(RUNS) --real-runs $(REAL_RUNS) --fuzz $(FUZZ)

mutants: setup ## break the product on purpose, on a copy: each break must be caught
	@$(BIN)/python -m mutants $(MUTANTS)

references: setup ## write docs/reference/ and .env.example from the code
	@$(BIN)/python scripts/generate_references.py

lock: $(BIN)/uv ## resolve requirements.lock anew
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --extra dev --python-version 3.11 -o requirements.lock pyproject.toml

clean: ## remove the environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis
