"""Which stages a recipe has, what each runs, and what it waits for; the same for every kind of machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advgen.config import Recipe, method_of
from advgen.data.config import DataSet
from advgen.errors import UserError
from advgen.strict_config import digest, plain

# In order; each needs what the ones before it left.
STAGES = ("shard", "train", "evaluate", "report")


@dataclass(frozen=True)
class Job:
    """One stage of a recipe.

    Attributes:
        stage: of :data:`STAGES`.
        arguments: of the program ``advgen``; relative paths are those of the folder that the recipe was given in.
        many: whether one process a rank runs it, or one process alone.
        inputs: SHA-256 of all that its result depends on, stages before it included: a job that ended well is
            run again if this changes.
    """

    stage: str
    arguments: tuple[str, ...]
    many: bool
    inputs: str


def plan(recipe: Recipe, file: Path) -> tuple[Job, ...]:
    """The jobs of a recipe, each to begin when the one before it has ended well.

    Args:
        recipe: with all flags applied.
        file: where the recipe, as it is here, lies for the jobs to read.

    Returns:
        One job a stage, in order. No sharding where the recipe names no images, no evaluation without metrics.
    """
    jobs: list[Job] = []

    def add(stage: str, depends: object) -> None:
        many = stage == "train"
        arguments = ("train", str(file)) if many else ("run", str(file), "--only", stage)
        before = jobs[-1].inputs if jobs else None
        jobs.append(Job(stage, arguments, many, digest([stage, depends, before])))

    if any(each.images is not None for each in data_sets(recipe)):
        data = recipe.data
        size = [data.resolution, data.width, data.channels, data.label_map_classes]
        add("shard", [plain(list(data_sets(recipe))), plain(data.sharding), size])
    # Hardware and reporting may change without a run being another one.
    shards = [each.shards for each in data_sets(recipe)]
    add("train", [method_of(recipe), plain(recipe.game), shards, str(recipe.folder)])
    if recipe.evaluation.metrics:
        add("evaluate", plain(recipe.evaluation))
    add("report", None)
    return tuple(jobs)


def data_sets(recipe: Recipe) -> Iterator[DataSet]:
    """The sets of images of a recipe: training, held out, mixed in."""
    for each in (recipe.data.train, recipe.data.held_out, *recipe.data.mix):
        if each is not None:
            yield each


def chosen_stages(only: str | None, first: str | None) -> tuple[str, ...]:
    """Stages that ``--only train,report`` and ``--from evaluate`` leave, in order.

    Raises:
        UserError: an unknown stage, or nothing is left.
    """
    wanted = STAGES if only is None else tuple(name.strip() for name in only.split(","))
    for flag, names in (("--only", wanted), ("--from", () if first is None else (first,))):
        for name in names:
            if name not in STAGES:
                raise UserError(f"{flag} {name}: no such stage. Stages: {', '.join(STAGES)}.")
    begin = 0 if first is None else STAGES.index(first)
    left = tuple(stage for stage in STAGES[begin:] if stage in wanted)
    if not left:
        raise UserError(f"--only {only} --from {first}: leaves no stage. Give one of the two.")
    return left
