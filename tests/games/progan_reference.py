"""ProGAN in plain float64 numpy, written from the paper and the behaviour of its code, never from `advgen`.

Sources, as the docstrings name them: "tf" is github.com/tkarras/progressive_growing_of_gans, master at fdc55b9;
"theano" is its branch original-theano-version at 2609d1f; "paper" is arXiv:1710.10196. No line of that code is here.

Weights are stored unscaled: conv [out, in, kh, kw], dense [out, in], bias [out]. The 4x4 dense of G has nf(1) * 16 rows
in the order (channel, y, x), but nf(1) biases, one a channel.

`python tests/games/progan_reference.py` rewrites golden/progan.json. Inputs and weights are not in it:
`array(name, shape)` draws them from their name, `tiny_weights(label_size)` builds the tiny net, resolution 16.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Weights = Mapping[str, Array]
GOLDEN = Path(__file__).parent / "golden" / "progan.json"


# --------------------------------------------------------------------------------------------------------------- layers
def channels(stage: int, fmap_base: int = 8192, fmap_max: int = 512, fmap_decay: float = 1.0) -> int:
    """Feature maps of a stage; the block at resolution 2^r uses stage r - 1 (tf networks.py `nf`)."""
    return min(int(fmap_base / 2.0 ** (stage * fmap_decay)), fmap_max)


def wscale(shape: Sequence[int], gain: float) -> float:
    """Run-time factor of equalized learning rate: gain / sqrt(fan_in), fan_in all axes but `out` (tf `get_weight`)."""
    return gain / math.sqrt(math.prod(shape[1:]))


def gain_of(name: str) -> float:
    """Gain of a weight by its name: sqrt(2) but for G's dense (sqrt(2)/4), toRGB (1) and D's last dense (1)."""
    return {"g/4x4/dense": math.sqrt(2) / 4, "d/4x4/dense1": 1.0}.get(name, 1.0 if "torgb" in name else math.sqrt(2))


def conv2d(x: Array, w: Array) -> Array:
    """Cross-correlation, stride 1, zero padding SAME, NCHW: one product a tap."""
    pad = w.shape[2] // 2
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((x.shape[0], w.shape[0], height, width), dtype=np.result_type(x, w))
    for dy in range(w.shape[2]):
        for dx in range(w.shape[3]):
            tap = padded[:, :, dy : dy + height, dx : dx + width]
            out += np.moveaxis(np.tensordot(w[:, :, dy, dx], tap, axes=(1, 1)), 0, 1)
    return out


def layer(weights: Weights, name: str, x: Array) -> Array:
    """Linear layer with the scaled weight; the bias is added apart (`bias`), after the reshape of G's dense."""
    w = weights[name + "/weight"] * wscale(weights[name + "/weight"].shape, gain_of(name))
    return conv2d(x, w) if w.ndim == 4 else x.reshape(len(x), -1) @ w.T


def bias(weights: Weights, name: str, x: Array) -> Array:
    """Adds the bias, one a channel, unscaled (tf `apply_bias`)."""
    b = weights[name + "/bias"]
    return x + (b if x.ndim == 2 else b[None, :, None, None])


def lrelu(x: Array) -> Array:
    """Leaky ReLU, slope 0.2; for a complex step the sign is that of the real part."""
    return np.where(x.real > 0, x, 0.2 * x)


def pixel_norm(x: Array, eps: float = 1e-8) -> Array:
    """x / sqrt(mean over axis 1 of x^2 + eps)."""
    return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + eps)


def upscale(x: Array, factor: int = 2) -> Array:
    """Nearest neighbour."""
    return x.repeat(factor, axis=2).repeat(factor, axis=3)


