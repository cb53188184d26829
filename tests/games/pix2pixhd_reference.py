"""pix2pixHD in plain float64 numpy, written from the paper and the behaviour of its code, never from `advgen`.

Sources: "paper" is arXiv:1711.11585; "code" is github.com/NVIDIA/pix2pixHD, models/networks.py and
models/pix2pixHD_model.py. No line of that code is here. Weights lie in a mapping by names of our own, "global/down0",
"enhancer1/block2/conv0", "scale0/layer4/bias"; `array(name, shape)` draws them from their name.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]


def array(name: str, shape: Sequence[int], scale: float = 1.0) -> Array:
    """Normal numbers drawn from a name (legacy MT19937, frozen by numpy)."""
    return scale * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))


# --------------------------------------------------------------------------------------------------------------- layers
def conv2d(x: Array, w: Array, stride: int = 1, pad: int = 0, reflect: bool = False) -> Array:
    """Cross-correlation of [n, i, h, w] with [o, i, k, k], one product a tap."""
    k = w.shape[2]
    around = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    x = np.pad(x, around, mode="reflect") if reflect else np.pad(x, around)
    rows, columns = (x.shape[2] - k) // stride + 1, (x.shape[3] - k) // stride + 1
    out = np.zeros((len(x), len(w), rows, columns))
    for dy in range(k):
        for dx in range(k):
            tap = x[:, :, dy : dy + stride * (rows - 1) + 1 : stride, dx : dx + stride * (columns - 1) + 1 : stride]
            out += np.einsum("oi,nihw->nohw", w[:, :, dy, dx], tap)
    return out


def conv_transpose2d(x: Array, w: Array) -> Array:
    """The transpose of a 3x3 convolution with stride 2 and padding 1, to twice the size: [n, i, h, w], [i, o, 3, 3]."""
    n, _, height, width = x.shape
    out = np.zeros((n, w.shape[1], 2 * height + 1, 2 * width + 1))
    for y in range(height):
        for z in range(width):
            out[:, :, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3] += np.einsum("ni,iohw->nohw", x[:, :, y, z], w)
    return out[:, :, 1:, 1:]


def instance_norm(x: Array) -> Array:
    """Each channel of each sample to mean 0 and biased variance 1, epsilon 1e-5, nothing learnt."""
    mean, variance = x.mean(axis=(2, 3), keepdims=True), x.var(axis=(2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def lrelu(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


def halved(x: Array) -> Array:
    """Means over 3x3 around every other pixel, over the pixels that are there (AvgPool2d without counting padding)."""
    n, c, height, width = x.shape
    out = np.zeros((n, c, (height + 1) // 2, (width + 1) // 2))
    for y in range(out.shape[2]):
        for z in range(out.shape[3]):
            box = x[:, :, max(2 * y - 1, 0) : 2 * y + 2, max(2 * z - 1, 0) : 2 * z + 2]
            out[:, :, y, z] = box.mean(axis=(2, 3))
    return out


def reflected(x: Array, multiple: int) -> Array:
    """Continued below and to the right, the last row and column not repeated, to multiples."""
    height, width = x.shape[2:]
    rows = [i if i < height else 2 * (height - 1) - i for i in range(-(-height // multiple) * multiple)]
    columns = [i if i < width else 2 * (width - 1) - i for i in range(-(-width // multiple) * multiple)]
    return x[:, :, rows][:, :, :, columns]


# ------------------------------------------------------------------------------------------------------------- networks
def residual(weights: Weights, name: str, x: Array) -> Array:
    y = relu(instance_norm(conv2d(x, weights[f"{name}/conv0"], 1, 1, reflect=True)))
    return x + instance_norm(conv2d(y, weights[f"{name}/conv1"], 1, 1, reflect=True))


def image(weights: Weights, name: str, x: Array) -> Array:
    y = conv2d(x, weights[f"{name}/last"], 1, 3, reflect=True)
    return np.tanh(y + weights[f"{name}/last/bias"].reshape(1, -1, 1, 1))


def trunk(weights: Weights, name: str, x: Array, downs: int, blocks: int) -> Array:
    """G1 without its last convolution (also the encoder, with no blocks)."""
    x = relu(instance_norm(conv2d(x, weights[f"{name}/first"], 1, 3, reflect=True)))
    for i in range(downs):
        x = relu(instance_norm(conv2d(x, weights[f"{name}/down{i}"], 2, 1)))
    for i in range(blocks):
        x = residual(weights, f"{name}/block{i}", x)
    for i in range(downs):
        x = relu(instance_norm(conv_transpose2d(x, weights[f"{name}/up{i}"])))
    return x


def generator(weights: Weights, x: Array, stage: int, downs: int, blocks: int, local_blocks: int) -> Array:
    """G1 and the first `stage` enhancers (paper figure 3)."""
    height, width = x.shape[2:]
    pyramid = [reflected(x, 2 ** (downs + stage))]
    for _ in range(stage):
        pyramid.append(halved(pyramid[-1]))
    features, name = trunk(weights, "global", pyramid[-1], downs, blocks), "global"
    for number in range(1, stage + 1):
        name, at = f"enhancer{number}", pyramid[stage - number]
        y = relu(instance_norm(conv2d(at, weights[f"{name}/first"], 1, 3, reflect=True)))
        y = relu(instance_norm(conv2d(y, weights[f"{name}/down"], 2, 1))) + features
        for i in range(local_blocks):
            y = residual(weights, f"{name}/block{i}", y)
        features = relu(instance_norm(conv_transpose2d(y, weights[f"{name}/up"])))
    return image(weights, name, features)[:, :, :height, :width]


def discriminator(weights: Weights, condition: Array, images: Array, scales: int, layers: int) -> list[list[Array]]:
    """Features of each scale and layer, last the logits; kernel 4, padding 2, stride 2 but in the last two layers."""
    x, found = np.concatenate([condition, images], axis=1), []
    for s in range(scales):
        y, own = x, []
        for n in range(layers + 2):
            y = conv2d(y, weights[f"scale{s}/layer{n}"], 2 if n < layers else 1, 2)
            if n in (0, layers + 1):
                y = y + weights[f"scale{s}/layer{n}/bias"].reshape(1, -1, 1, 1)
            if 0 < n <= layers:
                y = instance_norm(y)
            if n <= layers:
                y = lrelu(y)
            own.append(y)
        found.append(own)
        x = halved(x)
    return found


def shapes(
    inputs: int, ngf: int, downs: int, blocks: int, enhancers: int = 0, local_blocks: int = 0, outputs: int = 3
) -> dict[str, tuple[int, ...]]:
    """Shapes of the generator's weights: conv [out, in, k, k], transposed [in, out, k, k]."""
    out: dict[str, tuple[int, ...]] = {}

    def blocks_of(name: str, channels: int, count: int) -> None:
        for i in range(count):
            out[f"{name}/block{i}/conv0"] = out[f"{name}/block{i}/conv1"] = (channels, channels, 3, 3)

    def last(name: str, channels: int) -> None:
        out[f"{name}/last"], out[f"{name}/last/bias"] = (outputs, channels, 7, 7), (outputs,)

    out["global/first"] = (ngf, inputs, 7, 7)
    for i in range(downs):
        out[f"global/down{i}"] = (ngf * 2 ** (i + 1), ngf * 2**i, 3, 3)
        out[f"global/up{i}"] = (ngf * 2 ** (downs - i), ngf * 2 ** (downs - i - 1), 3, 3)
    blocks_of("global", ngf * 2**downs, blocks)
    last("global", ngf)
    for number in range(1, enhancers + 1):
        name, width = f"enhancer{number}", ngf // 2**number
        out[f"{name}/first"], out[f"{name}/down"] = (width, inputs, 7, 7), (2 * width, width, 3, 3)
        out[f"{name}/up"] = (2 * width, width, 3, 3)
        blocks_of(name, 2 * width, local_blocks)
        last(name, width)
    return out


