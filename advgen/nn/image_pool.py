"""A history of generated images for a discriminator (Shrivastava et al. 2017, section 2.3, in CycleGAN's form)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgen.game import Across
from advgen.seeds import Noise


class ImagePool(nn.Module):
    """Keeps images and gives back older ones for half of the new.

    While it fills it keeps each image and passes it on. Once full it passes an image on unkept with probability 1/2,
    and else gives one of its own, at random, in whose place it keeps the new one. Images enter in the order of the
    global batch, and every rank holds all of the pool, so that it is the same on any number of ranks. It begins anew
    when the images' size changes. All state lies in buffers.

    Args:
        size: images it holds; 0 passes everything on.
        channels, height, width: the largest images that will come.
    """

    images: Tensor
    held: Tensor
    """int64 [3]: images held, and their height and width."""

    def __init__(self, size: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, height, width))
        self.register_buffer("held", torch.zeros(3, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor, noise: Noise, across: Across) -> Tensor:
        """[n, channels, h, w] to as many, without graph; draws "pool" from ``noise``."""
        images = images.detach()
        if not self.size:
            return images
        height, width = images.shape[-2:]
        count, *before = self.held.tolist()
        if before != [height, width]:
            count = 0
        given = across.gather(images).clone()
        stored = self.images[..., :height, :width]
        for row, (keep, place) in enumerate(across.gather(noise.uniform("pool", 2)).tolist()):
            if count < self.size:
                stored[count] = given[row]
                count += 1
            elif keep >= 0.5:
                slot = min(int(place * self.size), self.size - 1)
                older = stored[slot].clone()
                stored[slot] = given[row]
                given[row] = older
        self.held.copy_(torch.tensor([count, height, width]))
        return across.own(given)
