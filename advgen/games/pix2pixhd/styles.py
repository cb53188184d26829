"""Styles to draw where no image is encoded: clusters of instance features by class (Wang et al. 2017, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.encoder import Instances
from advgen.seeds import Noise


def classes_of(label_map: Tensor, instances: Instances) -> Tensor:
    """The class of each instance [m]: the id of its pixels in the label map int64 [n, h, w], the largest of several.

    The released code reads it off Cityscapes' instance ids instead (class * 1000 + number), which says the same there.
    """
    none = torch.full_like(instances.ids, -1)
    return none.scatter_reduce(0, instances.index.flatten(), label_map.flatten(), "amax")


def large_instances(rows: Tensor, classes: Tensor, instances: Instances) -> tuple[Tensor, Tensor]:
    """Classes [k] and features [k, f] of the instances that cover more than half of 1/32 of their image.

    Args:
        rows: [m, f], one for each instance.
        classes: int64 [m].
        instances: where they lie.
    """
    height, width = instances.index.shape[-2:]
    large = instances.areas > 0.5 * (height * width // 32)
    return classes[large], rows[large]


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """[m, f] and [k, f] to [m, k]."""
    return (points[:, None] - centres[None]).square().sum(dim=2)


def first_centres(points: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Centres by k-means++ (Arthur and Vassilvitskii 2007): points, drawn by their squared distance to those before.

    Args:
        points: float64 [m, f], of which at least k differ.
        uniforms: k numbers in [0, 1).
    """
    weights = torch.ones(len(points), dtype=points.dtype)
    chosen: list[int] = []
    for uniform in uniforms:
        cumulated = weights.cumsum(0)
        chosen.append(int(torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)))
        weights = squared_distances(points, points[chosen]).amin(dim=1)
    return points[chosen]


def k_means(points: Tensor, uniforms: Sequence[float], rounds: int = 300) -> tuple[Tensor, float]:
    """Lloyd's algorithm from :func:`first_centres`, until no point changes its centre.

    Args:
        points: float64 [m, f], of which at least k differ.
        uniforms: k numbers in [0, 1).
        rounds: at most.

    Returns:
        Centres [k, f] and the sum of squared distances to them. A centre that loses all its points stays where it is.
    """
    centres = first_centres(points, uniforms)
    nearest = squared_distances(points, centres).argmin(dim=1)
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add(0, nearest, points)
        counts = nearest.bincount(minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        before, nearest = nearest, squared_distances(points, centres).argmin(dim=1)
        if torch.equal(before, nearest):
            break
    return centres, float(squared_distances(points, centres).amin(dim=1).sum())


class Styles(nn.Module):
    """Cluster centres of instance features by class; state in buffers.

    Attributes:
        centres: float32 [classes, k, f].
        counts: int64 [classes]: how many centres a class has, at most k; 0 before :meth:`fit`, and for classes unseen.
    """

    centres: Tensor
    counts: Tensor

    def __init__(self, config: Pix2PixHdConfig, classes: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, config.styles, config.encoder_features))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    @torch.no_grad()
    def fit(self, classes: Tensor, rows: Tensor, seed: int, starts: int = 10) -> None:
        """Cluster features, class by class, anew; the best of some starts is kept.

        Args:
            classes: int64 [m] (see :func:`large_instances`); classes outside the known range are left out.
            rows: [m, f].
            seed: of the starts.
            starts: how often k-means begins.
        """
        self.centres.zero_()
        self.counts.zero_()
        for label in range(len(self.counts)):
            # On the CPU in float64: the same clusters on any machine. The order of the points does not matter either.
            own = rows[classes == label].double().cpu()
            distinct, copies = torch.unique(own, dim=0, return_counts=True)
            count = min(len(distinct), self.centres.shape[1])
            if not count:
                continue
            points = distinct.repeat_interleave(copies, dim=0)
            draws = Noise(seed, ("styles", label), torch.arange(starts)).uniform("centres", count)
            found = [k_means(points, uniforms) for uniforms in draws.tolist()]
            centres, _ = min(found, key=lambda result: result[1])
            self.centres[label, :count] = centres.to(self.centres)
            self.counts[label] = count

    def forward(self, instances: Instances, classes: Tensor, noise: Noise) -> Tensor:
        """A feature vector for each instance [m, f], one of its class's centres at random; 0 for a class without.

        Args:
            instances: of a batch.
            classes: int64 [m], of each.
            noise: a row an image.
        """
        known = (classes >= 0) & (classes < len(self.counts))
        classes = torch.where(known, classes, 0)
        counts = torch.where(known, self.counts[classes], 0)
        # An instance's number in its own image names its draw, so that it does not depend on the rest of the batch.
        firsts = torch.searchsorted(instances.images, torch.arange(len(instances.index), device=classes.device))
        numbers = torch.arange(len(classes), device=classes.device) - firsts[instances.images]
        draws = noise.uniform("styles", int(numbers.max()) + 1)[instances.images, numbers]
        picks = torch.minimum((draws * counts).long(), (counts - 1).clamp(min=0))
        return torch.where(counts[:, None] > 0, self.centres[classes, picks], 0.0)
