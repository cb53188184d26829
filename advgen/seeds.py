"""Randomness by position: a value depends on (seed, purpose, position) and on nothing else.

The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a
function of a 64-bit key and a 128-bit counter. The key is a hash of the seed and the purpose, the counter
is (sample position, draw within the sample). So sample 7 gets the same noise on one rank or on four, on
CPU or GPU, and in a resumed run; nothing has to be saved.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def key_of(seed: int, *purpose: str | int) -> int:
    """A 64-bit key from a seed and the words that name a purpose."""
    text = "/".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def philox(key: int, positions: Tensor, draws: int) -> Tensor:
    """Philox4x32-10 random words.

    Args:
        key: 64-bit key.
        positions: int64 [n], the sample positions (counter words 2 and 3).
        draws: how many 32-bit words each position gets.

    Returns:
        int64 [n, draws] with values in [0, 2**32), on the device of ``positions``.
    """
    import torch

    blocks, device = (draws + 3) // 4, positions.device
    # Words 0 and 2 of the counter in one tensor, 1 and 3 in another, worked on in place: each operation is a kernel.
    even = torch.empty(2, len(positions), blocks, dtype=torch.int64, device=device)
    even[0] = torch.arange(blocks, dtype=torch.int64, device=device)
    even[1] = (positions & _MASK)[:, None]
    odd = torch.zeros_like(even)
    odd[1] = ((positions >> 32) & _MASK)[:, None]
    products = torch.empty_like(even)
    keys = [key & _MASK, (key >> 32) & _MASK]
    for _ in range(10):
        # int64 products wrap, and the wrapped bits are the unsigned product's: masks recover both halves.
        torch.mul(even[1], _MULTIPLIERS[1], out=products[0])
        torch.mul(even[0], _MULTIPLIERS[0], out=products[1])
        torch.bitwise_right_shift(products, 32, out=even).bitwise_xor_(odd)
        for word, round_key in zip(even, keys, strict=True):
            word.bitwise_xor_(round_key)
        even.bitwise_and_(_MASK)
        torch.bitwise_and(products, _MASK, out=odd)
        keys = [(word + step) & _MASK for word, step in zip(keys, _WEYL, strict=True)]
    return torch.stack((even[0], odd[0], even[1], odd[1]), dim=-1).reshape(len(positions), -1)[:, :draws]


@dataclass(frozen=True)
class Noise:
    """Per-sample noise for one batch.

    Attributes:
        seed: the run's seed.
        scope: words that tell this use from others (player, repeat ...).
        positions: int64 [n], the samples' global positions in the stream.
        dtype: of the values; they are rounded to float32 first, so every dtype sees the same noise. None: float32.
    """

    seed: int
    scope: tuple[str | int, ...]
    positions: Tensor
    dtype: torch.dtype | None = None

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """[n, *shape] in [0, 1), in steps of 2**-24."""
        import torch

        words = philox(key_of(self.seed, *self.scope, purpose), self.positions, math.prod(shape))
        values = (words >> 8).to(torch.float32).mul_(2.0**-24).reshape(-1, *shape)
        if self.dtype is None:
            return values
        # Fewer digits would round the largest of them to 1.
        return values.to(self.dtype).clamp_max_(1 - torch.finfo(self.dtype).eps / 2)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """[n, *shape] from N(0, 1), by the Box-Muller transform.

        Computed in float64 and rounded, so that differences between the logarithms and cosines of CPU and
        GPU, or of vectorised and scalar code, stay below float32's resolution.
        """
        import torch

        draws = math.prod(shape)
        pairs = (draws + 1) // 2
        words = philox(key_of(self.seed, *self.scope, purpose), self.positions, 2 * pairs).to(torch.float64)
        radius = torch.sqrt(-2.0 * torch.log((words[:, :pairs] + 1.0) * 2.0**-32))
        angle = words[:, pairs:] * (2.0 * math.pi * 2.0**-32)
        both = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
        values = both[:, :draws].to(torch.float32).reshape(-1, *shape)
        return values if self.dtype is None else values.to(self.dtype)


def permutation(key: int, n: int):
    """A permutation of range(n) as int64 numpy array: the argsort of n Philox words (ties by index)."""
    import numpy as np

    words = np.random.Philox(key=key).random_raw(n)
    return np.argsort(words, kind="stable")
