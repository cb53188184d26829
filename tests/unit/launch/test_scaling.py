"""The cost model of a step on n ranks, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advgen.launch.scaling import (
    MIB,
    Collective,
    Compute,
    Link,
    Network,
    Work,
    ddp_buckets,
    fit_compute,
    fit_line,
    fit_link,
    step_time,
    wire_bytes,
)

FLAT = Network(Link(100.0, 0.5), Link(1.0, 1.0))
NODES = Network(Link(100.0, 0.5), Link(10.0, 2.0), ranks_per_node=4, start_seconds=0.25)


def test_ring_on_one_node() -> None:
    # Six hops of half a second, and three quarters of 400 bytes twice.
    assert FLAT.seconds("all_reduce", 400, 4) == pytest.approx(6 * 0.5 + 2 * 300 / 100)
    assert FLAT.seconds("all_gather", 400, 4) == pytest.approx(3 * 0.5 + 300 / 100)
    assert FLAT.seconds("all_reduce", 400, 1) == 0.0


def test_reduce_scatter_and_all_gather_are_an_all_reduce() -> None:
    for ranks in (2, 4, 8, 64):
        halves = [NODES.seconds(kind, 1000, ranks) - 0.25 for kind in ("reduce_scatter", "all_gather")]
        assert sum(halves) == pytest.approx(NODES.seconds("all_reduce", 1000, ranks) - 0.25)


def test_several_nodes() -> None:
    # Inside: 3 hops and 3/4 of 400 bytes; between 2 nodes: one hop, and half of the quarter that a rank has.
    expected = 0.25 + 2 * (3 * 0.5 + 300 / 100) + 2 * (2.0 + 50 / 10)
    assert NODES.seconds("all_reduce", 400, 8) == pytest.approx(expected)
    # Four times the nodes: latency grows by the logarithm, bytes to their limit.
    grown = 0.25 + 2 * (3 * 0.5 + 300 / 100) + 2 * (3 * 2.0 + 7 / 8 * 100 / 10)
    assert NODES.seconds("all_reduce", 400, 32) == pytest.approx(grown)


def test_wire_bytes() -> None:
    assert wire_bytes("all_reduce", 100, 4) == 150
    assert wire_bytes("all_gather", 100, 4) == 75
    assert wire_bytes("all_reduce", 100, 1) == 0


def test_buckets_cover_all_gradients_once() -> None:
    size = 60 * MIB + 4
    buckets = ddp_buckets(size, 25, 0.4)
    assert [bucket.size for bucket in buckets] == [MIB, 25 * MIB, 25 * MIB, 9 * MIB + 4]
    assert buckets[-1].ready == 1.0
    assert buckets[0].ready == pytest.approx(0.4 + 0.6 / 60, rel=1e-4)


def test_exposed_is_what_comes_after_the_computation() -> None:
    compute = Compute(fixed_seconds=2.0, seconds_per_image=1.0)
    # 10 s of computation; each all-reduce takes 2 (0.5 + 100 / 2 / 100) = 2 s.
    early = [Collective("all_reduce", 100, ready=0.5), Collective("all_reduce", 100, ready=0.6)]
    time = step_time(compute, [Work(1.0, early)], FLAT, 2, 8)
    assert (time.compute, time.communication, time.exposed) == pytest.approx((10.0, 4.0, 0.0))
    # The second can begin at 9 s, the third waits for it.
    late = [early[0], Collective("all_reduce", 100, ready=0.9), Collective("all_reduce", 100, ready=1.0)]
    assert step_time(compute, [Work(1.0, late)], FLAT, 2, 8).exposed == pytest.approx(3.0)
    assert step_time(
        compute, [Work(1.0, [replace(each, ready=1.0) for each in late])], FLAT, 2, 8
    ).seconds == pytest.approx(16.0)
    # Of two players each can hide only behind itself.
    two = [Work(0.5, late), Work(0.5, early)]
    assert step_time(compute, two, FLAT, 2, 8).exposed == pytest.approx(3.5 + 1.5)


def test_rare_collectives_count_by_their_share() -> None:
    works = [Work(1.0, [Collective("all_reduce", 100, every=10)])]
    assert step_time(Compute(1.0, 0.0), works, FLAT, 2, 1).exposed == pytest.approx(0.2)


def test_ranks_that_share_cores_take_turns_and_hide_nothing() -> None:
    compute, works = Compute(2.0, 1.0), [Work(1.0, [Collective("all_reduce", 100, ready=0.0)])]
    time = step_time(compute, works, FLAT, 4, 2, cores=1)
    assert time.compute == pytest.approx(16.0)
    assert time.exposed == pytest.approx(FLAT.seconds("all_reduce", 100, 4))
    alone = step_time(compute, works, FLAT, 4, 2, cores=4)
    assert (alone.compute, alone.exposed) == (pytest.approx(4.0), pytest.approx(FLAT.seconds("all_reduce", 100, 4) - 4))


def test_fits_find_what_the_model_made() -> None:
    sizes = (1000, 100_000, 10_000_000)
    link = Link(3e8, 2e-5)
    pings = [(size, Network(link, link).seconds("all_reduce", size, 4)) for size in sizes]
    found = fit_link(pings, 4)
    assert found.bytes_per_second == pytest.approx(3e8)
    assert found.latency_seconds == pytest.approx(2e-5)
    compute = fit_compute([(2, 0.7), (4, 1.1), (8, 1.9)])
    assert (compute.fixed_seconds, compute.seconds_per_image) == pytest.approx((0.3, 0.2))


def test_fits_of_what_no_line_meets() -> None:
    intercept, slope = fit_line([(1, 1.0), (2, 4.0)])  # a line through both would begin below 0
    assert intercept == 0.0
    assert slope == pytest.approx((1.0 + 2 * 4 / 16) / (1.0 + 4 / 16))
    with pytest.raises(ValueError, match="two different x"):
        fit_line([(1, 1.0), (1, 2.0)])
    with pytest.raises(ValueError, match="no bandwidth"):
        fit_link([(1, 2.0), (100, 1.0)], 2)
