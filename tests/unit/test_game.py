from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from advgen.clock import Clock, duration
from advgen.errors import UserError
from advgen.game import Average, ImageSpec, Phase, Player, Turn, check_game, has_prefix
from advgen.games.progan.config import ProganConfig
from advgen.games.progan.game import growth
from advgen.optim import Adam
from advgen.schedules import LearningRate
from advgen.timeline import Timeline
from tests.games import progan_reference as reference

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "games" / "golden" / "progan.json").read_text())


def player(name: str = "p", **changes: Any) -> Player:
    def loss(context: Any, batch: Any) -> Any:
        raise AssertionError("no loss is computed here")

    return replace(Player(name, ("net",), Adam(), loss), **changes)


def phase(name: str = "one", kimg: float = 0.1, batch: int = 10, **changes: Any) -> Phase:
    rates = {"p": LearningRate(1.0)}
    return replace(Phase(name, kimg, 8, batch, (Turn((player(),)),), ("net",), rates), **changes)


def played(phases: Sequence[Phase]) -> list[Clock]:
    """The clock before each step, and at last the one of the end."""
    timeline, clocks = Timeline(phases), [Clock()]
    while not timeline.done(clocks[-1]):
        clocks.append(timeline.advance(clocks[-1]))
    return clocks


# ------------------------------------------------------------------------------------------------------------ timeline
def test_a_phase_takes_the_steps_that_its_images_need() -> None:
    clocks = played([phase(kimg=0.1, batch=10)])
    assert [clock.nimg for clock in clocks] == list(range(0, 101, 10))
    assert clocks[-1] == Clock(step=10, nimg=100, samples=100, phase=1, phase_step=0, held_nimg=100)


def test_an_overshoot_shortens_the_next_phase() -> None:
    phases = [phase("a", kimg=0.1, batch=30), phase("b", kimg=0.1, batch=30), phase("c", kimg=0.05, batch=10)]
    clocks = played(phases)
    starts = {clock.phase: clock.nimg for clock in reversed(clocks)}
    assert starts == {0: 0, 1: 120, 2: 210, 3: 250}
    timeline = Timeline(phases)
    assert timeline.total_nimg == 250
    assert [timeline.start_of(i) for i in range(3)] == [0, 100, 200]
    first = next(clock for clock in clocks if clock.phase == 1)
    assert timeline.progress(first).phase_nimg == 20  # of the overshoot
    assert first.phase_step == 0


def test_an_overshoot_may_swallow_a_phase() -> None:
    clocks = played([phase("a", kimg=0.1, batch=90), phase("b", kimg=0.05), phase("c", kimg=0.05)])
    assert [(clock.nimg, clock.phase) for clock in clocks] == [(0, 0), (90, 0), (180, 2), (190, 2), (200, 3)]


def test_schedules_and_borders_are_held() -> None:
    phases = [phase("a", kimg=0.05, hold=4), phase("b", kimg=0.05, fade=True, hold=2)]
    timeline, clocks = Timeline(phases), played(phases)
    # a would end at 50, but is looked at after 4 and 8 steps only.
    assert [(c.nimg, c.held_nimg, c.phase, c.phase_step) for c in clocks] == [
        (0, 0, 0, 0), (10, 0, 0, 1), (20, 0, 0, 2), (30, 0, 0, 3), (40, 40, 0, 4), (50, 40, 0, 5), (60, 40, 0, 6),
        (70, 40, 0, 7), (80, 80, 1, 0), (90, 80, 1, 1), (100, 100, 2, 0),
    ]  # fmt: skip
    assert timeline.progress(clocks[8]).fade == timeline.progress(clocks[9]).fade == pytest.approx(0.6)
    assert timeline.progress(clocks[5]).nimg == 40
    assert timeline.progress(clocks[5]).step == 5


def test_repeats_take_samples_of_their_own() -> None:
    turns = (Turn((player("d", repeat=3), player("g"))), Turn((player("e", repeat=2),)))
    (start, first, *_) = played([phase(batch=10, turns=turns)])
    assert (start.samples, first.samples, first.nimg) == (0, 40, 10)
    assert [p.name for p in phase(turns=turns).players] == ["d", "g", "e"]


