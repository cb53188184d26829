"""The page's section on the time of a step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from advgen.files import write_json
from advgen.report import write_report
from tests.unit.profiling.made import made_profile
from tests.unit.report.conftest import write_lines
from tests.unit.report.runs import make_small_run


def text_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


@pytest.mark.parametrize("cuda", [True, False])
def test_the_parts_stand_in_a_table_and_names_are_escaped(tmp_path: Path, cuda: bool) -> None:
    run = make_small_run(tmp_path / "run")
    write_json(run / "profile" / "profile.json", made_profile(steps=4, cuda=cuda).plain())
    html = text_of(run)
    assert "&lt;b&gt;player&lt;/b&gt;/loss" in html and "<b>player" not in html
    plain = words(html)
    assert "Time of a step" in plain and "Only 4 of the 10 steps" in plain
    assert f"/loss 24.00 60 %{' 30.00 2.00' if cuda else ''} " in plain
    assert ("The device was busy 81 %" in plain) is cuda


def test_a_run_without_a_profile_has_no_such_section(tmp_path: Path) -> None:
    assert "Time of a step" not in text_of(make_small_run(tmp_path / "run"))


def test_a_damaged_profile_is_told_and_left_out(tmp_path: Path) -> None:
    run = make_small_run(tmp_path / "run")
    (run / "profile").mkdir()
    write_lines(run / "profile" / "profile.json", [{"figures": None}])
    plain = words(text_of(run))
    assert "profile/profile.json: could not be read and was left out." in plain
    assert "Time of a step" not in plain
