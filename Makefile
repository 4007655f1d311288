# Every target sets up what it needs in .venv; a second run installs nothing.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check slow bench dist clean

# torch goes first, pinned: an open range may bring a build of several gigabytes.
$(READY): pyproject.toml constraints.txt
	$(shell command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/gansmith train default --minutes 2

test: $(READY)
	$(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_docs.py

slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	$(BIN)/python scripts/throughput.py

dist: $(READY)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache
