"""Clusters of instance features, against k-means in plain numpy, and draws from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from advgen.errors import UserError
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.encoder import find_instances
from advgen.games.pix2pixhd.styles import Styles, classes_of, k_means, large_instances
from advgen.seeds import Noise
from tests.games import pix2pixhd_reference as reference


def noise(*positions: int, seed: int = 1) -> Noise:
    return Noise(seed, ("test",), torch.tensor(positions))


def three_clouds(count: int = 60) -> reference.Array:
    """Points around (0, 0), (10, 0) and (0, 10)."""
    centres = np.array([(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)])
    return centres[np.arange(count) % 3] + reference.array("clouds", (count, 2))


def test_k_means_is_that_of_the_reference() -> None:
    points = reference.array("points", (80, 3))
    for start in range(3):
        uniforms = np.random.RandomState(start).uniform(size=6).tolist()
        expected, inertia = reference.k_means(points, uniforms)
        found, total = k_means(torch.from_numpy(points), uniforms)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(total, inertia, rtol=1e-12)


def test_the_best_of_the_starts_is_kept() -> None:
    points = np.unique(reference.array("points", (80, 3)), axis=0)  # in the order of their coordinates
    draws = Noise(0, ("styles", 2), torch.arange(10)).uniform("centres", 6).tolist()
    starts = [reference.k_means(points, uniforms) for uniforms in draws]
    expected, inertia = min(starts, key=lambda start: start[1])
    assert inertia not in (starts[0][1], starts[-1][1])
    styles = Styles(Pix2PixHdConfig(styles=6, encoder_features=3), classes=3).double()
    styles.fit(torch.full((80,), 2), torch.from_numpy(points), seed=0)
    np.testing.assert_allclose(styles.centres[2].numpy(), expected, rtol=0, atol=1e-12)


def test_styles_are_clustered_class_by_class() -> None:
    styles = Styles(Pix2PixHdConfig(styles=3, encoder_features=2), classes=4)
    clouds = torch.from_numpy(three_clouds()).float()
    few = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]])
    classes = torch.cat((torch.full((60,), 1), torch.full((3,), 3), torch.tensor([9, -1])))
    rows = torch.cat((clouds, few, torch.ones(2, 2)))
    styles.fit(classes, rows, seed=5)
    assert styles.counts.tolist() == [0, 3, 0, 2]
    own = sorted(styles.centres[1].tolist())
    expected = sorted(clouds[k::3].double().mean(dim=0).tolist() for k in range(3))
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-6)
    assert sorted(styles.centres[3, :2].tolist()) == [[1.0, 2.0], [3.0, 4.0]]
    before = styles.state_dict()["centres"].clone()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(rows)))
    styles.fit(classes[order], rows[order], seed=5)
    assert torch.equal(styles.centres, before)
    styles.fit(torch.tensor([2]), torch.tensor([[5.0, 6.0]]), seed=5)  # anew: nothing of before is left
    assert styles.counts.tolist() == [0, 0, 1, 0] and styles.centres.sum() == 11.0


def test_classes_of_instances_and_the_smallest_that_counts() -> None:
    ids = torch.full((2, 16, 16), 7)  # an instance counts from 5 pixels on: more than half of 256 / 32
    ids[0, 0, :4], ids[0, 1, :5] = 900, 901
    labels = torch.full_like(ids, 3)
    labels[0, 0, :4], labels[0, 1, :5], labels[1] = 26, 25, 4
    labels[1, 5, 5] = 9  # a map whose instance has two classes
    instances = find_instances(ids)
    classes = classes_of(labels, instances)
    assert instances.areas.tolist() == [247, 4, 5, 256] and classes.tolist() == [3, 26, 25, 9]
    kept, rows = large_instances(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), classes, instances)
    assert kept.tolist() == [3, 25, 9] and rows.tolist() == [[0.0], [2.0], [3.0]]


def filled() -> Styles:
    """Class 1 has two centres, 10 and 11, class 26 has one, 20."""
    styles = Styles(Pix2PixHdConfig(styles=2, encoder_features=1), classes=27)
    styles.fit(torch.tensor([1, 1, 26]), torch.tensor([[10.0], [11.0], [20.0]]), seed=0)
    return styles


def test_draws_come_from_the_instance_s_class() -> None:
    styles = filled()
    ids = torch.zeros(1, 64, 64, dtype=torch.int64)
    ids[0, 1:] = torch.arange(1000, 1000 + 63)[:, None]  # 63 instances of class 1
    ids[0, 0, 0], ids[0, 0, 1], ids[0, 0, 2] = 26_000, 27_000, -1
    instances = find_instances(ids)
    classes = classes_of(torch.where(ids < 0, ids, ids // 1000), instances)
    drawn = styles(instances, classes, noise(3))[:, 0]
    by_id = dict(zip(instances.ids.tolist(), drawn.tolist(), strict=True))
    assert by_id[26_000] == 20.0
    assert by_id[0] == by_id[27_000] == by_id[-1] == 0.0
    ones = [value for number, value in by_id.items() if 1000 <= number < 2000]
    assert set(ones) == {10.0, 11.0} and 15 < ones.count(10.0) < 48
    assert torch.equal(styles(instances, classes, noise(3))[:, 0], drawn)
    assert not torch.equal(styles(instances, classes, noise(4))[:, 0], drawn)


def test_centres_are_drawn_alike_or_as_their_clusters_are_large() -> None:
    rows = torch.tensor([[10.0]] * 9 + [[20.0]] * 3 + [[30.0]] * 4)
    classes = torch.tensor([1] * 12 + [0] * 4)
    instances = find_instances(torch.arange(4000).reshape(1, 40, 100))
    config = Pix2PixHdConfig(styles=3, encoder_features=1)
    for each, expected in ((config, 0.5), (replace(config, style_draws="proportional"), 0.75)):
        styles = Styles(each, classes=2)
        styles.fit(classes, rows, seed=0)
        drawn = styles(instances, torch.ones(4000, dtype=torch.int64), noise(3))[:, 0]
        assert set(drawn.tolist()) == {10.0, 20.0}
        assert (drawn == 10.0).double().mean().item() == pytest.approx(expected, abs=0.03)  # 4 deviations
        assert set(styles(instances, torch.zeros(4000, dtype=torch.int64), noise(3)).flatten().tolist()) == {30.0}
        cast = styles.to(torch.bfloat16)  # as `advgen sample --precision bf16` does
        assert torch.equal(cast(instances, torch.ones(4000, dtype=torch.int64), noise(3))[:, 0].float(), drawn)


def test_an_instance_keeps_its_style_whatever_else_is_in_the_map() -> None:
    styles = filled()

    def by_id(ids: torch.Tensor) -> dict[int, float]:
        instances = find_instances(ids)
        rows = styles(instances, classes_of(torch.ones_like(ids), instances), noise(3))[:, 0]
        return dict(zip(instances.ids.tolist(), rows.tolist(), strict=True))

    before = by_id(torch.arange(1000, 1064).reshape(1, 8, 8))
    assert set(before.values()) == {10.0, 11.0}
    more = by_id(
        torch.cat((torch.arange(900, 932), torch.arange(1000, 1064), torch.tensor([2**31 - 1] * 4))).reshape(1, 10, 10)
    )
    assert {i: style for i, style in more.items() if i in before} == before
    fewer = by_id(torch.arange(1000, 1064).clamp(min=1040).reshape(1, 8, 8))
    assert fewer == {i: before[i] for i in range(1040, 1064)}


def test_a_chosen_style_is_that_instance_s_alone() -> None:
    styles = filled()
    ids = torch.arange(1000, 1016).reshape(1, 4, 4)
    instances = find_instances(ids)
    classes = classes_of(torch.ones_like(ids), instances)
    before = styles(instances, classes, noise(3))[:, 0].tolist()
    for style in (0, 1):
        found = styles(instances, classes, noise(3), {1005: style})[:, 0].tolist()
        assert found == [*before[:5], float(styles.centres[1, style]), *before[6:]]


def test_choices_that_cannot_be_followed_are_told() -> None:
    styles = filled()
    ids = torch.tensor([[[5, 6, 7]]])
    instances = find_instances(ids)
    classes = classes_of(torch.tensor([[[1, 2, 0]]]), instances, ignore=0)
    styles.check(instances, classes, {5: 1})
    for chosen, message in (
        ({4: 0}, "no instance has the id 4; ids are 5, 6, 7"),
        ({5: 2}, "instance 5 is of class 1, which has the styles 0 to 1, and no 2"),
        ({5: -1}, "and no -1"),
        ({5: 1, 6: 0}, "instance 6 is of class 2, which has no styles"),
        ({7: 0}, "instance 7 is of no class, which has no styles"),
    ):
        with pytest.raises(UserError, match=message):
            styles.check(instances, classes, chosen)


def test_pixels_that_stand_for_no_class_do_not_tell_an_instance_s() -> None:
    ids = torch.tensor([[[7, 7, 7, 8, 8, 9]]])
    labels = torch.tensor([[[1, 2, 3, 3, 3, 255]]])
    instances = find_instances(ids)
    assert classes_of(labels, instances).tolist() == [3, 3, 255]
    assert classes_of(labels, instances, ignore=3).tolist() == [2, -1, 255]
    assert classes_of(labels, instances, ignore=255).tolist() == [3, 3, -1]


def test_a_draw_does_not_depend_on_the_rest_of_the_batch() -> None:
    styles = filled()
    ids = torch.stack([torch.arange(1000, 1009).reshape(3, 3), torch.arange(1003, 1012).reshape(3, 3)])
    ones = torch.ones_like(ids)
    both, alone = find_instances(ids), find_instances(ids[1:])
    both = styles(both, classes_of(ones, both), noise(4, 9))
    alone = styles(alone, classes_of(ones[1:], alone), noise(9))
    assert torch.equal(both[9:], alone)
