"""The image pool against a plain list, its resumption, and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from advgen.game import OneSlice
from advgen.nn.image_pool import ImagePool
from advgen.seeds import Noise


def batch(step: int, n: int = 3, side: int = 4) -> Tensor:
    """Each image is constant: its own number."""
    return (torch.arange(n).float() + n * step).reshape(-1, 1, 1, 1).expand(n, 2, side, side)


def noise(step: int, n: int = 3) -> Noise:
    return Noise(0, ("test",), torch.arange(n) + n * step)


def numbers(images: Tensor) -> list[float]:
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def test_it_fills_and_then_gives_older_images_for_half_of_the_new() -> None:
    pool, plain, swapped = ImagePool(4, 2, 4, 4), [], 0
    for step in range(40):
        expected = []
        draws = noise(step).uniform("pool", 2).tolist()
        for image, (coin, place) in zip(numbers(batch(step)), draws, strict=True):
            if len(plain) < 4:
                plain.append(image)
                expected.append(image)
            elif coin < 0.5:
                expected.append(image)
            else:
                swapped += 1
                slot = int(place * 4)
                expected.append(plain[slot])
                plain[slot] = image
        assert numbers(pool(batch(step), noise(step), OneSlice())) == expected
    assert numbers(pool.images) == plain
    assert 35 < swapped < 80  # of 116


def test_it_resumes_from_its_buffers() -> None:
    whole, first, second = (ImagePool(4, 2, 4, 4) for _ in range(3))
    expected = [numbers(whole(batch(step), noise(step), OneSlice())) for step in range(8)]
    for step in range(5):
        first(batch(step), noise(step), OneSlice())
    second.load_state_dict(first.state_dict())
    assert [numbers(second(batch(step), noise(step), OneSlice())) for step in range(5, 8)] == expected[5:]


def test_size_0_is_off_and_a_new_size_of_images_begins_anew() -> None:
    images = batch(0).clone().requires_grad_()
    passed = ImagePool(0, 2, 4, 4)(images, noise(0), OneSlice())
    assert torch.equal(passed, images) and not passed.requires_grad
    pool = ImagePool(2, 2, 8, 8)
    for step in range(5):
        pool(batch(step), noise(step), OneSlice())
    assert numbers(pool(batch(9, 2, side=8), noise(9, 2), OneSlice())) == numbers(batch(9, 2))
    assert pool.held.tolist() == [2, 8, 8]


@dataclass
class Slice:
    """One of two ranks; the other's rows are known."""

    rank: int
    both: dict[int, Tensor]
    slices: int = 2

    def gather(self, rows: Tensor) -> Tensor:
        return self.both[rows.ndim]

    def own(self, rows: Tensor) -> Tensor:
        return rows[self.rank :: 2]

    def total(self, counts: Tensor) -> Tensor:
        raise AssertionError("nothing is counted")


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_holds_the_pool_of_the_global_batch(rank: int) -> None:
    one, sliced = ImagePool(3, 2, 4, 4), ImagePool(3, 2, 4, 4)
    for step in range(10):
        images, draws = batch(step, 4), noise(step, 4)
        expected = one(images, draws, OneSlice())
        own = Noise(0, ("test",), draws.positions[rank::2])
        across = Slice(rank, {4: images, 2: draws.uniform("pool", 2)})
        found = sliced(images[rank::2], own, across)
        assert numbers(found) == numbers(expected)[rank::2]
    assert torch.equal(one.images, sliced.images)
