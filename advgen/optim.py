"""Optimizers as data, and their state by parameter name.

Checkpoints hold moments under the parameter's name and not under an index, so that they survive a phase
change, and can be read by another engine or on another number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from advgen.strict_config import configuration

if TYPE_CHECKING:
    from torch import nn, optim


@configuration
class Adam:
    """Adam (Kingma & Ba 2014)."""

    betas: tuple[float, float] = (0.0, 0.99)
    """Decay of the first and the second moment. (0, .99) is ProGAN's."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    clip_norm: float | None = None
    """Gradients of all parameters together are scaled down to this 2-norm where theirs is larger; null for never."""

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps <= 0:
            raise ValueError("betas must lie in [0, 1) and eps above 0")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError("clip_norm must be positive")


@configuration
class Momentum:
    """Gradient descent with momentum: v = momentum * v + gradient, weight -= rate * v."""

    momentum: float = 0.9
    """Share of the last step that goes on; 0 for none."""
    clip_norm: float | None = None
    """As :attr:`Adam.clip_norm`."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum must lie in [0, 1)")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError("clip_norm must be positive")


Optimizer = Adam | Momentum


def build_optimizer(
    config: Optimizer,
    parameters: Mapping[str, nn.Parameter] | Sequence[Mapping[str, nn.Parameter]],
    fused: bool = False,
) -> optim.Optimizer:
    """The optimizer over ``parameters`` in their order, or groups of them; its learning rate is set before each step.

    Args:
        config: the rule.
        parameters: by name.
        fused: one kernel for all of a step. It goes through memory, so gradients and moments must lie in it as their
            parameters do, and leaves a step out where ``found_inf`` of the optimizer, a tensor, is 1.
    """
    import torch

    groups = [parameters] if isinstance(parameters, Mapping) else parameters
    parts = [{"params": list(group.values())} for group in groups]
    if isinstance(config, Momentum):
        return torch.optim.SGD(parts, lr=0.0, momentum=config.momentum, foreach=not fused, fused=fused)
    return torch.optim.Adam(
        parts,
        lr=0.0,
        betas=config.betas,
        eps=config.eps,
        foreach=not fused,
        fused=fused,
    )
