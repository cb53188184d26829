"""Features of a TorchScript file of the user's."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advgen import files
from advgen.errors import UserError
from advgen.metrics.dinov2 import load_dinov2


class Means(nn.Module):
    """Means of the quarters of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Whole(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Narrow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def script(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(network), path)
    return path


def test_images_are_resized_and_normalised_as_the_networks_want_them(tmp_path: Path) -> None:
    path = script(Means(), tmp_path / "means.pt")
    extractor = load_dinov2(path)
    images = torch.randint(0, 256, (5, 3, 300, 260), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = extractor(images)
    assert extractor.dimensions == 12 and found.shape == (5, 12) and found.dtype == torch.float32
    # Pillow's bicubic filter is the authors'; it rounds to bytes, which means over quarters hardly see.
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    small = [
        torch.frombuffer(bytearray(p.resize((224, 224), Image.Resampling.BICUBIC).tobytes()), dtype=torch.uint8)
        for p in pictures
    ]
    x = torch.stack(small).reshape(5, 224, 224, 3).permute(0, 3, 1, 2) / 255.0
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = Means()((x - mean[:, None, None]) / deviation[:, None, None])
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3)
    grey = images[:, :1]
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


def test_the_identity_is_the_file_and_what_comes_before_it(tmp_path: Path) -> None:
    path = script(Means(), tmp_path / "means.pt")
    identity = load_dinov2(path).identity
    assert identity["sha256"] == files.sha256(path) and identity["layer"] == "output-12"
    assert identity["input_size"] == 224 and "bicubic antialias=True" in str(identity["resize"])


def test_other_files_and_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fd_dinov2 needs a file.*evaluation\.dinov2"):
        load_dinov2(None)
    with pytest.raises(UserError, match="nowhere.pt: no such file.*fd_dinov2"):
        load_dinov2(tmp_path / "nowhere.pt")
    (tmp_path / "text.pt").write_text("text")
    with pytest.raises(UserError, match="text.pt: is no TorchScript"):
        load_dinov2(tmp_path / "text.pt")
    with pytest.raises(UserError, match=r"whole.pt: gives \[1, 3, 224, 224\] for 1 images"):
        load_dinov2(script(Whole(), tmp_path / "whole.pt"))
    with pytest.raises(UserError, match=r"narrow.pt: fails on .* float32 \[1, 3, 224, 224\] .*Name one that takes"):
        load_dinov2(script(Narrow(), tmp_path / "narrow.pt"))
