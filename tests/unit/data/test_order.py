from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advgen.data.order import Balanced, Mixture, Shuffled

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(max_examples=80, deadline=None)
@given(sizes, st.integers(1, 5), st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 9))
def test_every_epoch_shows_every_sample_once(sizes: list[int], block: int, lanes: int, seed: int) -> None:
    n = sum(sizes)
    order = Shuffled(seed, sizes, block, lanes)
    for epoch in range(3):
        indices = order.index_of(np.arange(epoch * n, (epoch + 1) * n))
        assert sorted(indices.tolist()) == list(range(n))


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 4), st.sampled_from([1, 2, 6]), st.data())
def test_the_order_is_the_same_however_it_is_asked_for(sizes: list[int], block: int, lanes: int, data) -> None:
    n = 3 * sum(sizes)
    whole = Shuffled(1, sizes, block, lanes).index_of(np.arange(n))
    asked = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), np.int64)
    assert (Shuffled(1, sizes, block, lanes).index_of(asked) == whole[asked]).all()


@pytest.mark.parametrize("nodes", [1, 2, 3, 6])
def test_a_node_reads_only_its_lanes_in_every_epoch(nodes: int) -> None:
    sizes = np.random.RandomState(0).randint(50, 150, 60)
    sizes[0] += 1
    shard_of = np.repeat(np.arange(60), sizes)
    order, n = Shuffled(4, sizes.tolist(), 4, lanes=6), int(sizes.sum())
    assert n % 6  # epochs begin in the middle of the round
    for node in range(nodes):
        seen = [set(shard_of[order.index_of(np.arange(node, 4 * n, nodes))].tolist())]
        # Its share, and the shards that lie across the border to the next lane.
        assert len(seen[0]) <= 60 / nodes + 2 * 6 / nodes


def test_the_shards_of_a_block_and_the_next_are_known_before() -> None:
    sizes = [7, 3, 9, 4, 6, 8]
    shard_of = np.repeat(np.arange(6), sizes)
    for lanes in (1, 2):
        order = Shuffled(5, sizes, 2, lanes)
        for position in range(80):
            now, later = order.shards_near(position)
            assert shard_of[order.index_of(np.array([position]))[0]] in now
            after = [order.shards_near(p)[0] for p in range(position, position + 40, lanes)]
            assert later == now or next((shards for shards in after if shards != now), later) == later


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=40))
def test_balanced_shows_each_class_equally_and_each_sample_in_turn(drawn: list[int]) -> None:
    labels = np.array([0, 1, 2, 3, *drawn])
    order = Balanced(0, labels, 4, [len(labels)])
    indices = order.index_of(np.arange(4 * 60))
    assert (np.bincount(labels[indices], minlength=4) == 60).all()
    assert (np.sort(labels[indices].reshape(-1, 4), 1) == np.arange(4)).all()
    for label in range(4):
        mine, members = indices[labels[indices] == label], np.flatnonzero(labels == label)
        whole = mine[: len(mine) // len(members) * len(members)].reshape(-1, len(members))
        assert (np.sort(whole, 1) == members).all()
    assert (order.index_of(np.array([17, 3, 99])) == indices[[17, 3, 99]]).all()


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, 0.2, 0.1], [1.0, 100.0, 3.3]])
def test_a_mixture_holds_its_weights_and_counts_each_set(weights: list[float], lanes: int) -> None:
    mixture = Mixture(3, weights, lanes)
    positions = np.arange(40 * 1024 * lanes)
    sets, within = mixture.split(positions)
    share = np.array(weights) / sum(weights) * len(positions)
    assert np.abs(np.bincount(sets, minlength=len(weights)) - share).max() <= 2 * lanes
    for number in range(len(weights)):
        for lane in range(lanes):
            mine = within[(sets == number) & (positions % lanes == lane)]
            assert (mine == lane + lanes * np.arange(len(mine))).all()
    some = np.array([5, 70_000, 123, 5])[: 4 if lanes > 1 else 1]
    assert (mixture.split(some)[0] == sets[some]).all() and (mixture.split(some)[1] == within[some]).all()


def test_a_weight_that_would_hardly_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1/1024"):
        Mixture(0, [1.0, 10_000.0])


@pytest.mark.parametrize(
    ("blocks", "gap", "distinct"), [(1, 0.03, 1.6), (4, 0.79, 4.5), (16, 0.97, 15.8), (64, 1.0, 40.9)]
)
def test_mixing_quality(blocks: int, gap: float, distinct: float) -> None:
    """The table in docs/data.md: how far apart neighbours lie in the set, and how many shards a batch comes from."""
    sizes, n, seeds = [100] * 64, 6400, range(10)
    orders = [Shuffled(seed, sizes, blocks).index_of(np.arange(n)) for seed in seeds]
    # Two places drawn at random lie n / 3 apart.
    assert np.mean([np.abs(np.diff(order)).mean() for order in orders]) / (n / 3) == pytest.approx(gap, abs=0.01)
    batches = [order[start : start + 64] // 100 for order in orders for start in range(0, n, 64)]
    assert np.mean([len(set(batch.tolist())) for batch in batches]) == pytest.approx(distinct, abs=0.1)
