"""The seam between the evaluator and its metrics.

The evaluator draws pictures batch by batch and shows each batch to every metric that still needs it, so that the fakes
of a view are generated once. A metric, or several that share their work, is a :class:`Measure`, made once for an
evaluation; for each set of pictures it starts a :class:`Tally`, which is fed and then gives its figures. Whether the
pictures are generated or real (the floor) makes no difference to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics import MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.features import Extractor
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.reals import Reals

Learned = Callable[[int, int], None]
E = TypeVar("E", bound=Extractor)


@dataclass(frozen=True)
class Result:
    """A figure.

    Attributes:
        value: of all pictures.
        per_class: by class id, None for a class that has too few pictures for one; None for a metric without classes.
        standard_error: of ``value``, as the pictures vary; None for a metric that does not say.
        parts: figures that ``value`` is the mean of, by name; None for a metric without.
    """

    value: float
    per_class: tuple[float | None, ...] | None = None
    standard_error: float | None = None
    parts: Mapping[str, float] | None = None


class Tally(Protocol):
    """What one set of pictures has come to so far."""

    def add(self, pictures: Pictures) -> None:
        """Take in a batch."""
        ...

    def gather(self, ranks: Ranks) -> None:
        """Take in what the tallies of the other ranks were shown; called once, on all of them, after the last batch.

        Afterwards all ranks know the same, and what each says by :meth:`results` is what one process would have said.
        """
        ...

    def results(self) -> Mapping[str, Result]:
        """The figures by metric, once all pictures were taken in.

        Raises:
            UserError: there were too few.
        """
        ...


class Measure(Protocol):
    """One metric, or several that share their work, in one evaluation.

    Attributes:
        samples: how many generated pictures it is to be shown, from the first on.
    """

    samples: int

    def protocol(self, name: str, resolution: int) -> Mapping[str, Any]:
        """What a record of the metric says besides what all records say: the extractor's identity, for one."""
        ...

    def start(self, resolution: int, names: Collection[str]) -> Tally:
        """A tally for pictures of one height, which is to give the figures of these metrics."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A measure that keeps what it needs of the reference, so that it can be computed ahead."""

    def prepare(self, resolution: int) -> Path:
        """Compute it for pictures of one height, unless it is there; the file that holds it. A collective."""
        ...


class Bench:
    """What measures are made from. Some measures may be made from a bench with other counts (:meth:`counted`).

    Attributes:
        config: the evaluation's settings.
        files: what the recipe names.
        spec: of the data.
        reference: the training images that the others are set against.
        learned: is told how far the training of a judge is: (images, of how many).
        device: where it is computed.
    """

    def __init__(
        self, config: EvaluationConfig, files: MetricFiles, spec: ImageSpec, reference: Reals, learned: Learned | None
    ) -> None:
        self.config, self.files, self.spec = config, files, spec
        self.reference, self.learned = reference, learned
        self.device = reference.device
        self._extractors: dict[Callable[[MetricFiles], Any], Any] = {}

    def extractor(self, load: Callable[[MetricFiles], E]) -> E:
        """A feature network, one for all measures that ask for it.

        Raises:
            UserError: a file or package is missing.
        """
        if load not in self._extractors:
            self._extractors[load] = load(self.files)
        return self._extractors[load]

    def counted(self, samples: int, reference: Reals) -> Bench:
        """The same, feature networks included, with so many generated images and another reference."""
        config = replace(self.config, samples=samples, reference_samples=reference.count)
        other = Bench(config, self.files, self.spec, reference, self.learned)
        other._extractors = self._extractors
        return other

    def require(self, there: object, names: Collection[str], what: str, setting: str) -> None:
        """Refuse metrics that do not apply to the data.

        Args:
            there: true if the data have what is needed.
            names: the metrics that need it.
            what: they need.
            setting: the one that gives it.

        Raises:
            UserError: it is not there.
        """
        if not there:
            asked = ", ".join(name for name in self.config.metrics if name in names)
            raise UserError(
                f"{asked}: cannot be taken of data without {what} ({setting} is not set). Leave it out of "
                "evaluation.metrics."
            )