def test_progress_at_the_ends_of_a_phase() -> None:
    timeline = Timeline([phase("a", kimg=0.1), phase("b", kimg=0.05, fade=True), phase("c", kimg=0.2)])
    begin, end = timeline.at_start_of(1), timeline.at_end_of(1)
    assert (begin.phase.name, begin.nimg, begin.phase_nimg, begin.fade) == ("b", 100, 0, 0.0)
    assert (end.phase.name, end.nimg, end.phase_nimg, end.fade) == ("b", 150, 50, 1.0)
    assert timeline.at_start_of(2).fade == timeline.at_end_of(2).fade == 1.0
    assert timeline.at_end_of(2).nimg == timeline.total_nimg == 350


def test_going_on_from_any_clock_gives_the_rest() -> None:
    phases = [phase("a", kimg=0.11, hold=3), phase("b", kimg=0.07, batch=7, fade=True), phase("c", kimg=0.05, hold=2)]
    timeline, clocks = Timeline(phases), played(phases)
    for before, after in pairwise(clocks):
        assert timeline.advance(before) == after
    assert len(set(clocks)) == len(clocks)


# --------------------------------------------------------------------------------- ProGAN's phases against the original
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "short": (16, {"kimg": 0.6, "batch": 16, "batches": {16: 8}}),
    "short_single": (16, {"kimg": 0.6, "batch": 16, "batches": {16: 8}, "rampup": 0.9}),
    "v2_1gpu_short": (
        1024,
        {
            "kimg": 1.2,
            "batch": 4,
            "batches": {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4},
            "rates": {1024: 1.5e-3},
        },
    ),
}


