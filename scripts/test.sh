#!/usr/bin/env bash
# The tests, without those marked slow or long. Arguments go to pytest: scripts/test.sh -k fid, scripts/test.sh -n 0 -x.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh

# One thread a process: two workers with a pool each would only wait for each other, and sums keep their order.
export OMP_NUM_THREADS=1
# Compiled extensions of our own: those of another checkout or another torch in a shared folder may not fit.
export TORCH_EXTENSIONS_DIR="$PWD/.cache/torch_extensions"
mkdir -p -- "$TORCH_EXTENSIONS_DIR"

workers=(-n 2)
for argument in "$@"; do
    case $argument in
        # pytest's debugger needs its own terminal, and one process.
        -n* | --numprocesses* | --pdb | --trace) workers=() ;;
    esac
done

exec .venv/bin/python -m pytest ${workers[@]+"${workers[@]}"} "$@"
