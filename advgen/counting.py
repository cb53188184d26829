"""What a step takes, counted without taking it: operations, bytes moved, and the most memory in use at one time.

A phase's players are played once on tensors that have a shape and no values (PyTorch's fake tensors), so that networks
of any size are counted in a second, on any machine. Floating-point operations are those of PyTorch's own formulas
(``torch.utils.flop_counter``): products in convolutions and matrices, an addition and a multiplication each;
what is done pixel by pixel is left out, as is usual.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from advgen.game import Batch, Context, Game, ImageSpec, Phase, Player, Progress
from advgen.optim import build_optimizer
from advgen.runtime.engine import trained_parameters
from advgen.seeds import Noise


@dataclass
class PlayerCount:
    """What one update of a player takes on all ranks together.

    Attributes:
        forward: floating-point operations (FLOPs) of the loss.
        penalty: FLOPs of the gradients inside the loss, which a penalty differentiates once more.
        backward: FLOPs of the loss' gradient, through a penalty's gradient as well.
        moved: bytes that all operations of loss and backward read and wrote, if none stayed in a cache.
    """

    forward: int = 0
    penalty: int = 0
    backward: int = 0
    moved: int = 0

    @property
    def flops(self) -> int:
        """All of them."""
        return self.forward + self.penalty + self.backward

    def times(self, count: int) -> PlayerCount:
        """So many of these."""
        return PlayerCount(self.forward * count, self.penalty * count, self.backward * count, self.moved * count)


@dataclass(frozen=True)
class StepCount:
    """What one step takes.

    Attributes:
        players: the updates of each player that acts, by name, on all ranks together.
        weights: bytes of networks and averages on one rank.
        moments: bytes of the optimizers' state on one rank, each holding all of it (engine ddp).
        most: bytes in use on one rank at the step's worst time: weights, moments, gradients, DDP's buckets of them, and
            what losses keep for their gradients.
    """

    players: Mapping[str, PlayerCount]
    weights: int
    moments: int
    most: int

    @property
    def flops(self) -> int:
        """Of all players, on all ranks together."""
        return sum(count.flops for count in self.players.values())


@dataclass(frozen=True)
class Layout:
    """How a global batch is spread.

    Attributes:
        ranks: that share it (engine ddp).
        micro_batches: into how many a rank's share is cut, by player.
        bf16: networks run under autocast.
    """

    ranks: int = 1
    micro_batches: Callable[[str], int] = lambda player: 1
    bf16: bool = False


class Counter:
    """A game of fake tensors, whose steps can be counted."""

    def __init__(self, build: Callable[[], Game], spec: ImageSpec) -> None:
        """
        Args:
            build: makes the game; called once, with no memory taken.
            spec: of its data.
        """
        self._spec = spec
        self._mode = FakeTensorMode()
        with self._mode, torch.random.fork_rng(devices=[]):
            self.game = build()

    def mean_flops(self, index: int, layout: Layout = Layout()) -> float:
        """FLOPs of a step of phase ``index`` in the mean over players and penalties that come at some steps only.

        These must come at least once in 16 steps. See :meth:`step`.
        """
        first, second = (self.step(index, layout, at).flops for at in (0, 1))
        if first == second:
            return first
        return (first + second + sum(self.step(index, layout, at).flops for at in range(2, 16))) / 16

    def step(self, index: int, layout: Layout = Layout(), at: int = 0) -> StepCount:
        """Count one step in the middle of a phase.

        Args:
            index: of the phase.
            layout: of the batch.
            at: number of the step; at 0 every player acts, and every penalty is taken.

        Raises:
            Exception: of any kind, from a loss that looks at values.
        """
        with self._mode, Ledger() as ledger:
            return _Play(self.game, self._spec, self.game.phases[index], layout, ledger).step(at)


class _Play:
    """One step, as :class:`advgen.turns.Step` with engines of :class:`advgen.runtime.engine.DdpEngine` plays it."""

    def __init__(self, game: Game, spec: ImageSpec, phase: Phase, layout: Layout, ledger: Ledger) -> None:
        self.game, self.spec, self.phase, self.layout, self.ledger = game, spec, phase, layout, ledger
        for network in game.networks.values():
            network.requires_grad_(False)
            ledger.hold((*network.parameters(), *network.buffers()))
        averaged = [game.networks[each.of] for each in game.averages]
        self.averages = [
            torch.zeros_like(p) for network in averaged for p in (*network.parameters(), *network.buffers())
        ]
        self.weights = ledger.live
        self.trained = {player.name: trained_parameters(player, phase, game.networks) for player in phase.players}
        self.optimizers = {
            p.name: build_optimizer(p.optimizer, self.trained[p.name], fused=True) for p in phase.players
        }
        for player in phase.players:  # a first step makes the moments
            for parameter in self.trained[player.name].values():
                parameter.grad = torch.zeros_like(parameter)
            self.optimizers[player.name].step()
            self.optimizers[player.name].zero_grad()
        self.moments = ledger.live - self.weights
        self.buckets = {player.name: self._bucket(player) for player in phase.players}
        ledger.peak = ledger.live

    def _bucket(self, player: Player) -> list[Tensor]:
        """DDP's buckets, which stay; a player's gradients are views of its own."""
        return [torch.zeros_like(each) for each in self.trained[player.name].values() if self.layout.ranks > 1]

    def step(self, at: int) -> StepCount:
        """Play and count."""
        players: dict[str, PlayerCount] = {}
        for turn in self.phase.turns:
            detached: dict[str, Mapping[str, Tensor]] = {}
            waiting: list[Player] = []
            for player in turn.players:
                if at % player.every:
                    continue
                players[player.name], detached[player.name] = self._backward(player, at, detached)
                waiting.append(player)
                if turn.update == "alternating":
                    self._update(waiting)
            self._update(waiting)
        return StepCount(players, self.weights, self.moments, self.ledger.peak)

    def _backward(
        self, player: Player, at: int, detached: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[PlayerCount, Mapping[str, Tensor]]:
        """One micro-batch of one repeat on one rank, counted for all of them."""
        micro = self.layout.micro_batches(player.name)
        rows = self.phase.batch_size // (self.layout.ranks * micro)
        middle = int(500 * self.phase.kimg)
        progress = Progress(at, middle, self.phase, middle)
        noise = Noise(0, ("count", player.name), torch.arange(rows))
        across = _Ranks(self.layout.ranks * micro)
        left = {name: {key: each[:rows] for key, each in values.items()} for name, values in detached.items()}
        count = PlayerCount()
        self.buckets[player.name].clear()  # the gradients are counted as they come
        for parameter in self.trained[player.name].values():
            parameter.requires_grad_(True)
        with self.ledger.counting(count):
            context = Context(self.game.networks, progress, noise, across, left)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.layout.bf16):
                outcome = player.loss(context, self._batch(rows))
            self.ledger.backward = True
            outcome.loss.backward()
        for parameter in self.trained[player.name].values():
            parameter.requires_grad_(False)
        kept = {key: each.repeat_interleave(micro, dim=0) for key, each in outcome.detached.items()}
        return count.times(player.repeat * micro * self.layout.ranks), kept

    def _update(self, waiting: list[Player]) -> None:
        for player in waiting:
            self.optimizers[player.name].step()
            self.optimizers[player.name].zero_grad()
            self.buckets[player.name] = self._bucket(player)
        waiting.clear()

    def _batch(self, rows: int) -> Batch:
        spec, height = self.spec, self.phase.resolution
        width = height if spec.width is None else height * spec.width // spec.resolution
        pixels = (height, width) if spec.points is None else (1, 1)
        ids = torch.zeros(rows, *pixels, dtype=torch.int64)
        return Batch(
            torch.zeros(rows, spec.channels, *pixels),
            torch.zeros(rows, dtype=torch.int64) if spec.classes else None,
            ids if spec.label_map_classes else None,
            ids if spec.instance_maps else None,
        )


class _Ranks:
    """Ranks that all hold the same."""

    def __init__(self, slices: int) -> None:
        self.slices = slices

    def gather(self, rows: Tensor) -> Tensor:
        return rows.repeat_interleave(self.slices, dim=0)

    def own(self, rows: Tensor) -> Tensor:
        return rows[:: self.slices]

    def total(self, counts: Tensor) -> Tensor:
        return counts * self.slices


class Ledger(TorchDispatchMode):
    """Watches all operations: counts them, and keeps books of the memory that their results hold."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.backward = False
        self._sizes: dict[int, int] = {}
        self._count: PlayerCount | None = None

    @contextmanager
    def counting(self, count: PlayerCount) -> Iterator[None]:
        """Operations go to ``count``."""
        self._count, self.backward = count, False
        try:
            yield
        finally:
            self._count = None

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """These are in use, until nothing refers to them."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._sizes:
                self._sizes[key] = storage.nbytes()
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _made_up(func, args)
        if out is None:
            out = func(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        results = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        if (count := self._count) is not None:
            known = {each.untyped_storage()._cdata for each in given}
            # A view reads and writes nothing.
            if (
                not results
                or any(each.untyped_storage()._cdata not in known for each in results)
                or func._schema.is_mutable
            ):
                count.moved += sum(each.numel() * each.element_size() for each in [*given, *results])
            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                flops = formula(*args, **(kwargs or {}), out_val=out)
                if self.backward:
                    count.backward += flops
                elif torch._C._current_autograd_node() is not None:
                    count.penalty += flops
                else:
                    count.forward += flops
        self.hold((*given, *results))  # what is read is in use, too, wherever it is from
        return out


def _made_up(func: Any, args: Any) -> Any:
    """What an operation that looks at values is told; None for all others."""
    if func is torch.ops.aten._local_scalar_dense.default:
        return 1.0 if args[0].is_floating_point() else 1
    if func is torch.ops.aten._unique2.default:
        rows = args[0].new_zeros(len(args[0]))
        return rows, torch.zeros_like(args[0], dtype=torch.int64), torch.zeros_like(rows, dtype=torch.int64)
    return None
