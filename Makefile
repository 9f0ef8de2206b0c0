# make demo    nine methods on the embedded default, offline, as one table
# make test    linters, types and the default tests
# make help    everything else
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= outputs/demo
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test test-slow test-gpu lint bench data setup stages lock hashes clean claims report docs bench-gpu
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment with the locked packages

# The CPU build of torch where there is no NVIDIA GPU (it is a tenth of the size); the index's own build otherwise.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("alphatune needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@torch=$$(grep '^torch==' requirements.lock); \
	if ! command -v nvidia-smi >/dev/null && [ "$$(uname)" = Linux ]; then \
	  echo "no NVIDIA GPU: installing the CPU build of $$torch"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 0 --timeout 15 --no-deps \
	    --index-url https://download.pytorch.org/whl/cpu "$$torch" 2>/dev/null \
	  || $(BIN)/python -m pip install --disable-pip-version-check --quiet "$$torch"; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $(READY)

demo: $(READY) ## nine methods on the toy task, 3 seeds: table, records and plot in outputs/demo
	$(BIN)/alphatune table demo --jobs $(JOBS) --out $(OUT) --set runtime.records=$(OUT)/records

test: $(READY) lint ## linters, types and the default tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(READY) ## the tests that take longer
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(READY) ## the tests that need a GPU
	$(BIN)/python -m pytest -m gpu

lint: $(READY) ## ruff, mypy; bandit and pip-audit where they are installed and the network allows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -x $(BIN)/bandit ]; then $(BIN)/bandit -q -r alphatune -c pyproject.toml; \
	else echo "bandit is not installed: pip install 'alphatune[audit]'"; fi
	@if [ ! -x $(BIN)/pip-audit ]; then echo "pip-audit is not installed: pip install 'alphatune[audit]'"; \
	elif ! $(BIN)/python -c "import socket; socket.create_connection(('pypi.org', 443), 3)" 2>/dev/null; then \
	  echo "pip-audit: pypi.org cannot be reached; not run"; \
	else $(BIN)/pip-audit --no-deps --disable-pip -r requirements.lock; fi

bench: $(READY) ## every figure of docs/performance.md: benchmarks/results; with MODEL=, DATA= and GGUF= all of them
	OMP_NUM_THREADS=2 $(BIN)/python -W ignore benchmarks/all.py $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data $(DATA)) $(if $(GGUF),--gguf $(GGUF))

bench-gpu: $(READY) ## the same on a GPU, against dense bfloat16 and whichever peers are installed
	$(BIN)/python -W ignore benchmarks/packed_gpu.py

data: $(READY) ## fetch and verify a task's files: make data TASK=webnlg
	@test -n "$(TASK)" || { echo "error: say which task: make data TASK=webnlg"; exit 2; }
	$(BIN)/alphatune data $(TASK)

table%: $(READY) ## run what a table lacks and render it: make table2
	$(BIN)/alphatune table $*

figure%: $(READY) ## the same for a figure: make figure4
	$(BIN)/alphatune figure $*

claims: $(READY) ## decide the paper's claims by the records: results/tables/claims.html
	$(BIN)/alphatune claims

report: $(READY) ## render all tables, figures and claims from the records: results/tables/index.html
	$(BIN)/alphatune report

docs: $(READY) ## the pages of docs/ and of every public name as a site: outputs/site/index.html
	@$(BIN)/python -c "import material, mkdocstrings_handlers.python" 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

stages: $(READY) ## after a change of code that decides results: see alphatune/versions.py
	$(BIN)/python tests/goldens/stages.py

lock: ## write requirements.lock from what .venv holds now
	$(BIN)/python -m pip freeze --exclude-editable --exclude alphatune | grep -vE '^(nvidia-|triton)' | sed 's/^\(torch==[^+]*\)+cpu/\1/' > requirements.lock

hashes: ## write requirements.hashes from requirements.lock, by uv (pip install uv)
	uv pip compile --quiet --no-deps --generate-hashes --universal --python-version 3.11 --no-annotate --no-header requirements.lock -o requirements.hashes

clean: ## remove the environment and all outputs
	rm -rf $(VENV) outputs .mypy_cache .ruff_cache .pytest_cache .hypothesis
