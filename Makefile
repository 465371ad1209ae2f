# evenloop: set-up, tests and documentation. Needs Python 3.11 or newer, make and nothing else.
#
#   make demo    install into .venv and run the demonstration; prints the path of its report
#   make test    install the development tools too and run every test
#   make check   lint, format, types and the quick tests
#   make docs    build the documentation into docs/_build/html, warnings are errors
#   make bench   run the benchmarks and rewrite benchmarks/RESULTS.md
#
# Variables: PYTHON (interpreter that makes the environment), VENV (where it is made), DEV (extras
# that the tests run with), WORKERS (test processes, one thread each), PIPFLAGS and PYTESTFLAGS
# (passed on).

PYTHON ?= python3
VENV ?= .venv
DEV ?= dev
WORKERS ?= 2
PIPFLAGS ?=
PYTESTFLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install $(PIPFLAGS) -c constraints.txt
# Two threads in each of two processes on two cores cost more than they bring.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTESTFLAGS)

.PHONY: demo test check lint types docs bench install clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(ONE_THREAD) $(BIN)/evenloop demo

install: $(VENV)/.installed

test: $(VENV)/.dev
	$(PYTEST)

check: lint types
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.docs
	rm -rf docs/api/generated
	$(ONE_THREAD) $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) docs/_build docs/api/generated

# One stamp for each level of the environment, so that a second call starts at once. The package is
# installed in editable form: a change under src/ needs no new installation.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[$(DEV)]"
	touch $@ $(VENV)/.installed

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[docs]"
	touch $@ $(VENV)/.installed
