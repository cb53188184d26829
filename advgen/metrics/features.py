"""From images to the features on which a metric is defined.

A figure such as FID belongs to its features: other weights, another resize filter or lower precision give another
figure for the same images (pytorch-fid issue 11, torchmetrics issue 3130). So an extractor carries its identity, which
is stored with every figure and every cached reference, and computes in plain float32 whatever the training does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.metrics.ranks import GROUP

Identity = dict[str, str | int]


class Extractor(Protocol):
    """What a metric needs of a feature network."""

    @property
    def identity(self) -> Identity:
        """All that changes the figures: name, sha256 of the weights, input size, resize filter, feature layer."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a feature vector."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Features of a batch of images.

        Args:
            images: uint8 [n, 3, h, w] in 0..255, any h and w; [n, 1, h, w] counts as three equal channels.

        Returns:
            float32 [n, dimensions], on the device of ``images``, without gradient.

        Raises:
            ValueError: another type or shape.
        """
        ...


class NetworkExtractor:
    """An :class:`Extractor` around a module that maps uint8 [n, 3, h, w] to float32 [n, dimensions].

    The module runs in evaluation mode on the device of the images it is given; it moves there when that changes.
    Autocast and TF32 are off while it runs, whatever the caller has set, because both change the figures. Weights lie
    in channels-last order, and a batch goes through in pieces, so that features do not depend on how many are given at
    once (:mod:`advgen.metrics.ranks`). On the CPU a piece's activations stay in the caches: for Lite0 at 64 px, batch
    128 and one thread that is more than twice as fast as without either.

    Args:
        network: the module.
        identity: see :attr:`Extractor.identity`.
        dimensions: length of a feature vector.
        cpu_piece: images that go through the module at once on the CPU, or fewer, as they have to divide a group; on
            other devices it is a whole group.
    """

    def __init__(self, network: nn.Module, identity: Identity, dimensions: int, cpu_piece: int) -> None:
        self._network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self._cpu_piece = min(1 << max(0, cpu_piece.bit_length() - 1), GROUP)
        self._device = torch.device("cpu")
        self._identity = dict(identity)
        self._dimensions = dimensions

    @property
    def identity(self) -> Identity:
        """See :attr:`Extractor.identity`; a copy, so that a caller may add to it."""
        return dict(self._identity)

    @property
    def dimensions(self) -> int:
        """See :attr:`Extractor.dimensions`."""
        return self._dimensions

    def __call__(self, images: Tensor) -> Tensor:
        """See :meth:`Extractor.__call__`."""
        images = as_rgb(images)
        if not len(images):
            return torch.empty(0, self._dimensions, device=images.device)
        if images.device != self._device:
            self._network.to(images.device)
            self._device = images.device
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False), full_float32():
            piece = self._cpu_piece if images.device.type == "cpu" else GROUP
            return torch.cat([self._network(part) for part in images.split(piece)])


def as_rgb(images: Tensor) -> Tensor:
    """Check a batch of images and give it three channels.

    Args:
        images: uint8 [n, 1 or 3, h, w].

    Returns:
        uint8 [n, 3, h, w]; a view where ``images`` has one channel.

    Raises:
        ValueError: another type or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"features need images as uint8 [n, 1 or 3, h, w]; given {images.dtype} {list(images.shape)}. "
            "advgen.images.to_bytes makes uint8 of a network's output."
        )
    return images.expand(-1, 3, -1, -1)


@contextmanager
def full_float32() -> Iterator[None]:
    """Products and convolutions in full float32 on CUDA, whatever the training allows: no TF32's 10-bit mantissa.

    By torch's older names, as :class:`advgen.runtime.world.World` sets them: torch refuses to read what both set.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth`` file without running code from it (``weights_only=True``).

    Returns:
        Tensors by parameter name, on the CPU.

    Raises:
        UserError: the file cannot be read, or is no mapping from names to tensors.
    """
    way_out = "Name an unmodified weights file."
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # a file it then reads or refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). {way_out}") from None
    except (
        Exception
    ):  # torch's reader meets arbitrary bytes here, and fails on them with whatever comes (IndexError ...)
        raise UserError(f"{path}: holds no plain tensors; it is damaged or no weights file. {way_out}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: is no mapping from parameter names to tensors. {way_out}")
    return state
