.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint format typecheck lock ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv from requirements.lock
	@./scripts/setup.sh

demo: ## train and evaluate a small ProGAN of the Earth on the CPU
	@./scripts/demo.sh

test: ## the quick tests
	@./scripts/test.sh

test-long: ## the tests that take minutes
	@./scripts/test.sh -m "slow or long"

lint: setup ## ruff and the import laws
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

format: setup ## format, and mend what ruff can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

typecheck: setup ## pyright
	.venv/bin/pyright

# Keeps the versions that the lock has; `make lock UPGRADE=--upgrade` takes new ones.
lock: ## write requirements.lock anew after a change of pyproject.toml (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 -q -o requirements.lock \
		--no-emit-index-url --no-header --no-annotate $(UPGRADE)

ci: ## everything that CI runs
	@./.ci/run

clean: ## remove .venv and caches; runs/ and data/ stay
	rm -rf .venv .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
