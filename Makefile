# Every target creates .venv with pip if it is missing: nothing is needed but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests benchmarks examples $(wildcard docs/*.py)

.PHONY: setup setup-dev fit check types test slow fmt bench docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamp files say what is installed: an edited pyproject.toml installs again.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@ $(VENV)/.installed

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

fit: setup  ## the main job: offline, on real data
	$(BIN)/sartor fit

check: setup-dev  ## lint, types, import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check  ## what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

slow: setup-dev  ## the claims, by hand
	$(BIN)/python -m pytest -m slow

fmt: setup-dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: setup-dev  ## what docs claim and needs no data from elsewhere; figures go to benchmarks/results
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/measuring.py
	$(BIN)/python benchmarks/supernet_step.py

docs: setup-dev  ## the pages that are written from the code; then checks links, commands, examples and figures
	for program in $(wildcard docs/*.py); do $(BIN)/python $$program || exit 1; done
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
