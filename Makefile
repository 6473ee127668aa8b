# Every habit of this project has a target here; `make help` lists them.
# `make demo` and `make test` set up everything they need, so either may be the first command typed.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.up-to-date
SPARK   := $(VENV)/.spark
JS      := tests/js/node_modules/.up-to-date
PYTEST  := $(BIN)/python -m pytest
# Test processes: the tests start servers of their own, so more than the cores only wait for each other.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench bench-lookalike lint format types conformance chaos docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) $(SPARK) $(JS) ## Build .venv with all that demo, tests and benchmarks need (nothing to do when up to date)

$(STAMP): pyproject.toml requirements.lock scripts/make-venv
	@scripts/make-venv $(VENV)
	@touch $@

$(SPARK): requirements-spark.lock scripts/install-spark $(STAMP)
	@scripts/install-spark $(VENV)

$(JS): tests/js/package.json tests/js/package-lock.json scripts/install-js
	@scripts/install-js tests/js

demo: $(STAMP) ## Show the whole lookalike flow on generated data, in under a minute
	@$(BIN)/whiteroom demo

test: setup ## Run every test
	$(PYTEST) -n $(WORKERS) --dist loadfile

conformance: setup ## Run the wire conformance tests: all operations against botocore
	$(PYTEST) -n $(WORKERS) tests/conformance

chaos: setup ## Run the tests that kill processes
	$(PYTEST) -m chaos

bench: $(STAMP) ## Print our figures beside those of peers measured in the same run
	$(BIN)/python -m benchmarks

bench-lookalike: $(STAMP) $(SPARK) ## The lookalike engine in full: quality, scale, Spark, privacy, with pictures (an hour)
	$(BIN)/python -m benchmarks.lookalike --sizes --pictures build/pictures
	$(BIN)/python -m benchmarks.scale --large --pictures build/pictures
	$(BIN)/python -m benchmarks.spark
	$(BIN)/python -m benchmarks.privacy

lint: $(STAMP) types ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Check types
	$(BIN)/mypy

docs: $(STAMP) ## Write the generated pages under docs/
	$(BIN)/python -m scripts.generate_docs

lock: ## Resolve the dependencies anew into requirements.lock
	@scripts/lock-requirements

clean: ## Remove what the targets above made
	rm -rf $(VENV) tests/js/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
