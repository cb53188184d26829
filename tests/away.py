"""A device that is not there: steps of recipes on tensors that have a place and no values.

A program of its own, as what it registers with torch stays for the whole process: ``python -m tests.away RECIPE ...``
prints a line for each operation for which a GPU's host would wait; mixed devices end it (:func:`play` says more).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import advgen
from advgen.build import build_game, spec_of
from advgen.capabilities import Encodes, Samples
from advgen.clock import Clock
from advgen.config import Recipe, load_recipe
from advgen.game import Batch, Game, ImageSpec, Phase, Progress, sampling_networks
from advgen.runtime.engine import NoMoments
from advgen.runtime.engines import build_engines
from advgen.runtime.world import World
from advgen.seeds import Noise
from advgen.timeline import Timeline
from advgen.turns import Step, Table, averages_of

AWAY = "away"
PACKAGE = str(Path(advgen.__file__).parent) + os.sep  # a checkout may be called so, too
ATEN = torch.ops.aten
INDEXED = {ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._unsafe_index.Tensor}
CHECKED = {
    ATEN._linalg_check_errors.default,
    ATEN.linalg_inv_ex.default,
    ATEN.linalg_cholesky_ex.default,
    ATEN.linalg_solve.default,
    ATEN._linalg_solve_ex.default,
    ATEN._linalg_eigh.default,
    ATEN._linalg_svd.default,
}


class Backend(_DummyBackendModule):
    """What torch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


class AwayWorld(World):
    """One process, whose device is not there."""

    @property
    def device(self) -> torch.device:
        return torch.device(AWAY, 0)

    def wrap(self, module: nn.Module) -> nn.Module:
        return module


class Waits(TorchDispatchMode):
    """Writes down each operation for which a host would wait, with the line of ours that asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is ATEN._local_scalar_dense.default:
            if args[0].device.type == AWAY:
                self._note("a value is looked at")
            return 1.0 if args[0].is_floating_point() else 1
        if func in INDEXED:
            self._look_at([each for each in args[1] if each is not None], args[0].device)
        if func in CHECKED:
            self._note(f"{func} checks its result on the host")
        if func is ATEN._unique2.default:
            self._note("the number of different values is looked at")
            rows = args[0].new_zeros(len(args[0]))
            return rows, torch.zeros_like(args[0], dtype=torch.int64), torch.zeros_like(rows, dtype=torch.int64)
        out = func(*args, **kwargs)
        if func in (ATEN._to_copy.default, ATEN.copy_.default):
            source = args[1] if func is ATEN.copy_.default else args[0]
            (result,) = (each for each in tree_leaves(out) if isinstance(each, Tensor))
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if result.device != source.device and waits:
                self._note(f"a copy from {source.device.type} to {result.device.type}")
        return out

    def _look_at(self, indices: list[Tensor], device: torch.device) -> None:
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self._note("a mask is counted")
        if any(index.device != device for index in indices):
            self._note("indices are copied")

    def _note(self, what: str) -> None:
        ours = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
        place = f"{ours[-1].filename}:{ours[-1].lineno}: {ours[-1].line}" if ours else "?"
        self.found.append(f"{what} at {place}")


def move(module: nn.Module, layout: torch.memory_format, known: dict[int, nn.Parameter]) -> None:
    """As ``module.to``, which has no way for tensors without values; shared parameters stay shared."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                kind = layout if parameter.dim() == 4 else torch.preserve_format
                moved = torch.empty_like(parameter, device=AWAY, memory_format=kind)
                each._parameters[name] = known.setdefault(id(parameter), nn.Parameter(moved, parameter.requires_grad))
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=AWAY)


def batches(phase: Phase, spec: ImageSpec) -> Iterator[Batch]:
    """As :class:`advgen.feed.Feed` would bring them."""
    height = phase.resolution
    width = height if spec.width is None else height * spec.width // spec.resolution
    pixels = (height, width) if spec.points is None else (1, 1)
    rows = phase.batch_size
    while True:
        ids = torch.zeros(rows, *pixels, dtype=torch.int64, device=AWAY)
        yield Batch(
            torch.zeros(rows, spec.channels, *pixels, device=AWAY),
            torch.zeros(rows, dtype=torch.int64, device=AWAY) if spec.classes else None,
            ids if spec.label_map_classes else None,
            ids if spec.instance_maps else None,
        )


def play(recipe: Recipe) -> list[str]:
    """A step of the last two phases with the trainer's own step and engines, in which all penalties fall; and samples.

    Returns:
        What a host would have waited for.

    Raises:
        Exception: of torch, where an operation is given tensors of two devices, or its result's size is in the values.
    """
    spec, config = spec_of(recipe), recipe.training
    world = AwayWorld(config)
    # Numbers from the host may go in (a game's constants), but no tensor of it.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.random.fork_rng(devices=[]):
        game = build_game(recipe, blank=True)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        known: dict[int, nn.Parameter] = {}
        for module in (*game.networks.values(), *(m for m in vars(game).values() if isinstance(m, nn.Module))):
            move(module, layout, known)
        table = Table(
            game.networks, averages_of(game.averages, game.networks), world, config, 0, torch.float32, spec.classes > 0
        )
        with Waits() as waits:
            for index in range(max(0, len(game.phases) - 2), len(game.phases)):
                phase = game.phases[index]
                engines = build_engines(phase, game.networks, world, config, NoMoments())
                step = Step(table, engines)
                progress = Timeline(game.phases).at_start_of(index)
                step.play(Clock(phase=index), progress, batches(phase, spec), logged=True)
                for engine in engines.values():
                    engine.close()
        with Waits(), torch.no_grad():  # a picture may wait, but is not to mix devices either
            draw(game, table, next(batches(phase, spec)), progress, points=spec.points is not None)
    return waits.found


def draw(game: Game, table: Table, batch: Batch, progress: Progress, points: bool) -> None:
    """Samples, and images of the latents of images, where the game has them."""
    networks = sampling_networks(game, table.networks, {average.name: network for average, network in table.averages})
    noise = Noise(0, ("samples",), torch.arange(len(batch.images), device=AWAY))
    drawn: list[Tensor] = []
    if isinstance(game, Samples):
        drawn.append(game.sample(networks, progress, noise, batch))
    if isinstance(game, Encodes) and not points:
        drawn.append(game.decode(networks, progress, game.encode(networks, progress, batch, noise), batch))
    assert all(images.device.type == AWAY and images.shape == batch.images.shape for images in drawn)


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend(AWAY, Backend())
    for path in map(Path, sys.argv[1:]):
        for text in dict.fromkeys(play(load_recipe(path, []))):
            print(f"{path.name}: {text}")
        print(f"{path.name}: played")
