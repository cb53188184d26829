"""What log r is made of: whitening, a logistic regression on quadratic terms, and a network for what that leaves."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.errors import UserError
from advgen.losses.ratio import pooled_cross_entropy, prior_offset
from advgen.seeds import Noise, key_of, permutation

_REACH = 6.0  # pooled standard deviations; an input beyond counts as being there, as squares of outliers tell nothing
_PRODUCTS = 24  # dimensions up to which products of different inputs are taken; n of them make n (n - 1) / 2
_RIDGE = 1.0  # a weight has the prior N(0, 1), worth about one sample: enough to stay finite where p and q are separate
_WIDTH, _RATE, _DECAY, _BATCH = 32, 1e-2, 1e-2, 128
_STEPS, _CHECK, _PATIENCE, _HELD_BACK = 1000, 25, 6, 0.2

Pair = tuple[Tensor, Tensor]  # of p, of q


class Whitening:
    """To mean 0 and covariance 1 of (p + q) / 2; directions without variance are left out."""

    def __init__(self, p: Tensor, q: Tensor) -> None:
        self.centre = (p.mean(0) + q.mean(0)) / 2
        second = [(x - self.centre).T @ (x - self.centre) / len(x) for x in (p, q)]
        covariance = (second[0] + second[1]) / 2
        # By scale first, so that what "no variance" is does not hang on the columns' units.
        scale = covariance.diagonal().sqrt()
        scale = torch.where(scale > 1e-12 * self.centre.abs(), scale, torch.inf)
        values, vectors = torch.linalg.eigh(covariance / scale / scale[:, None])
        kept = values > 1e-10 * len(values)
        if not kept.any():
            raise UserError("fit_ratio: all samples are the same; there is nothing to compare.")
        self.matrix = vectors[:, kept] / values[kept].sqrt() / scale[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        return ((x - self.centre) @ self.matrix).clamp(-_REACH, _REACH)


def quadratic(z: Tensor) -> Tensor:
    """[n, d] to [n, m]: 1, z, the squares, and up to 24 dimensions the products; of variance 1 for normal z."""
    columns = [torch.ones_like(z[:, :1]), z, (z.square() - 1) / math.sqrt(2)]
    if 1 < z.shape[1] <= _PRODUCTS:
        a, b = torch.triu_indices(z.shape[1], z.shape[1], 1, device=z.device)
        columns.append(z[:, a] * z[:, b])
    return torch.cat(columns, 1)


def _penalty(inputs: Tensor) -> Tensor:
    """The ridge on each weight; on the constant's, the first, so little that it only keeps the Hessian from being 0."""
    penalty = torch.full_like(inputs[0], _RIDGE)
    penalty[0] = 1e-6
    return penalty


def fisher(inputs_p: Tensor, inputs_q: Tensor, log_ratio_p: Tensor, log_ratio_q: Tensor) -> Tensor:
    """The penalised log-likelihood's negative Hessian, [m, m]."""
    offset = prior_offset(len(inputs_p), len(inputs_q))
    total = torch.diag(_penalty(inputs_p))
    for inputs, log_ratio in ((inputs_p, log_ratio_p), (inputs_q, log_ratio_q)):
        chance = (log_ratio + offset).sigmoid()
        total = total + (inputs * (chance * (1 - chance))[:, None]).T @ inputs
    return total


def logistic(terms_p: Tensor, terms_q: Tensor) -> Tensor:
    """Weights [m] of log r by penalised logistic regression: Newton's method, steps halved until the loss falls."""
    n_p, n_q = len(terms_p), len(terms_q)
    offset, penalty = prior_offset(n_p, n_q), _penalty(terms_p)

    def loss(weights: Tensor) -> float:
        fit = (n_p + n_q) * pooled_cross_entropy(terms_p @ weights, terms_q @ weights, n_p, n_q)
        return float(fit + (penalty * weights.square()).sum() / 2)

    weights = torch.zeros_like(terms_p[0])
    before = loss(weights)
    for _ in range(50):
        t_p, t_q = terms_p @ weights, terms_q @ weights
        slope = terms_q.T @ (t_q + offset).sigmoid() - terms_p.T @ (-t_p - offset).sigmoid() + penalty * weights
        step = torch.linalg.solve(fisher(terms_p, terms_q, t_p, t_q), slope)
        after = loss(weights - step)
        while not after <= before and float(step.abs().max()) > 1e-12:
            step = step / 2
            after = loss(weights - step)
        weights = weights - step
        if before - after < 1e-7:
            break
        before = after
    return weights


class _Networks:
    """A network of two hidden layers for each fold, of which nothing is left where it showed no gain.

    Attributes:
        values: weights [k, in, out] and biases [k, 1, out] of each layer; the last layer begins at 0.
    """

    def __init__(self, folds: int, dimensions: int, seed: int, device: torch.device) -> None:
        noise = Noise(seed, ("ratio", "weights"), torch.arange(folds, device=device))
        self.values: list[Tensor] = []
        for layer, inputs in enumerate((dimensions, _WIDTH)):
            weights = noise.normal(f"weights {layer}", inputs, _WIDTH) * math.sqrt(2 / inputs)
            self.values += [weights, noise.normal(f"biases {layer}", 1, _WIDTH) / 2]
        self.values += [self.values[0].new_zeros(folds, _WIDTH, 1), self.values[0].new_zeros(folds, 1, 1)]

    @staticmethod
    def hidden(values: list[Tensor], z: Tensor) -> Tensor:
        """float32 [k, n, d] to the last hidden layer, [k, n, width]."""
        first = F.silu(torch.baddbmm(values[1], z, values[0]))
        return F.silu(torch.baddbmm(values[3], first, values[2]))

    @classmethod
    def apply(cls, values: list[Tensor], z: Tensor) -> Tensor:
        """float32 [k, n, d] to [k, n]."""
        return torch.baddbmm(values[5], cls.hidden(values, z), values[4]).squeeze(2)


