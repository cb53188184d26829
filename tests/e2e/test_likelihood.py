"""`advgen likelihood`: figures with their protocol, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.__main__ import main
from tests.distributed.runs import LINEAR, make_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play

FOUR = {**LINEAR, "data": {"points": {"kind": "four_points"}, "resolution": 1, "channels": 4}}
AVB = {**GAME_SETTINGS["avb"], "architecture": "mlp", "likelihood": "bernoulli", "binarization": "threshold"}
SMALL = {"training__sample_rows": 1, "training__sample_columns": 2}
QUICK = ("--count", "6", "--steps", "8", "--chains", "3", "--leapfrog", "2", "--importance-samples", "5")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("likelihood")
    make_shards(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, game, data in (
            ("four", AVB, FOUR),
            ("avb", GAME_SETTINGS["avb"], {}),
            ("gan", GAME_SETTINGS["gan"], {}),
        ):
            assert play(write_recipe(folder / f"{name}.yaml", name=name, game=game, **data, **SMALL), None)
        write_recipe(folder / "new.yaml", name="new", game=AVB, **FOUR)
        (folder / "runs/new").mkdir()
        (folder / "runs/new/config.yaml").write_text((folder / "new.yaml").read_text())
    return folder


def test_figures_and_their_protocol(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["likelihood", "runs/four", *QUICK]) == 0
    assert main(["likelihood", "runs/four", *QUICK]) == 0
    assert main(["likelihood", "runs/four", *QUICK, "--seed", "1"]) == 0
    first, again, other = map(json.loads, (place / "runs/four/likelihood.jsonl").read_text().splitlines())
    assert first == again
    assert first["annealed"] != other["annealed"] and first["annealing"] == other["annealing"]
    assert (first["nimg"], first["count"], first["importance_samples"]) == (80, 6, 5)
    assert first["images"] == "held-out points four_points" and first["annealing"]["chains"] == 3
    # Four values, each 0 or 1, of a model that has hardly learned: not far from four tosses of a coin.
    assert -6 < first["annealed"] < -1.5 and 0 < first["annealed_standard_error"] < 1
    # An encoder that has hardly learned proposes badly, and five samples do not mend it.
    assert -40 < first["importance"] < first["annealed"] + 1
    assert len(first["annealed_of_each"]) == 6
    assert sum(first["annealed_of_each"]) / 6 == pytest.approx(first["annealed"])
    assert 1 <= first["effective_chains"] <= 3 and 0 < first["accepted"] <= 1
    printed = capsys.readouterr().out
    assert f"{first['annealed']:10.3f} ± " in printed and "gap" in printed


@pytest.mark.parametrize(
    ("run", "flags", "words"),
    [
        ("gan", (), "game.kind gan has no likelihood"),
        ("avb", (), "held no images out"),
        ("new", (), "has no checkpoint to score"),
        ("nowhere", (), "is not a run folder"),
        ("four", ("--count", "1"), "--count must be at least 2"),
        ("four", ("--importance-samples", "0"), "--importance-samples must be at least 1"),
        ("four", ("--count", "2000000"), "2000000 are asked for"),
    ],
)
def test_refusals(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: str,
    flags: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(place)
    assert main(["likelihood", f"runs/{run}", *flags]) == 2
    assert words in capsys.readouterr().err
