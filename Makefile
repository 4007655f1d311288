# Every target sets up what it needs in .venv; a second run installs nothing.
# PYTHON=python3.13 make test takes another Python. Windows needs GNU make and a POSIX shell, as Git for Windows brings.
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
CANDIDATES := python py
else
BIN := $(VENV)/bin
CANDIDATES := python3.11 python3 python
endif
PYTHON ?= $(firstword $(foreach name,$(CANDIDATES),$(shell command -v $(name) >/dev/null && echo $(name))))
# Named by the version, so that another one begins anew.
VERSION := $(shell "$(PYTHON)" -c "import sys; print('%d.%d.%d' % sys.version_info[:3])")
READY := $(VENV)/ready-$(VERSION)
# Where it is set, each of the tests' many processes would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check slow browser pages bench docs docs-serve dist clean

# torch goes first, pinned: an open range may bring a build of several gigabytes.
$(READY): pyproject.toml constraints.txt
	"$(PYTHON)" -m venv $(if $(filter-out $(READY) $(VENV)/ready-docs,$(wildcard $(VENV)/ready-*)),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $(READY)

# Two minutes of training, on the embedded digits where MNIST is not found.
demo: $(READY)
	$(BIN)/gansmith train default --minutes 2

# The fast tests, in two processes.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Format, lint, types, documents.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_docs.py

# Tests that take minutes; before a release.
slow: $(READY)
	$(BIN)/python -m pytest -m slow

# The studio's pages in a browser, in a minute; skipped, and counted so, where no Chromium is installed.
browser: $(READY)
	$(BIN)/python -m pytest -m browser -rs tests/test_web_pages.py

# All tests of the pages.
pages: $(READY)
	$(BIN)/python -m pytest -m slow -rs tests/test_web_pages.py tests/test_page.py

# Throughput of the recipes beside plain loops.
bench: $(READY)
	$(BIN)/python scripts/throughput.py

# The documentation's site in build/site, and the same in a browser.
$(VENV)/ready-docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	touch $(VENV)/ready-docs

docs: $(VENV)/ready-docs
	$(BIN)/python scripts/build_site.py

docs-serve: $(VENV)/ready-docs
	$(BIN)/python scripts/build_site.py --serve

# The wheel and the source distribution; scripts/release.py goes through everything that a release needs.
dist: $(READY)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