def residual(z: Pair, terms: Pair, weights: Tensor, rest: list[Pair], seed: int) -> list[Tensor]:
    """The networks' weights where they added most to the regression, on samples held back from a fold's own.

    A network is taken only where its gain is more than the gain's standard error; else it stays the 0 that it begins
    as: a gain by chance would cost accuracy where the regression is right already.
    """
    folds, counts = len(rest), (len(z[0]), len(z[1]))
    offset, share = prior_offset(*counts), [n / sum(counts) for n in counts]
    rows = torch.arange(folds, device=z[0].device)[:, None]
    inputs = z[0].float(), z[1].float()
    base = tuple((t @ weights.T).T.float() for t in terms)
    training, held_back = [], []
    for side, name in enumerate("pq"):
        least = min(len(each[side]) for each in rest)
        order = torch.from_numpy(permutation(key_of(seed, "ratio", "held back", name), least)).to(rows.device)
        chosen = torch.stack([each[side][order] for each in rest])
        cut = round(_HELD_BACK * least)
        held_back.append(chosen[:, :cut])
        training.append(chosen[:, cut:])

    def log_ratio(values: list[Tensor], side: int, chosen: Tensor) -> Tensor:
        return base[side][rows, chosen] + _Networks.apply(values, inputs[side][chosen])

    def losses(values: list[Tensor]) -> list[Tensor]:
        """[k, n] of the samples held back, of each side."""
        with torch.no_grad():
            sign = -1.0, 1.0
            return [F.softplus(sign[s] * (log_ratio(values, s, held_back[s]) + offset)) for s in (0, 1)]

    networks = _Networks(folds, inputs[0].shape[1], seed, rows.device)
    values = [value.requires_grad_() for value in networks.values]
    average, best = ([value.detach().clone() for value in values] for _ in range(2))
    optimizer = torch.optim.AdamW(values, lr=_RATE, betas=(0.9, 0.99), weight_decay=_DECAY)
    batches = [
        _batches(chosen, key_of(seed, "ratio", "batches", name)) for chosen, name in zip(training, "pq", strict=True)
    ]
    without, gain, idle = losses(best), torch.zeros(folds, device=rows.device), 0
    for step in range(1, _STEPS + 1):
        t_p, t_q = (log_ratio(values, side, next(batches[side])) for side in (0, 1))
        loss = folds * pooled_cross_entropy(t_p, t_q, *counts)  # the mean over folds, of which none knows the others
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for mean, value in zip(average, values, strict=True):
            mean.lerp_(value.detach(), max(0.02, 1 / step))
        if step % _CHECK:
            continue
        saved = [before - after for before, after in zip(without, losses(average), strict=True)]
        mean = share[0] * saved[0].mean(1) + share[1] * saved[1].mean(1)
        errors = [share[s] * (saved[s].var(1) / saved[s].shape[1]).sqrt() for s in (0, 1)]
        better = (mean > gain) & (mean > torch.hypot(*errors))
        gain = torch.where(better, mean, gain)
        for kept, value in zip(best, average, strict=True):
            kept[better] = value[better]
        idle = 0 if better.any() else idle + 1
        if idle == _PATIENCE:
            break
    return best


def _batches(chosen: Tensor, key: int) -> Iterator[Tensor]:
    """Columns of [k, n] in random order, epoch after epoch, those that fill no batch left out."""
    count = chosen.shape[1]
    size, epoch = min(_BATCH, count), 0
    while True:
        order = torch.from_numpy(permutation(key_of(key, epoch), count)).to(chosen.device)
        yield from (chosen[:, order[at : at + size]] for at in range(0, count - size + 1, size))
        epoch += 1


class Model:
    """The folds' fits: log r = w f(z), f the quadratic terms and, where a network is of use, its last hidden layer.

    With the hidden layer there the regression is made anew, so that w is the best for all of f: quadratic terms that
    were right without the network are not right beside it.

    Args:
        whitening: of both sets.
        z: both sets, whitened.
        rest: the samples that each fold learns from.
        seed: of the networks.
    """

    def __init__(self, whitening: Whitening, z: Pair, rest: list[Pair], seed: int) -> None:
        self.whitening = whitening
        terms = quadratic(z[0]), quadratic(z[1])
        alone = [logistic(terms[0][a], terms[1][b]) for a, b in rest]
        self._networks = residual(z, terms, torch.stack(alone), rest, seed)
        self._used = self._networks[4].flatten(1).any(1).tolist()
        self._weights = [
            logistic(self.inputs(fold, z[0][a]), self.inputs(fold, z[1][b])) if used else weights
            for fold, ((a, b), used, weights) in enumerate(zip(rest, self._used, alone, strict=True))
        ]

    def __call__(self, z: Tensor) -> Tensor:
        """Whitened [n, d] to log r by each fold, [k, n]."""
        return torch.stack([self.log_ratio(fold, self.inputs(fold, z)) for fold in range(len(self._weights))])

    def log_ratio(self, fold: int, inputs: Tensor) -> Tensor:
        """By one fold, from its inputs [n, m]; float64 [n]."""
        return inputs @ self._weights[fold]

    def inputs(self, fold: int, z: Tensor) -> Tensor:
        """f of one fold, float64 [n, m]."""
        if not self._used[fold]:
            return quadratic(z)
        values = [value[fold : fold + 1] for value in self._networks]
        return torch.cat([quadratic(z), _Networks.hidden(values, z.float()[None])[0].double()], 1)
