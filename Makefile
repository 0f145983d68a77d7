# Everything a developer or a newcomer runs. `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3.11
BIN := .venv/bin
export GOMP_SPINCOUNT ?= 1000
# pip compiles nothing (18,000 files, of which few are imported): the first import does, or every
# process takes ten seconds for torch alone.
unexport PYTHONDONTWRITEBYTECODE
FOLDERS := commands dataset featureset jobs distill recommenders
# One test process a core, each with cores of its own (tests/conftest.py).
AT_ONCE := --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow fuzz coverage lint fmt type bench docs clean

# The environment is made again only when what goes into it changes.
.venv/.dependencies: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]' --config-settings editable_mode=strict
	@touch $@

# A strict editable install links each file: a new, moved or deleted one needs linking again.
.venv/.links: .venv/.dependencies $(wildcard *.py) $(shell find $(FOLDERS) -type d -not -name __pycache__)
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --editable . --config-settings editable_mode=strict
	@touch $@

demo: .venv/.links
	$(BIN)/pipeline distill --dataset sample --name demo --overwrite
	$(BIN)/pipeline train --backbone bm3 --features artifacts/demo --name demo --overwrite
	$(BIN)/pipeline recommend --run demo --user u1 --k 5
	@echo "written: artifacts/demo (feature set), runs/demo (metrics, lists, embeddings)"

test: lint type .venv/.links
	$(BIN)/python -m pytest $(AT_ONCE)

# Apart from the gate: following every line takes half as long again.
coverage: .venv/.links
	$(BIN)/python -m pytest $(AT_ONCE) --cov --cov-report=term:skip-covered

test-slow: .venv/.links
	$(BIN)/python -m pytest -m slow

# Mangled feature sets for ten minutes; each is refused in one line, or read.
fuzz: .venv/.links
	$(BIN)/python -W ignore tests/featureset/fuzz.py --seconds 600

lint: .venv/.links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

fmt: .venv/.links
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: .venv/.links
	$(BIN)/mypy -p sgfd

bench: .venv/.links
	$(BIN)/python benchmarks/export_throughput.py
	$(BIN)/python benchmarks/feature_sets.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/topk_search.py
	$(BIN)/python benchmarks/bm3_epoch.py
	$(BIN)/python benchmarks/graph_product.py
	$(BIN)/python benchmarks/backbones.py
	$(BIN)/python benchmarks/comparison.py

docs: .venv/.links
	$(BIN)/python -m pytest tests/docs

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
