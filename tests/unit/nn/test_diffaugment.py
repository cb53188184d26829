"""DiffAugment against an independent numpy reference (augment_reference.py), in float64."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.losses import penalties
from advgen.nn.augment_config import Policy
from advgen.nn.diffaugment import diffaugment
from advgen.seeds import Noise
from tests.unit.nn import augment_reference as reference
from tests.unit.nn.fixed_noise import FixedNoise

POLICIES: tuple[Policy, ...] = get_args(Policy)
LARGEST = 1 - 2.0**-24  # of the noise's uniform numbers


def images_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).uniform(-1, 1, shape))


def noise_of(positions: Tensor) -> Noise:
    return Noise(3, ("train", "discriminator", 0), positions)


def fixed(n: int) -> tuple[dict[str, np.ndarray], Any]:
    random = np.random.RandomState(7)
    draws = {"color": random.uniform(size=(n, 3))}
    draws |= {name: random.uniform(size=(n, 2)) for name in ("translation", "cutout")}
    for name in ("translation", "cutout"):  # both ends of what there is
        draws[name][0], draws[name][1] = 0.0, LARGEST
    return draws, FixedNoise(draws)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 7, 12), (1, 12, 5), (3, 20, 16)], ids=str)
@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), POLICIES, POLICIES[::-1]], ids="-".join)
def test_golden(policy: tuple[Policy, ...], shape: tuple[int, int, int]) -> None:
    images = images_of(6, *shape)
    draws, noise = fixed(6)
    result = diffaugment(images, policy, noise, "augment real")
    sides = shape[1:]
    for index, image in enumerate(images.numpy()):
        expected = image
        for name in policy:
            drawn = draws[name][index]
            if name == "color":
                expected = reference.color(expected, *drawn)
            elif name == "translation":
                most = [int(side / 8 + 0.5) for side in sides]
                moves = [int(u * (2 * m + 1)) - m for u, m in zip(drawn, most, strict=True)]
                expected = reference.translation(expected, *moves)
            else:
                places = [side if (side + 1) // 2 % 2 else side + 1 for side in sides]
                expected = reference.cutout(expected, *(int(u * k) for u, k in zip(drawn, places, strict=True)))
        np.testing.assert_allclose(result[index].numpy(), expected, rtol=0, atol=1e-13)


def test_moves_are_exact_in_float32_too() -> None:
    """float32 rounds some products up to whole numbers: 257 moves of an image of 1024 pixels, at each one's edge."""
    image = torch.arange(1024, dtype=torch.float32).expand(256, 1, 1, 1024)
    drawn = np.arange(1, 257) * 2**24 // 257  # of the 2^24 values that the noise has
    moves = drawn * 257 // 2**24 - 128
    uniform = (drawn / 2**24).astype(np.float32)
    assert (np.floor(uniform * np.float32(257)) - 128 != moves).any()
    noise: Any = FixedNoise({"translation": np.stack((uniform, uniform), axis=1)})
    moved = diffaugment(image, ("translation",), noise, "a")
    assert (moved[:, 0, 0, 512] - 512).tolist() == moves.tolist()


def test_cutout_takes_out_a_quarter_in_the_middle() -> None:
    noise: Any = FixedNoise({"cutout": np.full((1, 2), 0.5)})
    cut = diffaugment(torch.ones(1, 3, 8, 8), ("cutout",), noise, "a")
    assert (cut == 0).sum() == 3 * 16
    assert not cut[:, :, 2:6, 2:6].any()


@pytest.mark.parametrize("policy", [*((name,) for name in POLICIES), POLICIES], ids="-".join)
def test_a_sample_is_augmented_the_same_in_any_batch(policy: tuple[Policy, ...]) -> None:
    images = images_of(8, 3, 16, 16)
    whole = diffaugment(images, policy, noise_of(torch.arange(100, 108)), "augment real")
    for rank in range(4):
        part = diffaugment(images[rank::4], policy, noise_of(torch.arange(100 + rank, 108, 4)), "augment real")
        torch.testing.assert_close(part, whole[rank::4], rtol=0, atol=1e-14)
    assert not torch.equal(whole, images)
    other = diffaugment(images, policy, noise_of(torch.arange(100, 108)), "augment fake")
    assert not torch.equal(other, whole)
    alike = diffaugment(images[:1].expand(8, -1, -1, -1), policy, noise_of(torch.arange(8)), "augment real")
    assert len({tuple(sample.flatten().tolist()) for sample in alike}) > 4, "each sample has numbers of its own"


@pytest.mark.parametrize("channels", [1, 3])
def test_differentiable_twice(channels: int) -> None:
    x = images_of(1, channels, 3, 4).requires_grad_(True)
    noise = noise_of(torch.arange(1))

    def cubed(x: Tensor) -> Tensor:
        return diffaugment(x, POLICIES, noise, "augment") ** 3

    assert torch.autograd.gradcheck(cubed, x)
    assert torch.autograd.gradgradcheck(cubed, x)


def test_r1_goes_through_the_augmentation() -> None:
    """R1 of a linear critic is |A' w|^2, A being the augmentation's linear part: its columns show A."""
    weight = images_of(1, 1, 4, 4, seed=1).requires_grad_(True)
    noise = noise_of(torch.arange(1))
    images = images_of(1, 1, 4, 4)

    def augmented(x: Tensor) -> Tensor:
        return diffaugment(x, POLICIES, noise, "augment")

    value = penalties.r1(lambda x: (weight * augmented(x)).sum(dim=(1, 2, 3)), images)
    (gradient,) = torch.autograd.grad(value, weight)
    origin = augmented(torch.zeros_like(images))
    matrix = torch.stack(
        [(augmented(unit.reshape(1, 1, 4, 4)) - origin).flatten() for unit in torch.eye(16, dtype=torch.float64)]
    )
    torch.testing.assert_close(value, (matrix @ weight.flatten()).square().sum())
    torch.testing.assert_close(gradient.flatten(), 2 * matrix.T @ matrix @ weight.detach().flatten())


def test_half_precision_is_computed_in_float32_and_comes_back() -> None:
    images, noise = images_of(4, 3, 8, 8).bfloat16(), noise_of(torch.arange(4))
    result = diffaugment(images, POLICIES, noise, "augment")
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, diffaugment(images.float(), POLICIES, noise, "augment").bfloat16())
