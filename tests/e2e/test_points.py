"""Points through the program: every stage of a recipe, pictures of them, and what a run is bound to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.__main__ import main
from tests.distributed.runs import POINTS, write_recipe
from tests.games.test_points import ALI, FOUR, GAN

EVALUATION = {"metrics": ["modes", "high_quality"], "samples": 500, "held_out_samples": 2000, "threads": 1}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def coloured(path: Path) -> int:
    """Pixels that are not grey: those of generated points."""
    image = pixels(path)
    assert image.shape == (480, 480, 3)
    return int((np.ptp(image, axis=2) > 30).sum())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage of two recipes."""
    folder = tmp_path_factory.mktemp("points")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings: dict[str, Any] = {**POINTS, "evaluation": EVALUATION}
        assert main(["run", str(write_recipe(folder / "ali.yaml", name="ali", game=ALI, **settings))]) == 0
        spiral = {"points": {"kind": "swiss_roll"}, "resolution": 1, "channels": 2}
        settings = {"data": spiral, "evaluation": {"metrics": []}}
        assert main(["run", str(write_recipe(folder / "gan.yaml", name="gan", game=GAN, **settings))]) == 0
    torch.set_num_threads(threads)
    return folder


def test_every_stage_leaves_what_it_leaves_of_images(place: Path) -> None:
    run = place / "runs/ali"
    assert coloured(run / "samples/reals.png") == 0
    assert coloured(run / "samples/000000000080.png") > 0
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {(record["moment"], record["name"]): record for record in records}
    assert set(found) == {(m, n) for m in ("floor", "untrained", "end") for n in EVALUATION["metrics"]}
    assert found["floor", "modes"]["value"] == 25
    # 1 - exp(-9 / 2) of Gaussian points lie within three deviations; 5 standard errors of 2,000.
    assert found["floor", "high_quality"]["value"] == pytest.approx(0.98889, abs=5 * (0.98889 * 0.01111 / 2000) ** 0.5)
    protocol = found["floor", "modes"]["protocol"]
    assert (protocol["reference"], protocol["samples"]) == ("points grid25", 2000)
    state = json.loads((run / "checkpoints/000000000080/state.json").read_text())
    assert state["about"]["data.manifest"] == "points grid25"
    page = (run / "report.html").read_text()
    assert "high_quality" in page and page.count("data:image/png;base64,") == 2


def test_nothing_is_measured_where_nothing_is_asked_for(place: Path) -> None:
    assert not (place / "runs/gan/metrics.jsonl").exists()
    assert (place / "runs/gan/report.html").is_file()


def test_samples_and_reconstructions(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    runs = {"a": ("gan",), "b": ("gan",), "c": ("gan", "--seed", "1"), "r": ("ali", "--reconstruct")}
    for name, (run, *more) in runs.items():
        assert main(["sample", f"runs/{run}", f"{name}.png", *more]) == 0
        assert coloured(place / f"{name}.png") > 0
    assert (place / "a.png").read_bytes() == (place / "b.png").read_bytes()
    assert (pixels(place / "a.png") != pixels(place / "c.png")).any()
    for run, option, told in (
        ("ali", ("--interpolate",), "was trained on points, which are drawn as one picture. Leave --interpolate out"),
        ("ali", ("--classes", "1"), "--classes: this run has no classes"),
        ("gan", ("--reconstruct",), "finds no latents"),
    ):
        assert main(["sample", f"runs/{run}", "i.png", *option]) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_figures_are_known_the_second_time(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = (place / "runs/ali/metrics.jsonl").read_text()
    assert main(["evaluate", "runs/ali"]) == 0
    assert capsys.readouterr().out.count("(known)") == 6
    assert (place / "runs/ali/metrics.jsonl").read_text() == before
    assert main(["evaluate", "runs/ali", "--metrics", "fd_lite0"]) == 2
    assert "fd_lite0 is not taken of points" in capsys.readouterr().err


def test_an_evaluation_is_shared_out(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each share takes its checkpoints, one more than there are takes none; together they are the whole."""
    monkeypatch.chdir(place)
    stage = ("run", "ali.yaml", "--only", "evaluate", "--evaluation.seed", "1", "--share")
    for share, moment in (("3/3", None), ("1/3", "untrained"), ("2/3", "end")):
        before = (place / "runs/ali/metrics.jsonl").read_text()
        assert main([*stage, share]) == 0
        added = (place / "runs/ali/metrics.jsonl").read_text().removeprefix(before).splitlines()
        found = {json.loads(line)["moment"] for line in added}
        assert found == ({moment, "floor"} if share == "1/3" else {moment} if moment else set())
    capsys.readouterr()
    assert main(list(stage[:-1])) == 0
    assert capsys.readouterr().out.count("(known)") == 6
    for wrong in ((*stage, "3/2"), (*stage, "0/2"), ("run", "ali.yaml", "--share", "1/2")):
        assert main(list(wrong)) == 2
        assert "write it as 2/8, beside --only evaluate" in capsys.readouterr().err


def test_a_run_is_bound_to_its_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    data = {"data": {"points": {"kind": "ring8"}, "resolution": 1, "channels": 2}, "evaluation": EVALUATION}
    other = write_recipe(place / "other.yaml", name="ali", game=ALI, **data)
    assert main(["train", str(other)]) == 2
    assert "data.points.kind: 'grid25' then, 'ring8' now" in capsys.readouterr().err


def test_a_dry_run_prints_the_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    recipe = write_recipe(place / "four.yaml", name="four", game=GAN, **FOUR, evaluation={"metrics": ["modes"]})
    assert main(["train", str(recipe), "--dry-run"]) == 0
    assert "kind: four_points" in capsys.readouterr().out
    assert not (place / "runs/four").exists()
