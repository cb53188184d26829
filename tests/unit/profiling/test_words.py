"""A profile in words, and as a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from advgen.files import write_json
from advgen.profiling.record import Rank, read_profile
from advgen.profiling.words import line, page
from tests.unit.profiling.made import AWKWARD, made_profile


def test_a_line_names_the_three_largest_shares() -> None:
    told = line(made_profile())
    assert told == "10 steps recorded, 40.00 ms each: <b>player</b>/loss 60 %, <b>player</b>/backward 35 %, other 5.0 %"
    assert line(made_profile(steps=1)).startswith("1 step recorded")


def test_the_page_of_a_gpu_tells_of_gaps_kernels_waits_and_processes() -> None:
    text = page(made_profile())
    for words in (
        "10 steps from step 110 on, after 10 of warm-up: phase train 8x8 at 8 px, batch 16, cuda, 2 processes.",
        "40.00 ms a step (median 39.00); without the profiler a median of 37.50 ms in the warm-up.",
        "| <b>player</b>/loss | 24.00 | 60 % | 30.00 | 2.00 |",
        "busy 81 % of the time, with 1,234 kernels, copies and fills a step of 5.0 µs on average",
        "the longest gap was 3.00 ms",
        "| `aten::mm` | 12.5 | 10.00 | 25 % |",
        "| `aten::item` | 2.0 | 0.50 | other |",
        "| 1 | 40.00 | 1.00 |",
    ):
        assert words in text
    assert "Only" not in text


def test_a_long_name_with_bars_keeps_its_row() -> None:
    text = page(made_profile())
    (row,) = [line for line in text.splitlines() if "kernel<a" in line]
    assert row.count("|") == 5 and row.count("`") == 2
    assert len(row) < len(AWKWARD)


def test_the_page_of_a_cpu_has_no_device_and_one_process_no_table_of_them() -> None:
    text = page(made_profile(cuda=False, ranks=1))
    assert "| <b>player</b>/loss | 24.00 | 60 % |\n" in text
    assert "on a GPU each of these stops the host" in text
    assert "Kernels" not in text and "Processes" not in text


def test_fewer_steps_than_asked_for_are_told() -> None:
    assert "Only 4 of the 10 steps that were asked for" in page(made_profile(steps=4))


def test_a_process_that_kept_no_trace_is_told() -> None:
    assert "| 2 | – | – |" in page(made_profile(lost=(Rank(2, None, None),)))


def test_without_warm_up_nothing_is_said_of_the_steps_before() -> None:
    made = made_profile()
    assert "without the profiler" not in page(replace(made, recording=replace(made.recording, seconds_before=None)))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    write_json(path, made_profile().plain())
    assert read_profile(path) == made_profile()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"figures": 3}', "\x00"])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        read_profile(path)
