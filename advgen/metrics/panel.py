"""The figures that an evaluation asks for: their measures, and the passes in which these are shown pictures.

Figures of equal counts share one pass, so that pictures are drawn, and their features taken, once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from advgen.errors import UserError
from advgen.metrics.measures import Bench, Measure, Prepares, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.protocols import Asked, Counts
from advgen.metrics.ranks import Ranks
from advgen.metrics.reals import Reals

Show = Callable[[int], Iterator[Pictures]]
"""This rank's slice of so many pictures, in batches."""


class Panel:
    """Makes measures as they are asked for.

    Args:
        bench: with the evaluation's own counts.
        reals: so many of the images that fakes are set against; None for all.
        ranks: that are shown slices.
    """

    def __init__(self, bench: Bench, reals: Callable[[int | None], Reals], ranks: Ranks) -> None:
        self._bench, self._reals, self._ranks = bench, reals, ranks
        self._benches: dict[Counts | None, Bench] = {None: bench}
        self._measures: dict[tuple[Counts | None, Callable[[Bench], Measure]], Measure] = {}

    def bench(self, asked: Asked) -> Bench:
        """What the figure's measure is made from, by its counts.

        Raises:
            UserError: there are fewer real images than its protocol wants.
        """
        counts = asked.counts
        if counts not in self._benches:
            assert counts is not None
            reference = self._reals(counts.reference)
            if counts.reference is not None and reference.count < counts.reference:
                raise UserError(
                    f"{asked.protocol}: is of {counts.reference:,} real images, and {reference.stream} has "
                    f"{reference.count:,}. Take the metric by its own name ({asked.metric.name}), with "
                    "evaluation.samples and evaluation.reference_samples; its records say the counts."
                )
            self._benches[counts] = self._bench.counted(counts.samples, reference)
        return self._benches[counts]

    def measure(self, asked: Asked) -> Measure:
        """What takes a figure; one for all figures that share it.

        Raises:
            UserError: a file is missing, the metric does not apply to the data, or there are too few images.
        """
        key = asked.counts, asked.metric.measure
        if key not in self._measures:
            self._measures[key] = asked.metric.measure(self.bench(asked))
        return self._measures[key]

    def protocol(self, asked: Asked, resolution: int) -> dict[str, Any]:
        """What all records of a figure at a resolution share."""
        reference = self.bench(asked).reference
        named = {} if asked.protocol is None else {"name": asked.protocol, "values": "uint8 0..255"}
        return {
            **named,
            "reference": reference.stream.digest,
            "reference_samples": reference.count,
            "resolution": resolution,
            "seed": self._bench.config.seed,
            **self.measure(asked).protocol(asked.metric.name, resolution),
        }

    def prepare(self, asked: Asked, resolution: int) -> Path | None:
        """Compute what a figure's measure keeps of the reference; its file, or None. A collective."""
        measure = self.measure(asked)
        return measure.prepare(resolution) if isinstance(measure, Prepares) else None

    def take(self, wanted: Mapping[Asked, int], show: Show, resolution: int) -> dict[str, Result]:
        """Show pictures to the measures; a collective.

        Args:
            wanted: so many pictures for each figure.
            show: shows them.
            resolution: their height.

        Returns:
            The figures, by the names of their records, the same on every rank.
        """
        found: dict[str, Result] = {}
        for count in dict.fromkeys(wanted.values()):
            measures: dict[Measure, list[Asked]] = {}
            for asked in (each for each, pictures in wanted.items() if pictures == count):
                measures.setdefault(self.measure(asked), []).append(asked)
            tallies = {
                measure: measure.start(resolution, [asked.metric.name for asked in group])
                for measure, group in measures.items()
            }
            for pictures in show(count):
                for tally in tallies.values():
                    tally.add(pictures)
            for measure, tally in tallies.items():
                tally.gather(self._ranks)
                results = tally.results()
                found |= {asked.name: results[asked.metric.name] for asked in measures[measure]}
        return found
