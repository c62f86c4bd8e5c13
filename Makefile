# One way to do each thing. Every target sets up what it needs, in environments beside this file, from the locks in
# requirements/; the second time that costs a tenth of a second. Needs: make, and Python 3.11 to 3.13.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help simulate test test-fast test-torch lint generate bench chaos lock clean

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ENVIRONMENT := $(PYTHON) tests/tools/environment.py
# The torch job installs about 6 GB. CI leaves nothing out; at home, say TORCH=1.
TORCH ?= $(if $(filter true 1,$(CI)),1,0)
# Real clusters: tested where they can run, on Linux as root; what programs they need is made the first time, which may take
# 25 minutes. 0 leaves them out; 1 makes those programs on other machines, too, for the tests on a real API server.
CLUSTERS ?=
FAST := $(wildcard tests/unit tests/contract tests/golden tests/loopback)

help:  ## say what the targets do
	@echo "Hanse: four hospitals learn together, without sharing a row. Start with:  make simulate"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | \
		while IFS='|' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done
	@echo
	@echo "  PYTHON=python3.12 names another Python; ARGS='...' goes to the command that is run."

simulate:  ## run simulations/hospitals as a whole federation on this machine (ARGS='--edges 6')
	@$(ENVIRONMENT) .venv base
	@$(BIN)/hanse simulate simulations/hospitals $(ARGS)

test:  ## run every test that this machine can run, and say what was left out
	@$(ENVIRONMENT) .venv base dev
	@$(ENVIRONMENT) .venv-s3-server s3-server
	@$(BIN)/python tests/tools/run_tests.py --clusters "$(CLUSTERS)" --torch "$(TORCH)" $(ARGS)
ifeq ($(TORCH),1)
	@$(MAKE) test-torch
else
	@echo "Left out: the tests marked torch, those of clients with torch in pods among them, which need about 6 GB of packages. To include them: make test TORCH=1"
endif

test-fast:  ## run the unit, contract, golden and loopback tests (under 90 seconds)
	@$(ENVIRONMENT) .venv base dev
	$(PYTEST) -n auto --dist loadfile -m "not torch and not process and not slow and not controlplane" $(ARGS) $(FAST)

test-torch:  ## run the tests that need torch here, in an environment of their own (about 6 GB)
	@$(ENVIRONMENT) .venv-torch torch
	.venv-torch/bin/python -m pytest -m "torch and not cluster" $(ARGS) tests

lint:  ## check style, types, arrows between rooms, generated files, and the promises' tests
	@$(ENVIRONMENT) .venv base dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/tools/generate.py --check
	$(BIN)/python tests/tools/promises.py

generate:  ## write the generated files again: gRPC stubs, CRDs, parts of docs/
	@$(ENVIRONMENT) .venv base dev
	$(BIN)/python tests/tools/generate.py

bench:  ## measure Hanse and stock Flower side by side, and write docs/benchmarks.md
	@$(ENVIRONMENT) .venv-bench bench
	.venv-bench/bin/python -m simulations.bench $(ARGS)

chaos:  ## kill, cut, fill and stop whole federations as seeds say (ARGS='--seed 17 --runs 1'; 500 runs)
	@$(ENVIRONMENT) .venv base
	$(BIN)/python -m simulations.chaos $(ARGS)

lock:  ## resolve the dependencies again into requirements/*.txt (ARGS='--upgrade')
	@$(ENVIRONMENT) .venv base dev
	tests/tools/lock.sh $(BIN)/uv $(ARGS)

clean:  ## remove the environments and caches
	rm -rf .venv .venv-torch .venv-bench .venv-s3-server .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
