"""One wrapper a player, the whole loss inside its forward.

DDP and DeepSpeed hook a module's forward and backward. A loss that calls a network twice, or takes a gradient
of a gradient, or goes through an opponent, breaks those hooks, each in its own way. So the module that is
wrapped is the player: it holds the networks it trains, and its forward computes the loss. Each engine sees one
forward and one backward a micro-batch; opponents are used bare and frozen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advgen.errors import UserError
from advgen.game import Batch, Context, Outcome, Phase, Player, has_prefix
from advgen.optim import Momentum, build_optimizer
from advgen.runtime.config import TrainingConfig
from advgen.runtime.profiler import label
from advgen.runtime.world import World


class Moments(Protocol):
    """Where the tensors of an optimizer that begins are taken from, by ``"<player>/<parameter>/<moment>"``."""

    def names(self) -> Iterable[str]:
        """All that there is."""
        ...

    def read(self, name: str) -> Tensor:
        """A whole tensor."""
        ...

    def read_range(self, name: str, start: int, count: int) -> Tensor:
        """``count`` values of the flat tensor, from ``start``."""
        ...


class NoMoments:
    """Every optimizer begins anew."""

    def names(self) -> Iterable[str]:
        """None."""
        return ()

    def read(self, name: str) -> Tensor:
        """Never asked."""
        raise KeyError(name)

    def read_range(self, name: str, start: int, count: int) -> Tensor:
        """Never asked."""
        raise KeyError(name)


@dataclass(frozen=True)
class Piece:
    """The part of an optimizer's tensor that this rank writes.

    Attributes:
        values: the tensor itself where ``shape`` is None, else a flat range of it.
        start: where the range begins.
        shape: of the whole tensor.
    """

    values: Tensor
    start: int = 0
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Update:
    """What became of an update: numbers that are left where they were computed, as nothing waits for them.

    Attributes:
        gradient_norm: 2-norm of all gradients, averaged over the global batch, before clipping.
        applied: False where it was not finite; weights and moments are then what they were.
    """

    gradient_norm: Tensor
    applied: Tensor


class PlayerModule(nn.Module):
    """The networks that a player trains, with its loss as forward, under autocast where the precision asks for it."""

    def __init__(self, player: Player, networks: Mapping[str, nn.Module], autocast: bool) -> None:
        super().__init__()
        self.trained = nn.ModuleDict({name: networks[name] for name in player.trains})
        self._loss, self._autocast = player.loss, autocast

    def forward(self, context: Context, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The outcome as a tuple, which every wrapper passes on."""
        with torch.autocast(batch.images.device.type, torch.bfloat16) if self._autocast else nullcontext():
            outcome = self._loss(context, batch)
        # A loss that is not finite may still have finite gradients; times NaN they are not, on every rank.
        loss = outcome.loss * torch.where(outcome.loss.detach().isfinite(), 1.0, math.nan)
        return loss, outcome.scalars, outcome.detached


class Engine(ABC):
    """Forward, backward and update of one player in one phase.

    Attributes:
        player: who plays.
        parameters: what it trains, by ``"<network>.<path>"``.
        micro_batches: how many calls of forward and backward make one update.
    """

    def __init__(
        self, player: Player, phase: Phase, networks: Mapping[str, nn.Module], world: World, config: TrainingConfig
    ) -> None:
        self.player = player
        self.micro_batches = config.micro_batches(player.name)
        self.parameters = trained_parameters(player, phase, networks)
        if not self.parameters:
            raise UserError(f"Player '{player.name}' has nothing to train in phase '{phase.name}'.")
        self._size = world.size
        self._module = PlayerModule(player, networks, autocast=config.precision == "bf16")
        freeze(networks.values())
        self._thaw()  # wrappers look at requires_grad when they are made: the phase's unused parts must be frozen then

    def _thaw(self) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def _freeze(self) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)

    def backward(self, shares: Sequence[tuple[Context, Batch]]) -> Outcome:
        """Forward and backward of each micro-batch; gradients are then means over the global batch.

        Args:
            shares: one context and batch for each of :attr:`micro_batches`, strided slices of the rank's share.

        Returns:
            Means over the rank's share; rows of ``detached`` in the share's order.
        """
        if len(shares) != self.micro_batches:
            raise ValueError(f"{self.player.name}: {len(shares)} micro-batches instead of {self.micro_batches}")
        self._thaw()
        try:
            outcomes = [self._one(c, b, last=i == len(shares) - 1) for i, (c, b) in enumerate(shares)]
        finally:
            self._freeze()
        return join(outcomes)

    @abstractmethod
    def _one(self, context: Context, batch: Batch, last: bool) -> Outcome:
        """Forward and backward of one micro-batch."""

    @abstractmethod
    def update(self, learning_rate: float) -> Update:
        """One step of the optimizer on the gradients at hand, if they are finite; the same decision on all ranks."""

    def weight_norm(self) -> Tensor:
        """2-norm of all that the player trains; left on the device, as nothing waits for it."""
        return nn.utils.get_total_norm([parameter.detach() for parameter in self.parameters.values()])

    @abstractmethod
    def state(self) -> dict[str, Piece]:
        """This rank's pieces of the optimizer's tensors, by ``"<player>/<parameter>/<moment>"``."""

    @abstractmethod
    def close(self) -> None:
        """Take back all hooks and buffers; the networks are plain modules again."""


