"""What only a GPU would show, as far as it can be known without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENCODING = ["earth-pix2pixhd-128.yaml", "earth-pix2pixhd-256.yaml", "earth-pix2pixhd-512.yaml"]
RECIPES = sorted((ROOT / "pipelines" / "recipes").glob("*.yaml"))

WAITING = """
name: waiting
data: {resolution: 8, train: {shards: nowhere}}
game: {kind: progan, latent_size: 4, channels: {4: 4, 8: 4}, batch_size: 4}
"""


def played(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.away", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def test_no_step_of_a_recipe_has_the_host_wait_or_mixes_devices() -> None:
    done = played(*map(str, RECIPES))
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [name for name, _, text in found if text == "played"] == [recipe.name for recipe in RECIPES]
    waiting = [(name, text) for name, _, text in found if text != "played"]
    # How many instances a batch has is in the batch: two waits a step of pix2pixHD with an encoder.
    counted = [name for name, text in waiting if "encoder.py" in text and "torch.unique(" in text]
    assert counted == [name for name in ENCODING for _ in range(2)]
    assert len(waiting) == len(counted), waiting


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("scores.mean().item()", "a value is looked at at"),
        ("scores.cpu()", "a copy from away to cpu at"),
        ("torch.zeros(4).to(scores.device)", "a copy from cpu to away at"),
        ("scores[scores > 0]", "DynamicOutputShapeException"),
        ("scores + torch.zeros(4, 1)", "two devices"),
        ("scores.index_put_((scores > 0,), torch.ones(4, device=scores.device)[:0])", "a mask is counted at"),
        ("scores[torch.zeros(2, dtype=torch.int64)]", "indices are copied at"),
        ("torch.linalg.inv(scores @ scores.T)", "checks its result on the host at"),
    ],
)
def test_what_would_wait_is_found(tmp_path: Path, wrong: str, told: str) -> None:
    """The same on a loss with a mistake in it."""
    recipe = tmp_path / "waiting.yaml"
    recipe.write_text(WAITING)
    program = tmp_path / "mistake.py"
    program.write_text(
        f"""
import runpy, sys, torch
from advgen.games.progan.game import Progan
right = Progan.generator_loss
def mistaken(self, context, batch):
    scores = torch.zeros(4, 1, device=batch.images.device)
    {wrong}
    return right(self, context, batch)
Progan.generator_loss = mistaken
sys.argv = ["away", {str(recipe)!r}]
runpy.run_module("tests.away", run_name="__main__")
"""
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told in done.stdout + done.stderr, done.stderr[-2000:]
