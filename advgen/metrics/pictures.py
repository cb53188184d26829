"""What metrics are shown: a batch of images with its labels and maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from advgen.metrics.features import Extractor


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
        """float32 [n, dimensions], computed once however many metrics ask."""
        if id(extractor) not in self._features:
            self._features[id(extractor)] = extractor(self.images)
        return self._features[id(extractor)]
