#!/usr/bin/env bash
# Makes .venv with exactly the packages of requirements.lock, and advgen itself as an editable package.
# The second time it sees that nothing has changed and returns at once. Works from any folder.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$root"
stamp=.venv/advgen-setup.stamp

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

wanted() { cat -- requirements.lock pyproject.toml | git hash-object --stdin 2>/dev/null || cat -- requirements.lock pyproject.toml | cksum; }
# The stamp also holds the folder: a virtual environment that was moved is not one.
fingerprint() { printf '%s\n%s\n' "$(wanted)" "$root"; }
is_done() { [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$(fingerprint)" ]]; }

is_done && exit 0

mkdir -p .cache
# Two at once would write over each other; the second waits, and then has nothing to do.
if command -v flock >/dev/null; then
    exec 9>.cache/setup.lock
    flock 9
    is_done && exit 0
fi

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if command -v "$name" >/dev/null && recent "$name"; then
            # The interpreter itself, and not a shim that may mean another one elsewhere.
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

python=$(find_python) || die "Python 3.11 or newer is needed and was not found; \`python3\` is $(python3 --version 2>/dev/null || echo missing).
       Install one, or name it: PYTHON=/path/to/python3.12 scripts/setup.sh"

find_uv() {
    local candidate
    for candidate in uv .cache/uv/bin/uv "${HOME:-/nonexistent}/.local/bin/uv"; do
        if "$candidate" --version >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

# An environment of its own for uv works as root, as a user, and with a Python that its distribution manages (PEP 668).
if ! uv=$(find_uv); then
    say "installing uv into .cache/uv"
    rm -rf .cache/uv
    if "$python" -m venv .cache/uv >&2; then
        .cache/uv/bin/python -m pip install --quiet uv >&2 || die "could not install uv; see the message above"
    else
        # A Python without ensurepip (Debian's python3-venv is a package of its own).
        rm -rf .cache/uv
        "$python" -m pip install --quiet --user uv >&2 \
            || "$python" -m pip install --quiet --user --break-system-packages uv >&2 \
            || die "could not make a virtual environment: install your system's python3-venv package, or uv"
    fi
    uv=$(find_uv) || die "uv was installed but does not start"
fi

say "installing into .venv with $("$python" --version) (some minutes the first time)"
# Without a stamp an installation was cut short, and half a package may look like a whole one: begin anew, from uv's cache.
if [[ ! -f $stamp ]] || ! recent .venv/bin/python || ! grep -qsF "$root/.venv" .venv/bin/activate; then
    "$uv" venv --quiet --clear --python "$python" .venv
fi
rm -f "$stamp"
# sync installs exactly what the lock names, resolves nothing, and removes the rest.
printf -- '-e .\n' | VIRTUAL_ENV="$root/.venv" "$uv" pip sync --quiet requirements.lock -
.venv/bin/python -c 'import advgen, pipelines'

# Written last and at once: whatever stopped before this line is done again.
fingerprint >"$stamp.new"
mv -f "$stamp.new" "$stamp"
say "done"
