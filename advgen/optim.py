"""Optimizers as data, and their state by parameter name.

Checkpoints hold moments under the parameter's name and not under an index, so that they survive a phase
change, and can be read by another engine or on another number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from advgen.strict_config import configuration

if TYPE_CHECKING:
    from torch import Tensor, nn, optim


@configuration
class Adam:
    """Adam (Kingma & Ba 2014)."""

    betas: tuple[float, float] = (0.0, 0.99)
    """Decay of the first and the second moment. (0, .99) is ProGAN's."""
    eps: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas) or self.eps <= 0:
            raise ValueError("betas must lie in [0, 1) and eps above 0")


def build_optimizer(config: Adam, parameters: Mapping[str, nn.Parameter]) -> optim.Optimizer:
    """The optimizer over ``parameters``, in their order; its learning rate is set before each step."""
    import torch

    return torch.optim.Adam(list(parameters.values()), lr=0.0, betas=config.betas, eps=config.eps, foreach=True)


def export_state(optimizer: optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimizer's tensors as ``"<parameter>/<moment>"``; parameters that were never updated have none."""
    state: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}/{key}"] = value
    return state


def import_state(
    optimizer: optim.Optimizer, parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """Take from ``state`` what :func:`export_state` gave for these parameters; others begin anew."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        parameter, _, key = name.rpartition("/")
        by_parameter.setdefault(parameter, {})[key] = value
    for name, parameter in parameters.items():
        for key, value in by_parameter.get(name, {}).items():
            device = value.device if key == "step" else parameter.device
            optimizer.state[parameter][key] = value.detach().clone().to(device)
