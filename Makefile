# Everything needs only Python >= 3.11 and make. The environment lives in .venv and is built once.
PYTHON ?= python3
OUT ?= out
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export MPLBACKEND := Agg

.PHONY: help verify test test-slow test-gpu test-wheel proofs mutants lint types docs figures bench clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "deqproof needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[verify,train,cluster,docs,dev]'
	touch $@

verify: $(READY) ## the main job: check every claim, write $(OUT)/report.html
	$(BIN)/deqproof verify --out $(OUT)

test: $(READY) ## the test suite (under 6 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto

test-slow: $(READY) ## the long tests
	$(BIN)/python -m pytest -m slow --timeout 3600

test-gpu: $(READY) ## the tests that need CUDA
	$(BIN)/python -m pytest -m gpu

proofs: $(READY) ## the machine-checked core (needs Coq; says what to install)
	$(BIN)/python -m verification.proofs

mutants: $(READY) ## which planted faults the tests notice, on a sample (long; needs the extra `mutants`)
	$(BIN)/python tests/mutants.py --out $(OUT)/mutants.jsonl

test-wheel: $(READY) ## the wheel, installed elsewhere, verifies every claim at smoke scale
	$(BIN)/python -m pytest -m wheel -n 0 --no-header

lint: $(READY) ## ruff
	$(BIN)/ruff check .

types: $(READY) ## mypy
	$(BIN)/mypy

docs: $(READY) ## the documentation, into out/docs/index.html; no network, a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

figures: $(READY) ## redraw every figure from the last records
	$(BIN)/deqproof figures --out $(OUT)

bench: $(READY) ## speed beside the floor and the peers at hand
	$(BIN)/deqproof bench --out $(OUT)

clean: ## remove results and caches, keep the environment
	rm -rf $(OUT) .pytest_cache .hypothesis .mypy_cache .ruff_cache
