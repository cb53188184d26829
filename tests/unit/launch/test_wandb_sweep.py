"""The file for W&B's agents: valid by W&B's own schema, and its words lead to the members of the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.launch.sweep import axes, members
from advgen.launch.wandb_sweep import sweep_file
from pipelines.sweep import main
from tests.distributed.runs import POINTS, write_recipe

# Of W&B's package `sweeps` 0.2.0, sweeps/config/schema.json (MIT licence).
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "wandb-sweep.json").read_text())


def mistakes(config: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(config)]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "points.yaml", name="points", **POINTS, game={"kind": "gan", "architecture": "mlp"})


def test_the_file_is_valid_and_its_words_name_the_members(recipe: Path) -> None:
    flags = ("--grid", "game.learning_rate=0.001,2e-3", "--grid", "seed=4", "--training.threads", "2")
    assert main([recipe.name, *flags, "--wandb-sweep", "sweep.yaml"]) == 0
    config = yaml.safe_load(Path("sweep.yaml").read_text())
    assert mistakes(config) == []
    assert mistakes(config | {"methode": "grid"}) and mistakes(config | {"parameters": {"a": {"vals": [1]}}})
    assert config["parameters"] == {
        "game.learning_rate": {"values": [0.001, "2e-3"]},  # text where the agent would write a number otherwise
        "seed": {"values": [4]},
    }
    assert config["command"][:2] == ["advgen", "sweep"] and config["command"][-1] == "${args_no_hyphens}"

    # What an agent starts for one combination, by W&B's rule: KEY=VALUE, each a word.
    words = [f"{key}={each['values'][-1]}" for key, each in config["parameters"].items()]
    assert words == ["game.learning_rate=2e-3", "seed=4"]
    (member,) = members("points", 3, words, 1)
    assert member in members("points", 4, ["game.learning_rate=0.001,2e-3", "seed=3,4"], 1)
    made = load_recipe(recipe, member.flags)
    assert (made.name, made.seed) == ("points-learning_rate_2e-3-seed_4", 4)


def test_seeds_are_a_parameter() -> None:
    assert axes(3, ["a=x"], 2) == {"a": ["x"], "seed": ["3", "4"]}


def test_words_stay_words() -> None:
    hostile = "a b'; $(touch pwned) \n- x: y"
    config = yaml.safe_load(sweep_file("n", "p", {"seed": ["1"]}, ("advgen", "sweep", hostile)))
    assert config["command"][2] == hostile and mistakes(config) == []
    with pytest.raises(UserError, match="would replace"):
        sweep_file("n", "p", {"seed": ["1"]}, ("advgen", "${envvar:HOME}/recipe.yaml"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--wandb-sweep", "sweep.yaml"], "nothing is varied"),
        (["--grid", "seed=1", "--wandb-sweep", "sweep.yaml", "--tracking.project", "abcdefgh1"], r"\$WANDB_API_KEY"),
        (["--member", "seed=1,2"], "is 2 members"),
        (["--member", "seed"], "write it as KEY=VALUE"),
    ],
    ids=str,
)
def test_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdefgh1")
    with pytest.raises(UserError, match=told):
        main([recipe.name, *arguments])
    assert not Path("sweep.yaml").exists()