def downscale(x: Array, factor: int = 2) -> Array:
    """Mean of boxes."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // factor, factor, w // factor, factor).mean(axis=(3, 5))


def lerp(a: Array, b: Array, t: Array | float) -> Array:
    """a at t = 0, b at t = 1."""
    return a + (b - a) * t


def minibatch_stddev(x: Array, group: int) -> Array:
    """The statistic of each sample, [N] (tf `minibatch_stddev_layer`); the layer appends it as one constant map, last.

    Reshape to [G, M, ...] puts sample i into group i mod M, M = N / G, G = min(group, N): groups are strided. Theano
    (mbstat_avg 'all') takes the whole batch, as the preset v1-1gpu does with group 16.
    """
    size = min(group, len(x))
    if len(x) % size:
        raise ValueError(f"batch {len(x)} is no multiple of the group {size}")
    count = len(x) // size
    stats = []
    for m in range(count):
        members = x[m::count]
        centred = members - members.mean(axis=0)
        stats.append(np.sqrt((centred * centred).mean(axis=0) + 1e-8).mean())
    return np.array([stats[i % count] for i in range(len(x))])


# ------------------------------------------------------------------------------------------------------------- networks
def generator(weights: Weights, z: Array, labels: Array | None, resolution: int, alpha: float) -> Array:
    """Image at `resolution` (tf G_paper). Labels join z before its pixel norm; theano appends them after it."""

    def act(name: str, y: Array) -> Array:
        return pixel_norm(lrelu(bias(weights, name, y)))

    def rgb(y: Array, res: int) -> Array:
        return bias(weights, f"g/{res}x{res}/torgb", layer(weights, f"g/{res}x{res}/torgb", y))

    x = pixel_norm(z if labels is None else np.concatenate([z, labels], axis=1))
    x = act("g/4x4/dense", layer(weights, "g/4x4/dense", x).reshape(len(x), -1, 4, 4))
    x = act("g/4x4/conv", layer(weights, "g/4x4/conv", x))
    previous, res = x, 4
    while res < resolution:
        previous, res = x, 2 * res
        x = act(f"g/{res}x{res}/conv0", layer(weights, f"g/{res}x{res}/conv0", upscale(x)))
        x = act(f"g/{res}x{res}/conv1", layer(weights, f"g/{res}x{res}/conv1", x))
    image = rgb(x, res)
    return image if res == 4 else lerp(upscale(rgb(previous, res // 2)), image, alpha)


def discriminator_features(
    weights: Weights, images: Array, resolution: int, alpha: float, group: int = 4, fused: bool = True
) -> Array:
    """What D's last dense layer takes, [N, nf(0)] (tf D_paper).

    `fused` is tf's default fused_scale=True: conv1, box filter, bias, leaky ReLU. Without (theano, paper table 2, tf
    fused_scale=False): conv1, bias, leaky ReLU, box filter. The two are different functions.
    """

    def act(name: str, y: Array) -> Array:
        return lrelu(bias(weights, name, y))

    def from_rgb(y: Array, res: int) -> Array:
        return act(f"d/{res}x{res}/fromrgb", layer(weights, f"d/{res}x{res}/fromrgb", y))

    x = from_rgb(images, resolution)
    res = resolution
    while res > 4:
        x = act(f"d/{res}x{res}/conv0", layer(weights, f"d/{res}x{res}/conv0", x))
        x = layer(weights, f"d/{res}x{res}/conv1", x)
        name = f"d/{res}x{res}/conv1"
        x = act(name, downscale(x)) if fused else downscale(act(name, x))
        if res == resolution:
            x = lerp(from_rgb(downscale(images), res // 2), x, alpha)
        res //= 2
    stat = np.broadcast_to(minibatch_stddev(x, group)[:, None, None, None], (len(x), 1, 4, 4))
    x = act("d/4x4/conv", layer(weights, "d/4x4/conv", np.concatenate([x, stat], axis=1)))
    return act("d/4x4/dense0", layer(weights, "d/4x4/dense0", x))


def discriminator(
    weights: Weights, images: Array, resolution: int, alpha: float, group: int = 4, fused: bool = True
) -> tuple[Array, Array]:
    """Scores [N] and label logits [N, label_size] (tf D_paper)."""
    x = discriminator_features(weights, images, resolution, alpha, group, fused)
    x = bias(weights, "d/4x4/dense1", layer(weights, "d/4x4/dense1", x))
    return x[:, 0], x[:, 1:]


def projection_score(weights: Weights, features: Array, labels: Array) -> Array:
    """y^T V h + psi(h), [N], with one-hot y (Miyato & Koyama 2018, section 3); V's factor is that of psi's weight."""
    v = weights["d/4x4/embedding/weight"] / math.sqrt(features.shape[1])
    psi = bias(weights, "d/4x4/dense1", layer(weights, "d/4x4/dense1", features))[:, 0]
    return psi + (labels * (features @ v.T)).sum(axis=1)


def shapes(
    resolution: int, nf: Callable[[int], int], latent: int, label_size: int = 0, rgb: int = 3
) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights of a net that grows to `resolution`, by name."""
    out: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int, biases: int | None = None) -> None:
        out[name + "/weight"], out[name + "/bias"] = shape, (biases or shape[0],)

    add("g/4x4/dense", nf(1) * 16, latent + label_size, biases=nf(1))
    add("g/4x4/conv", nf(1), nf(1), 3, 3)
    add("d/4x4/conv", nf(1), nf(1) + 1, 3, 3)
    add("d/4x4/dense0", nf(0), nf(1) * 16)
    add("d/4x4/dense1", 1 + label_size, nf(0))
    for r in range(2, resolution.bit_length()):
        name, here, below = f"{2**r}x{2**r}", nf(r - 1), nf(r - 2)
        add(f"g/{name}/torgb", rgb, here, 1, 1)
        add(f"d/{name}/fromrgb", here, rgb, 1, 1)
        if r > 2:
            add(f"g/{name}/conv0", here, below, 3, 3)
            add(f"g/{name}/conv1", here, here, 3, 3)
            add(f"d/{name}/conv0", here, here, 3, 3)
            add(f"d/{name}/conv1", below, here, 3, 3)
    return out


