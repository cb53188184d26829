"""What is known of labels, kept in buffers: the few labelled images, and the class of each cluster."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Batch, ImageSpec
from advgen.images import to_bytes, to_signed
from advgen.seeds import Noise


class LabelledImages(nn.Module):
    """So many images with their labels, as many of each class; black until they are gathered."""

    images: Tensor
    labels: Tensor

    def __init__(self, count: int, spec: ImageSpec) -> None:
        super().__init__()
        shape = (count, spec.channels, spec.resolution, spec.resolution)
        self.classes, self.each = spec.classes, count // spec.classes
        self.register_buffer("images", torch.zeros(shape, dtype=torch.uint8))
        self.register_buffer("labels", torch.arange(spec.classes).repeat_interleave(self.each))

    def gather(self, batches: Iterator[Batch]) -> None:
        """Keep the first images of each class, no two the same; looks at no more batches than that takes.

        Raises:
            UserError: there are too few of a class.
        """
        kept: list[list[Tensor]] = [[] for _ in range(self.classes)]
        seen = 0
        for batch in batches:
            assert batch.labels is not None, "the game has seen to it"
            seen += len(batch.images)
            for image, label in zip(to_bytes(batch.images), batch.labels.tolist(), strict=True):
                mine = kept[label]
                if len(mine) < self.each and not any(torch.equal(image, other) for other in mine):
                    mine.append(image)
            if all(len(mine) == self.each for mine in kept):
                self.images.copy_(torch.stack([image for mine in kept for image in mine]))
                return
        label, least = min(enumerate(map(len, kept)), key=lambda pair: pair[1])
        raise UserError(
            f"game.labelled: {self.each} different images of each class are asked for, and among the first {seen} of "
            f"the stream are {least} of class {label}. Ask for fewer, or for all labels (null)."
        )

    def draw(self, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Images [n, c, r, r] in [-1, 1] and labels int64 [n], with replacement, one a noise row."""
        chosen = (noise.uniform("labelled") * len(self.labels)).long()
        return to_signed(self.images[chosen]).to(dtype), self.labels[chosen]


class Clusters(nn.Module):
    """The class of each cluster: that of the image that is likeliest to be of it (section 6); -1 until it is named."""

    classes: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.full((count,), -1))

    def name(self, answers: Iterator[tuple[Tensor, Tensor]]) -> None:
        """
        Args:
            answers: probabilities [n, clusters] of images, and their labels int64 [n].
        """
        best = torch.full(self.classes.shape, -1.0, device=self.classes.device)
        for probabilities, labels in answers:
            highest, where = probabilities.float().max(dim=0)
            better = highest > best
            best = torch.where(better, highest, best)
            self.classes.copy_(torch.where(better, labels[where], self.classes))
