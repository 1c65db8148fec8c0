# `make demo` and `make test` set up everything they need in .venv (Python >= 3.11).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install test long demo lint types clean

install: $(STAMP)

# torch first and pinned: a bare `torch` would pull gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[examples,dev]"
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n 2 $(ARGS)

# What CI adds: new examples of every property, which a failure prints so that it can be repeated.
long: install
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=long tests/passes/properties tests/passes/test_planning.py $(ARGS)

demo: install
	$(BIN)/python -m examples.tweets $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info
