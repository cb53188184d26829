"""Adversarially learned inference in plain float64 numpy, written from the paper's formulae and never from `advgen`.

Dumoulin et al. 2016 (arXiv:1606.00704), section 2 and appendix A. Weights are taken by name: convolutions
[out, in, k, k], transposed ones [in, out, k, k].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def conv(x: Array, w: Array, stride: int, padding: int) -> Array:
    """Cross-correlation, one product a tap."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    k = w.shape[2]
    out = (x.shape[2] - k) // stride + 1
    y = np.zeros((len(x), len(w), out, out))
    end = stride * (out - 1) + 1
    for dy in range(k):
        for dx in range(k):
            taps = x[:, :, dy : dy + end : stride, dx : dx + end : stride]
            y += np.einsum("oi,nihw->nohw", w[:, :, dy, dx], taps)
    return y


def conv_up(x: Array, w: Array, stride: int, padding: int) -> Array:
    """The transpose of :func:`conv`: each pixel lays a kernel down."""
    k, side = w.shape[2], x.shape[2]
    whole = stride * (side - 1) + k
    y = np.zeros((len(x), w.shape[1], whole, whole))
    for row in range(side):
        for column in range(side):
            laid = np.einsum("ni,iokl->nokl", x[:, :, row, column], w)
            y[:, :, row * stride : row * stride + k, column * stride : column * stride + k] += laid
    return y[:, :, padding : whole - padding, padding : whole - padding]


def batch_norm(x: Array, gain: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Moments of the whole batch, biased variance."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        y[:, c] = gain[c] * (x[:, c] - x[:, c].mean()) / np.sqrt(x[:, c].var() + eps) + bias[c]
    return y


def maxout(x: Array, pieces: int) -> Array:
    """The largest of each map's pieces; piece k of map m is channel m * pieces + k."""
    return np.stack([x[:, m : m + pieces].max(axis=1) for m in range(0, x.shape[1], pieces)], axis=1)


def stack(weights: Weights, name: str, x: Array, layers: Any, leak: float, pieces: int = 1) -> Array:
    """Layers given as (stride, padding, transposed, normalised)."""
    for number, (stride, padding, up, norm) in enumerate(layers):
        block = f"{name}.blocks.{number}"
        x = (conv_up if up else conv)(x, weights[f"{block}.conv.weight"], stride, padding)
        if norm:
            x = batch_norm(x, weights[f"{block}.norm.weight"], weights[f"{block}.norm.bias"])
        else:
            x = x + weights[f"{block}.conv.bias"][None, :, None, None]
        x = maxout(x, pieces) if pieces > 1 else np.where(x > 0, x, leak * x)
    return x


def labelled(x: Array, labels: Array | None, classes: int) -> Array:
    """A one-hot channel for each class behind x [n, c, 1, 1]."""
    return x if labels is None else np.concatenate((x, np.eye(classes)[labels][:, :, None, None]), axis=1)


def last(weights: Weights, x: Array) -> Array:
    """A 1x1 convolution with bias on [n, c, 1, 1], to [n, outputs]."""
    return x[:, :, 0, 0] @ weights["last.weight"][:, :, 0, 0].T + weights["last.bias"]


def encoder(weights: Weights, images: Array, epsilon: Array, layers: Any, leak: float, labels: Any, c: int) -> Array:
    """mu + sigma * epsilon (section 2), of images in [0, 1]."""
    rows = last(weights, labelled(stack(weights, "stack", images, layers, leak), labels, c))
    mu, log_sigma = np.split(rows, 2, axis=1)
    return mu + np.exp(log_sigma) * epsilon


def decoder(weights: Weights, z: Array, layers: Any, leak: float, labels: Any, c: int) -> Array:
    """Images in [0, 1], with a bias for every pixel."""
    x = stack(weights, "stack", labelled(z[:, :, None, None], labels, c), layers, leak)
    return 1 / (1 + np.exp(-(conv(x, weights["last.weight"], 1, 0) + weights["bias"])))


def discriminator(
    weights: Weights, images: Array, z: Array, layers: Any, leak: float, k: int, labels: Any, c: int
) -> Array:
    """Logits [n] of pairs of images in [0, 1] and latents; layers of three stacks."""
    x = stack(weights, "images", images, layers[0], leak, k)
    y = stack(weights, "latent", z[:, :, None, None], layers[1], leak, k)
    joined = labelled(np.concatenate((x, y), axis=1), labels, c)
    return last(weights, stack(weights, "joint", joined, layers[2], leak, k))[:, 0]


def losses(of_images: Array, of_latents: Array) -> tuple[float, float]:
    """Of discriminator and generator: softplus with the two classes, and with them exchanged."""

    def softplus(x: Array) -> Array:
        return np.log1p(np.exp(x))

    one = softplus(-of_images).mean() + softplus(of_latents).mean()
    other = softplus(of_images).mean() + softplus(-of_latents).mean()
    return float(one), float(other)
