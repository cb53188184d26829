"""Styles to draw where no image is encoded: clusters of instance features by class (Wang et al. 2017, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.encoder import Instances
from advgen.seeds import Noise


def classes_of(label_map: Tensor, instances: Instances, ignore: int | None = None) -> Tensor:
    """The class of each instance [m]: the id of its pixels in the label map int64 [n, h, w], the largest of several.

    Pixels of the id ``ignore`` do not count; an instance that has no others is of class -1.
    The released code reads it off Cityscapes' instance ids instead (class * 1000 + number), which says the same there.
    """
    none = torch.full_like(instances.ids, -1)
    counted = label_map if ignore is None else torch.where(label_map == ignore, -1, label_map)
    return none.scatter_reduce(0, instances.index.flatten(), counted.flatten(), "amax")


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
        ends: int64 [classes, k]: tickets of a centre and those before it; each has one, or as many as its cluster has
            instances (``style_draws``).
    """

    centres: Tensor
    counts: Tensor
    ends: Tensor

    def __init__(self, config: Pix2PixHdConfig, classes: int) -> None:
        super().__init__()
        self._uniform = config.style_draws == "uniform"
        self.register_buffer("centres", torch.zeros(classes, config.styles, config.encoder_features))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("ends", torch.zeros(classes, config.styles, dtype=torch.int64))

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
        self.ends.zero_()
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
            sizes = squared_distances(points, centres).argmin(dim=1).bincount(minlength=count)
            tickets = torch.ones_like(sizes) if self._uniform else sizes
            self.ends[label] = int(tickets.sum())
            self.ends[label, :count] = tickets.cumsum(0).to(self.ends)

    def check(self, instances: Instances, classes: Tensor, chosen: Mapping[int, int]) -> None:
        """Refuse choices that :meth:`forward` could not follow.

        Raises:
            UserError: an instance is not there, or its class has no such centre.
        """
        for number, style in chosen.items():
            own = classes[instances.ids == number].tolist()
            if not own:
                some = ", ".join(str(i) for i in instances.ids.unique()[:8].tolist())
                raise UserError(f"no instance has the id {number}; ids are {some}{' ...' * (len(instances.ids) > 8)}.")
            for label in own:
                count = int(self.counts[label]) if 0 <= label < len(self.counts) else 0
                if not count:
                    raise UserError(
                        f"instance {number} is of {f'class {label}' if label >= 0 else 'no class'}, which has no "
                        "styles: the images that they were clustered from show no large instance of it, or no phase of "
                        "the run has ended yet."
                    )
                if not 0 <= style < count:
                    raise UserError(
                        f"instance {number} is of class {label}, which has the styles 0 to {count - 1}, and no {style}."
                    )

    def forward(
        self, instances: Instances, classes: Tensor, noise: Noise, chosen: Mapping[int, int] | None = None
    ) -> Tensor:
        """A feature vector for each instance [m, f], one of its class's centres at random; 0 for a class without.

        Args:
            instances: of a batch.
            classes: int64 [m], of each.
            noise: a row an image.
            chosen: centres that are not left to chance: their number, by the id of the instance.
        """
        known = (classes >= 0) & (classes < len(self.counts))
        classes = torch.where(known, classes, 0)
        counts = torch.where(known, self.counts[classes], 0)
        # Image and id name a draw, so that it depends neither on the rest of the batch nor on the other instances of
        # the image: who adds one to a map, or takes one away, finds the others as they were.
        positions = (noise.positions[instances.images] << 32) + instances.ids
        draws = replace(noise, positions=positions, dtype=None).uniform("styles")
        ends = self.ends[classes]
        picks = ((draws * ends[:, -1]).long()[:, None] >= ends).sum(dim=1)
        picks = torch.minimum(picks, (counts - 1).clamp(min=0))
        for number, style in (chosen or {}).items():
            picks = torch.where(instances.ids == number, style, picks)
        return torch.where(counts[:, None] > 0, self.centres[classes, picks], 0.0)
