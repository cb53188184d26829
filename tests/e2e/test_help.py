"""Help is there for every stage, and at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import STAGES
from tests.e2e.conftest import Cli, environment
from tests.helpers import tiny_recipe

# Runs `advgen ARGUMENTS` and prints, last, which of the slow packages it has imported.
_PROBE = """
import sys
from pipelines.__main__ import main
try:
    code = main()
except SystemExit as end:
    code = end.code
slow = {"torch", "torchvision", "accelerate", "deepspeed", "wandb", "matplotlib"} & set(sys.modules)
print("imported:", sorted(slow))
sys.exit(code)
"""


def probed(*arguments: str | Path) -> tuple[str, list[str]]:
    program = [sys.executable, "-c", _PROBE, *map(str, arguments)]
    result = subprocess.run(program, env=environment(), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    text, _, imported = result.stdout.rpartition("imported: ")
    return text, imported.split()


def test_the_overview_names_every_stage_and_imports_nothing_slow() -> None:
    text, imported = probed("--help")
    assert text.startswith("usage: advgen STAGE")
    for stage in STAGES:
        assert f"\n  {stage} " in text
    assert imported == ["[]"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_explains_itself_without_importing_torch(stage: str) -> None:
    text, imported = probed(stage, "--help")
    assert text.startswith(f"usage: advgen {stage}")
    assert imported == ["[]"]


def test_help_with_a_recipe_lists_its_keys_with_its_values(tmp_path: Path) -> None:
    text, imported = probed("train", tiny_recipe(tmp_path, game={"learning_rate": 0.0125}), "--help")
    assert "--game.learning-rate FLOAT" in text or "--game.learning_rate FLOAT" in text
    assert "0.0125" in text
    assert imported == ["[]"]


def test_without_arguments_the_usage_is_shown_and_the_code_tells(cli: Cli) -> None:
    result = cli()
    assert result.returncode == 2
    assert result.stdout.startswith("usage: advgen STAGE")
    result = cli("train")
    assert result.returncode == 2
    assert result.stdout.startswith("usage: advgen train")
