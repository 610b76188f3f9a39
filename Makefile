# Every documented command is one target here, and CI calls the same ones. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PRODUCT_BASE := $(TARGET)/debug/product-base
MIGRATION := $(TARGET)/debug/migration
# A database for one command: it is made before, and removed after.
WITH_POSTGRES := $(PRODUCT_BASE) with-postgres --

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: postgres ## Start the service on 127.0.0.1:8080, with a database of its own unless PB__DATABASE__URL names one
	@$(CARGO) run --release -p product-base -- serve

.PHONY: build
build: ## Build everything for development
	$(CARGO) build --workspace

.PHONY: release
release: ## Build the service as `make run` runs it
	$(CARGO) build --release -p product-base

.PHONY: dist
dist: ## Build the service and the migrations for shipping: slower to build than `release`, faster and smaller
	$(CARGO) build --profile dist -p product-base -p migration

.PHONY: test
test: postgres-tests ## Run every test against a database that lives as long as the tests
	$(CARGO) build --workspace --bin product-base --tests
	$(WITH_POSTGRES) $(CARGO) test --workspace

.PHONY: torture
torture: export TORTURE_SECONDS ?= 600
torture: export TORTURE_CLIENTS ?= 64
torture: postgres-tests ## Kill processes, pooler and database under load, then audit (TORTURE_SECONDS, TORTURE_CLIENTS, TORTURE_SEED)
	$(CARGO) build -p product-base
	$(CARGO) test -p tests --test faults -- --nocapture torture::

.PHONY: sdks
sdks: ## Install the providers' Python SDKs into .sdks, so that `make test` drives the stub upstream with them
	@test -x .sdks/bin/python || python3 -m venv .sdks
	@.sdks/bin/python -m pip install --quiet --upgrade openai anthropic google-genai

.PHONY: clients
clients: ## Install coding agents and chat clients into .clients, so that `make test` drives them through the gateway (1.5 GB)
	@mkdir -p .clients
	@npm install --no-audit --no-fund --prefix .clients @anthropic-ai/claude-code @google/gemini-cli opencode-ai
	@test -x .clients/python/bin/python || python3 -m venv .clients/python
	@.clients/python/bin/python -m pip install --quiet --upgrade aider-chat llm

.PHONY: openapi-tools
openapi-tools: ## Install a validator of OpenAPI and schemathesis into .openapi, so that `make test` holds the document with them
	@test -x .openapi/bin/python || python3 -m venv .openapi
	@.openapi/bin/python -m pip install --quiet --upgrade openapi-spec-validator schemathesis

.PHONY: lint
lint: fmt-check ## Check the format, and let clippy accept no warning
	$(CARGO) clippy --workspace --all-targets -- -D warnings

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## Check the format only
	$(CARGO) fmt --all --check

.PHONY: postgres
postgres: ## Install the programs of Postgres if they are missing (needed by `make run`, which calls this)
	@.ci/postgres

.PHONY: postgres-tests
postgres-tests: ## The same, and psql, pgbench and PgBouncer for the tests
	@.ci/postgres --tests

.PHONY: bench
bench: export BENCH_USERS ?= 100000
bench: export BENCH_SECONDS ?= 5
bench: export BENCH_ONLY ?=
bench: export BENCH_AGAINST ?=
bench: postgres-tests ## Measure the service against Postgres alone, into docs/BENCHMARKS.md (BENCH_USERS, BENCH_SECONDS), or against another build (BENCH_AGAINST)
	@if ! command -v wrk >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo 'Installing wrk with apt-get.' >&2; \
	  apt-get update -qq </dev/null >&2 || true; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk </dev/null >&2 || true; \
	fi
	$(CARGO) build --profile dist -p product-base -p tests --bin product-base --bin bench
	@$(TARGET)/dist/bench --service $(TARGET)/dist/product-base \
	  --users "$$BENCH_USERS" --seconds "$$BENCH_SECONDS" --only "$$BENCH_ONLY" --against "$$BENCH_AGAINST"

.PHONY: soak
soak: export SOAK_MINUTES ?= 10
soak: postgres-tests ## Call models for ten minutes without a pause; fails if it gets slower or grows (SOAK_MINUTES)
	$(CARGO) build --profile dist -p product-base -p tests --bin product-base --bin bench
	@$(TARGET)/dist/bench --service $(TARGET)/dist/product-base --users 2000 --soak "$$SOAK_MINUTES"

.PHONY: docs
docs: postgres ## Write docs/openapi.json and docs/schema.sql anew (a test holds them)
	$(CARGO) build -p product-base -p migration
	$(PRODUCT_BASE) openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json
	$(WITH_POSTGRES) sh -ec 'export PB__DATABASE__DIRECT_URL="$$PB__TEST__DATABASE_URL"; $(MIGRATION) up >&2; $(MIGRATION) schema' \
		> docs/schema.sql.new && mv docs/schema.sql.new docs/schema.sql

.PHONY: clean
clean: ## Remove what was built and installed here; the data in .data stays
	$(CARGO) clean
	rm -rf .postgres .sdks .clients .openapi
