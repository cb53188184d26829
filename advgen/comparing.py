"""Metrics of images that belong to no run: a folder's, or shards', against the images of other shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from advgen.data.image_folder import ImageFolder
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.evaluation import Told
from advgen.game import ImageSpec
from advgen.metrics import MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench
from advgen.metrics.panel import Panel
from advgen.metrics.protocols import Asked, asked
from advgen.metrics.ranks import Ranks, flags_of_first
from advgen.metrics.reals import Reals
from advgen.metrics.records import Record, Records, figures_of, record_of_images


class Comparison:
    """Takes metrics of images against a reference; labels and maps are not looked at.

    Args:
        reference: the real images.
        config: the evaluation's settings; its ``metrics`` are taken.
        files: that metrics need.
        device: where it is computed.
        ranks: among which the work is cut.
    """

    def __init__(
        self, reference: ImageStream, config: EvaluationConfig, files: MetricFiles, device: torch.device, ranks: Ranks
    ) -> None:
        manifest = reference.manifest
        spec = ImageSpec(manifest.height, manifest.channels, width=manifest.width)
        self._reference, self._config, self._ranks = reference, config, ranks
        self._wanted = asked(config.metrics)
        for each in self._wanted:
            if each.metric.of != "samples" or not each.metric.floor or each.metric.data != "images":
                raise UserError(f"{each.name}: is taken of a game's own images, not of a set of them. Leave it out.")

        def chosen(stream: ImageStream | ImageFolder, count: int | None) -> Reals:
            return Reals(stream, count or len(stream), config, device, labelled=False, ranks=ranks)

        self._chosen = chosen
        bench = Bench(config, files, spec, chosen(reference, config.reference_samples), None)
        self._panel = Panel(bench, partial(chosen, reference), ranks)

    def run(self, images: ImageStream | ImageFolder, resolution: int, out: Path | None, told: Told) -> None:
        """Take the metrics; a collective.

        Args:
            images: that are compared with the reference.
            resolution: height at which both are looked at.
            out: file of records, where what is there is not taken again; None keeps none.
            told: is called, on the first rank, with each record.

        Raises:
            UserError: the images or the reference cannot be had at that height, or are too few.
        """
        self._check(images, resolution)
        records = Records(out) if out is not None and self._ranks.index == 0 else None
        wanted = {each: self._record(each, images, resolution) for each in self._wanted}
        known = {each: None if records is None else records.find(record) for each, record in wanted.items()}
        there = flags_of_first([record is not None for record in known.values()], self._ranks)
        counts = {each: self._count(each) for each, before in zip(wanted, there, strict=True) if not before}
        results = self._panel.take(counts, lambda n: self._chosen(images, n).own_pictures(resolution), resolution)
        for each, record in wanted.items():
            before = known[each]
            if self._ranks.index == 0:
                if before is None:
                    result = results[each.name]
                    record = record | figures_of(result) if records is None else records.add(record, result)
                told(before or record, before is not None)

    def prepare(self, resolution: int) -> dict[str, Path | None]:
        """Compute what is kept of the reference; a collective.

        Returns:
            The file by the names of figures; None where nothing is kept.

        Raises:
            UserError: the reference cannot be had at that height, or is too small.
        """
        _check_level(self._reference, self._reference.manifest.height, resolution)
        return {each.name: self._panel.prepare(each, resolution) for each in self._wanted}

    def _check(self, images: ImageStream | ImageFolder, resolution: int) -> None:
        reference = self._reference.manifest
        height, width = (images.height, images.width) if isinstance(images, ImageFolder) else _size(images)
        if height * reference.width != width * reference.height:
            raise UserError(
                f"{images}: has images of {width} x {height} pixels, and {self._reference} of {reference.width} x "
                f"{reference.height}: another shape. Name a reference that was cut alike."
            )
        _check_level(images, height, resolution)
        _check_level(self._reference, reference.height, resolution)
        for each in self._wanted:
            if resolution < each.metric.smallest:
                raise UserError(
                    f"{each.name}: is taken of images from {each.metric.smallest} pixels on, not of "
                    f"{resolution}. Leave it out, or name larger ones."
                )
            if self._count(each) > len(images):
                raise UserError(
                    f"{each.name}: is of {self._count(each):,} images, and {images} holds {len(images):,}. Name more "
                    "images, or take the metric by its own name with --samples."
                )

    def _count(self, wanted: Asked) -> int:
        return self._panel.measure(wanted).samples

    def _record(self, wanted: Asked, images: ImageStream | ImageFolder, resolution: int) -> Record:
        kind = "folder" if isinstance(images, ImageFolder) else "shards"
        shown: dict[str, Any] = {"samples": self._count(wanted), "images": f"{kind} {images.digest}", "weights": "none"}
        return record_of_images(wanted.name, kind, resolution, self._panel.protocol(wanted, resolution) | shown)


def _size(stream: ImageStream) -> tuple[int, int]:
    return stream.manifest.height, stream.manifest.width


def _check_level(stream: ImageStream | ImageFolder, height: int, resolution: int) -> None:
    """Refuse a height that is not that of the images divided by a power of two."""
    factor = height // resolution if resolution > 0 else 0
    if factor * resolution != height or factor & (factor - 1):
        raise UserError(
            f"{stream}: its images are {height} pixels high and cannot be looked at with {resolution}: only at that "
            "height divided by a power of two. Name another with --resolution, or shards of another size."
        )
