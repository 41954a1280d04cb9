# make demo       train, measure and report, on a small real model
# make test       all tests but the long ones
# make test-long  the long ones: real studies, a real Slurm; half an hour
# make test-fast  all tests but those that take minutes
# make notebooks  execute the notebooks of examples/, and store their outputs
# make package    sdist and wheel, into build/dist
# make test-base  the wheel without extras, in an environment of its own, outside the checkout
# make docs       the documentation site, into build/site; executes and trains nothing
# make lint       ruff and mypy
# make setup      install into .venv; the other targets do that first
# make clean      remove the caches and builds of tools; to start over, remove .venv and .venv-base as well
#
# PYTHON=python3.12 chooses the interpreter of .venv; ARGS="..." goes to the demo, to pytest, or names notebooks.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

BASE := .venv-base/bin
WHEEL := build/dist/.built
SOURCES := pyproject.toml $(shell find layerangles kd_train cli -type f -not -path '*/__pycache__/*')

.PHONY: help setup demo test test-fast test-long test-base package notebooks docs lint clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(INSTALLED)
	$(BIN)/layerangles demo $(ARGS)

test test-fast test-long: export HF_HUB_OFFLINE = 1

# Several processes, each with one thread (tests/conftest.py); the tests of a file stay together, since they share fixtures.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test: $(INSTALLED)
	$(PYTEST) -m "not long" $(ARGS)

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long $(ARGS)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow and not long" $(ARGS)

test-base: export HF_HUB_OFFLINE = 1
test-base: .venv-base/.installed
	$(BASE)/python .ci/base_install.py .

package: $(WHEEL)

# The folders that setuptools copies into would keep files that are gone from the sources.
$(WHEEL): $(SOURCES) | $(INSTALLED)
	rm -rf build/dist build/lib *.egg-info
	$(BIN)/python -m build --outdir build/dist
	@touch $@

.venv-base/.installed: $(WHEEL) constraints.txt
	$(PYTHON) -m venv --clear .venv-base
	$(BASE)/python -m pip install --disable-pip-version-check -q --no-compile -c constraints.txt build/dist/*.whl
	@touch $@

notebooks: $(INSTALLED)
	$(BIN)/python examples/notebooks/execute.py $(ARGS)

# Silences the theme's notice of its successor.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(INSTALLED)
	$(BIN)/python -m mkdocs build --strict $(ARGS)

# Runs all three, so that one failure does not hide the others.
lint: $(INSTALLED)
	@failed=0; \
	for check in "ruff check ." "ruff format --check ." "mypy"; do \
		echo "$$check"; $(BIN)/python -m $$check || failed=1; \
	done; \
	exit $$failed

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name '.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("layerangles needs Python 3.11 or newer; \
	$(PYTHON) is " + sys.version.split()[0] + ". Choose another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