def process_reals(x: Array, alpha: float) -> Array:
    """Reals while a layer fades in: blended with their down- and upscaled copy, weight 1 - alpha (tf train.py)."""
    return lerp(upscale(downscale(x)), x, alpha)


# --------------------------------------------------------------------------------------------------------------- losses
def input_gradient(function: Callable[[Array], Array], x: Array, step: float = 1e-30) -> Array:
    """Gradient of sum(function(x)) by complex steps, one entry at a time: exact to rounding, no backpropagation."""
    grad = np.empty_like(x)
    point = x.astype(complex)
    for index in np.ndindex(*x.shape):
        point[index] += 1j * step
        grad[index] = function(point).sum().imag / step
        point[index] = x[index]
    return grad


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross entropy a sample, with one-hot labels: the AC-GAN term (tf loss.py; weight cond_weight = 1)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return -(labels * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))).sum(axis=1)


def d_wgan_gp(
    real: Array, fake: Array, norms: Array, lam: float = 10.0, target: float = 1.0, drift: float = 1e-3
) -> float:
    """Mean of fake - real + lam/target^2 (norm - target)^2 + drift real^2, drift on reals only (tf loss.py)."""
    return float((fake - real).mean() + lam / target**2 * ((norms - target) ** 2).mean() + drift * (real**2).mean())


# ------------------------------------------------------------------------------------------------ optimizer and average
def adam(grads: Sequence[Array], lr: float, form: str, resets: Sequence[int] = (), eps: float = 1e-8) -> list[Array]:
    """Sum of the updates after each gradient, betas (0, 0.99); moments and t are zeroed before the steps in `resets`.

    "tf": lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps), tf.train.AdamOptimizer and lasagne.updates.adam.
    "torch": lr/(1-b1^t) m / (sqrt(v / (1-b2^t)) + eps). tf equals torch with eps / sqrt(1-b2^t): 10 eps at t = 1.
    """
    beta1, beta2 = 0.0, 0.99
    x, m, v, t = np.zeros_like(grads[0]), np.zeros_like(grads[0]), np.zeros_like(grads[0]), 0
    out = []
    for i, g in enumerate(grads):
        if i in resets:
            m, v, t = np.zeros_like(g), np.zeros_like(g), 0
        t += 1
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        tf = lr * math.sqrt(c2) / c1 * m / (np.sqrt(v) + eps)
        x = x - (tf if form == "tf" else lr / c1 * m / (np.sqrt(v / c2) + eps))
        out.append(x)
    return out


