"""DINOv2 features for a Frechet distance: ``fd_dinov2``.

Stein et al. 2023, "Exposing flaws of generative model evaluation metrics and their unfair treatment of diffusion
models": distances on DINOv2 ViT-L/14 features rank models as people do, which FID does not. The network comes as a
TorchScript file of the user's; any that maps such images to vectors will do, and the file's hash says which it was.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.metrics.features import NetworkExtractor
from advgen.metrics.torchscript import called, load_torchscript, shape_of

SIZE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_WAY_OUT = (
    "evaluation.dinov2 is a TorchScript file of a network that maps float32 [n, 3, 224, 224], normalised by ImageNet's "
    "mean and deviation, to [n, d], such as torch.jit.trace of dinov2_vitl14 of facebookresearch/dinov2."
)


class Dinov2Features(nn.Module):
    """uint8 images to the network's vectors."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, source: str) -> None:
        super().__init__()
        self.network, self._source = network, source
        self.register_buffer("mean", 255.0 * torch.tensor(_MEAN).reshape(3, 1, 1))
        self.register_buffer("deviation", 255.0 * torch.tensor(_DEVIATION).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] to float32 [n, d].

        Images are resized to [224, 224] (bicubic with antialias, not rounded and not clipped afterwards, as EDM2's code
        does; the authors' own rounds to bytes between), and normalised.

        Raises:
            UserError: the network fails, or gives something else.
        """
        x = F.interpolate(images.float(), size=(SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True)
        x = (x - self.mean) / self.deviation
        found = called(self.network, self._source, f"float32 {list(x.shape)} by ImageNet's mean and deviation", x)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape[:-1] != (len(x),):
            raise UserError(f"{self._source}: gives {shape_of(found)} for {len(x)} images. {_WAY_OUT}")
        return found.float()


def load_dinov2(path: Path | None) -> NetworkExtractor:
    """The extractor of ``fd_dinov2``.

    Args:
        path: TorchScript, which holds code: name none that you do not trust.

    Returns:
        An :class:`advgen.metrics.features.Extractor`; its length is found by a first call, of 1,024 for ViT-L/14.

    Raises:
        UserError: no file is named, it is missing or no TorchScript, or the network gives no vectors.
    """
    if path is None:
        raise UserError(f"the metric fd_dinov2 needs a file, and none is named. {_WAY_OUT}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; the metric fd_dinov2 reads its network from it. {_WAY_OUT}")
    network, identity = load_torchscript(path)
    features = Dinov2Features(network, str(path)).eval()
    with torch.no_grad():
        dimensions = features(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)).shape[1]
    identity |= {
        "layer": f"output-{dimensions}",
        "input_size": SIZE,
        "resize": "bicubic antialias=True align_corners=False (torch), float",
        "scale": "ImageNet mean and deviation",
    }
    return NetworkExtractor(features, identity, dimensions, cpu_piece=4)
