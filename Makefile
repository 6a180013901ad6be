# Two commands: `make bench` measures, `make test` proves. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PEERS_READY := $(VENV)/.peers
CLUSTER_READY := $(VENV)/.cluster

DATASET ?= mnist5k
VARIANTS ?= all
QUESTIONS ?= all
SEEDS ?=
DEVICE ?= auto
JOBS ?= 0
ENGINE ?= local
SCHEDULER ?=
PRESET ?= default
PRECISION ?= float32
PEERS ?=
RESULTS ?= results
ROWS ?= all
NAME ?=

# Values reach the program through the environment, as one argument each, whatever they hold.
VARIABLES := DATASET VARIANTS QUESTIONS SEEDS DEVICE JOBS ENGINE SCHEDULER PRESET PRECISION \
	RESULTS BASE ROWS NAME
$(foreach name,$(VARIABLES),$(eval export BENCH_ARG_$(name) := $$(value $(name))))
# those of the command line would be exported too, with what they hold expanded
unexport $(VARIABLES) PEERS
WORKERS = --jobs "$$BENCH_ARG_JOBS" --engine "$$BENCH_ARG_ENGINE" \
	$${BENCH_ARG_SCHEDULER:+--scheduler "$$BENCH_ARG_SCHEDULER"}
WORKERS_READY = $(if $(and $(filter dask,$(value ENGINE)),$(value SCHEDULER)),$(CLUSTER_READY))
OPTIONS = --dataset "$$BENCH_ARG_DATASET" --variants "$$BENCH_ARG_VARIANTS" \
	--questions "$$BENCH_ARG_QUESTIONS" --device "$$BENCH_ARG_DEVICE" $(WORKERS) \
	--preset "$$BENCH_ARG_PRESET" --precision "$$BENCH_ARG_PRECISION" \
	--results "$$BENCH_ARG_RESULTS" \
	$${BENCH_ARG_SEEDS:+--seeds "$$BENCH_ARG_SEEDS"}

GIVEN = $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out $(VARIABLES) PEERS PYTHON VENV PY READY SHELL,$(GIVEN))
$(if $(UNKNOWN),$(error there is no $(firstword $(UNKNOWN))=: 'make help' lists what each command \
	takes, '$(PY) -m bench run --help' the options of a run))

# what a command does not take is refused, since it would do something other than was meant
TAKEN_BY_quick := DATASET VARIANTS QUESTIONS SEEDS DEVICE JOBS ENGINE SCHEDULER PRECISION RESULTS
TAKEN_BY_bench := $(TAKEN_BY_quick) PRESET
TAKEN_BY_tune := $(filter-out PRECISION,$(TAKEN_BY_bench))
TAKEN_BY_validate := ROWS DEVICE JOBS PRESET RESULTS
TAKEN_BY_variant := NAME
TAKEN_BY_check := NAME
TAKEN_BY_throughput := DATASET VARIANTS DEVICE PEERS RESULTS
TAKEN_BY_throughput-compare := BASE
TAKEN_BY_report := DATASET RESULTS
TAKEN_BY_check-results := JOBS
TAKEN_BY_gpu-check := DATASET DEVICE
TAKEN := $(foreach goal,$(MAKECMDGOALS),$(TAKEN_BY_$(goal)))
$(foreach name,$(filter $(VARIABLES) PEERS,$(GIVEN)),$(if $(MAKECMDGOALS),$(if \
	$(filter $(name),$(TAKEN)),,$(error 'make $(MAKECMDGOALS)' takes no $(name)=: 'make help' \
	lists what each command takes))))

.DEFAULT_GOAL := help
.PHONY: bench quick tune validate variant check throughput throughput-compare report check-results gpu-check test test-all fuzz lint format clean help

bench: $(READY) $(WORKERS_READY) ## Train, evaluate and write results/ (DATASET= VARIANTS= QUESTIONS= SEEDS= DEVICE= JOBS= PRESET= PRECISION= RESULTS=; on a cluster: ENGINE=dask SCHEDULER=)
	$(PY) -m bench run $(OPTIONS)

quick: export BENCH_ARG_DATASET := $(if $(filter command environment,$(origin DATASET)),$(value DATASET),digits)
quick: export BENCH_ARG_RESULTS := $(if $(filter command environment,$(origin RESULTS)),$(value RESULTS),trial)
quick: export BENCH_ARG_PRESET := quick
quick: $(READY) $(WORKERS_READY) ## The same path on the smallest data, in half a minute, into trial/ (DATASET= VARIANTS= QUESTIONS= SEEDS= DEVICE= JOBS= PRECISION= RESULTS=)
	$(PY) -m bench run $(OPTIONS)

