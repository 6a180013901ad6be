# Two commands: `make bench` measures, `make test` proves. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

DATASET ?= mnist5k
VARIANTS ?= all
SEEDS ?=
DEVICE ?= auto
JOBS ?= 0
PRESET ?= default
PRECISION ?= float32
OPTIONS = --dataset $(DATASET) --variants $(VARIANTS) --device $(DEVICE) --jobs $(JOBS) \
	--preset $(PRESET) --precision $(PRECISION) $(if $(SEEDS),--seeds $(SEEDS))

.DEFAULT_GOAL := help
.PHONY: bench quick throughput throughput-compare report test lint format clean help

bench: $(READY) ## Train, evaluate and write results/ (DATASET= VARIANTS= SEEDS= DEVICE= JOBS= PRESET= PRECISION=)
	$(PY) -m bench run $(OPTIONS)

quick: $(READY) ## The same path on the smallest data, in under a minute
	$(PY) -m bench run $(OPTIONS) --dataset digits --preset quick

throughput: $(READY) ## Time every variant and estimator beside the machine's limit (DATASET= VARIANTS= DEVICE=)
	$(PY) -m bench throughput --full --dataset $(DATASET) --variants $(VARIANTS) --device $(DEVICE)

throughput-compare: $(READY) ## Compare two commits' timings: BASE=<throughput.json of the other>
	$(PY) -m bench throughput-compare $(BASE)

report: $(READY) ## Redraw every table and figure from the stored rows
	$(PY) -m bench report

test: $(READY) ## The whole test suite
	$(PY) -m pytest

lint: $(READY) ## Check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(READY) ## Format the code
	$(VENV)/bin/ruff format .

clean: ## Remove caches and the environment; results/ stays
	rm -rf $(VENV) .bench_cache .benchmarks .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

$(READY): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@