def discriminator_shapes(inputs: int, ndf: int, layers: int, scales: int, most: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the discriminators' weights; `inputs` are condition and image together."""
    out: dict[str, tuple[int, ...]] = {}
    for s in range(scales):
        before = inputs
        for n in range(layers + 2):
            channels = min(ndf * 2**n, most) if n <= layers else 1
            out[f"scale{s}/layer{n}"] = (channels, before, 4, 4)
            if n in (0, layers + 1):
                out[f"scale{s}/layer{n}/bias"] = (channels,)
            before = channels
    return out


def drawn(spec: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Weights for shapes."""
    return {name: array(name, shape, 0.3) for name, shape in spec.items()}


# --------------------------------------------------------------------------------------------------- maps and instances
def edges(ids: Array) -> Array:
    """Pixels of [h, w] that differ from a neighbour above, below, left or right."""
    height, width = ids.shape
    out = np.zeros(ids.shape, bool)
    for y in range(height):
        for x in range(width):
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                out[y, x] |= 0 <= v < height and 0 <= u < width and ids[v, u] != ids[y, x]
    return out


def pooled(features: Array, ids: Array) -> Array:
    """[n, c, h, w] with each pixel's features replaced by their mean over its instance in its image."""
    out = np.empty_like(features)
    for sample, own in enumerate(ids):
        for number in np.unique(own):
            at = own == number
            out[sample][:, at] = features[sample][:, at].mean(axis=1, keepdims=True)
    return out


# --------------------------------------------------------------------------------------------------------------- losses
def feature_matching(real: Sequence[Sequence[Array]], fake: Sequence[Sequence[Array]], layers: int) -> float:
    """4 / (layers + 1) / scales times the mean absolute differences, without the logits."""
    total = 0.0
    for real_scale, fake_scale in zip(real, fake, strict=True):
        for n in range(layers + 1):
            total += 4.0 / (layers + 1) / len(real) * np.abs(real_scale[n] - fake_scale[n]).mean()
    return total


# -------------------------------------------------------------------------------------------------------------- k-means
def k_means(points: Array, uniforms: Sequence[float]) -> tuple[Array, float]:
    """k-means++ by inversion of the cumulated squared distances, then Lloyd until nothing moves."""
    centres = [points[int(uniforms[0] * len(points))]]
    for u in uniforms[1:]:
        weights = [min(float(((p - c) ** 2).sum()) for c in centres) for p in points]
        level, total = u * sum(weights), 0.0
        for p, w in zip(points, weights, strict=True):
            total += w
            if total > level:
                centres.append(p)
                break
    current = np.array(centres)
    while True:
        own = [min(range(len(current)), key=lambda j: float(((p - current[j]) ** 2).sum())) for p in points]
        moved = np.array([points[np.array(own) == j].mean(axis=0) for j in range(len(current))])
        if np.allclose(moved, current, rtol=0, atol=1e-14):
            return current, sum(float(((p - current[j]) ** 2).sum()) for p, j in zip(points, own, strict=True))
        current = moved
