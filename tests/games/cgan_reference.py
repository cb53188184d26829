"""The class-conditional GAN in plain float64 numpy, written from the papers' formulae and never from `advgen`.

Sources: "mirza" is arXiv:1411.1784, section 4.1; "sngan" arXiv:1802.05957, appendix B; "projection" arXiv:1802.05637.
Weights are taken by name: conv [out, in, kh, kw], dense [out, in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def conv(weights: Weights, name: str, x: Array) -> Array:
    """Cross-correlation with zero padding that keeps the size, and a bias where there is one; one product a tap."""
    w = weights[name + ".weight"]
    pad = w.shape[2] // 2
    h, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(x), len(w), h, width))
    for dy in range(w.shape[2]):
        for dx in range(w.shape[3]):
            out += np.einsum("oi,nihw->nohw", w[:, :, dy, dx], padded[:, :, dy : dy + h, dx : dx + width])
    bias = weights.get(name + ".bias")
    return out if bias is None else out + bias[None, :, None, None]


def dense(weights: Weights, name: str, x: Array) -> Array:
    """x W^T + b."""
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def twice(x: Array) -> Array:
    """Nearest neighbour."""
    return x.repeat(2, axis=2).repeat(2, axis=3)


def half(x: Array) -> Array:
    """Means over 2x2 pixels."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


def batch_norm(weights: Weights, name: str, x: Array, labels: Sequence[int] | None, eps: float = 1e-5) -> Array:
    """Moments of the whole batch, biased variance; gain and bias of each sample's class, or one of each."""
    gain, bias = weights[name + ".weight"], weights[name + ".bias"]
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        normal = (values - values.mean()) / np.sqrt(values.var() + eps)
        for i in range(len(x)):
            row = () if labels is None else (labels[i],)
            out[i, c] = gain[(*row, c)] * normal[i] + bias[(*row, c)]
    return out


def generator_block(weights: Weights, name: str, x: Array, labels: Sequence[int]) -> Array:
    """projection, figure of the generator's block: up-sampling stands before the convolutions of both ways."""
    y = relu(batch_norm(weights, f"{name}.norm0", x, labels))
    y = conv(weights, f"{name}.conv0", twice(y))
    y = conv(weights, f"{name}.conv1", relu(batch_norm(weights, f"{name}.norm1", y, labels)))
    return y + conv(weights, f"{name}.short", twice(x))


def generator(weights: Weights, z: Array, labels: Sequence[int]) -> Array:
    """sngan, table of the CIFAR-10 generator."""
    x = dense(weights, "first", z).reshape(len(z), -1, 4, 4)
    block = 0
    while f"blocks.{block}.conv0.weight" in weights:
        x = generator_block(weights, f"blocks.{block}", x, labels)
        block += 1
    return np.tanh(conv(weights, "last", relu(batch_norm(weights, "norm", x, None))))


def discriminator_block(weights: Weights, name: str, x: Array, halve: bool, first: bool) -> Array:
    """projection, figure of the discriminator's block; the first has the mean before the short way's convolution."""
    y = conv(weights, f"{name}.conv0", x if first else relu(x))
    y = conv(weights, f"{name}.conv1", relu(y))
    short = x
    if first:
        return half(y) + conv(weights, f"{name}.short", half(x))
    if f"{name}.short.weight" in weights:
        short = conv(weights, f"{name}.short", x)
    return half(y) + half(short) if halve else y + short


def discriminator_features(
    weights: Weights, x: Array, halves: Sequence[bool], labels: Sequence[int], concat_at: int | None = None
) -> Array:
    """[n, c]: sums over pixels of the last rectified features."""
    for block, halve in enumerate(halves):
        if block == concat_at:
            rows = weights["embedding.weight"][list(labels)]
            x = np.concatenate((x, np.broadcast_to(rows[:, :, None, None], (*rows.shape, *x.shape[2:]))), axis=1)
        x = discriminator_block(weights, f"blocks.{block}", x, halve, first=block == 0)
    return relu(x).sum(axis=(2, 3))


def projection_logit(weights: Weights, features: Array, labels: Sequence[int]) -> Array:
    """projection, section 3: y^T V f + psi(f), psi linear."""
    psi = dense(weights, "last", features)[:, 0]
    return np.array([psi[i] + weights["embedding.weight"][labels[i]] @ features[i] for i in range(len(features))])


def maxout(weights: Weights, name: str, x: Array, units: int, pieces: int) -> Array:
    """The largest of a unit's linear maps; map k of unit u is row u * pieces + k."""
    maps = dense(weights, f"{name}.linear", x)
    return np.stack([maps[:, u * pieces : (u + 1) * pieces].max(axis=1) for u in range(units)], axis=1)


def one_hot(labels: Sequence[int], classes: int) -> Array:
    """[n, classes]."""
    return np.eye(classes)[list(labels)]


def mlp_generator(weights: Weights, z: Array, labels: Array, masks: Sequence[Array]) -> Array:
    """mirza; tanh for the sigmoid, as images are in [-1, 1]. [n, pixels]."""
    ways = (relu(dense(weights, "latent", z)), relu(dense(weights, "label", labels)))
    x = relu(dense(weights, "joint", np.concatenate(ways, axis=1) * masks[0]))
    return np.tanh(dense(weights, "last", x * masks[1]))


def mlp_discriminator(weights: Weights, pixels: Array, labels: Array, masks: Sequence[Array]) -> Array:
    """mirza; the logit before the sigmoid, [n]."""
    ways = (maxout(weights, "image", pixels, 240, 5), maxout(weights, "label", labels, 50, 5))
    x = maxout(weights, "joint", np.concatenate(ways, axis=1) * masks[0], 240, 4)
    return dense(weights, "last", x * masks[1])[:, 0]


def hinge(real: Array, fake: Array) -> tuple[float, float]:
    """Losses of discriminator and generator (sngan, eq. 16 and 17)."""
    return float(relu(1 - real).mean() + relu(1 + fake).mean()), float(-fake.mean())


def logistic(real: Array, fake: Array) -> tuple[float, float]:
    """Losses of discriminator and generator, the latter non-saturating."""

    def log_sigmoid(x: Array) -> Array:
        return -np.log1p(np.exp(-x))

    return float(-log_sigmoid(real).mean() - log_sigmoid(-fake).mean()), float(-log_sigmoid(fake).mean())
