# `make help` prints the lines below that carry two hashes.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: help demo test lint types layers check clean
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

check: lint types layers test  ## All of the above checks.

clean:  ## Remove what the demo made and all caches; keeps .venv.
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The constraints keep pip at the tested versions: without them a plain torch brings gigabytes of CUDA packages.
$(VENV)/.demo: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@
