"""Segmenters and classifiers: trained on tiny sets, and kept in a folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advgen.data.config import FolderImages, PairedImages, ShardingConfig
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.metrics import judging
from advgen.metrics.agreement import Confusion
from advgen.metrics.classifier import (
    Classifier,
    SmallClassifier,
    classifier_lesson,
    train_classifier,
)
from advgen.metrics.judging import Lesson
from advgen.metrics.ranks import Ranks
from advgen.metrics.segmenter import (
    Segmenter,
    class_weights,
    segmenter_lesson,
    train_segmenter,
)
from tests.unit.metrics.threads import on_ranks

SIZE, COUNT = 16, 40
COLOURS = np.array([[40, 60, 160], [60, 150, 50], [190, 170, 120]])
SEGMENTER: dict[str, Any] = {"classes": 3, "ignore": 255, "resolution": SIZE, "images": 400}
CLASSIFIER: dict[str, Any] = {"classes": 3, "resolution": SIZE, "images": 400}


def segmented(stream: ImageStream, cache: Path | None = None, told: Any = None) -> Segmenter:
    return train_segmenter(segmenter_lesson(stream, **SEGMENTER), cache, told=told)


def classified(stream: ImageStream, cache: Path | None = None, told: Any = None, **settings: Any) -> Classifier:
    return train_classifier(classifier_lesson(stream, **{**CLASSIFIER, **settings}), cache, told=told)


def _stream(folder: Path, source: FolderImages | PairedImages) -> ImageStream:
    config = ShardingConfig(shard_samples=16, duplicates="keep", levels="none", workers=1)
    write_shards(open_source(source), folder, resolution=SIZE, channels=3, config=config)
    return ImageStream(folder, seed=0, resolution=SIZE, channels=3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> ImageStream:
    """Patches of three colours with noise, and their maps, in which a row stands for no class."""
    folder = tmp_path_factory.mktemp("pairs")
    draw = np.random.default_rng(0)
    for name in ("images", "maps"):
        (folder / name).mkdir()
    for index in range(COUNT):
        ids = draw.choice(3, (4, 4), p=(0.5, 0.4, 0.1)).repeat(4, 0).repeat(4, 1)
        image = COLOURS[ids] + draw.normal(0, 30, (SIZE, SIZE, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{index:02d}.png")
        ids[5] = 255
        Image.fromarray(ids.astype(np.uint8)).save(folder / "maps" / f"{index:02d}.png")
    maps = PairedImages(
        path=str(folder / "images"), label_maps=str(folder / "maps"), label_map_classes=3, ignore_label=255
    )
    return _stream(folder / "shards", maps)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> ImageStream:
    """Noise in which a bar lies, stands, or is not there."""
    folder = tmp_path_factory.mktemp("labelled")
    draw = np.random.default_rng(1)
    for label in range(3):
        (folder / "images" / str(label)).mkdir(parents=True)
        for index in range(COUNT // 2):
            image = draw.normal(90, 30, (SIZE, SIZE, 3))
            at = int(draw.integers(2, 11))
            image[at : at + 3] += 90 * (label == 1)
            image[:, at : at + 3] += 90 * (label == 2)
            name = folder / "images" / str(label) / f"{index:02d}.png"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(name)
    return _stream(folder / "shards", FolderImages(path=str(folder / "images"), labels="folders"))


def _all(stream: ImageStream) -> tuple[torch.Tensor, Any]:
    samples = stream.fetch(np.arange(len(stream)))
    return torch.from_numpy(samples.images), samples


def _segmented(segmenter: Segmenter, stream: ImageStream) -> Confusion:
    images, samples = _all(stream)
    confusion = Confusion(3, ignore=255)
    confusion.add(segmenter(images), torch.from_numpy(samples.label_map).long())
    return confusion


@pytest.fixture(scope="module")
def segmenter(pairs: ImageStream) -> Segmenter:
    return segmented(pairs)


@pytest.fixture(scope="module")
def classifier(labelled: ImageStream) -> Classifier:
    return classified(labelled)


def test_a_segmenter_learns_rare_classes_too(segmenter: Segmenter, pairs: ImageStream) -> None:
    confusion = _segmented(segmenter, pairs)
    assert confusion.count == COUNT * SIZE * (SIZE - 1)
    assert confusion.pixel_accuracy > 0.9 and confusion.iou.min() > 0.5, confusion.iou  # chance: half the pixels


def test_a_classifier_learns(classifier: Classifier, labelled: ImageStream) -> None:
    images, samples = _all(labelled)
    found, logits = classifier(images), classifier.logits(images)
    assert found.dtype == torch.int64 and logits.dtype == torch.float32 and logits.shape == (len(images), 3)
    assert torch.equal(found, logits.argmax(1))
    assert (found == torch.from_numpy(samples.labels)).double().mean() > 0.85
    assert classifier(images[:0]).shape == (0,)


def test_the_same_judge_comes_of_the_same_seed_whatever_else_draws(
    segmenter: Segmenter, classifier: Classifier, pairs: ImageStream, labelled: ImageStream
) -> None:
    images = _all(pairs)[0]
    state, told = torch.random.get_rng_state(), []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):  # as an evaluation may call it
        again = segmented(pairs, told=lambda *done: told.append(done))
        other = classified(labelled)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert told[0] == (16, 400) and told[-1] == (400, 400) and len(told) == 25
    assert again.identity == segmenter.identity and torch.equal(again(images), segmenter(images))
    assert other.identity == classifier.identity and torch.equal(other.logits(images), classifier.logits(images))
    torch.manual_seed(5)
    first = classified(labelled, images=64)
    torch.manual_seed(6)
    assert classified(labelled, images=64).identity == first.identity
    hashes = {first.identity["weights_sha256"]}
    changes: list[dict[str, Any]] = [{"seed": 1}, {"images": 65}, {"mirror": True}]
    for change in changes:
        hashes.add(classified(labelled, **{"images": 64, **change}).identity["weights_sha256"])
    assert len(hashes) == 4


def test_a_judge_says_what_it_depends_on(segmenter: Segmenter, pairs: ImageStream) -> None:
    identity = segmenter.identity
    assert identity.pop("weights_sha256") == judging.weights_digest(segmenter._network.state_dict())
    assert identity == {
        "name": "advgen segmenter",
        "version": 1,
        "manifest": pairs.manifest.digest,
        "classes": 3,
        "ignore": 255,
        "resolution": SIZE,
        "seed": 0,
        "images": 400,
        "mirror": 1,
    }


def test_an_epoch_shows_each_image_once_and_another_order_follows(labelled: ImageStream) -> None:
    lesson = Lesson("x", labelled, 3, None, SIZE, 0, 200, 16, 1e-3, False)
    count = len(labelled)
    known = {image.tobytes() for image in _all(labelled)[1].images}
    parts = [lesson.samples(start, start + 25) for start in range(0, 2 * count - 20, 25)]
    images = [image.tobytes() for part in parts for image in part.images]
    assert len(known) == count and set(images[:count]) == known
    assert images[:count] != images[count : 2 * count] and len(set(images[count:])) == len(images[count:])


def test_classes_weigh_by_the_root_of_their_rarity(pairs: ImageStream) -> None:
    lesson = Lesson("x", pairs, 3, 0, SIZE, 0, 1000, 16, 1e-3, False)
    ids = _all(pairs)[1].label_map
    counts = np.array([(ids == each).sum() for each in range(3)], np.float64)
    for ignore in (255, 0):
        weights = class_weights(Lesson("x", pairs, 3, ignore, SIZE, 0, 1000, 16, 1e-3, False)).double().numpy()
        shares = np.where(np.arange(3) == ignore, 0.0, counts)
        shares /= shares.sum()
        np.testing.assert_allclose(weights[1] / weights[2], np.sqrt(shares[2] / shares[1]), rtol=1e-6)
        np.testing.assert_allclose((weights * shares).sum(), 1.0, rtol=1e-6)
    assert lesson.identity["ignore"] == 0


def test_the_loss_is_the_weighted_mean_over_what_is_of_a_class() -> None:
    draw = np.random.default_rng(2)
    logits, ids = draw.normal(size=(2, 3, 4, 5)), draw.integers(-1, 5, (2, 4, 5))
    weights = np.array([0.5, 1.0, 3.0])
    total = weight = 0.0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                if (label := ids[n, y, x]) in (0, 2):
                    row = logits[n, :, y, x]
                    total -= weights[label] * (row[label] - np.log(np.exp(row).sum()))
                    weight += weights[label]
    given = torch.from_numpy(logits), torch.from_numpy(ids), torch.from_numpy(weights)
    assert float(judging._loss(*given, ignore=1)) == pytest.approx(total / weight, rel=1e-12)
    assert float(judging._loss(given[0], torch.full_like(given[1], 255), given[2], None)) == 0.0


@pytest.mark.parametrize("size", [(16, 16), (5, 7), (40, 72), (1, 1)])
def test_pictures_of_any_size_are_segmented(segmenter: Segmenter, size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (9, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = segmenter(images)
    assert found.shape == (9, *size) and found.dtype == torch.int64 and 0 <= found.min() <= found.max() <= 2
    assert torch.equal(segmenter(images[:1])[0], found[0])
    grey = images[:, :1]
    assert torch.equal(segmenter(grey), segmenter(grey.repeat(1, 3, 1, 1)))
    assert segmenter(images[:0]).shape == (0, *size)


def test_a_trained_judge_is_kept_and_read_again(
    tmp_path: Path, pairs: ImageStream, labelled: ImageStream, segmenter: Segmenter, classifier: Classifier
) -> None:
    images = _all(pairs)[0]
    cache = tmp_path / "new" / "cache"
    for judge, make in (
        (segmenter, lambda told: segmented(pairs, cache, told)),
        (classifier, lambda told: classified(labelled, cache, told)),
    ):
        told: list[Any] = []
        first = make(lambda *done, told=told: told.append(done))
        assert told.pop() == (400, 400)
        told.clear()
        before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        second = make(lambda *done, told=told: told.append(done))
        assert not told and {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
        for each in (first, second):
            assert each.identity == judge.identity and torch.equal(each(images), judge(images))
    assert len(list(cache.glob("*.safetensors"))) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


def _foreign(path: Path) -> None:
    path.write_text("no tensors")


@pytest.mark.parametrize("damage", [_cut, _flip, _foreign])
def test_a_damaged_file_is_trained_anew(
    tmp_path: Path, labelled: ImageStream, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    first = classified(labelled, tmp_path, images=32)
    (path,) = tmp_path.glob("*.safetensors")
    whole = {file: file.read_bytes() for file in tmp_path.iterdir()}
    damage(path)
    told: list[Any] = []
    with caplog.at_level(logging.WARNING):
        again = classified(labelled, tmp_path, lambda *done: told.append(done), images=32)
    assert "damaged" in caplog.text and told and again.identity == first.identity
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == whole


def test_other_arguments_are_another_file_and_one_in_its_place_is_not_used(
    tmp_path: Path, labelled: ImageStream, caplog: pytest.LogCaptureFixture
) -> None:
    classified(labelled, tmp_path, images=32)
    (first,) = tmp_path.glob("*.safetensors")
    other = classified(labelled, tmp_path, images=32, seed=1)
    (second,) = set(tmp_path.glob("*.safetensors")) - {first}
    second.write_bytes(first.read_bytes())
    again = classified(labelled, tmp_path, images=32, seed=1)
    assert "differs from the recorded one" in caplog.text and again.identity == other.identity


def test_a_cache_that_cannot_be_written_costs_only_the_next_training(
    tmp_path: Path, labelled: ImageStream, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    judge = classified(labelled, tmp_path / "file", images=32)
    assert "could not be stored" in caplog.text and isinstance(judge, Classifier)


def test_without_labels_nothing_can_be_trained(pairs: ImageStream, labelled: ImageStream) -> None:
    with pytest.raises(UserError, match="has no label maps"):
        segmented(labelled)
    with pytest.raises(UserError, match="has no labels"):
        classified(pairs)


def test_first_weights_are_normal_by_fan_in_and_their_own() -> None:
    made = [judging.untrained(lambda: SmallClassifier(10, 32), seed, "x").state_dict() for seed in (0, 0, 1)]
    assert judging.weights_digest(made[0]) == judging.weights_digest(made[1]) != judging.weights_digest(made[2])
    for name, value in made[0].items():
        if value.ndim > 1:
            assert float(value.std()) == pytest.approx((2 / value[0].numel()) ** 0.5, rel=0.1), name
            assert not any(torch.equal(value, other) for key, other in made[0].items() if key != name)
        else:
            assert (value == float(name.endswith("weight"))).all(), name


def test_the_learning_rate_rises_shortly_and_falls_to_nothing() -> None:
    rates = [judging._rate(done) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0, 0.5, 0.0], atol=1e-12)


def test_an_image_and_its_map_are_mirrored_alike() -> None:
    images, ids = torch.arange(24).reshape(2, 1, 3, 4), torch.arange(24).reshape(2, 3, 4)
    flips = torch.tensor([False, True])
    found = judging._mirrored(images, flips)
    assert torch.equal(found[0], images[0]) and torch.equal(found[1, :, :, 0], images[1, :, :, 3])
    assert torch.equal(judging._mirrored(ids, flips), found[:, 0])


def test_the_first_rank_trains_the_judge_of_all(labelled: ImageStream, tmp_path: Path) -> None:
    """The others have a disk of their own, and hold the same in the end."""
    lesson = classifier_lesson(labelled, 3, resolution=SIZE, images=96)
    steps: list[tuple[int, int]] = []

    def trained(ranks: Ranks) -> dict[str, Any]:
        def told(done: int, total: int) -> None:
            steps.append((ranks.index, done))

        return train_classifier(lesson, tmp_path / f"disk-of-{ranks.index}", "cpu", told, ranks).identity

    found = on_ranks(3, trained)
    assert steps == [(0, 32), (0, 64), (0, 96)]
    assert on_ranks(2, trained) == found[:2] and len(steps) == 3, "what is there is not trained again"
    assert found == [train_classifier(lesson).identity] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["disk-of-0"]
