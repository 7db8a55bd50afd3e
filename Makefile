# Two commands do everything: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run up services down status test quick crowd bench lint clean

# Java as set-up found it, for everything that starts Spark.
WITH_JAVA = JAVA_HOME="$$(cat .venv/java-home)"
LOCAL = .venv/bin/python -m local

help: ## Show this list
	@printf 'Ferry: recommendation models from training to serving.\n\n'
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@printf '\n'; printf '%s\n' \
	  'Variables, on the command line or in the environment:' \
	  '  DATA=DIR                  run: a MovieLens folder (ratings.csv, movies.csv)' \
	  '  RUN_DATE=YYYY-MM-DD       run: the run date (default: the last complete day)' \
	  '  PARTIAL_DAY=1             run: also a RUN_DATE that has not ended, from what there is of it' \
	  '  FERRY_PORT_BASE=18080     first of the five ports (Airflow, Redis, S3, gRPC, REST)' \
	  '  FERRY_AIRFLOW_PORT, FERRY_REDIS_PORT, FERRY_S3_PORT, FERRY_TF_GRPC_PORT,' \
	  '  FERRY_TF_REST_PORT        one port each' \
	  '  FERRY_HOME=DIR            data, logs and secrets (default: .ferry)' \
	  '  FERRY_PYTHON=python3.11   the Python to set up with' \
	  '  PYTEST_ARGS=...           test, quick, crowd: further arguments for pytest'

setup: ## Set up .venv and Java (every other target does so by itself)
	@scripts/setup.sh

run: setup ## Run the daily DAG for one run date, from data to serving
	@$(LOCAL) run --data="$${DATA:-}" --run-date="$${RUN_DATE:-}" \
	  --partial-day="$${PARTIAL_DAY:-}"

up: setup ## Start the services and Airflow, with the DAGs on their schedules
	@$(LOCAL) up

services: setup ## Start the services alone: enough for the ferry commands
	@$(LOCAL) services

down: ## Stop Airflow and the services; their data stay
	@if [[ -x .venv/bin/python ]]; then $(LOCAL) down; else echo 'nothing is set up'; fi

status: setup ## Show what is running, and where
	@$(LOCAL) status

test: ## Run all tests
	@scripts/setup.sh --tests
	@$(WITH_JAVA) .venv/bin/python -m pytest --numprocesses=auto --dist=loadfile \
	  --no-loadscope-reorder $(PYTEST_ARGS)

quick: ## Run the tests that start no program, in two minutes
	@scripts/setup.sh --dev
	@.venv/bin/python -m pytest --quick $(PYTEST_ARGS)

crowd: ## Run the daily DAG beside twenty busy processes (a quarter of an hour)
	@scripts/setup.sh --dev
	@$(WITH_JAVA) .venv/bin/python -m pytest -n0 --crowd tests/operating $(PYTEST_ARGS)

bench: ## Measure publishing, lookups, switches, rollbacks, training and whole runs (over an hour)
	@scripts/setup.sh --dev
	@.venv/bin/python -m benchmarks.publish
	@.venv/bin/python -m benchmarks.lookup
	@.venv/bin/python -m benchmarks.switch
	@.venv/bin/python -m benchmarks.training
	@.venv/bin/python -m benchmarks.overhead $(if $(DATA),--data="$(DATA)")
	@.venv/bin/python -m benchmarks.plain $(if $(DATA),--data="$(DATA)")

lint: ## Check style and types
	@scripts/setup.sh --dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

clean: setup ## Stop everything and remove its data, logs and secrets (not .venv)
	@$(LOCAL) clean
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