class DdpEngine(Engine):
    """DistributedDataParallel: every rank holds all gradients and moments. One process goes without a wrapper."""

    def __init__(
        self,
        player: Player,
        phase: Phase,
        networks: Mapping[str, nn.Module],
        world: World,
        config: TrainingConfig,
        moments: Moments,
    ) -> None:
        super().__init__(player, phase, networks, world, config)
        self._rank = world.rank
        self._optimizer = build_optimizer(player.optimizer, self.parameters, fused=True)
        self._load(moments)
        self._wrapped = world.wrap(self._module)
        freeze(networks.values())

    def _load(self, moments: Moments) -> None:
        state = self._optimizer.state
        if isinstance(self.player.optimizer, Momentum) and self.player.optimizer.momentum:
            for parameter in self.parameters.values():  # torch would take a first update that is left out for one done
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        for name, (path, moment) in sort_moments(self.player, self.parameters, moments).items():
            value, parameter = moments.read(name), self.parameters[path]
            # The fused kernel goes through memory: moments must lie in it as their parameter does.
            state[parameter][moment] = (
                value.to(parameter.device) if moment == "step" else torch.empty_like(parameter).copy_(value)
            )

    def _one(self, context: Context, batch: Batch, last: bool) -> Outcome:
        alone: AbstractContextManager[Any] = nullcontext()
        if not last and isinstance(self._wrapped, DistributedDataParallel):
            alone = self._wrapped.no_sync()
        with alone:
            with label(f"{self.player.name}/loss"):
                loss, scalars, detached = self._wrapped(context, batch)
            with label(f"{self.player.name}/backward"):
                (loss / self.micro_batches).backward()
        return Outcome(loss.detach(), scalars, detached)

    def update(self, learning_rate: float) -> Update:
        """See :meth:`Engine.update`. The host decides nothing, so it need not wait for the device."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)  # of reduced gradients: the same on every rank
        applied = norm.isfinite()
        if (limit := self.player.optimizer.clip_norm) is not None:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))  # pyright: ignore[reportPrivateImportUsage]
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        # What a gradient scaler tells a fused optimizer: with 1 it leaves weights, moments and its count as they are.
        self._optimizer.found_inf = applied.logical_not().float()  # pyright: ignore[reportAttributeAccessIssue]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return Update(norm, applied)

    def state(self) -> dict[str, Piece]:
        """Every rank holds all of it, and writes every so-manieth parameter's."""
        state: dict[str, Piece] = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            if index % self._size == self._rank:
                for moment, value in self._optimizer.state.get(parameter, {}).items():
                    state[f"{self.player.name}/{name}/{moment}"] = Piece(value)
        return state

    def close(self) -> None:
        """See :meth:`Engine.close`. DDP's reducer and its hooks go with the wrapper."""
        self._optimizer.zero_grad(set_to_none=True)
        self._optimizer.state.clear()
        del self._wrapped, self._module


def trained_parameters(player: Player, phase: Phase, networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """The parameters of the player's networks that learn in the phase, by ``"<network>.<path>"``."""
    return {
        f"{name}.{path}": parameter
        for name in player.trains
        for path, parameter in networks[name].named_parameters()
        if any(has_prefix(f"{name}.{path}", prefix) for prefix in phase.trains)
    }


def sort_moments(
    player: Player, parameters: Mapping[str, nn.Parameter], moments: Moments
) -> dict[str, tuple[str, str]]:
    """The names among ``moments`` that belong to the player's parameters, as (parameter, moment)."""
    found: dict[str, tuple[str, str]] = {}
    for name in moments.names():
        owner, _, rest = name.partition("/")
        parameter, _, moment = rest.rpartition("/")
        if owner == player.name and parameter in parameters:
            found[name] = (parameter, moment)
    return found


def join(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcomes of micro-batches, which are strided slices of a share, as that of the share."""
    if len(outcomes) == 1:
        return outcomes[0]
    first = outcomes[0]
    return Outcome(
        torch.stack([outcome.loss for outcome in outcomes]).mean(),
        {name: torch.stack([outcome.scalars[name] for outcome in outcomes]).mean() for name in first.scalars},
        {
            name: torch.stack([outcome.detached[name] for outcome in outcomes], dim=1).flatten(0, 1)
            for name in first.detached
        },
    )


def freeze(networks: Iterable[nn.Module]) -> None:
    """Stop gradients at every parameter of the networks."""
    for network in networks:
        network.requires_grad_(False)
