"""What metrics are shown: a batch of images with its labels and maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from advgen.errors import UserError
from advgen.metrics.features import Extractor
from advgen.metrics.ranks import GROUP


@dataclass(frozen=True)
class Pictures:
    """A batch as metrics see it.

    Attributes:
        images: uint8 [n, c, h, w], generated or real; of points float32 [n, d, 1, 1].
        labels: int64 [n], the classes that were asked for, or those of the real images; None for data without classes.
        label_map: int64 [n, h, w], what was painted from, or what belongs to the real images; None without label maps.
        again: draws the same conditions with other noise, uint8 [n, c, h, w], by a number from 1 on; None for real
            images, of which there is one a condition.
        answers: int64 [n], the classes that the game's networks take real images for; None where it was not asked.
        step: images at either end of a step on a way between latents, float [n, c, h, w] twice, by the step's share of
            the way; None where there are no latents.
        first: number of the first of them among all pictures of their kind, on all ranks; the others follow it.
    """

    images: Tensor
    labels: Tensor | None = None
    label_map: Tensor | None = None
    again: Callable[[int], Tensor] | None = None
    answers: Tensor | None = None
    step: Callable[[float], tuple[Tensor, Tensor]] | None = None
    first: int = 0
    _features: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def features(self, extractor: Extractor) -> Tensor:
        """float32 [n, dimensions], computed once however many metrics ask.

        Raises:
            UserError: some are not finite; one such would spoil a figure of all pictures.
        """
        if id(extractor) not in self._features:
            features = extractor(self.images)
            bad = ~features.isfinite().all(1)
            if bad.any():
                first = int(bad.nonzero()[0])
                pixels = f"{int(self.images[first].min())} to {int(self.images[first].max())}"
                raise UserError(
                    f"{extractor.identity['name']}: gives features that are not finite for {int(bad.sum())} of a batch "
                    f"of {len(bad)} pictures, the first at place {first} (pixels from {pixels}). Its file is damaged, "
                    "or it does not take such pictures; no figure was recorded."
                )
            self._features[id(extractor)] = features
        return self._features[id(extractor)]


def in_groups(batches: Iterable[Pictures]) -> Iterator[Pictures]:
    """Batches of real images cut to groups (:mod:`advgen.metrics.ranks`), for networks that take them at once."""
    for batch in batches:
        for start in range(0, len(batch), GROUP):
            rows = slice(start, start + GROUP)
            labels, maps = (None if part is None else part[rows] for part in (batch.labels, batch.label_map))
            yield Pictures(batch.images[rows], labels, maps, first=batch.first + start)