tune: $(READY) $(WORKERS_READY) ## Choose learning rates and hyperparameters anew, and record them (DATASET= VARIANTS= QUESTIONS= SEEDS= DEVICE= JOBS= ENGINE= SCHEDULER= PRESET= RESULTS=)
	$(PY) -m bench tune --dataset "$$BENCH_ARG_DATASET" --variants "$$BENCH_ARG_VARIANTS" \
		--questions "$$BENCH_ARG_QUESTIONS" --device "$$BENCH_ARG_DEVICE" $(WORKERS) \
		--preset "$$BENCH_ARG_PRESET" \
		--results "$$BENCH_ARG_RESULTS" $${BENCH_ARG_SEEDS:+--seeds "$$BENCH_ARG_SEEDS"}

validate: $(READY) ## Make published numbers again under their own conditions: results/validation/ (ROWS= DEVICE= JOBS= PRESET=quick RESULTS=)
	$(PY) -m bench validate --rows "$$BENCH_ARG_ROWS" --preset "$$BENCH_ARG_PRESET" \
		--device "$$BENCH_ARG_DEVICE" --jobs "$$BENCH_ARG_JOBS" --results "$$BENCH_ARG_RESULTS"

variant: $(READY) ## Write a first, working file of a variant, vaes/NAME.py (NAME=)
	$(PY) -m bench new-variant "$$BENCH_ARG_NAME"

check: $(READY) ## Put variants through their contract (NAME=)
	$(PY) -m bench check "$$BENCH_ARG_NAME"

throughput: $(READY) $(if $(value PEERS),$(PEERS_READY)) ## Time every variant and estimator beside the machine's limit; PEERS=1: and other libraries' (DATASET= VARIANTS= DEVICE= PEERS= RESULTS=)
	$(PY) -m bench throughput --full --dataset "$$BENCH_ARG_DATASET" \
		--variants "$$BENCH_ARG_VARIANTS" --device "$$BENCH_ARG_DEVICE" --results "$$BENCH_ARG_RESULTS" $(if $(value PEERS),--peers)

throughput-compare: $(READY) ## Compare two commits' timings: BASE=<throughput.json of the other>
	$(PY) -m bench throughput-compare "$$BENCH_ARG_BASE"

report: $(READY) ## Redraw every table and figure from the stored rows (of one folder: DATASET=; RESULTS=)
	$(PY) -m bench report --results "$$BENCH_ARG_RESULTS" $(if $(filter command line environment,$(origin DATASET)),--dataset "$$BENCH_ARG_DATASET")

check-results: $(READY) ## Train and evaluate the mnist5k headline anew, and compare it with the committed one: a training of everything where the cache is empty (JOBS=)
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(PY) -m bench run --dataset mnist5k --questions headline --device cpu \
		--jobs "$$BENCH_ARG_JOBS" --results "$$fresh" && \
	$(PY) -m bench compare results/mnist5k/cpu "$$fresh/mnist5k/cpu"

gpu-check: $(READY) ## Everything that only a GPU can show, in ten minutes (DATASET=; DEVICE=cpu: a rehearsal)
	$(PY) -m bench gpu-check --dataset "$$BENCH_ARG_DATASET" \
		$(if $(filter-out auto,$(value DEVICE)),--device "$$BENCH_ARG_DEVICE")

test: $(READY) ## The test suite
	$(PY) -m pytest -n auto --dist loadscope -m "not slow"

test-all: $(READY) ## The test suite with what takes long: rounds of kills and signals, timings, whole benches
	$(PY) -m pytest -n auto --dist loadscope

fuzz: $(READY) ## Thousands of bad inputs more, other ones each time
	$(PY) -m pytest -n auto --hypothesis-profile fuzz tests/bad_input

lint: $(READY) ## Check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(READY) ## Format the code
	$(VENV)/bin/ruff format .

clean: ## Remove caches and the environment; results/ stays
	rm -rf $(VENV) .bench_cache .benchmarks .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

$(READY): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@

# optional extras, complete with what they need beyond requirements.lock, so that no resolver is
# asked: none of their packages may replace torch
$(PEERS_READY) $(CLUSTER_READY): $(VENV)/.%: requirements-%.lock $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@
