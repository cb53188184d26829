"""The engines of a phase: made, asked for their state, and taken apart without a trace."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from advgen.capabilities import Recomputes
from advgen.game import Game, Phase
from advgen.runtime.config import ZERO_STAGES, TrainingConfig
from advgen.runtime.engine import DdpEngine, Engine, Moments, Piece
from advgen.runtime.world import World


def prepare(game: Game, config: TrainingConfig) -> None:
    """Compile networks, and let blocks compute their activations again, as the settings say; once a run."""
    if config.activation_checkpointing:
        assert isinstance(game, Recomputes)
        for block in game.blocks():
            # All randomness comes from the context, so there is no state of random numbers to keep.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    for name in config.compile:
        game.networks[name].compile()


def build_engines(
    phase: Phase, networks: Mapping[str, nn.Module], world: World, config: TrainingConfig, moments: Moments
) -> dict[str, Engine]:
    """An engine for each player of the phase, by name.

    Args:
        phase: its players.
        networks: of the game; their parameters stand where training goes on from.
        world: the ranks.
        config: which engine.
        moments: what the optimizers go on from.
    """
    kind: type[Engine] = DdpEngine
    if config.engine in ZERO_STAGES:
        from advgen.runtime.zero import ZeroEngine

        kind = ZeroEngine
    return {player.name: kind(player, phase, networks, world, config, moments) for player in phase.players}  # pyright: ignore[reportCallIssue]


def close_engines(engines: dict[str, Engine], world: World) -> None:
    """Take the engines apart, so that the next phase begins with nothing of theirs."""
    for engine in engines.values():
        engine.close()
    engines.clear()
    world.forget()
    gc.collect()  # DeepSpeed's engines hold themselves in cycles


def collect_state(engines: Iterable[Engine]) -> dict[str, Piece]:
    """This rank's pieces of the tensors of all optimizers."""
    state: dict[str, Piece] = {}
    for engine in engines:
        state.update(engine.state())
    return state
