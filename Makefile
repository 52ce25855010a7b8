# make demo   set up; with a GPU capture kv_transfer here, without one show recorded pages and a true gain on this CPU
# make test   set up, check style, types and import rules, run the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
GPU := $(shell $(PYTHON) -c "import ctypes; ctypes.CDLL('libcuda.so.1')" 2>/dev/null && echo yes)
# without a GPU the pinned CPU build of torch; with one, the torch that fits its driver (or one already installed)
CONSTRAINT := $(if $(GPU),,-c constraints.txt)
# tests side by side; with a GPU one after another: several at once lose the overlap that some assert
JOBS ?= 3

.PHONY: help setup demo test lint style types imports clean

help:
	@sed -n 's/^# //p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(if $(GPU),--system-site-packages) $(VENV)
	$(BIN)/python -m pip install -q --upgrade "pip>=25.1" "setuptools>=77"
	$(BIN)/python -m pip install -q $(CONSTRAINT) -e ".[gpu]" --group dev $(if $(GPU),,--group nvcc)
	touch $(STAMP)

demo: setup
	$(BIN)/python scripts/demo.py

lint: setup
	@$(MAKE) --no-print-directory --output-sync --jobs 3 style types imports

style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest $(if $(GPU),,-n $(JOBS) --dist worksteal)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
