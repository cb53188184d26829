"""The protocol of a game: phases, and turns of players, as data.

A player has a loss and the networks that it trains; the trainer (:mod:`advgen.trainer`) knows nothing more
of a game than what stands here. Losses see a :class:`Context` and a :class:`Batch`, and draw all their
randomness from ``context.noise``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from advgen.ema import DecayRule
from advgen.errors import UserError
from advgen.optim import Optimizer
from advgen.schedules import LearningRate
from advgen.seeds import Noise


@dataclass(frozen=True)
class ImageSpec:
    """What the data provides.

    Attributes:
        resolution: height in pixels.
        channels: of the images.
        classes: that labels tell apart; 0 without labels.
        width: in pixels; None for squares.
        label_map_classes: ids in the label maps are below; 0 without label maps.
        instance_maps: whether instance maps go with the label maps.
        ignore_label: an id in the label maps that stands for no class, whether or not it is one of those.
        points: name of the set whose points stand in the place of images, d channels of 1x1 pixel; None for images.
        bounded: whether all values lie in [-1, 1], as those of images do.
    """

    resolution: int
    channels: int = 3
    classes: int = 0
    width: int | None = None
    label_map_classes: int = 0
    instance_maps: bool = False
    ignore_label: int | None = None
    points: str | None = None
    bounded: bool = True

    def require_images(self, what: str) -> None:
        """Refuse points.

        Args:
            what: takes images only, as a setting.

        Raises:
            UserError: the data are points.
        """
        if self.points is not None:
            raise UserError(
                f"{what} takes images, and data.points names a set of points ({self.points}). Use perceptrons "
                "(game.architecture: mlp of gan, ali or avb), or shards of images."
            )

    @property
    def conditional(self) -> bool:
        """Whether images belong to labels or label maps."""
        return self.classes > 0 or self.label_map_classes > 0


@dataclass(frozen=True)
class Batch:
    """A rank's slice of a global batch.

    Attributes:
        images: float32 [n, c, r, w] in [-1, 1], r being the phase's resolution, and w = r for squares; of points
            [n, d, 1, 1] of any size.
        labels: int64 [n] class numbers, or None for data without classes.
        label_map: int64 [n, r, w] class ids, or None for data without label maps.
        instance_map: int64 [n, r, w] ids of instances, or None.
    """

    images: Tensor
    labels: Tensor | None = None
    label_map: Tensor | None = None
    instance_map: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """All parts that are there."""
        return [value for field in fields(self) if (value := getattr(self, field.name)) is not None]

    def strided(self, first: int, step: int) -> Batch:
        """Every so many samples, from one on, with all their parts."""
        return self.of(slice(first, None, step))

    def of(self, rows: slice) -> Batch:
        """Some of the samples, with all their parts."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[rows] for name, value in parts.items() if value is not None})


class Across(Protocol):
    """Statistics over the global batch, of which each of ``slices`` ranks holds every ``slices``-th sample."""

    @property
    def slices(self) -> int:
        """Number of ranks that hold a slice each."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """The rows [n, ...] of all ranks in the order of the global batch, [n * slices, ...]; differentiable twice."""
        ...

    def own(self, rows: Tensor) -> Tensor:
        """This rank's rows of what :meth:`gather` returned."""
        ...

    def total(self, counts: Tensor) -> Tensor:
        """The sum over ranks of whole numbers, without graph; of a micro-batch, of what ranks hold of that one."""
        ...


