# unet-edge: `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
PETS_DIR ?= data/oxford-iiit-pet
ARTIFACTS ?= artifacts
DEMO ?= $(ARTIFACTS)/demo
DIST ?= dist
PRESET ?= edge
TRAIN_ARGS ?=
EXPORT_ARGS ?=
RUN_ARGS ?=
PYTEST_ARGS ?=
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
SAMPLE := runtime/unet_runtime/samples/chelsea.jpg
PACKAGES := runtime export training
STAMP := $(VENV)/.unet-edge-installed

.PHONY: help setup data train export run demo test test-fast bench lint dist clean
.DEFAULT_GOAL := help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Variables: PETS_DIR=$(PETS_DIR) PRESET=$(PRESET) (edge, accurate, article, unet-small) ARTIFACTS=$(ARTIFACTS)"

setup: $(STAMP) ## Create .venv and install the three packages into it

$(STAMP): pyproject.toml constraints.txt $(PACKAGES:%=%/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev \
	    --editable 'runtime[onnx,tflite,openvino,window,coco,bench,serve]' --editable export --editable training
	@touch $@

data: $(STAMP) ## Download Oxford-IIIT Pet to PETS_DIR, unless it is there
	$(BIN)/unet-train download $(PETS_DIR)

train: $(STAMP) ## Train PRESET on PETS_DIR -> artifacts/model.keras
	$(BIN)/unet-train --data $(PETS_DIR) --preset $(PRESET) --output $(ARTIFACTS) $(TRAIN_ARGS)

export: $(STAMP) ## artifacts/model.keras -> artifacts/export: SavedModel, ONNX and TFLite in every precision, proven equal
	$(BIN)/unet-export $(ARTIFACTS)/model.keras --data $(PETS_DIR) --output $(ARTIFACTS)/export --all-or-nothing $(EXPORT_ARGS)

run: $(STAMP) ## Segment PHOTO (default: the sample) with the bundled model
	$(BIN)/unet-run $(RUN_ARGS) --output-dir $(ARTIFACTS)/run $(or $(PHOTO),$(SAMPLE))

demo: $(STAMP) ## The whole way in minutes, offline: train on generated pictures, export, prove, segment a cat
	$(BIN)/unet-train --data synthetic --overwrite --output $(DEMO) $(TRAIN_ARGS)
	$(BIN)/unet-export $(DEMO)/model.keras --data $(DEMO)/synthetic --output $(DEMO)/export \
	    --formats saved-model,onnx,tflite-int8 $(EXPORT_ARGS)
	$(BIN)/python docs/examples/two_engines.py $(SAMPLE) $(DEMO)/sample

# Two processes, a file of tests each: much of a test is one thread of TensorFlow at work on a graph. In the order of the
# folders: xdist would keep files of few tests for the end, and those are the long ones.
test: $(STAMP) ## Every test (those on real photos need PETS_DIR)
	PETS_DIR=$(PETS_DIR) $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile \
	    --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: $(STAMP) ## The tests that take no time, in under 2 minutes: for work in progress
	PETS_DIR=$(PETS_DIR) $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile \
	    -m 'not slow and not e2e and not window and not network' $(PYTEST_ARGS)

bench: $(STAMP) ## Milliseconds a photo side by side, and cold start, as in docs/results.md
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/cold_start.py

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(STAMP) ## Build wheels and source archives of the three packages, checked -> dist/
	for package in $(PACKAGES); do $(BIN)/python -m build --quiet --outdir $(DIST) $$package || exit 1; done
	$(BIN)/twine check --strict $(DIST)/unet_edge_*

clean: ## Remove .venv, dist and the demo
	rm -rf $(VENV) $(DIST) $(DEMO)
