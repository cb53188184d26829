"""Handing in: what is written and run, what is refused, and what no secret gets into. A script stands for sky."""

from __future__ import annotations

from pathlib import Path

import pytest

from advgen.errors import UserError
from advgen.launch.plan import STAGES
from pipelines.elsewhere import submit
from tests.unit.launch.recipes import four_stages

VALUE = "0123456789abcdef0123"
SETTINGS = "kind: cloud\nbucket: s3://my-bucket\nnodes: 2\nsecrets: [WANDB_API_KEY]\n"
LAUNCH = Path("runs/faces/launch")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with settings, a key and a PATH on which there is little."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    monkeypatch.setenv("WANDB_API_KEY", VALUE)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def hand_in(show: bool = False) -> int:
    ranks: list[int] = []
    code = submit(four_stages(), "cloud", "mine.yaml", STAGES, show, ranks.append)
    assert ranks == [16]  # 2 machines of 8 GPUs
    return code


def install_sky(place: Path, code: int) -> None:
    sky = place / "bin" / "sky"
    sky.parent.mkdir(exist_ok=True)
    sky.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>words\nexit {code}\n')
    sky.chmod(0o755)


def test_handed_in_once(place: Path) -> None:
    install_sky(place, 0)
    assert hand_in() == 0
    words = (place / "words").read_text()
    assert words.split()[:2] == ["jobs", "launch"]
    assert words.split()[-1] == str(LAUNCH / "skypilot.yaml")
    with pytest.raises(UserError, match="was handed in before, and two jobs would train in one folder"):
        hand_in()
    assert (place / "words").read_text() == words
    for path in (place / "runs").rglob("*"):
        assert path.is_dir() or VALUE not in path.read_text()
    assert VALUE not in words


def test_sky_is_not_there() -> None:
    with pytest.raises(UserError, match="sky: not found.*uv tool install.*sky jobs launch"):
        hand_in()
    assert (LAUNCH / "skypilot.yaml").is_file()
    assert (LAUNCH / "recipe.yaml").is_file()


def test_sky_refuses(place: Path) -> None:
    install_sky(place, 3)
    with pytest.raises(UserError, match="ended with 3"):
        hand_in()
    install_sky(place, 0)
    assert hand_in() == 0


def test_a_key_is_not_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_sky(place, 0)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="WANDB_API_KEY: not set here"):
        hand_in()
    assert not (place / "words").exists()


def test_a_secret_in_the_settings_is_written_nowhere(place: Path) -> None:
    (place / "mine.yaml").write_text(SETTINGS + f"environment: {{NOTE: {VALUE}}}\n")
    with pytest.raises(UserError, match=r"the value of \$WANDB_API_KEY stands in") as caught:
        hand_in()
    assert VALUE not in str(caught.value)
    assert not (place / "runs").exists()


def test_showing_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_sky(place, 0)
    assert hand_in(show=True) == 0
    assert not (place / "runs").exists()
    assert not (place / "words").exists()
    shown = capsys.readouterr().out
    assert "num_nodes: 2" in shown
    assert "--secret WANDB_API_KEY" in shown
    assert VALUE not in shown


def test_settings_of_another_kind() -> None:
    with pytest.raises(UserError, match="mine.yaml:1: kind: input should be 'kubernetes'"):
        submit(four_stages(), "kubernetes", "mine.yaml", STAGES, True, lambda ranks: None)
    with pytest.raises(UserError, match="--cluster nope: there is no cloud/nope.yaml. Known: example-aws"):
        submit(four_stages(), "cloud", "nope", STAGES, True, lambda ranks: None)