def average(g_after_each_iteration: Sequence[float], start: float, beta: float = 0.999) -> list[float]:
    """The average after each iteration: it moves with the D step, toward the G of before the iteration's G step.

    tf runs [D_train_op, Gs_update_op], then G_train_op. Theano has the update in the G function, which reads the old
    values, so with one D step an iteration the two agree. The average starts as a copy of G, layers not yet in use too.
    """
    current, mean, out = start, start, []
    for after in g_after_each_iteration:
        mean = current + (mean - current) * beta
        current = after
        out.append(mean)
    return out


# ------------------------------------------------------------------------------------------------------------- schedule
@dataclass(frozen=True)
class Schedule:
    """Growth from 4x4 by images shown to D (tf TrainingSchedule), counted whole so that no rounding moves a border."""

    resolution: int
    train: int
    fade: int
    batch: int
    batches: Mapping[int, int] = field(default_factory=dict)
    lr: float = 1e-3
    lrs: Mapping[int, float] = field(default_factory=dict)
    rampup: int = 0
    repeats: int = 4

    def at(self, nimg: int) -> tuple[int, float, int, float]:
        """Resolution, alpha, batch and learning rate at an image count.

        While fading the resolution is the new one; at the very image where a fade starts it is still the old one.
        """
        phase, inside = divmod(nimg, self.train + self.fade)
        shown = max(inside - self.train, 0)
        res, alpha = 4 * 2 ** (phase + (shown > 0)), shown / self.fade if shown else 1.0
        if res > self.resolution:
            res, alpha = self.resolution, 1.0
        return (
            res,
            alpha,
            self.batches.get(res, self.batch),
            self.lrs.get(res, self.lr) * rampup_factor(nimg, self.rampup),
        )

    def rounds(self, total: int) -> Iterator[tuple[int, int, float, int, float, bool]]:
        """For every round: nimg, resolution, alpha, batch, lr, and whether both Adams are reset before it.

        A round is `repeats` iterations that share all of these; the last is the first that ends at or past `total`.

        Reset: floor or ceil of the level of detail has changed (tf train.py), which a pair (resolution, fading) names;
        the first round counts as one. Theano compiles new updates, hence new moments, at the same borders.
        """
        nimg, before = 0, (0, False)
        while nimg < total:
            res, alpha, batch, lr = self.at(nimg)
            yield nimg, res, alpha, batch, lr, (res, alpha < 1) != before
            before = (res, alpha < 1)
            nimg += self.repeats * batch


def rampup_factor(nimg: int, length: int) -> float:
    """exp(-5 (1 - nimg/length)^2), 1 from `length` on (theano misc.py; 40 kimg there, none in tf)."""
    return math.exp(-5.0 * (1.0 - nimg / length) ** 2) if nimg < length else 1.0


THEANO = Schedule(1024, 800_000, 800_000, 16, {256: 14, 512: 6, 1024: 3}, rampup=40_000, repeats=1)
V2_BATCHES = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
V2 = Schedule(1024, 600_000, 600_000, 4, V2_BATCHES, lrs={1024: 1.5e-3})
SHORT = {
    "short": (Schedule(16, 600, 600, 16, {16: 8}), 3000),
    "short_single": (Schedule(16, 600, 600, 16, {16: 8}, rampup=900, repeats=1), 3000),
    "v2_1gpu_short": (Schedule(1024, 1200, 1200, 4, V2_BATCHES, lrs={1024: 1.5e-3}), 20_400),
}


# --------------------------------------------------------------------------------------------------------------- golden
def array(name: str, shape: Sequence[int], scale: float = 1.0) -> Array:
    """Normal numbers drawn from a name (legacy MT19937, frozen by numpy), rounded to 6 decimals."""
    return np.round(scale * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape)), 6)


def tiny_weights(label_size: int = 0) -> dict[str, Array]:
    """Weights N(0, 1), biases N(0, 0.01), of the tiny net: resolution 16, fmap_base 32, fmap_max 8, latent 8."""
    spec = shapes(16, lambda stage: channels(stage, 32, 8), 8, label_size)
    return {k: array(f"{k}#{label_size}", s, 0.1 if k.endswith("bias") else 1.0) for k, s in spec.items()}


