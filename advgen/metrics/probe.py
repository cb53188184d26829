"""A linear probe: how well few labels and a linear classifier on a game's features tell the classes of images.

One L2-regularised machine with squared hinge a class, one against the rest (the "L2-SVM" of Radford et al. 2016 and
Dumoulin et al. 2016), in float64. The penalty's weight is the one of a few that has the
least error in five-fold cross-validation on the labelled features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features.

    Attributes:
        mean, deviation: [k], by which features are standardised.
        weight: [k + 1, classes], the bias last.
        penalty: the one that was chosen.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    penalty: float

    def answers(self, features: Tensor) -> Tensor:
        """[n, k] to class numbers, int64 [n]."""
        return _scores(self.weight, (features.double() - self.mean) / self.deviation).argmax(dim=1)


def fit_probe(features: Tensor, labels: Tensor, classes: int) -> Probe:
    """Learn from features [n, k] with labels int64 [n].

    Raises:
        ValueError: fewer than five features, or as many labels as features are not there.
    """
    if len(features) < FOLDS or len(features) != len(labels):
        raise ValueError(f"a probe needs a label for each of at least {FOLDS} features; given {len(features)}")
    features = features.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0).clamp_min(1e-8)
    x = (features - mean) / deviation
    wrong = dict.fromkeys(PENALTIES, 0)
    fold = torch.arange(len(x), device=x.device) % FOLDS
    for penalty in PENALTIES:
        for number in range(FOLDS):
            kept, left = fold != number, fold == number
            weight = _fit(x[kept], labels[kept], classes, penalty)
            wrong[penalty] += int((_scores(weight, x[left]).argmax(dim=1) != labels[left]).sum())
    best = min(PENALTIES, key=lambda penalty: wrong[penalty])
    return Probe(mean, deviation, _fit(x, labels, classes, best), best)


def _scores(weight: Tensor, x: Tensor) -> Tensor:
    return x @ weight[:-1] + weight[-1]


def _fit(x: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """The minimum of mean max(0, 1 - y s)^2 + penalty |w|^2, which is convex."""
    sides = 2 * torch.nn.functional.one_hot(labels, classes).to(x.dtype) - 1
    weight = torch.zeros(x.shape[1] + 1, classes, dtype=x.dtype, device=x.device, requires_grad=True)
    search = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        hinge = (1 - sides * _scores(weight, x)).clamp_min(0).square().mean(dim=0).sum()
        total = hinge + penalty * weight[:-1].square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        search.step(loss)
    return weight.detach()
