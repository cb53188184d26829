"""The script for machines at hand: what it says, and that bash and shellcheck take it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.launch.machines import Machines, script
from advgen.launch.plan import plan
from advgen.launch.settings import load_settings
from advgen.strict_config import YamlText, parse
from tests.distributed.runs import ROOT
from tests.unit.launch.recipes import four_stages


def machines(**values: Any) -> Machines:
    given = {"kind": "machines", "addresses": ["10.0.0.1", "10.0.0.2"], "checkout": "/opt/my advgen", "folder": "/s"}
    return parse(Machines, YamlText({**given, **values}, {}), "cloud/x.yaml")


def test_the_script_is_quoted_and_passes_shellcheck(tmp_path: Path) -> None:
    recipe = four_stages()
    hostile = "; touch pwned $(touch pwned) '"
    text = script(recipe, plan(recipe, Path("r.yaml")), machines(environment={"NCCL_DEBUG": hostile}), Path("r.yaml"))
    path = tmp_path / "machines.sh"
    path.write_text(text)
    checked = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", "--exclude=SC2016", path], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    shown = text.replace("exec ", "printf '%s\\n' ").replace(
        "cd -- /s", 'printf "%s\\n" "$NCCL_DEBUG" "$SHARDS" "$STAGES"'
    )
    done = subprocess.run(["bash", "-c", shown, "x", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        hostile,
        "data/faces/train:data/faces/held-out",
        "shard train evaluate report",
        "/opt/my advgen/cloud/stages.sh",
        "r.yaml",
    ]
    assert not (tmp_path / "pwned").exists()
    without = subprocess.run(["bash", "-c", shown, "x"], capture_output=True, text=True)
    assert "give the number of this machine, 0 to 1" in without.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"addresses": []}, "addresses must be names or addresses"),
        ({"addresses": ["a", "a"]}, "one stands there twice"),
        ({"folder": "shared"}, "folder must begin with /"),
        ({"port": 0}, "port 1 to 65535"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        machines(**changes)


def test_the_script_in_the_documentation() -> None:
    """docs/cloud.md shows what is printed."""
    recipe = load_recipe(ROOT / "pipelines/recipes/progan-celebahq-1024-8gpu.yaml")
    file = recipe.folder / "launch/recipe.yaml"
    settings = load_settings(Machines, str(ROOT / "cloud/example-machines.yaml"), "cloud")
    assert script(recipe, plan(recipe, file), settings, file) in (ROOT / "docs/cloud.md").read_text()
