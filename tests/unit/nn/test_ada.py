"""ADA's transforms and its rule against independent numpy references, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from advgen.game import OneSlice
from advgen.losses import penalties
from advgen.nn.ada import CHANCES, COLOUR, GEOMETRY, NORMAL, UNIFORM, AdaptiveAugment
from advgen.nn.augment_config import AdaptiveAugmentConfig, Transform
from advgen.runtime.world import Share
from advgen.seeds import Noise
from tests.slices import Slice, in_slices
from tests.unit.nn import augment_reference as reference
from tests.unit.nn.fixed_noise import FixedNoise

TRANSFORMS: tuple[Transform, ...] = get_args(Transform)


def augment_of(p: float, *transforms: Transform, **settings: Any) -> AdaptiveAugment:
    augment = AdaptiveAugment(AdaptiveAugmentConfig(transforms=transforms or TRANSFORMS, **settings)).double()
    augment.p.fill_(p)
    return augment


def images_of(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).uniform(-1, 1, shape))


def noise_of(positions: Tensor) -> Noise:
    return Noise(3, ("train", "discriminator", 0), positions)


# ----------------------------------------------------------------------------------------------------------- transforms
def expected(images: Tensor, p: float, chosen: Sequence[str], draws: dict[str, np.ndarray]) -> np.ndarray:
    result = []
    for index, image in enumerate(images.numpy()):
        chance = dict(zip(CHANCES, draws["chance"][index], strict=True))
        uniform = dict(zip(UNIFORM, draws["uniform"][index], strict=True))
        normal = dict(zip(NORMAL, draws["normal"][index], strict=True))
        both = 1 - (1 - p) ** 0.5
        on = [
            name
            for name, value in chance.items()
            if (name.startswith("rotate ") and "rotate" in chosen and value < both) or (name in chosen and value < p)
        ]
        image = reference.warp(image, reference.geometry(on, uniform, normal, *image.shape[1:]))
        result.append(reference.recolour(image, reference.colour(on, uniform, normal)))
    return np.stack(result)


def drawn(n: int) -> tuple[dict[str, np.ndarray], Any]:
    random = np.random.RandomState(5)
    draws = {"chance": random.uniform(size=(n, len(CHANCES))), "uniform": random.uniform(size=(n, len(UNIFORM)))}
    draws["normal"] = random.normal(size=(n, len(NORMAL)))
    uniform = {name: draws[name] for name in ("chance", "uniform")}
    return draws, FixedNoise(uniform, {"normal": draws["normal"]})


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 7, 10), (3, 9, 4), (1, 1, 6)], ids=str)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_golden_all_transforms(shape: tuple[int, int, int], p: float) -> None:
    images = images_of(6, *shape)
    draws, noise = drawn(6)
    result = augment_of(p)(images, noise, "augment real")
    np.testing.assert_allclose(result.numpy(), expected(images, p, TRANSFORMS, draws), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_golden_one_transform_which_changes_things(name: Transform) -> None:
    images = images_of(6, 3, 8, 6)
    draws, noise = drawn(6)
    result = augment_of(1.0, name)(images, noise, "augment real")
    np.testing.assert_allclose(result.numpy(), expected(images, 1.0, (name,), draws), rtol=0, atol=1e-11)
    assert (result != images).flatten(1).any(dim=1).sum() >= 2


def test_every_transform_has_columns_of_its_own() -> None:
    """With others left out, what is left happens as it did."""
    draws, noise = drawn(6)
    assert {name.split()[0] for name in GEOMETRY + COLOUR} == set(TRANSFORMS)
    images = images_of(6, 3, 8, 8)
    alone = augment_of(0.5, "hue")(images, noise, "a")
    np.testing.assert_allclose(alone.numpy(), expected(images, 0.5, ("hue",), draws), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 33, 20), (1, 64, 64)], ids=str)
def test_probability_0_changes_no_bit(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    images = images_of(5, *shape).to(dtype)
    assert torch.equal(augment_of(0.0)(images, noise_of(torch.arange(5)), "augment real"), images)


def test_flips_quarter_turns_and_whole_moves_only_carry_pixels() -> None:
    images = images_of(64, 1, 16, 16).float()
    result = augment_of(1.0, "xflip", "rotate90")(images, noise_of(torch.arange(64)), "a")
    assert not torch.equal(result, images)
    assert torch.equal(result.flatten(1).sort().values, images.flatten(1).sort().values)
    moved = augment_of(1.0, "xint")(images, noise_of(torch.arange(64)), "a")
    assert all(set(m.flatten().tolist()) <= set(i.flatten().tolist()) for m, i in zip(moved, images, strict=True))


def test_shares_of_flips_turns_and_rotations() -> None:
    """At p = .5 half of the samples get a flip of 0 or 1, so a quarter is flipped; rotations are p in all."""
    n = 4000
    noise = noise_of(torch.arange(n))
    images = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]).expand(n, 1, 3, 3)

    def share(name: Transform) -> float:
        return (augment_of(0.5, name)(images, noise, "a") != images).flatten(1).any(dim=1).double().mean().item()

    deviation = (0.25 / n) ** 0.5
    assert share("xflip") == pytest.approx(1 / 4, abs=4 * deviation)
    assert share("rotate90") == pytest.approx(3 / 8, abs=4 * deviation)
    assert share("rotate") == pytest.approx(1 / 2, abs=4 * deviation)
    assert share("brightness") == pytest.approx(1 / 2, abs=4 * deviation)


def test_a_sample_is_augmented_the_same_in_any_batch() -> None:
    images, augment = images_of(8, 3, 16, 16).float(), augment_of(0.8).float()
    whole = augment(images, noise_of(torch.arange(100, 108)), "augment real")
    for rank in range(4):
        part = augment(images[rank::4], noise_of(torch.arange(100 + rank, 108, 4)), "augment real")
        assert torch.equal(part, whole[rank::4])
    assert not torch.equal(augment(images, noise_of(torch.arange(100, 108)), "augment fake"), whole)


@pytest.mark.parametrize("channels", [1, 3])
def test_differentiable_twice(channels: int) -> None:
    x = images_of(1, channels, 3, 4).requires_grad_(True)
    augment, noise = augment_of(1.0), noise_of(torch.arange(1))

    def cubed(x: Tensor) -> Tensor:
        return augment(x, noise, "augment") ** 3

    assert torch.autograd.gradcheck(cubed, x)
    assert torch.autograd.gradgradcheck(cubed, x)


def test_r1_goes_through_the_augmentation() -> None:
    """A' w is the gradient of a linear critic, A being the augmentation's linear part."""
    weight = images_of(1, 1, 4, 4).requires_grad_(True)
    augment, noise = augment_of(1.0), noise_of(torch.arange(1))
    images = torch.zeros(1, 1, 4, 4, dtype=torch.float64)

    def critic(x: Tensor) -> Tensor:
        return (weight * augment(x, noise, "a")).sum(dim=(1, 2, 3))

    value = penalties.r1(critic, images)
    (gradient,) = torch.autograd.grad(value, weight)
    origin = augment(images, noise, "a")
    units = torch.eye(16, dtype=torch.float64).reshape(16, 1, 1, 4, 4)
    matrix = torch.stack([(augment(unit, noise, "a") - origin).flatten() for unit in units])
    torch.testing.assert_close(value, (matrix @ weight.flatten()).square().sum())
    torch.testing.assert_close(gradient.flatten(), 2 * matrix.T @ matrix @ weight.detach().flatten())


def test_places_are_not_rounded_by_autocast() -> None:
    images, augment, noise = images_of(4, 3, 32, 32).float(), augment_of(1.0).float(), noise_of(torch.arange(4))
    plain = augment(images, noise, "a")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, noise, "a"), plain)
        assert augment(images.bfloat16(), noise, "a").dtype == torch.bfloat16


def test_two_channels_have_no_hue() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        augment_of(1.0)(images_of(1, 2, 4, 4), noise_of(torch.arange(1)), "a")


# ----------------------------------------------------------------------------------------------------------------- rule
def scores_of(steps: int, batch: int, seed: int = 0) -> Tensor:
    """[steps, batch] that lean to positive in the first half of the steps, and to negative in the second."""
    lean = np.where(np.arange(steps)[:, None] < steps / 2, 2.0, -1.0)
    return torch.from_numpy(np.random.RandomState(seed).normal(size=(steps, batch)) + lean)


def rule(scores: np.ndarray, target: float, kimg: float, interval: int) -> list[float]:
    """p after each step, as in section 3 of the paper."""
    p, history, signs = 0.0, [], []
    for step, batch in enumerate(scores):
        signs += [1.0 if score > 0 else -1.0 if score < 0 else 0.0 for score in batch]
        if (step + 1) % interval == 0:
            r, signs = sum(signs) / len(signs), []
            p += (1 if r > target else -1 if r < target else 0) * len(batch) * interval / (kimg * 1000)
            p = min(max(p, 0.0), 1.0)
        history.append(p)
    return history


def test_p_rises_falls_and_stays_in_0_to_1() -> None:
    scores = scores_of(80, 8)
    augment = augment_of(0.0, target=0.6, kimg=0.2, interval=3)
    history = []
    for batch in scores:
        augment.observe(batch, OneSlice())
        augment.adjust(8)
        history.append(augment.p.item())
    reference_history = rule(scores.numpy(), 0.6, 0.2, 3)
    np.testing.assert_allclose(history, reference_history, rtol=0, atol=1e-12)
    assert max(history) == 1.0 and history[-1] == 0.0 and history[1] == 0.0 < history[2]
    assert 1.0 in history[:-1] and len(set(history)) > 9


def test_the_papers_figures_take_500_kimg_from_0_to_1() -> None:
    augment = augment_of(0.0).float()
    for _ in range(8):
        augment.observe(torch.ones(64), OneSlice())
        augment.adjust(64)
    assert augment.p.item() == pytest.approx(8 * 64 / 500_000, rel=1e-6)


def test_at_the_target_p_rests_and_what_is_no_number_has_no_sign() -> None:
    augment = augment_of(0.5, target=0.6, kimg=1.0, interval=1)
    eight_of_ten = torch.tensor([1.0] * 8 + [-1.0] * 2)
    augment.observe(eight_of_ten, OneSlice())
    augment.adjust(10)
    assert augment.p.item() == 0.5
    augment.observe(torch.tensor([1.0] * 8 + [float("nan")] * 2), OneSlice())
    assert (augment.signs.item(), augment.count.item()) == (8, 10)
    augment.observe(torch.tensor([0.0, -0.0, -3.0, 4.0]), OneSlice())
    assert (augment.signs.item(), augment.count.item()) == (8, 14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_and_micro_batches_hold_the_same_bits(ranks: int, micro_batches: int, dtype: torch.dtype) -> None:
    scores = scores_of(40, 8)[:28].to(dtype)  # p rises five times and falls twice
    alone = augment_of(0.0, kimg=0.3, interval=4).to(dtype)
    history: list[list[Tensor]] = []
    for batch in scores:
        alone.observe(batch, OneSlice())
        alone.adjust(8)
        history.append([buffer.clone() for buffer in alone.buffers()])

    def play(across: Slice) -> None:
        augment, share = augment_of(0.0, kimg=0.3, interval=4).to(dtype), Share(across, micro_batches)
        for batch, expected in zip(scores, history, strict=True):
            before = augment.p.item()
            for m in range(micro_batches):
                assert augment.p.item() == before, "p moves after a step's last slice, and not within the step"
                augment.observe(across.own(batch)[m::micro_batches], share)
                augment.adjust(8)
            assert all(torch.equal(a, b) for a, b in zip(augment.buffers(), expected, strict=True))

    in_slices(ranks, play)
    assert alone.p.item() not in (0.0, 1.0)


def test_state_goes_on_from_the_middle_of_an_interval() -> None:
    scores = scores_of(20, 8)
    settings: dict[str, Any] = {"kimg": 0.3, "interval": 4}
    whole, first = augment_of(0.0, **settings), augment_of(0.0, **settings)
    for augment, batches in ((whole, scores), (first, scores[:10])):
        for batch in batches:
            augment.observe(batch, OneSlice())
            augment.adjust(8)
    assert first.count.item() == 16
    stored = safetensors.torch.save(first.state_dict())
    second = augment_of(0.9, **settings)
    second.load_state_dict(safetensors.torch.load(stored))
    for batch in scores[10:]:
        second.observe(batch, OneSlice())
        second.adjust(8)
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), second.buffers(), strict=True))


def test_the_state_has_the_trainings_dtype_and_whole_counts() -> None:
    augment = AdaptiveAugment(AdaptiveAugmentConfig())
    assert {name: value.dtype for name, value in augment.state_dict().items()} == {
        "p": torch.float32,
        "signs": torch.int64,
        "count": torch.int64,
    }
    assert augment.to(torch.float64).p.dtype == torch.float64
    assert augment.signs.dtype == augment.count.dtype == torch.int64
    assert not list(augment.parameters())


def test_images_change_no_state_and_scores_get_no_graph() -> None:
    augment = augment_of(0.5)
    before = {name: value.clone() for name, value in augment.state_dict().items()}
    images = images_of(4, 3, 8, 8).requires_grad_(True)
    scores = augment(images, noise_of(torch.arange(4)), "a").sum(dim=(1, 2, 3))
    assert all(torch.equal(before[name], value) for name, value in augment.state_dict().items())
    augment.observe(scores, OneSlice())
    augment.adjust(1)
    assert not any(buffer.requires_grad for buffer in augment.buffers())
    scores.sum().backward()  # nothing that the graph needs was changed in place
