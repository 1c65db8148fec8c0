# `make demo` and `make test` set up everything they need in .venv (Python >= 3.11).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install test long demo lint types docs figures notebook clean

install: $(STAMP)

# torch first and pinned: a bare `torch` would pull gigabytes of CUDA packages. An ONNX Runtime that is there stays, whichever
# build it is.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[examples,dev,docs]"
	$(BIN)/python -c "import onnxruntime" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cpu]"
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# One thread each: two processes of two threads on two cores take half as long again.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# What CI adds: new examples of every property, which a failure prints so that it can be repeated.
long: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --hypothesis-profile=long tests/passes/properties tests/passes/test_planning.py $(ARGS)

demo: install
	$(BIN)/python -m examples.tweets $(ARGS)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Every figure and table of docs/ that is made of results/.
figures: install
	$(BIN)/python benchmarks/overview.py
	$(BIN)/python -m benchmarks.scaling --plot docs/figures/scaling.png
	$(BIN)/python benchmarks/method/figure.py
	$(BIN)/python benchmarks/tables.py
	test ! -f results/published.json || \
		$(BIN)/python -m bpc.bench figure results/published.json --plot docs/figures/speedup.png

# The tutorial is written once; the notebook is made of it.
notebook: install
	$(BIN)/jupytext --quiet --to ipynb -o docs/tutorial.ipynb docs/tutorial.md \
		--update-metadata '{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}'

clean:
	rm -rf $(VENV) build dist site *.egg-info
