from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from advgen.seeds import Noise, key_of, permutation, philox

FULL = 0xFFFFFFFF
GOLDEN_KEYS = (8493733112532773764, 2459322169197273840)
GOLDEN_ORDER = [0, 10, 4, 7, 11, 5, 8, 9, 1, 2, 3, 6]


def reference(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 from the paper, on uint64: counter [n, 4] -> [n, 4]."""
    x = counter.astype(np.uint64).copy()
    mask = np.uint64(FULL)
    half = np.uint64(32)
    k = list(key)
    for _ in range(10):
        p0 = x[:, 0] * np.uint64(0xD2511F53)
        p1 = x[:, 2] * np.uint64(0xCD9E8D57)
        x = np.stack(
            [(p1 >> half) ^ x[:, 1] ^ np.uint64(k[0]), p1 & mask, (p0 >> half) ^ x[:, 3] ^ np.uint64(k[1]), p0 & mask],
            axis=1,
        )
        k = [(k[0] + 0x9E3779B9) & FULL, (k[1] + 0xBB67AE85) & FULL]
    return x


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_reference_gives_the_known_answers(counter: str, key: str, words: str) -> None:
    c = np.array([[int(word, 16) for word in counter.split()]], dtype=np.uint64)
    k0, k1 = (int(word, 16) for word in key.split())
    assert reference(c, (k0, k1)).tolist() == [[int(word, 16) for word in words.split()]]


def test_the_first_known_answer_by_the_public_function() -> None:
    words = philox(0, torch.tensor([0]), 4)
    assert [f"{word:08x}" for word in words[0].tolist()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("key", [0, 1, 0xFFFFFFFFFFFFFFFF, 0x299F31D0A4093822, 0x80000000_80000000])
def test_words_are_philox_at_draw_and_position(key: int) -> None:
    positions = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**45 + 12345, 2**62]
    draws = 11
    words = philox(key, torch.tensor(positions), draws)
    assert words.dtype == torch.int64
    assert words.shape == (len(positions), draws)
    for row, position in zip(words.tolist(), positions, strict=True):
        counters = np.array([[block, 0, position & FULL, position >> 32] for block in range(3)], dtype=np.uint64)
        assert row == reference(counters, (key & FULL, key >> 32)).reshape(-1)[:draws].tolist()


def test_a_slice_has_the_noise_of_its_samples() -> None:
    whole = torch.arange(1000, 1048)
    for draw in ("normal", "uniform"):
        all_rows = getattr(Noise(3, ("train", "d", 0), whole), draw)("latent", 3, 5)
        assert all_rows.shape == (48, 3, 5)
        assert all_rows.dtype == torch.float32
        for size in (1, 2, 3, 4, 48):
            for rank in range(size):
                rows = getattr(Noise(3, ("train", "d", 0), whole[rank::size]), draw)("latent", 3, 5)
                assert torch.equal(rows, all_rows[rank::size])


def test_without_a_shape_each_sample_gets_one_number() -> None:
    noise = Noise(0, (), torch.arange(6))
    assert noise.normal("x").shape == noise.uniform("x").shape == (6,)
    assert torch.equal(noise.uniform("x"), noise.uniform("x", 1)[:, 0])


def test_noise_is_distributed_as_said() -> None:
    noise = Noise(11, ("distribution",), torch.arange(2000))
    uniform = noise.uniform("u", 101).flatten().double().numpy()
    normal = noise.normal("n", 101).flatten().double().numpy()  # odd: half of a pair is left out
    n = len(uniform)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    # Bounds at five standard errors; the seed is fixed, so this cannot come and go.
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs(uniform.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    assert abs(normal.mean()) < 5 / np.sqrt(n)
    assert abs(normal.var() - 1) < 5 * np.sqrt(2 / n)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    # Columns and rows are independent of one another.
    table = normal.reshape(2000, 101)
    for grid in (table, table.T[:, :101]):
        correlation = np.corrcoef(grid, rowvar=False) - np.eye(101)
        assert np.abs(correlation).max() < 6 / np.sqrt(len(grid))


def test_normal_noise_stays_finite_at_the_ends_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    words = torch.tensor([[0, FULL, 0, FULL], [FULL, 0, FULL, 0]])
    monkeypatch.setattr("advgen.seeds.philox", lambda key, positions, draws: words[:, :draws])
    noise = Noise(0, (), torch.arange(2))
    assert noise.normal("x", 4).isfinite().all()
    assert noise.normal("x", 4).abs().max() < 7
    assert noise.uniform("x", 4).max() < 1


def test_every_word_of_the_purpose_counts() -> None:
    positions = torch.arange(8)
    drawn = [
        Noise(seed, scope, positions).normal(purpose, 4)
        for seed, scope, purpose in (
            (0, ("train", "d", 0), "latent"),
            (1, ("train", "d", 0), "latent"),
            (0, ("train", "g", 0), "latent"),
            (0, ("train", "d", 1), "latent"),
            (0, ("train", "d", 0), "mixing"),
            (0, ("samples",), "latent"),
        )
    ]
    drawn.append(Noise(0, ("train", "d", 0), positions + 8).normal("latent", 4))
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one != other).all()


def test_keys_never_change() -> None:
    """A changed key would silently give every resumed run other noise."""
    assert key_of(0) == GOLDEN_KEYS[0]
    assert key_of(7, "train", "generator", 1) == GOLDEN_KEYS[1]
    assert all(0 <= key < 2**64 for key in GOLDEN_KEYS)


def test_a_permutation_holds_each_number_once_and_never_changes() -> None:
    for n in (0, 1, 2, 1000):
        order = permutation(key_of(5, "order"), n)
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(n))
    assert permutation(key_of(5, "order"), 12).tolist() == GOLDEN_ORDER
    assert permutation(key_of(6, "order"), 12).tolist() != GOLDEN_ORDER


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_1_in_every_type(dtype: torch.dtype) -> None:
    """Of 100,000 some are within half a step of bfloat16 from 1."""
    values = Noise(0, ("uniform",), torch.arange(100_000), dtype).uniform("x", 1)
    assert values.dtype == dtype and values.max() < 1 and (values * 10).long().max() == 9
    exact = Noise(0, ("uniform",), torch.arange(100_000)).uniform("x", 1)
    assert (values.double() - exact.double()).abs().max() <= torch.finfo(dtype).eps / 2
