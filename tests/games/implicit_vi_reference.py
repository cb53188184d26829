"""Inference with implicit distributions in plain float64 numpy.

Written from Huszar 2017 (arXiv:1702.08235) and from the models' densities, never from `advgen`, but for the
numbers of the linear-Gaussian model. Weights are taken by name: linear layers [out, in].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from advgen.likelihood.models import LinearGaussian

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]

DEVIATION = {"sprinkler": np.sqrt(2.0), "linear_gaussian": 1.0}
W = np.array(LinearGaussian.weight)
B = np.array(LinearGaussian.bias)
S = LinearGaussian.noise_deviation


def perceptron(name: str, weights: Weights, x: Array, second: Array, layers: int) -> Array:
    """Of x, standardised by the weights' own moments, and of a second vector."""
    tame = np.log(1 + x) if name == "sprinkler" else x
    rows = np.concatenate(((tame - weights["features.mean"]) / weights["features.deviation"], second), axis=1)
    for layer in range(layers + 1):
        rows = rows @ weights[f"stack.{2 * layer}.weight"].T + weights[f"stack.{2 * layer}.bias"]
        if layer < layers:
            rows = rows / (1 + np.exp(-rows))
    return rows


def encoder(name: str, weights: Weights, x: Array, epsilon: Array, layers: int) -> Array:
    return DEVIATION[name] * perceptron(name, weights, x, epsilon, layers)


def classifier(name: str, weights: Weights, x: Array, z: Array, layers: int) -> Array:
    return perceptron(name, weights, x, z / DEVIATION[name], layers)[:, 0]


def denoised(name: str, weights: Weights, x: Array, z: Array, layers: int, share: float) -> Array:
    """F(z)."""
    sigma = share * DEVIATION[name]
    return z + sigma**2 * perceptron(name, weights, x, z / DEVIATION[name], layers)


def mean(name: str, z: Array) -> Array:
    """E[x | z]."""
    if name == "sprinkler":
        return 3 + (np.maximum(z, 0) ** 3).sum(axis=1, keepdims=True)
    return z @ W.T + B


def observed(name: str, z: Array, draw: Array) -> Array:
    """x of uniform (sprinkler) or normal numbers."""
    return -mean(name, z) * np.log(1 - draw) if name == "sprinkler" else mean(name, z) + S * draw


def log_likelihood(name: str, x: Array, z: Array) -> Array:
    if name == "sprinkler":
        m = mean(name, z)[:, 0]
        return -np.log(m) - x[:, 0] / m
    squares = ((x - mean(name, z)) ** 2).sum(axis=1) / S**2
    return -squares / 2 - x.shape[1] * np.log(S * np.sqrt(2 * np.pi))


def joint_gradient(name: str, x: Array, z: Array) -> Array:
    """Of log p(x | z) + log p(z) by z."""
    prior = -z / DEVIATION[name] ** 2
    if name == "sprinkler":
        m = mean(name, z)
        return prior + (x / m**2 - 1 / m) * 3 * np.maximum(z, 0) ** 2
    return prior + (x - mean(name, z)) @ W / S**2


def logistic(of_encoder: Array, of_others: Array) -> float:
    """Its least value is at the log-ratio of the encoder's pairs over the others."""
    return float(np.log1p(np.exp(-of_encoder)).mean() + np.log1p(np.exp(of_others)).mean())


def squared_error(restored: Array, z: Array, sigma: float) -> float:
    return float((((restored - z) / sigma) ** 2).sum(axis=1).mean())