def projection_weights(label_size: int) -> dict[str, Array]:
    """The same with a projection: one output of D's last layer, and an embedding of the labels."""
    weights = tiny_weights(label_size)
    weights |= {f"d/4x4/dense1/{kind}": weights[f"d/4x4/dense1/{kind}"][:1] for kind in ("weight", "bias")}
    return weights | {"d/4x4/embedding/weight": array("d/4x4/embedding", (label_size, channels(0, 32, 8)))}


def tiny_labels(label_size: int, batch: int) -> Array | None:
    """One-hot rows 0, 1, 2, 0, ...; None without labels."""
    return np.eye(label_size)[np.arange(batch) % label_size] if label_size else None


def tiny_images(resolution: int, batch: int = 8) -> Array:
    """Reals of the tiny net."""
    return array(f"images/{resolution}", (batch, 3, resolution, resolution), 0.5)


def rounded(x: Any, decimals: int = 10) -> Any:
    """Numbers for JSON; the rounding hides what differs between BLAS builds."""
    return np.round(x, decimals).tolist() if isinstance(x, np.ndarray) else round(float(x), decimals)


def loss_case(label_size: int, resolution: int, alpha: float, fused: bool, batch: int = 4) -> dict[str, Any]:
    """All pieces of the losses of one batch.

    `full`: gradient norms with respect to the image upscaled to the final resolution, 16, as tf and theano have them.
    """
    w, labels, mix = tiny_weights(label_size), tiny_labels(label_size, batch), np.array([0.1, 0.35, 0.6, 0.85])
    reals = process_reals(tiny_images(resolution, batch), alpha)
    fakes = generator(w, array("z", (8, 8))[:batch], labels, resolution, alpha)

    def score(x: Array) -> Array:
        return discriminator(w, x, resolution, alpha, fused=fused)[0]

    mixed = lerp(reals, fakes, mix[:, None, None, None])
    grads, real_grads = input_gradient(score, mixed), input_gradient(score, reals)
    step = 1e-6 * array("direction", mixed.shape)  # central differences along one direction agree
    for g, x in ((grads, mixed), (real_grads, reals)):
        assert abs(2 * (g * step).sum() - (score(x + step) - score(x - step)).sum()) < 1e-12
    norms, factor = np.sqrt((grads**2).sum(axis=(1, 2, 3))), 16 // resolution
    real, fake = score(reals), score(fakes)
    case: dict[str, Any] = {
        "label_size": label_size, "resolution": resolution, "alpha": alpha, "fused": fused, "mix": mix,
        "real_scores": real, "fake_scores": fake, "mixed_scores": score(mixed),
        "norms": norms, "norms_full": norms / factor,
        "wasserstein": (fake - real).mean(),
        "penalty": 10 * ((norms - 1) ** 2).mean(), "drift": 1e-3 * (real**2).mean(),
        "d_wgan_gp": d_wgan_gp(real, fake, norms), "d_wgan_gp_full": d_wgan_gp(real, fake, norms / factor),
        "d_wgan_gp_target_750": d_wgan_gp(real, fake, norms, target=750.0), "g_wgan": -fake.mean(),
        "d_logistic": (np.logaddexp(0, fake) + np.logaddexp(0, -real)).mean(),
        "g_logistic": np.logaddexp(0, -fake).mean(),
        "r1_gamma_10": 5.0 * (real_grads**2).sum(axis=(1, 2, 3)).mean(),
    }  # fmt: skip
    if labels is not None:
        logits = [discriminator(w, x, resolution, alpha, fused=fused)[1] for x in (reals, fakes)]
        case |= {
            "label_real": cross_entropy(logits[0], labels).mean(),
            "label_fake": cross_entropy(logits[1], labels).mean(),
        }
        case["d_total"] = case["d_wgan_gp"] + case["label_real"] + case["label_fake"]
        case["g_total"] = case["g_wgan"] + case["label_fake"]
    return {k: rounded(v) if isinstance(v, np.ndarray | np.floating | float) else v for k, v in case.items()}


