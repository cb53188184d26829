"""What the README says is so: its commands run, its recipe is the one in the repository."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from advgen.config import load_recipe
from pipelines.__main__ import STAGES
from tests.distributed.runs import ROOT, advgen, write_images

README = (ROOT / "README.md").read_text()


def test_every_recipe_is_valid() -> None:
    recipes = sorted((ROOT / "pipelines" / "recipes").glob("*.yaml"))
    assert len(recipes) >= 4
    for path in recipes:
        assert load_recipe(path).name


def test_the_recipe_in_the_readme_is_the_one_in_the_repository() -> None:
    match = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert match is not None
    stored = (ROOT / "pipelines/recipes/own-images.yaml").read_text()
    assert match.group(1) == "".join(line for line in stored.splitlines(keepends=True) if not line.startswith("#"))


def test_every_stage_stands_in_the_table() -> None:
    assert {stage for stage in STAGES if f"| `advgen {stage} " in README} == set(STAGES)


def test_files_that_the_readme_names_are_there() -> None:
    for name in re.findall(r"\]\(([^)#]+)\)|`((?:advgen|pipelines|tests|scripts)/[\w./-]*)`", README):
        path = next(part for part in name if part)
        if "://" not in path:
            assert (ROOT / path).exists(), path


def test_own_images_as_the_readme_tells_it(tmp_path: Path) -> None:
    """The section's commands, word for word, on a few images and with shorter phases."""
    section = README.split("## Your own images")[1].split("## ")[0]
    shard = next(line for line in section.splitlines() if line.startswith("advgen shard"))
    run = re.search(r"`advgen (run [^`]+)`", section)
    assert run is not None
    write_images(tmp_path / "my-images", count=40, resolution=72)
    advgen(tmp_path, *shlex.split(shard)[1:])
    recipe = (ROOT / shlex.split(run.group(1))[1]).read_text()
    short = re.sub(r"(stabilize|fade)_kimg: 100", r"\1_kimg: 0.016", recipe).replace("fmap_max: 128", "fmap_max: 8")
    target = tmp_path / shlex.split(run.group(1))[1]
    target.parent.mkdir(parents=True)
    target.write_text(short + "evaluation: {samples: 20}\ntracking: {wandb: disabled}\n")
    advgen(tmp_path, *shlex.split(run.group(1)))
    assert (tmp_path / "runs/mine/report.html").stat().st_size > 10_000
    advgen(tmp_path, "sample", "runs/mine", "grid.png")
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize("flags", re.findall(r"`advgen train RECIPE (--game[^`]*)`", README))
def test_flags(flags: str) -> None:
    recipe = load_recipe(ROOT / "pipelines/recipes/own-images.yaml", shlex.split(flags))
    assert recipe.game.learning_rate == 0.002
    assert recipe.training.threads == 2
