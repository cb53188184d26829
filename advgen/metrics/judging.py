"""Judges: networks that read labels off images. What a segmenter and a classifier share.

A judge is a TorchScript file of the user's, or is trained here on the real images and kept. Figures belong to their
judge: as a feature network does, it carries its identity and computes in plain float32.

Training is by position: weights, order and mirroring depend on the seed, and on the state of no generator. On the CPU,
with the same number of threads, the same machine trains the same judge, bit for bit.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.data.parts import Samples
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from advgen.metrics.features import Identity, as_rgb, full_float32
from advgen.metrics.measures import Learned
from advgen.metrics.ranks import Alone, Ranks, any_of, bytes_of_first
from advgen.metrics.reading import read_ahead
from advgen.metrics.reference import kept
from advgen.metrics.torchscript import called, shape_of
from advgen.seeds import Noise, key_of, permutation

Truth = Callable[[Samples], NDArray[np.int64] | NDArray[np.int32]]
"""Of some samples the ids of classes, [n] or [n, h, w]."""

_VERSION = 1  # of networks and training; what changes them changes it
_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_NOTHING = -100  # stands for ids of no class


class Judge:
    """Maps images to logits of classes.

    Args:
        network: float32 [n, 3, h, w] in [0, 1] to logits, classes at dimension 1.
        identity: all that changes its answers.
        classes: that it tells apart.
        piece: images that go through it at once.
        source: the user's file, for messages; empty for a network of ours.
    """

    def __init__(self, network: nn.Module, identity: Identity, classes: int, piece: int, source: str = "") -> None:
        self._network = network.eval()
        for parameter in network.parameters():  # TorchScript lacks requires_grad_ of modules
            parameter.requires_grad_(False)
        self._identity, self._piece, self._source = dict(identity), piece, source
        self._device = torch.device("cpu")
        self.classes = classes

    @property
    def identity(self) -> Identity:
        """All that changes the answers: name, and the hash of the weights or of the file; a copy."""
        return dict(self._identity)

    def _pieces(self, images: Tensor, dimensions: int) -> Iterator[Tensor]:
        """Logits of a batch piece by piece, as not all may fit into memory.

        Args:
            images: uint8 [n, 1 or 3, h, w]; a grey one counts as three equal channels.
            dimensions: of the logits.

        Yields:
            float32 [up to piece, classes, ...] on the device of ``images``.

        Raises:
            ValueError: images of another type or shape.
            UserError: the user's network fails, or gives something else.
        """
        images = as_rgb(images)
        if images.device != self._device:
            self._network.to(images.device)
            self._device = images.device
        for piece in images.split(self._piece) if len(images) else ():
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False), full_float32():
                logits = self._checked(self._asked(piece.float() / 255.0), len(piece), dimensions).float()
            yield logits

    def _asked(self, images: Tensor) -> object:
        if not self._source:
            return self._network(images)
        return called(self._network, self._source, f"float32 {list(images.shape)} in [0, 1]", images)

    def _checked(self, logits: object, count: int, dimensions: int) -> Tensor:
        shape = (dimensions, count, self.classes)
        if isinstance(logits, Tensor) and logits.is_floating_point() and (logits.ndim, *logits.shape[:2]) == shape:
            return logits
        wanted = f"[{count}, {self.classes}{', h, w' if dimensions == 4 else ''}]"
        raise UserError(
            f"{self._source or 'judge'}: gives {shape_of(logits)} for {count} images; logits {wanted} are expected, "
            f"the data having {self.classes} classes. Name a network that was trained for these classes."
        )


@dataclass(frozen=True)
class Lesson:
    """What a judge is trained on.

    Attributes:
        name: of the kind of judge, with the names of its settings that are not here.
        stream: of the real images.
        classes: that it learns to tell apart.
        ignore: id that stands for no class, or None.
        resolution: height of the images in pixels.
        seed: of weights, order and mirroring.
        images: that it learns from, counted each time they are shown.
        batch_size: images a step.
        learning_rate: the highest.
        mirror: whether images are mirrored left to right with probability 1/2.
    """

    name: str
    stream: ImageStream
    classes: int
    ignore: int | None
    resolution: int
    seed: int
    images: int
    batch_size: int
    learning_rate: float
    mirror: bool

    @property
    def identity(self) -> Identity:
        """All that the trained judge depends on, but for machine and number of threads."""
        return {
            "name": self.name,
            "version": _VERSION,
            "manifest": self.stream.manifest.digest,
            "classes": self.classes,
            "ignore": "none" if self.ignore is None else self.ignore,
            "resolution": self.resolution,
            "seed": self.seed,
            "images": self.images,
            "mirror": int(self.mirror),
        }

    def samples(self, start: int, stop: int) -> Samples:
        """What stands at positions ``start`` to ``stop``: all samples in an order of the seed, anew in each epoch."""
        count = len(self.stream)
        indices: list[NDArray[np.int64]] = []
        for epoch in range(start // count, (stop - 1) // count + 1):
            order = _order(key_of(self.seed, self.name, "order", epoch), count)
            indices.append(order[max(start - epoch * count, 0) : stop - epoch * count])
        return self.stream.fetch(np.concatenate(indices), self.resolution)


def untrained(network: Callable[[], nn.Module], seed: int, name: str) -> nn.Module:
    """A network with He et al.'s (2015) normal weights, drawn by the seed and the parameter's name; biases are 0."""
    with torch.device("meta"):  # no draw from torch's generator
        built = network()
    built.to_empty(device="cpu")
    with torch.no_grad():
        for key, parameter in built.named_parameters():
            if parameter.ndim > 1:
                noise = Noise(seed, (name, key), torch.arange(len(parameter)))
                scale = math.sqrt(2.0 / parameter[0].numel())
                parameter.copy_(scale * noise.normal("weights", *parameter.shape[1:]))
            else:
                parameter.fill_(float(key.endswith("weight")))
    return built


def teach(
    network: nn.Module,
    lesson: Lesson,
    truth: Truth,
    weights: Tensor | None,
    device: torch.device,
    told: Learned | None,
) -> None:
    """Train a network by cross-entropy, with AdamW and a rate that rises shortly and falls as a cosine.

    Args:
        network: with its first weights; is moved to ``device`` and trained there.
        lesson: what it is trained on.
        truth: ids of classes of some samples; where they are of no class, nothing is learned.
        weights: float32 [classes], how much each class counts; None: all alike.
        device: where to.
        told: is told (images, of how many) after each step.
    """
    network.to(device).train().requires_grad_(True)
    weights = torch.ones(lesson.classes) if weights is None else weights
    weights = weights.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lesson.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2)

    def fetched(start: int) -> tuple[int, int, Samples]:
        stop = min(start + lesson.batch_size, lesson.images)
        return start, stop, lesson.samples(start, stop)

    starts = range(0, lesson.images, lesson.batch_size)
    with (
        read_ahead(fetched, starts, lesson.batch_size * lesson.resolution**2) as read,
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        full_float32(),
    ):
        for start, stop, samples in read:
            images = torch.from_numpy(samples.images).to(device)
            ids = torch.from_numpy(truth(samples)).to(device).long()
            if lesson.mirror:
                noise = Noise(lesson.seed, (lesson.name,), torch.arange(start, stop))
                flips = (noise.uniform("mirror") < 0.5).to(device)
                images = _mirrored(images, flips)
                ids = _mirrored(ids, flips) if ids.ndim > 1 else ids
            for group in optimizer.param_groups:
                group["lr"] = lesson.learning_rate * _rate((start + stop) / 2 / lesson.images)
            optimizer.zero_grad()
            _loss(network(as_rgb(images).float() / 255.0), ids, weights, lesson.ignore).backward()
            optimizer.step()
            if told is not None:
                told(stop, lesson.images)
    network.eval().requires_grad_(False)


def learned(
    lesson: Lesson,
    build: Callable[[], nn.Module],
    truth: Truth,
    weights: Callable[[Lesson], Tensor] | None,
    cache: Path | None,
    device: torch.device | str,
    told: Learned | None,
    ranks: Ranks = Alone(),
) -> tuple[nn.Module, Identity]:
    """A network that has learned a lesson, on the CPU, and its identity.

    Args:
        lesson: what it is trained on.
        build: gives the network with any weights.
        truth: see :func:`teach`.
        weights: of the classes, see :func:`teach`; None: all alike.
        cache: folder where one that has learned this very lesson is read, or kept; None trains it.
        device: where it is trained.
        told: is told (images, of how many) after each step of the training.
        ranks: all of which call this. The first one trains, as the others might end with other last bits; they meet it
            after each step, so that nobody waits for longer.
    """

    def step(done: int, total: int) -> None:
        any_of(False, ranks)
        if told is not None:
            told(done, total)

    def train() -> nn.Module:
        content = b""
        if ranks.index == 0:
            network = untrained(build, lesson.seed, lesson.name)
            teach(network, lesson, truth, None if weights is None else weights(lesson), torch.device(device), step)
            content = safetensors.torch.save(_state(network.cpu()))
            any_of(True, ranks)
        else:
            while not any_of(False, ranks):
                pass
        return load(safetensors.torch.load(bytes_of_first(content, ranks)))

    def load(state: dict[str, Tensor]) -> nn.Module:
        with torch.device("meta"):
            network = build()
        network.load_state_dict(state, assign=True)
        return network.eval().requires_grad_(False)

    what = "weights of a judge"
    network = train() if cache is None else kept(what, lesson.identity, cache, train, _state, load, ranks)
    return network, {**lesson.identity, "weights_sha256": weights_digest(network.state_dict())}


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().contiguous() for name, value in network.state_dict().items()}


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _loss(logits: Tensor, ids: Tensor, weights: Tensor, ignore: int | None) -> Tensor:
    """Mean cross-entropy, weighted by class, over what is of a class; 0 where nothing is."""
    counted = (ids >= 0) & (ids < len(weights))
    if ignore is not None:
        counted &= ids != ignore
    # One row a pixel: unlike of pictures, the loss of rows is summed in one order on CUDA, too.
    rows, target = logits.movedim(1, -1).reshape(-1, len(weights)), torch.where(counted, ids, _NOTHING).flatten()
    total = F.cross_entropy(rows, target, weights, ignore_index=_NOTHING, reduction="sum")
    weight = (weights[target.clamp_min(0)] * (target != _NOTHING)).sum()
    return total / weight.clamp_min(torch.finfo(torch.float32).tiny)


@functools.lru_cache(2)  # an epoch's order serves all its steps
def _order(key: int, count: int) -> NDArray[np.int64]:
    return permutation(key, count)


def _mirrored(values: Tensor, flips: Tensor) -> Tensor:
    return torch.where(flips.reshape(-1, *[1] * (values.ndim - 1)), values.flip(-1), values)


def _rate(done: float) -> float:
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1.0 - _WARM_UP))
