# make demo · make test · make bench · make lint      each sets up what it needs, in .venv
# PYTHON=python3.12 make …                            uses another interpreter for the set-up

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo demo-seeds demo-family demo-video demo-30min test test-all reliability lint format bench bench-gpu docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 14

install: $(STAMP)  ## set up .venv with the tested versions

# Again only when the dependencies change.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "OpenJEPA needs Python 3.11 or newer; no $(PYTHON) was found. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "OpenJEPA needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())'). Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: install  ## stream, pretrain, probe, plan and report, in about five minutes
	$(BIN)/jepa demo

demo-seeds: install  ## the demo with three seeds and three methods: mean and spread, in about 40 minutes
	$(BIN)/jepa demo --seeds 0,1,2 --methods lewm,vjepa,levjepa

demo-family: install  ## V-JEPA 2, 2.1, LeVJEPA and SALT with three seeds at equal CPU time, in about 50 minutes
	$(BIN)/jepa demo --seeds 0,1,2 --methods vjepa,vjepa21,levjepa,salt --no-supervised

demo-video: install  ## V-JEPA and LeVJEPA with three seeds on video alone, where pixels fail
	$(BIN)/jepa demo --seeds 0,1,2 --methods flicker-vjepa,flicker-levjepa

demo-30min: install  ## more data, a wider model and longer training, with three seeds
	$(BIN)/jepa demo --seeds 0,1,2 --methods lewm-30min

test: install  ## the tests, without the slow ones
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-all: install  ## all tests, one after the other: some measure time and memory
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q

lint: install  ## format, lint, types, and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: install  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

reliability: install  ## kills, full disks, damage and more, with counts; a few things need root; writes build/reliability.json
	@mkdir -p build
	$(BIN)/python -m tests.reliability --out build/reliability.json

bench: install  ## speed against named baselines; writes tests/bench/results
	JEPA_CHECK_SHAPES=0 $(BIN)/python -m pytest -q -s tests/bench -o python_files="bench_*.py"

bench-gpu: install  ## training steps, loading and planning on one GPU, in at most eight minutes
	JEPA_CHECK_SHAPES=0 $(BIN)/python -m tests.bench.gpu

docs: install  ## build the site into build/site; a broken link fails
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