class OneSlice:
    """One process holds the whole batch."""

    slices = 1

    def gather(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows

    def own(self, rows: Tensor) -> Tensor:
        """The rows themselves."""
        return rows

    def total(self, counts: Tensor) -> Tensor:
        """The numbers themselves."""
        return counts


@dataclass(frozen=True)
class Progress:
    """All that a schedule may look at.

    Attributes:
        step: steps done since the run began.
        nimg: images seen when schedules were last updated (see :attr:`Phase.hold`).
        phase: the current phase.
        phase_nimg: of those, how many since the phase's nominal begin.
    """

    step: int
    nimg: int
    phase: Phase
    phase_nimg: int

    @property
    def fade(self) -> float:
        """Weight in [0, 1] of what the phase fades in; 1 in a phase without fade."""
        if not self.phase.fade:
            return 1.0
        return min(max(self.phase_nimg / (1000.0 * self.phase.kimg), 0.0), 1.0)


@dataclass(frozen=True)
class Context:
    """What a loss may use besides its batch.

    Attributes:
        networks: every network of the game by name; those that the player does not train are frozen.
        progress: where the run stands.
        noise: noise of this step, player and repeat, one row a sample of the batch.
        across: statistics over the batch on all ranks.
        detached: what earlier players of this turn left, by player and name.
        micro_batch: which of the micro-batches of one update this is; what moves once an update moves at 0.
    """

    networks: Mapping[str, nn.Module]
    progress: Progress
    noise: Noise
    across: Across
    detached: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    micro_batch: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a loss returns.

    Attributes:
        loss: 0-d, the mean over the rank's slice.
        scalars: 0-d tensors to log, means over the slice as well.
        detached: tensors without graph, one row a sample, that later players of the turn may read.
    """

    loss: Tensor
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    detached: Mapping[str, Tensor] = field(default_factory=dict)


Loss = Callable[[Context, Batch], Outcome]


@dataclass(frozen=True)
class Player:
    """One optimizer with its loss.

    Attributes:
        name: as it stands in logs and checkpoints.
        trains: names of the networks whose parameters it owns.
        optimizer: the rule that updates them.
        loss: computes the whole loss, penalties included; never calls backward.
        every: acts only at steps that are a multiple of it.
        repeat: updates in a row; each after the first takes a fresh batch. In a simultaneous turn only the last of them
            waits for the other players.
    """

    name: str
    trains: tuple[str, ...]
    optimizer: Optimizer
    loss: Loss
    every: int = 1
    repeat: int = 1


@dataclass(frozen=True)
class Turn:
    """Players that act one after the other, or with every backward before any update ("simultaneous")."""

    players: tuple[Player, ...]
    update: Literal["alternating", "simultaneous"] = "alternating"


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the networks' form does not change.

    Attributes:
        name: for people, unique in the game.
        kimg: its length in thousands of images.
        resolution: pixels a side of the images it trains on.
        batch_size: the global batch.
        turns: what one step does, in order.
        trains: dotted prefixes ("generator.blocks.8") of the parameters that learn; the others are frozen.
        learning_rates: one for each player.
        fade: whether a new part fades in over the phase's length.
        reset_optimizers: whether the players' optimizers begin anew.
        hold: schedules (fade, learning rates) are updated, and the phase may end, every so many steps.
        statistic_groups: into how many strided groups a statistic over the batch cuts it; None where there is none.
    """

    name: str
    kimg: float
    resolution: int
    batch_size: int
    turns: tuple[Turn, ...]
    trains: tuple[str, ...]
    learning_rates: Mapping[str, LearningRate]
    fade: bool = False
    reset_optimizers: bool = False
    hold: int = 1
    statistic_groups: int | None = None

    @property
    def players(self) -> tuple[Player, ...]:
        """All players of all turns, in order."""
        return tuple(player for turn in self.turns for player in turn.players)

    @property
    def batches_a_step(self) -> int:
        """Batches that one step takes from the stream: one, and one more for each repeat after a player's first."""
        return 1 + sum(player.repeat - 1 for player in self.players)


@dataclass(frozen=True)
class Average:
    """An exponential moving average of a network's parameters.

    Attributes:
        name: the average's own name in checkpoints.
        of: the network.
        after: the player after whose update the average moves.
        decay: weight of the old value, as a function of the images seen.
    """

    name: str
    of: str
    after: str
    decay: DecayRule


class Game(Protocol):
    """Networks, their averages and the phases of their training."""

    networks: Mapping[str, nn.Module]
    averages: Sequence[Average]
    phases: Sequence[Phase]


def check_game(game: Game) -> None:
    """Refuse a game that contradicts itself.

    Raises:
        UserError: names what does not fit.
    """
    names = [phase.name for phase in game.phases]
    if not names or len(set(names)) != len(names):
        raise UserError(f"The game's phases must have unique names: {names}.")
    parameters = [f"{n}.{p}" for n, network in game.networks.items() for p, _ in network.named_parameters()]
    for phase in game.phases:
        if phase.kimg <= 0 or phase.batch_size <= 0:
            raise UserError(f"Phase '{phase.name}' needs a positive length and batch size.")
        players = [player.name for player in phase.players]
        if len(set(players)) != len(players):
            raise UserError(f"Phase '{phase.name}' has two players of one name: {players}.")
        for average in game.averages:
            if average.of not in game.networks or average.after not in players:
                raise UserError(
                    f"The average '{average.name}' follows network '{average.of}' after player '{average.after}', "
                    f"of which phase '{phase.name}' lacks one."
                )
        for player in phase.players:
            if player.every < 1 or player.repeat < 1:
                raise UserError(f"Player '{player.name}' must have every and repeat of at least 1.")
            if unknown := set(player.trains) - set(game.networks):
                raise UserError(f"Player '{player.name}' trains unknown networks {sorted(unknown)}.")
            if player.every > 1 and player.repeat > 1:
                raise UserError(f"Player '{player.name}' cannot both repeat and act at some steps only.")
            if player.name not in phase.learning_rates:
                raise UserError(f"Phase '{phase.name}' has no learning rate for player '{player.name}'.")
        for prefix in phase.trains:
            if not any(has_prefix(name, prefix) for name in parameters):
                raise UserError(f"Phase '{phase.name}' trains '{prefix}', which matches no parameter.")


def has_prefix(name: str, prefix: str) -> bool:
    """Whether the dotted ``name`` is ``prefix`` or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def sampling_networks(
    game: Game, networks: Mapping[str, nn.Module], averages: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """The networks by name, each replaced by its average where there is one."""
    return {**networks, **{average.of: averages[average.name] for average in game.averages}}
