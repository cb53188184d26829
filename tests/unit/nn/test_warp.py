"""Resampling against an independent numpy reference, and against torch's own."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from advgen.nn.warp import Sources, pixels_at, warp
from tests.unit.nn import augment_reference as reference


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_pixels_at_reads_row_and_column() -> None:
    images = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    rows, columns = torch.tensor([[[3]], [[0]]]), torch.tensor([[[1, 4]], [[2, 2]]])
    expected = torch.stack((images[0][:, [3], :][:, :, [1, 4]], images[1][:, [0], :][:, :, [2, 2]]))
    assert torch.equal(pixels_at(images, rows, columns), expected)


def test_transforms_happen_in_the_order_of_the_calls() -> None:
    image = np.random.RandomState(0).uniform(size=(2, 6, 9))
    sources = Sources.identity(1, torch.zeros(1)).scaled(column(1.3), column(-0.8)).moved(column(1.5), column(-2.0))
    sources = sources.turned(column(math.cos(0.4)), column(math.sin(0.4))).moved(column(0.3), column(30.0))
    carried = reference.translate2d(1.5, -2.0) @ reference.scale2d(1.3, -0.8)
    carried = reference.translate2d(0.3, 30.0) @ reference.rotate2d(0.4) @ carried
    result = warp(torch.from_numpy(image)[None], sources)[0].numpy()
    np.testing.assert_allclose(result, reference.warp(image, carried), rtol=0, atol=1e-11)


def test_moved_by_a_period_the_mirrored_image_is_itself() -> None:
    image = torch.rand(1, 1, 5, 4)
    sources = Sources.identity(1, image).moved(column(6.0), column(-16.0))
    assert torch.equal(warp(image, sources), image)


def test_inside_the_image_it_is_grid_sample() -> None:
    x = torch.from_numpy(np.random.RandomState(0).uniform(size=(1, 1, 5, 5)))
    sources = Sources.identity(1, x).scaled(column(2.0), column(2.0)).turned(column(0.6), column(0.8))
    theta = torch.tensor([[[0.3, 0.4, 0.0], [-0.4, 0.3, 0.0]]], dtype=torch.float64)
    grid = F.affine_grid(theta, [1, 1, 5, 5], align_corners=True)
    torch.testing.assert_close(warp(x, sources), F.grid_sample(x, grid, align_corners=True))
