# `make help` prints the lines below that carry two hashes.
VENV ?= .venv
PYTHON ?= python3
# /dev/null installs the newest versions that setup.cfg allows.
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

.PHONY: help demo test lint types layers docs wheel check clean
.DEFAULT_GOAL := help

help:  ## Print this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: $(VENV)/.demo  ## Install, then build, generate and analyze a tiny model, in demo/.
	$(BIN)/sdtrt demo --out demo

# Workers share the cores: more threads in each would wait for those of the others.
test: $(VENV)/.dev  ## Install, then run all tests, on up to four cores.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Check types.
	$(BIN)/mypy

layers: $(VENV)/.dev  ## Check that no layer imports one above it.
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## Build the documentation as a site, in site/; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The environment is empty at first: what the wheel does not bring or require is missing there.
wheel: $(VENV)/.dev  ## Build the wheel, install it into an empty environment, and run the demo there.
	rm -rf dist build/wheel-check
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/pip install --no-compile --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) dist/*.whl
	cd build/wheel-check && bin/sdtrt demo --steps 4

check: lint types layers docs test  ## All of the above checks.

clean:  ## Remove what the demo made and all caches; keeps .venv.
	rm -rf demo site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The constraints keep pip at the tested versions: without them a plain torch brings gigabytes of CUDA packages.
$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@
