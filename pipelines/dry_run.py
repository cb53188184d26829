"""``--dry-run``: what would be trained, and what it would take, without a GPU, data or weights."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table

from advgen.config import Recipe
from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.counting import StepCount
    from advgen.game import Game


def describe(recipe: Recipe) -> int:
    """Print what would be trained."""
    from advgen.build import build_counter
    from advgen.counting import Layout
    from advgen.runtime.validation import check_setting
    from advgen.strict_config import dump_yaml

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    counter = build_counter(recipe)
    game = counter.game
    check_setting(game, recipe.training, ranks)
    console.print(dump_yaml(recipe))
    layout = Layout(ranks, recipe.training.micro_batches, recipe.training.precision == "bf16")
    counts = [counter.step(index, layout) for index in range(len(game.phases))]
    _print_phases(game, counts)
    for player in game.phases[-1].players:
        repeats = f", {player.repeat} updates a step" if player.repeat > 1 else ""
        console.print(f"player {player.name}: trains {', '.join(player.trains)}{repeats}")
    for name, network in game.networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        console.print(f"network {name}: {count:,} parameters ({count / 1e6:.1f}M)")
    for name, text in getattr(game, "describe", list)():
        console.print(f"{name}: {text}")
    _print_players(game, counts[-1], counter.mean_flops(len(counts) - 1, layout))
    _print_memory(max(counts, key=lambda count: count.most), ranks)
    return 0


def _print_phases(game: Game, counts: list[StepCount]) -> None:
    table = Table(
        "phase", "kimg", "from kimg", "resolution", "global batch", "learning rate", "optimizer reset", "memory"
    )
    start = 0.0
    for phase, count in zip(game.phases, counts, strict=True):
        rates = sorted({rate.base for rate in phase.learning_rates.values()})
        table.add_row(
            phase.name,
            f"{phase.kimg:g}",
            f"{start:g}",
            str(phase.resolution),
            str(phase.batch_size),
            ", ".join(f"{rate:g}" for rate in rates),
            "yes" if phase.reset_optimizers else "no",
            decimal(count.most),
        )
        start += phase.kimg
    console.print(table)
    console.print(f"total: {start:g} kimg")


def _print_players(game: Game, count: StepCount, mean: float) -> None:
    """Operations of the last phase, at a step where every player acts and every penalty is taken."""
    phase = game.phases[-1]
    table = Table("GFLOP an image", "forward", "penalty's gradient", "backward", "together", "GB moved an image")
    for name, player in count.players.items():
        values = (player.forward, player.penalty, player.backward, player.flops, player.moved)
        table.add_row(name, *(f"{value / phase.batch_size / 1e9:,.3f}" for value in values))
    console.print(table)
    console.print(
        f"a step of phase '{phase.name}': {count.flops / 1e12:,.4g} TFLOP, in the mean {mean / 1e12:,.4g} "
        f"({mean / phase.batch_size / 1e9:,.4g} GFLOP an image)"
    )


def _print_memory(count: StepCount, ranks: int) -> None:
    spread = f"each of {ranks} processes" if ranks > 1 else "one process"
    rest = count.most - count.weights - count.moments
    console.print(
        f"memory of {spread} (engine ddp), at most {decimal(count.most)}: weights and averages "
        f"{decimal(count.weights)}, optimizers {decimal(count.moments)}, gradients and what losses keep "
        f"{decimal(rest)}; torch itself and its convolutions' work space come on top. WORLD_SIZE=8 before the command "
        "counts for eight."
    )
