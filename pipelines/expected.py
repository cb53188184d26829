"""What `advgen submit` says before it submits: time, GPU-hours and storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from advgen.clock import duration
from advgen.config import Recipe
from advgen.data.manifest import MANIFEST, parse_manifest
from advgen.errors import UserError
from advgen.launch.cluster import Cluster
from advgen.launch.estimate import (
    Rates,
    checkpoint_bytes,
    kept_checkpoints,
    read_rates,
    reduction_seconds,
    training_time,
)
from advgen.launch.plan import data_sets

if TYPE_CHECKING:
    from advgen.game import Game, Phase


def expected(recipe: Recipe, game: Game, cluster: Cluster, measured: Path | None) -> list[str]:
    """Lines for a person to read.

    Args:
        recipe: to be submitted.
        game: of the recipe.
        cluster: to which.
        measured: a run of the same method whose rates hold; None takes this run's own, as far as it went.
    """
    return [_time(recipe, game, cluster, measured or recipe.folder), _storage(recipe, game)]


def _time(recipe: Recipe, game: Game, cluster: Cluster, run: Path) -> str:
    wanted = cluster.train
    place = f"{wanted.nodes} x {wanted.ranks_per_node} ranks"
    rates = read_rates(run)
    if rates is None:
        return (
            "expected time: unknown, no rate was measured; train for some minutes and name that run (--measured RUN). "
            f"One job has {place} for {wanted.time}"
        )
    taken = training_time([(phase.name, phase.kimg) for phase in game.phases], rates, wanted)
    hours = f", {taken.gpu_hours:,.1f} GPU-hours" if taken.gpu_hours else ""
    jobs = f"{taken.jobs} time limit{'s' if taken.jobs > 1 else ''} of {wanted.time}"
    missing = f"; never measured and left out: {', '.join(taken.unmeasured)}" if taken.unmeasured else ""
    times = wanted.ranks / rates.ranks
    scaled = "" if times == 1 else f", if {wanted.ranks} are {times:g} times as fast"
    speed = cluster.network_gbit_per_rank
    sent = "" if speed is None else _reduced(recipe, game, rates, wanted.ranks, speed, taken.seconds)
    return (
        f"expected time of training: {duration(taken.seconds)} on {place}{hours}, {jobs} (by the rates of "
        f"{rates.source} on {rates.ranks} rank{'s' if rates.ranks > 1 else ''}{scaled}){sent}{missing}"
    )


def _reduced(recipe: Recipe, game: Game, rates: Rates, ranks: int, gbit_per_rank: float, seconds: float) -> str:
    """How long it is with the gradients' way over the network added, which the rates may hold a part of already."""
    if ranks == 1:
        return ""
    added = sum(
        1000
        * phase.kimg
        / phase.batch_size
        * reduction_seconds(_gradient_bytes(phase, game), recipe.training.engine, ranks, gbit_per_rank)
        for phase in game.phases
        if phase.name in rates.images_per_second
    )
    return f"; {duration(seconds + added)} if gradients go at {gbit_per_rank:g} Gbit/s a rank and nothing hides them"


def _gradient_bytes(phase: Phase, game: Game) -> float:
    """Of an average step, float32."""
    from advgen.runtime.engine import trained_parameters

    return sum(
        4 * parameter.numel() * player.repeat / player.every
        for player in phase.players
        for parameter in trained_parameters(player, phase, game.networks).values()
    )


def _storage(recipe: Recipe, game: Game) -> str:
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in game.networks.items()}
    one = checkpoint_bytes(sum(sizes.values()), sum(sizes[average.of] for average in game.averages))
    count = kept_checkpoints([(phase.name, phase.kimg) for phase in game.phases], recipe.training)
    text = f"expected storage: {decimal(one * count)} for {count} checkpoints of {decimal(one)}"
    shards = 0
    for each in data_sets(recipe):
        try:
            manifest = parse_manifest((Path(each.shards) / MANIFEST).read_bytes(), each.shards)
        except (OSError, UserError):
            return f"{text}; shards are not there yet, or elsewhere"
        shards += manifest.bytes + sum(shard.bytes for level in manifest.levels for shard in level.shards)
    return f"{text}; shards have {decimal(shards)}" if shards else text
