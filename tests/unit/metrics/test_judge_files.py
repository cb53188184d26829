"""Segmenters and classifiers from TorchScript files: their contract, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advgen import files
from advgen.errors import UserError
from advgen.metrics.classifier import load_classifier
from advgen.metrics.segmenter import load_segmenter


class _Halved(nn.Module):
    """Logits at half the size: how bright, how dark, and 0.5."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.pooled = pooled

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = nn.functional.avg_pool2d(images, 2).mean(1)
        logits = torch.stack((bright, 1.0 - bright, torch.full_like(bright, 0.5)), 1)
        return logits.mean((2, 3)) if self.pooled else logits


class _Tuple(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


class _Picky(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(-1, 3, 7, 7)


def _script(path: Path, network: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(network), str(path))
    return path


def test_torchscript_is_a_judge_as_well(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (11, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    path = _script(tmp_path / "segmenter.pt", _Halved())
    segmenter = load_segmenter(path, 3)
    logits = _Halved()(images.float() / 255.0)
    assert logits.shape == (11, 3, 3, 4)
    larger = nn.functional.interpolate(logits, size=(6, 8), mode="bilinear", align_corners=False)
    assert torch.equal(segmenter(images), larger.argmax(1))
    assert segmenter.identity == {"name": "torchscript", "sha256": files.sha256(path)}
    classifier = load_classifier(str(_script(tmp_path / "classifier.pt", _Halved(pooled=True))), 3)
    torch.testing.assert_close(classifier.logits(images), logits.mean((2, 3)))
    assert classifier(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)).tolist() == [0]
    with pytest.raises(ValueError, match="uint8"):
        classifier(images.float())


@pytest.mark.parametrize("load", [load_segmenter, load_classifier])
def test_files_that_are_no_torchscript_are_refused(tmp_path: Path, load: Any) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pt: no such file"):
        load(tmp_path / "nowhere.pt", 3)
    path = tmp_path / "other.pt"
    for content in (b"", b"PK no zip", b"text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"other\.pt: is no TorchScript"):
            load(path, 3)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"torch\.jit\.save"):
        load(path, 3)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UserError, match=r"is no TorchScript"):
        load(path, 3)


@pytest.mark.parametrize(
    ("network", "classes", "message"),
    [
        (_Halved(), 5, r"gives \[2, 3, 4, 4\] for 2 images; logits \[2, 5, h, w\] are expected.*5 classes"),
        (_Halved(pooled=True), 3, r"gives \[2, 3\] for 2 images"),
        (_Tuple(), 3, "gives tuple"),
        (_Picky(), 3, r"fails on images, given as float32 \[2, 3, 8, 8\]"),
    ],
)
def test_networks_that_do_not_keep_the_contract_are_refused(
    tmp_path: Path, network: nn.Module, classes: int, message: str
) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    judge = load_segmenter(_script(tmp_path / "network.pt", network), classes)
    with pytest.raises(UserError, match=r"network\.pt: " + message):
        judge(images)


def test_a_classifier_of_other_classes_is_refused(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for network, given in ((_Halved(pooled=True), r"\[2, 3\]"), (_Halved(), r"\[2, 3, 4, 4\]")):
        judge = load_classifier(_script(tmp_path / "network.pt", network), 4)
        with pytest.raises(UserError, match=rf"gives {given} for 2 images; logits \[2, 4\] are expected"):
            judge(images)