def original_like(name: str) -> list[Phase]:
    resolution, given = SETTINGS[name]
    golden = GOLDEN["schedules"][name]
    config = ProganConfig(
        stabilize_kimg=given["kimg"],
        fade_kimg=given["kimg"],
        total_kimg=golden["total"] / 1000,
        batch_size=given["batch"],
        batch_size_by_resolution=given["batches"],
        learning_rate_by_resolution=given.get("rates", {}),
        rampup_kimg=given.get("rampup", 0.0),
        hold_steps=golden["repeats"],
    )
    return growth(config, ImageSpec(resolution), (player("discriminator"), player("generator")))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_round_is_that_of_the_original_schedule(name: str) -> None:
    """Rows of the golden file: nimg, resolution, alpha, batch, learning rate, reset; one a round of `repeats` steps."""
    golden = GOLDEN["schedules"][name]
    timeline = Timeline(original_like(name))
    clocks = played(timeline.phases)
    rounds = clocks[:-1][:: golden["repeats"]]
    assert len(rounds) == len(golden["rounds"])
    assert (len(clocks) - 1) % golden["repeats"] == 0
    before, at_border, borders = -1, False, []
    for clock, row in zip(rounds, golden["rounds"], strict=True):
        progress = timeline.progress(clock)
        ours = progress.phase
        assert progress.nimg == clock.nimg == row[0]
        after_border, at_border = at_border, ours.fade and progress.phase_nimg == 0
        reset = ours.reset_optimizers and clock.phase != before
        before = clock.phase
        if at_border:  # the accepted difference, see the next test
            assert (progress.fade, reset) == (0.0, True)
            assert (row[1], row[2], row[5]) == (ours.resolution // 2, 1.0, 0)
            borders.append(clock.nimg)
            continue
        assert [ours.resolution, ours.batch_size, int(reset or after_border)] == [row[1], row[3], row[5]]
        assert progress.fade == pytest.approx(row[2], abs=1e-12)
        for rate in ours.learning_rates.values():
            assert rate.at(progress.nimg) == pytest.approx(row[4], abs=1e-14)
    assert before == len(timeline.phases) - 1
    assert borders == ([18_000] if name == "v2_1gpu_short" else [])


def test_a_round_at_exactly_the_border_begins_the_fade_with_weight_nothing() -> None:
    """The accepted difference: there the original keeps the old resolution for one more round.

    Both compute the same function then; the new phase's learning rate and fresh moments come one round earlier here.
    """
    schedule = reference.Schedule(resolution=8, train=64, fade=64, batch=16, repeats=2)
    config = ProganConfig(
        stabilize_kimg=0.064, fade_kimg=0.064, batch_size=16, rampup_kimg=0, hold_steps=schedule.repeats
    )
    timeline = Timeline(growth(config, ImageSpec(8), (player(),)))
    rounds = played(timeline.phases)[:-1][:: schedule.repeats]
    ours = [
        (c.nimg, timeline.progress(c).phase.resolution, timeline.progress(c).fade, c.phase_step == 0) for c in rounds
    ]
    theirs = [(nimg, resolution, alpha, reset) for nimg, resolution, alpha, _, _, reset in schedule.rounds(192)]
    assert theirs == [
        (0, 4, 1, True),
        (32, 4, 1, False),
        (64, 4, 1, False),
        (96, 8, 0.5, True),
        (128, 8, 1, True),
        (160, 8, 1, False),
    ]
    assert ours == [
        (0, 4, 1, True),
        (32, 4, 1, False),
        (64, 8, 0, True),
        (96, 8, 0.5, False),
        (128, 8, 1, True),
        (160, 8, 1, False),
    ]


def test_growth_names_its_phases_and_freezes_what_it_does_not_use() -> None:
    phases = original_like("short")
    assert [p.name for p in phases] == ["train 4x4", "fade 8x8", "train 8x8", "fade 16x16", "train 16x16"]
    assert [p.kimg for p in phases] == pytest.approx([0.6] * 5)
    assert "generator.to_rgb.4" in phases[1].trains
    assert "generator.to_rgb.4" not in phases[2].trains
    assert not any(".16" in prefix for prefix in phases[2].trains)
    longer = ProganConfig(stabilize_kimg=1, fade_kimg=1, total_kimg=7)
    assert [p.kimg for p in growth(longer, ImageSpec(16), (player(),))] == [1, 1, 1, 1, 3]
    with pytest.raises(UserError, match="total_kimg: 3 is too short.*after 4 kimg"):
        growth(replace(longer, total_kimg=3), ImageSpec(16), (player(),))


# --------------------------------------------------------------------------------------------------------------- games
@dataclass
class Toy:
    phases: Sequence[Phase]
    networks: Mapping[str, nn.Module] = field(default_factory=lambda: {"net": nn.Linear(2, 2)})
    averages: Sequence[Average] = ()


def test_a_sound_game_is_accepted() -> None:
    check_game(Toy([phase("a"), phase("b", trains=("net.weight",))]))


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ([], "unique names"),
        ([phase("a"), phase("a")], "unique names.*'a', 'a'"),
        ([phase(kimg=0.0)], "'one' needs a positive length"),
        ([phase(batch=0)], "'one' needs a positive length and batch size"),
        ([phase(turns=(Turn((player(trains=("net", "nott")),)),))], "'p' trains unknown networks .'nott'."),
        ([phase(turns=(Turn((player(every=2, repeat=2),)),))], "'p' cannot both repeat and act"),
        ([phase(learning_rates={})], "no learning rate for player 'p'"),
        ([phase(trains=("net.weigh",))], "'one' trains 'net.weigh', which matches no parameter"),
    ],
)
def test_a_game_that_contradicts_itself_is_refused(phases: list[Phase], told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_game(Toy(phases))


def test_prefixes_end_at_dots() -> None:
    assert has_prefix("net.blocks.8.weight", "net.blocks.8")
    assert has_prefix("net", "net")
    assert not has_prefix("net.blocks.80.weight", "net.blocks.8")


def test_durations_as_people_read_them() -> None:
    shown = {0: "0s", -3: "0s", 59.4: "59s", 60: "1m 00s", 3599.6: "1h 00m", 12_000: "3h 20m", 190_800: "2d 05h"}
    assert {seconds: duration(seconds) for seconds in shown} == shown
