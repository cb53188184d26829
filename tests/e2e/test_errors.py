"""Every mistake of a person ends with code 2 and one message: what is wrong, where, and the way out."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from advgen.runtime.run_folder import RunFolder
from tests.e2e.conftest import Cli
from tests.helpers import tiny_recipe, tiny_shards, write_images


def refused(result: CompletedProcess[str], *words: str | Path) -> str:
    """Assert that the stage refused with one message that holds all ``words``; returns it."""
    assert result.returncode == 2, (result.stdout, result.stderr)
    assert "Traceback" not in result.stdout + result.stderr
    missing = [str(word) for word in words if str(word) not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"
    return result.stderr


def one_message(result: CompletedProcess[str], *words: str | Path) -> str:
    """The same for advgen's own messages: nothing but ``advgen STAGE: MESSAGE``."""
    message = refused(result, *words)
    start = re.match(r"advgen( [a-z]+)?: ", message)
    assert start, message
    assert message.count(start[0]) == 1, message
    return message


# ------------------------------------------------------------------------------------------------------------- recipes
def test_mistakes_in_a_recipe_are_all_told_with_line_and_nearest_name(cli: Cli, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, game={"learning_rat": 0.1, "batch_size": "eight"}, trainin={})
    lines = path.read_text().splitlines()
    number = {
        key: next(i for i, line in enumerate(lines, 1) if key in line) for key in ("learning_rat:", "eight", "trainin:")
    }
    message = one_message(
        cli("train", path),
        f"{path}:{number['learning_rat:']}: game.learning_rat: unknown key; did you mean 'learning_rate'?",
        f"{path}:{number['eight']}: game.batch_size: input should be a valid integer (given: 'eight')",
        f"{path}:{number['trainin:']}: trainin: unknown key; did you mean 'training'?",
    )
    assert len(message.splitlines()) == 3


def test_a_missing_recipe(cli: Cli) -> None:
    message = one_message(cli("train", "nowhere.yaml"), "nowhere.yaml: cannot be read", "Name an existing recipe")
    assert len(message.splitlines()) == 1


def test_a_flag_that_contradicts_the_recipe_is_told(cli: Cli, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path)
    refused(cli("train", path, "--training.thread", "2"), "--training.thread", "--training.threads {None}|INT")
    refused(cli("train", path, "--training.threads", "0"), "threads must be at least 1")
    refused(cli("train", path, "--profile", "0"), "profile_steps must be at least 1")
    refused(cli("train", "--profile", path), "argument --profile: invalid int value")


def test_an_unknown_stage_and_a_bad_flag(cli: Cli) -> None:
    one_message(cli("trian", "r.yaml"), "unknown stage 'trian'", "train, evaluate")
    refused(cli("sample", "run", "out.png", "--rows", "many"), "advgen sample: error: argument --rows", "'many'")
    one_message(cli("sample", "run", "out.png", "--rows", "0"), "--rows", "at least 1")


# -------------------------------------------------------------------------------------------------------------- images
def test_images_that_are_not_there(cli: Cli, tmp_path: Path) -> None:
    one_message(
        cli("shard", "nowhere", "out", "--resolution", "16"), "nowhere: does not exist", "Give a folder or .zip"
    )
    (tmp_path / "empty").mkdir()
    one_message(cli("shard", "empty", "out", "--resolution", "16"), "empty: is empty", "Give a folder or .zip")
    assert not (tmp_path / "out").exists()


def test_a_recipe_whose_images_are_not_there(cli: Cli, tmp_path: Path) -> None:
    train = {"shards": str(tmp_path / "new"), "images": {"kind": "folder", "path": str(tmp_path / "nowhere")}}
    path = tiny_recipe(tmp_path, data={"train": train})
    one_message(cli("run", path), tmp_path / "nowhere", "does not exist", "images.path")


def test_a_truncated_jpeg(cli: Cli, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    whole = io.BytesIO()
    Image.open(images / "000.png").resize((64, 64)).save(whole, format="JPEG")
    (images / "001.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    command = ("shard", "images", "out", "--resolution", "16")
    one_message(cli(*command), "001.jpg", "skip")
    assert not (tmp_path / "out").exists()
    result = cli(*command, "--on-bad", "skip")
    assert result.returncode == 0, result.stderr
    assert "3 images in 1 shards" in result.stdout and "1 left out" in result.stdout
    assert "001.jpg" in (tmp_path / "out" / "rejected.jsonl").read_text()


def test_a_resolution_that_is_no_power_of_two(cli: Cli) -> None:
    one_message(cli("shard", "images", "out", "--resolution", "24"), "--resolution 24", "power of two")


# ---------------------------------------------------------------------------------------------------------- run folders
@pytest.mark.parametrize(
    "stage", [["evaluate", "elsewhere"], ["report", "elsewhere"], ["sample", "elsewhere", "o.png"]]
)
def test_a_folder_that_is_no_run_folder(cli: Cli, tmp_path: Path, stage: list[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    one_message(
        cli(*stage), "elsewhere: is not a run folder", "config.yaml", "Name a" if stage[0] == "report" else "Name the"
    )
    assert not list((tmp_path / "elsewhere").iterdir())


def test_training_into_somebody_elses_folder(cli: Cli, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path)
    own = tmp_path / "runs" / "tiny" / "thesis.txt"
    own.parent.mkdir(parents=True)
    own.write_text("dear")
    one_message(cli("train", path), own.parent, "is not a run folder", "Give the recipe another name, or remove it.")
    assert [p.name for p in own.parent.iterdir()] == ["thesis.txt"]


def test_two_trainings_in_one_folder(cli: Cli, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path)
    run = RunFolder(tmp_path / "runs" / "tiny")
    run.claim("name: tiny\n")
    with run.locked():
        one_message(cli("train", path), run.path, "another process is training here", "Wait for it")
    assert not run.log.exists()
    assert cli("train", path).returncode == 0


def test_shards_of_another_resolution(cli: Cli, tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, data={"resolution": 32})
    one_message(cli("train", path), tmp_path / "shards", "16 px", "32 px", "Change the recipe, or write shards")
    assert not (tmp_path / "runs").exists()


def test_going_on_with_another_method_or_other_data(cli: Cli, tmp_path: Path, trained: Path) -> None:
    """A changed recipe may not go on with the fixture's run (made without deepspeed), and leaves it untouched."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    config = (tmp_path / "runs" / "tiny" / "config.yaml").read_bytes()
    other = tiny_shards(tmp_path / "others", 24, seed=5)
    path = tiny_recipe(
        tmp_path,
        data={"train": {"shards": str(other)}},
        game={"learning_rate": 0.002},
        training={"log_every_steps": 3},  # of reporting, and free to change
        evaluation={"samples": 8},
    )
    message = one_message(
        cli("train", path),
        "000000000208: this checkpoint was made by another recipe:",
        "\n  game.learning_rate: 0.001 then, 0.002 now\n",
        "\n  data.manifest: '",
        "Set these back, or give the recipe another name to begin a new run.",
    )
    assert len(message.splitlines()) == 4, message
    assert (tmp_path / "runs" / "tiny" / "config.yaml").read_bytes() == config


def test_metrics_that_are_not_known(cli: Cli, trained: Path) -> None:
    run = trained / "runs" / "tiny"
    one_message(cli("evaluate", run, "--metrics", "fd_lite"), "unknown metric 'fd_lite'", "did you mean 'fd_lite0'?")
    one_message(cli("evaluate", run, "--samples", "1"), "samples must be at least 2")
    assert not (run / "metrics.jsonl").exists()
