#!/usr/bin/env bash
# From nothing to a report: makes .venv, then runs all stages of the demo recipe on this machine's CPU.
# Arguments go to `advgen run`: scripts/demo.sh --dry-run, scripts/demo.sh --training.threads 4.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/advgen run pipelines/recipes/earth-progan-demo.yaml "$@"
