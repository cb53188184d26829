"""The real command line in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_recipe

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]

# `python -m pipelines` as it is, but every import of deepspeed fails: nothing here may need it.
_WITHOUT_DEEPSPEED = (
    "import sys; sys.modules['deepspeed'] = None; from pipelines.__main__ import main; sys.exit(main())"
)


def environment() -> dict[str, str]:
    """That of a plain user on one core, with this checkout's packages."""
    result = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "ACCELERATE"))}
    if result.pop("PYTHONDONTWRITEBYTECODE", None):  # torch compiled anew in each process costs seconds
        result["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "advgen-tests-bytecode")
    root = str(Path(__file__).parents[2])
    return result | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "PYTHONPATH": root}


def advgen(*arguments: str | Path, cwd: Path, deepspeed: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``advgen ARGUMENTS`` in the folder ``cwd``."""
    program = ["-m", "pipelines"] if deepspeed else ["-c", _WITHOUT_DEEPSPEED]
    return subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """``cli("train", recipe)`` runs ``advgen train recipe`` in ``tmp_path``."""

    def run(*arguments: str | Path, deepspeed: bool = True) -> subprocess.CompletedProcess[str]:
        return advgen(*arguments, cwd=tmp_path, deepspeed=deepspeed)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe, trained to its end where deepspeed cannot be imported. Change nothing in it."""
    folder = tmp_path_factory.mktemp("trained")
    result = advgen("train", tiny_recipe(folder), cwd=folder, deepspeed=False)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium; CI must have one (ADVGEN_REQUIRE_CHROMIUM)."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        if os.environ.get("ADVGEN_REQUIRE_CHROMIUM"):
            pytest.fail("no chromium here, and ADVGEN_REQUIRE_CHROMIUM is set")
        pytest.skip("no chromium here: apt-get install chromium")
    with driver.sync_playwright() as playwright:
        # Its sandbox does not work for root, and it shows only what these tests wrote or serve.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
