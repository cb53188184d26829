"""How far predicted labels agree with the true ones: pixel accuracy and intersection over union.

Counts are whole numbers and gathered batch by batch, so the result depends on neither the order nor the cut.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Confusion:
    """How often each class was taken for each, over pixels or over samples.

    Attributes:
        classes: that are told apart; ids are 0 to this, exclusive.
        ignore: an id of the truth that stands for no class, or None.
        matrix: int64 [classes, classes]; row: the truth, column: the prediction.
    """

    def __init__(self, classes: int, ignore: int | None = None, device: torch.device | str = "cpu") -> None:
        self.classes, self.ignore = classes, ignore
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Take in a batch, on its own device.

        Args:
            predicted: int64 [...] in 0..classes - 1.
            truth: int64 of the same shape; where it is ``ignore``, or no class's id, nothing is counted.

        Raises:
            ValueError: the shapes differ, or a counted prediction is no class's id.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predictions {list(predicted.shape)} do not fit a truth of {list(truth.shape)}.")
        truth = truth.to(predicted.device)
        counted = (truth >= 0) & (truth < self.classes)
        if self.ignore is not None:
            counted &= truth != self.ignore
        rows, columns = truth[counted], predicted[counted]
        if bool(((columns < 0) | (columns >= self.classes)).any()):
            raise ValueError(f"predictions must be 0 to {self.classes - 1}.")
        counts = torch.bincount(rows * self.classes + columns, minlength=self.classes**2)
        self.matrix += counts.reshape(self.classes, self.classes).to(self.matrix.device)

    @property
    def count(self) -> int:
        """How many pixels or samples were counted."""
        return int(self.matrix.sum())

    @property
    def pixel_accuracy(self) -> float:
        """Share of what was counted that is right, in [0, 1] (Long et al. 2015, section 5); NaN if nothing was.

        Of samples it is the usual accuracy.
        """
        return float(self.matrix.diagonal().sum().double() / self.matrix.sum())

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, float64 [classes] in [0, 1], on the CPU.

        n_ii / (t_i + sum_j n_ji - n_ii), with n_ij pixels of class i that were taken for j and t_i = sum_j n_ij: Long
        et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 5. NaN where a class occurs
        neither in the truth nor in the prediction.
        """
        matrix = self.matrix.cpu().double()
        both = matrix.diagonal()
        return both / (matrix.sum(1) + matrix.sum(0) - both)  # 0 / 0 is NaN

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur in the truth, each weighing alike; NaN if there are none.

        Over the whole set, as Cityscapes' evaluation does, not image by image. That one also counts, as 0, classes
        that occur only in the prediction; where all classes occur, as in its own sets, the figures are equal.
        """
        return float(self.iou[self.matrix.sum(1).cpu() > 0].mean())
