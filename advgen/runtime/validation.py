"""What is refused before anything is built: combinations that are known to be wrong."""

from __future__ import annotations

from advgen.capabilities import Recomputes
from advgen.errors import UserError
from advgen.game import Game, Phase
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import trained_parameters


def check_setting(game: Game, config: TrainingConfig, size: int) -> None:
    """Refuse settings that this game cannot be trained with on ``size`` processes.

    Raises:
        UserError: names the setting, the reason and the way out.
    """
    players = {player.name: player for phase in game.phases for player in phase.players}
    if unknown := set(config.accumulation_by_player) - set(players):
        raise UserError(
            f"training.accumulation_by_player names {sorted(unknown)}; the players are {', '.join(players)}."
        )
    if unknown := set(config.compile) - set(game.networks):
        raise UserError(f"training.compile names {sorted(unknown)}; the networks are {', '.join(game.networks)}.")
    if config.activation_checkpointing and not isinstance(game, Recomputes):
        raise UserError("training.activation_checkpointing: this game names no blocks. Leave it out.")
    for phase in game.phases:
        _check_batch(phase, config, size)
        if config.engine != "ddp":
            _check_owners(game, phase, config.engine)


def _check_batch(phase: Phase, config: TrainingConfig, size: int) -> None:
    if phase.batch_size % size:
        raise UserError(
            f"Phase '{phase.name}' has a global batch of {phase.batch_size}, which {size} processes do not divide. "
            "Change the batch size in the recipe, or the number of processes."
        )
    for player in phase.players:
        micro = config.micro_batches(player.name)
        if micro == 1:
            continue
        if phase.batch_size % (size * micro):
            raise UserError(
                f"Phase '{phase.name}' has a global batch of {phase.batch_size}, which {size} processes with {micro} "
                f"micro-batches for player '{player.name}' do not divide. Change training.accumulation."
            )
        groups = phase.statistic_groups
        if groups is not None and groups % (size * micro):
            raise UserError(
                f"Phase '{phase.name}' takes a statistic over {groups} group(s) of its batch, which do not fall whole "
                f"into the {size * micro} micro-batches of player '{player.name}'. Lower training.accumulation, or "
                "choose smaller groups (the result is another one then)."
            )


def _check_owners(game: Game, phase: Phase, engine: str) -> None:
    """ZeRO keeps one master copy an engine, so each parameter may have one optimizer only."""
    owners: dict[str, str] = {}
    for player in phase.players:
        for name in trained_parameters(player, phase, game.networks):
            if name in owners:
                raise UserError(
                    f"Phase '{phase.name}': '{name}' is trained by players '{owners[name]}' and '{player.name}'. "
                    f"Under engine {engine} each would keep a copy of its own. Use training.engine: ddp."
                )
            owners[name] = player.name
