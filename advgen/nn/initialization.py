"""First weights that several games have in common."""

from __future__ import annotations

from torch import nn


def initialize_convolutions(network: nn.Module, deviation: float) -> None:
    """Weights of all convolutions, transposed ones too, from N(0, deviation^2), their biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