def golden() -> dict[str, Any]:
    """Everything the file holds."""
    out: dict[str, Any] = {"generator": [], "discriminator": [], "minibatch_stddev": [], "schedules": {}}
    for labels in (0, 3):
        w = tiny_weights(labels)
        out[f"checksum_{labels}"] = {
            k: rounded(sum(np.abs(v).sum() for n, v in w.items() if n[0] == k), 6) for k in "gd"
        }
        for res, alpha in ((4, 1.0), (8, 0.3), (8, 1.0), (16, 0.3), (16, 1.0)):
            image = generator(w, array("z", (8, 8)), tiny_labels(labels, 8), res, alpha)
            case: dict[str, Any] = {"label_size": labels, "resolution": res, "alpha": alpha}
            out["generator"].append(case | {"mean_abs": rounded(np.abs(image).mean()), "first": rounded(image[:1], 8)})
            for group, fused in ((4, True), (4, False), (16, True), (16, False)):
                scores, logits = discriminator(w, tiny_images(res), res, alpha, group, fused)
                result = {"group": group, "fused": fused, "scores": rounded(scores), "logits": rounded(logits)}
                out["discriminator"].append(case | result)
    for batch, group in ((8, 2), (8, 4), (8, 8), (8, 16), (3, 4), (16, 16), (16, 4)):
        stat = minibatch_stddev(array("stddev", (16, 2, 4, 4))[:batch], group)
        out["minibatch_stddev"].append({"batch": batch, "group": group, "statistic": rounded(stat, 12)})
    ramp = np.arange(16.0).reshape(1, 1, 4, 4) ** 2
    out["process_reals"] = {
        "x": ramp.tolist(),
        "alpha_1": rounded(process_reals(ramp, 1.0)),
        "alpha_03": rounded(process_reals(ramp, 0.3)),
    }
    cases = (
        (0, 4, 1.0, True),
        (0, 8, 0.3, True),
        (0, 8, 1.0, False),
        (3, 8, 0.3, True),
        (0, 16, 0.3, True),
        (0, 16, 0.3, False),
    )
    out["losses"] = [loss_case(*case) for case in cases]
    grads = [array(f"grad/{i}", (3,)) * np.array([1.0, 1e-4, 1e-8]) for i in range(6)]
    out["adam"] = {"lr": 1e-3, "resets": [3], "grads": [g.tolist() for g in grads]}
    out["adam"] |= {form: [x.tolist() for x in adam(grads, 1e-3, form, (3,))] for form in ("tf", "torch")}
    after = [1.0, 3.0, -2.0, 0.5]
    out["average"] = {"start": 2.0, "g": after, "beta": 0.9, "average": rounded(np.array(average(after, 2.0, 0.9)), 12)}
    out["rampup_40kimg"] = [[n, rampup_factor(n, 40_000)] for n in (0, 16, 10_000, 20_000, 39_999, 40_000, 50_000)]
    for name, (schedule, total) in SHORT.items():
        rows = [
            [n, r, rounded(a, 12), b, rounded(lr, 15), int(reset)] for n, r, a, b, lr, reset in schedule.rounds(total)
        ]
        out["schedules"][name] = {"total": total, "repeats": schedule.repeats, "rounds": rows}
    for name, schedule, total in (("theano_paper", THEANO, 19_000_000), ("v2_1gpu", V2, 12_000_000)):
        events, count = [], 0
        for n, r, a, b, lr, reset in schedule.rounds(total):
            count += 1
            if reset:
                events.append([n, r, rounded(a, 12), b, rounded(lr, 15)])
        out["schedules"][name] = {"total": total, "repeats": schedule.repeats, "count": count, "resets": events}
    full = shapes(1024, channels, 512)
    out["parameters_1024"] = {k: sum(math.prod(s) for n, s in full.items() if n[0] == k) for k in "gd"}
    out["channels_4_to_1024"] = [channels(r - 1) for r in range(2, 11)]
    return out


if __name__ == "__main__":
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden().items())
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("{\n" + lines + "\n}\n")
