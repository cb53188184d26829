"""Which jobs a recipe has, and when a job that ended well counts no longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.launch.plan import STAGES, chosen_stages, plan
from tests.distributed.runs import POINTS, write_recipe

IMAGES: dict[str, Any] = {"data__train": {"shards": "shards", "images": {"kind": "folder", "path": "images"}}}
FILE = Path("runs/run/launch/recipe.yaml")


def recipe(folder: Path, *flags: str, **changes: Any) -> Recipe:
    return load_recipe(write_recipe(folder / "recipe.yaml", **changes), flags)


def test_a_recipe_with_images_has_all_stages(tmp_path: Path) -> None:
    jobs = plan(recipe(tmp_path, **IMAGES), FILE)
    assert [job.stage for job in jobs] == list(STAGES)
    assert [job.many for job in jobs] == [False, True, False, False]
    assert jobs[1].arguments == ("train", str(FILE))
    assert jobs[2].arguments == ("run", str(FILE), "--only", "evaluate")


def test_no_images_no_sharding_no_metrics_no_evaluation(tmp_path: Path) -> None:
    assert [job.stage for job in plan(recipe(tmp_path), FILE)] == ["train", "evaluate", "report"]
    game = {"kind": "gan", "architecture": "mlp", "hidden": 8}
    points = POINTS | {"evaluation": {"metrics": []}, "game": game}
    assert [job.stage for job in plan(recipe(tmp_path, **points), FILE)] == ["train", "report"]


@pytest.mark.parametrize(
    ("flags", "anew"),
    [
        (("--training.threads", "2"), []),
        (("--data.cache-mib", "64"), []),
        (("--tracking.wandb", "auto"), []),
        (("--evaluation.samples", "8"), ["evaluate", "report"]),
        (("--game.learning-rate", "0.5"), ["train", "evaluate", "report"]),
        (("--seed", "9"), ["train", "evaluate", "report"]),
        (("--data.sharding.shard-samples", "7"), list(STAGES)),
    ],
    ids=str,
)
def test_what_is_run_anew_after_a_change(tmp_path: Path, flags: tuple[str, ...], anew: list[str]) -> None:
    before = {job.stage: job.inputs for job in plan(recipe(tmp_path, **IMAGES), FILE)}
    after = {job.stage: job.inputs for job in plan(recipe(tmp_path, *flags, **IMAGES), FILE)}
    assert [stage for stage in STAGES if before[stage] != after[stage]] == anew


def test_chosen_stages() -> None:
    assert chosen_stages(None, None) == STAGES
    assert chosen_stages("report, train", None) == ("train", "report")
    assert chosen_stages(None, "evaluate") == ("evaluate", "report")
    assert chosen_stages("train,report", "evaluate") == ("report",)


@pytest.mark.parametrize(
    ("only", "first", "text"),
    [("trian", None, "--only trian: no such stage"), (None, "x", "--from x:"), ("shard", "report", "leaves no stage")],
)
def test_wrong_stages(only: str | None, first: str | None, text: str) -> None:
    with pytest.raises(UserError, match=text):
        chosen_stages(only, first)
