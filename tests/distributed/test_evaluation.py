"""One evaluation on 1, 2 and 4 processes and in batches of 1, 7 and 64: the same records."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from advgen.files import sha256
from tests.distributed.runs import (
    LABELLED,
    advgen,
    environment,
    make_labelled_shards,
    run_advgen,
    torchrun,
    write_images,
    write_recipe,
)
from tests.games.test_resume import GAME_SETTINGS
from tests.unit.metrics.random_inception import write_random_inception

METRICS = ["fd_lite0", "precision", "recall", "density", "coverage", "ms_ssim", "recognised"]
CLASSES = {**GAME_SETTINGS["cgan"], "total_kimg": 0.008, "rampdown_kimg": 0.0, "critic_repeats": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a game of classes, with held-out images. What is taken of it divides into no number of ranks."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
    folder = tmp_path_factory.mktemp("evaluation")
    make_labelled_shards(folder)
    for index, name in enumerate(("cats", "dogs")):
        write_images(folder / "others" / name, 90 - index, seed=70 + index)
    advgen(folder, "shard", "others", "held-out", "--resolution", "16", "--labels", "folders")
    evaluation = {"samples": 209, "threads": 1, "judge_images": 64, "metrics": METRICS}
    held_out = {"shards": "held-out"}
    write_recipe(folder / "c.yaml", name="c", game=CLASSES, **LABELLED, data__held_out=held_out, evaluation=evaluation)
    advgen(folder, "train", "c.yaml")
    return folder


def records(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "runs/c/metrics.jsonl").read_text().splitlines()]


def taken(
    place: Path, batch: int, launcher: tuple[str, ...] = (), metrics: list[str] = METRICS
) -> list[dict[str, Any]]:
    """Records of the newest checkpoint, taken anew; the reference and the judge are computed anew, too."""
    (place / "runs/c/metrics.jsonl").unlink(missing_ok=True)
    for path in (place / ".cache/metrics").glob("*"):
        path.unlink()
    arguments = ("--latest", "--batch-size", str(batch), "--metrics", ",".join(metrics))
    advgen(place, "evaluate", "runs/c", *arguments, launcher=launcher)
    return records(place)


def by_class(record: dict[str, Any]) -> list[float]:
    """The figures of classes, nan for one that has too few pictures."""
    return [float("nan") if value is None else value for value in record.get("per_class", [])]


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """All but figures is equal, and figures are to 1e-9."""
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our["value"] == pytest.approx(their["value"], rel=1e-9), our["name"]
        assert by_class(our) == pytest.approx(by_class(their), rel=1e-9, nan_ok=True), our["name"]
        figures = {"value": 0, "standard_error": 0, "per_class": 0}
        assert our | figures == their | figures


def test_two_processes_and_other_batches_make_the_figures_of_one(place: Path) -> None:
    metrics = ["fd_lite0", "recall", "coverage"]
    same(taken(place, 7, torchrun(2), metrics), taken(place, 64, metrics=metrics))


@pytest.mark.slow
def test_any_number_of_processes_and_any_batch_makes_the_same_figures(place: Path) -> None:
    alone = taken(place, 64)
    assert {record["name"] for record in alone} == set(METRICS) and len(alone) == 2 * len(METRICS)
    for batch, launcher in ((1, ()), (7, torchrun(2)), (64, torchrun(4)), (100, torchrun(2))):
        same(taken(place, batch, launcher), alone)


@pytest.mark.long
def test_fid_itself_is_the_same_on_any_number_of_processes(place: Path) -> None:
    """With random weights; the reference's statistics are computed by four processes and read by the one."""
    write_random_inception(place / "weights.pth")
    found: list[list[dict[str, Any]]] = []
    for batch, launcher in ((7, torchrun(4)), (64, ())):
        (place / "runs/c/metrics.jsonl").unlink(missing_ok=True)
        flags = ("--latest", "--metrics", "fid", "--samples", "70", "--batch-size", str(batch))
        command = [sys.executable, *launcher, "-m", "tests.distributed.any_inception", "evaluate", "runs/c", *flags]
        command += ["--inception-weights", "weights.pth"]
        done = subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found.append(records(place))
    assert [record["name"] for record in found[0]] == ["fid", "fid"]
    assert found[0][1]["protocol"]["extractor"]["weights_sha256"] == sha256(place / "weights.pth")
    same(*found)


@pytest.mark.slow
def test_what_cannot_be_evaluated_is_told_and_nobody_waits(place: Path) -> None:
    done = run_advgen(place, "evaluate", "runs/c", "--checkpoint", "3", launcher=torchrun(2))
    assert done.returncode and "has no complete checkpoint at 3 images. There are: 0, 8." in done.stderr


@pytest.mark.slow
def test_a_killed_evaluation_leaves_whole_records_and_goes_on(place: Path) -> None:
    path = place / "runs/c/metrics.jsonl"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pipelines", "evaluate", "runs/c", "--metrics", "fd_lite0,recall"]
    process = subprocess.Popen(command, cwd=place, env=environment(), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 240
    while not path.is_file() and process.poll() is None:
        assert time.monotonic() < until, "no record in four minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the evaluation ended before it could be killed"
    left = records(place)
    advgen(place, "evaluate", "runs/c", "--metrics", "fd_lite0,recall")
    assert left and records(place)[: len(left)] == left and len(records(place)) > len(left)
