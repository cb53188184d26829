"""Metrics of what pictures were to show: judges look at them, and are held against the labels and maps they are of.

The floor is what the same judge makes of held-out real images. A judge is the user's, or is trained on the training
images at the resolution of the pictures, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.metrics.agreement import Confusion
from advgen.metrics.classifier import IMAGES as CLASSIFIER_IMAGES
from advgen.metrics.classifier import Classifier, classifier_lesson, load_classifier, train_classifier
from advgen.metrics.diversity import StyleDiversity
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.segmenter import IMAGES as SEGMENTER_IMAGES
from advgen.metrics.segmenter import Segmenter, load_segmenter, segmenter_lesson, train_segmenter

CONDITIONS, STYLES = 64, 4
"""Of how many conditions several pictures are drawn, and how many of each."""

Look = Segmenter | Classifier


def agreement(bench: Bench) -> Judged:
    """``miou`` and ``pixel_accuracy``: a segmenter against the label maps.

    Raises:
        UserError: the data have no label maps.
    """
    classes = bench.spec.label_map_classes
    bench.require(classes, ("miou", "pixel_accuracy"), "label maps", "data.label_map_classes")
    return Judged(bench, "segmenter", segmenter, lambda pictures: pictures.label_map, classes)


def recognition(bench: Bench) -> Judged:
    """``recognised`` and ``reconstruction_recognised``: a classifier against the classes that pictures are to be of.

    Raises:
        UserError: the data have no classes.
    """
    names = ("recognised", "reconstruction_recognised")
    bench.require(bench.spec.classes, names, "classes", "data.classes")
    return Judged(bench, "classifier", classifier, lambda pictures: pictures.labels, bench.spec.classes)


def segmenter(bench: Bench, resolution: int) -> Segmenter:
    """The one that the recipe names, or one that is trained."""
    config, classes = bench.config, bench.spec.label_map_classes
    if bench.files.segmenter is not None:
        return load_segmenter(bench.files.segmenter, classes)
    lesson = segmenter_lesson(
        _images(bench),
        classes,
        bench.files.ignore_label,
        resolution=resolution,
        seed=config.seed,
        images=config.judge_images or SEGMENTER_IMAGES,
    )
    return train_segmenter(lesson, Path(config.cache), bench.device, bench.learned, bench.reference.ranks)


def classifier(bench: Bench, resolution: int) -> Classifier:
    """The one that the recipe names, or one that is trained."""
    config, classes = bench.config, bench.spec.classes
    if bench.files.classifier is not None:
        return load_classifier(bench.files.classifier, classes)
    images = config.judge_images or CLASSIFIER_IMAGES
    lesson = classifier_lesson(_images(bench), classes, resolution=resolution, seed=config.seed, images=images)
    return train_classifier(lesson, Path(config.cache), bench.device, bench.learned, bench.reference.ranks)


def _images(bench: Bench) -> ImageStream:
    stream = bench.reference.stream
    assert isinstance(stream, ImageStream), "metrics of images are refused for points"
    return stream


class Judged:
    """Figures of a judge's answers. By class: intersection over union for ``miou``, else the share that is right."""

    def __init__(
        self,
        bench: Bench,
        kind: str,
        judge: Callable[[Bench, int], Look],
        truth: Callable[[Pictures], Tensor | None],
        classes: int,
    ) -> None:
        self.samples, self.truth, self.classes = bench.config.samples, truth, classes
        self.ignore = bench.files.ignore_label if kind == "segmenter" else None
        self._bench, self._kind, self._make = bench, kind, judge
        self._judges: dict[int, Look] = {}

    def judge(self, resolution: int) -> Look:
        """The judge of pictures of one height."""
        if resolution not in self._judges:
            self._judges[resolution] = self._make(self._bench, resolution)
        return self._judges[resolution]

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The judge's identity; it is trained here, where that was not done before."""
        return {self._kind: self.judge(resolution).identity}

    def start(self, resolution: int, names: Collection[str]) -> _Answers:
        """Nothing seen yet."""
        return _Answers(self, self.judge(resolution), names)


class _Answers:
    def __init__(self, measure: Judged, judge: Look, names: Collection[str]) -> None:
        self._judge, self._truth, self._names = judge, measure.truth, names
        self._confusion = Confusion(measure.classes, measure.ignore)

    def add(self, pictures: Pictures) -> None:
        truth = self._truth(pictures)
        assert truth is not None
        self._confusion.add(self._judge(pictures.images), truth)

    def gather(self, ranks: Ranks) -> None:
        self._confusion.matrix = ranks.total(self._confusion.matrix)

    def results(self) -> dict[str, Result]:
        confusion = self._confusion
        if not confusion.count:
            raise UserError(f"{', '.join(self._names)}: what the pictures were to show is of no class, at any place.")
        truths = confusion.matrix.sum(1)
        right = confusion.matrix.diagonal() / truths
        found: dict[str, Result] = {}
        for name in self._names:
            overall, by_class = confusion.pixel_accuracy, right
            if name == "miou":
                overall, by_class = confusion.mean_iou, confusion.iou
            rows = zip(by_class.tolist(), truths.tolist(), strict=True)
            found[name] = Result(overall, tuple(value if there else None for value, there in rows))
        return found


class Styles:
    """``style_diversity``: how far pictures of one condition lie apart; 0 for a game that paints one of each.

    Raises:
        UserError: the data have neither labels nor maps.
    """

    def __init__(self, bench: Bench) -> None:
        setting = "data.label_map_classes or data.classes"
        bench.require(bench.spec.conditional, ("style_diversity",), "label maps and classes", setting)
        self.samples = min(bench.config.samples, CONDITIONS)
        self._distance = StyleDiversity()

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The features' identity, and how many pictures there are of a condition."""
        return {"extractor": self._distance.identity, "styles": STYLES}

    def start(self, resolution: int, names: Collection[str]) -> _Spread:
        """Nothing seen yet."""
        return _Spread(self._distance, names)


class _Spread:
    def __init__(self, distance: StyleDiversity, names: Collection[str]) -> None:
        self._distance, self._names = distance, names
        self._found: list[float] = []

    def add(self, pictures: Pictures) -> None:
        assert pictures.again is not None
        drawn = [pictures.images, *(pictures.again(number) for number in range(1, STYLES))]
        self._found += [self._distance(styles) for styles in torch.stack(drawn, 1)]

    def gather(self, ranks: Ranks) -> None:
        self._found = ranks.rows(torch.tensor(self._found, dtype=torch.float64)).tolist()

    def results(self) -> dict[str, Result]:
        return dict.fromkeys(self._names, Result(sum(self._found) / len(self._found)))
