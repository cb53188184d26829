"""Assembly: the only place that knows both games and runtime."""

from __future__ import annotations

import copy
import functools
import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from advgen.comparing import Comparison
from advgen.config import Recipe, method_of
from advgen.counting import Counter
from advgen.data.config import RemoteConfig
from advgen.data.manifest import MANIFEST, parse_manifest
from advgen.data.mixed import MixedStream
from advgen.data.places import Place, remote_of
from advgen.data.points import SETS, PointStream
from advgen.data.stream import ImageStream, NumberedStream, Stream
from advgen.errors import UserError
from advgen.evaluation import Evaluator, RealImages, Told
from advgen.game import Game, ImageSpec, Progress, check_game, sampling_networks
from advgen.metrics import MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.ranks import Alone
from advgen.outside import outside_networks
from advgen.runtime.checkpoint import (
    Checkpoint,
    check_same_run,
    list_checkpoints,
    restore_networks,
)
from advgen.runtime.config import TrainingConfig
from advgen.runtime.kernels import one_device
from advgen.runtime.lineage import parent_of, weights_of
from advgen.runtime.ranks import ranks_of
from advgen.runtime.run_folder import RunFolder, provenance
from advgen.runtime.tracking import Mirrors, Subject, mirrors_of
from advgen.runtime.world import World
from advgen.seeds import key_of
from advgen.setting import Inspection, Reading, Setting
from advgen.strict_config import dump_yaml, plain
from advgen.timeline import Timeline
from advgen.trainer import Trainer

# A game is one folder, one line here, its configuration in advgen.config.Recipe, and a recipe.
GAMES = {
    "aae": ("advgen.games.aae.game", "Aae"),
    "ali": ("advgen.games.ali.game", "Ali"),
    "avb": ("advgen.games.avb.game", "Avb"),
    "cgan": ("advgen.games.cgan.game", "CGan"),
    "gan": ("advgen.games.gan.game", "Gan"),
    "implicit_vi": ("advgen.games.implicit_vi.game", "ImplicitVi"),
    "pix2pixhd": ("advgen.games.pix2pixhd.game", "Pix2PixHd"),
    "progan": ("advgen.games.progan.game", "Progan"),
}


def build_game(recipe: Recipe, *, trained: bool = False, blank: bool = False) -> Game:
    """The recipe's game with its networks initialised from the recipe's seed; torch's own generator is left alone.

    Args:
        recipe: says which.
        trained: whether it is to be trained: files that only its losses need are read.
        blank: with those losses' networks, but not their weights: to be counted.

    Raises:
        UserError: the settings contradict one another, or a file is missing.
    """
    module, name = GAMES[recipe.game.kind]
    spec = spec_of(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(recipe.seed, "initialisation") >> 1)
        handed = outside_networks(recipe.game, blank=blank) if trained or blank else {}
        game = cast(Game, getattr(importlib.import_module(module), name)(recipe.game, spec, **handed))
    check_game(game)
    return game


def spec_of(recipe: Recipe) -> ImageSpec:
    """What the recipe's data provide."""
    data = recipe.data
    return ImageSpec(
        data.resolution,
        data.channels,
        data.classes,
        data.width,
        data.label_map_classes,
        data.instance_maps,
        data.ignore_label,
        points=None if data.points is None else data.points.kind,
        bounded=data.points is None or SETS[data.points.kind].bounded,
    )


def open_held_out(recipe: Recipe) -> NumberedStream | None:
    """What is never trained on: the shards that were held out; of points fresh ones, the same for all runs."""
    data = recipe.data
    if data.points is not None:
        return PointStream(data.points.kind, seed=key_of(recipe.evaluation.seed, "held out"), labelled=data.classes > 0)
    return None if data.held_out is None else open_stream(recipe, data.held_out.shards)


def open_stream(recipe: Recipe, shards: str, *, mirror: bool = False, balanced: bool = False) -> ImageStream:
    """A folder of shards as the recipe reads it.

    Raises:
        UserError: no shards there, or others than the recipe says.
    """
    data = recipe.data
    folder, remote = shards, None
    if "://" in shards:
        remote = remote_of(data.remote)
    elif not Path(shards).exists():
        raise UserError(
            f"{folder}: no shards there. Make them with `advgen shard`, or run all stages with `advgen run RECIPE`."
        )
    stream = ImageStream(
        folder,
        seed=recipe.seed,
        resolution=data.resolution,
        width=data.width,
        channels=data.channels,
        block_shards=data.shuffle_block_shards,
        lanes=data.canonical_nodes,
        balanced=balanced,
        mirror=mirror,
        cache_bytes=data.cache_mib << 20,
        remote=remote,
    )
    classes = len(stream.manifest.classes)
    if data.classes and classes != data.classes:
        raise UserError(f"{folder}: has {classes} classes, the recipe says data.classes: {data.classes}. Correct it.")
    _check_maps(recipe, stream, folder)
    return stream


def _check_maps(recipe: Recipe, stream: ImageStream, folder: str) -> None:
    """Refuse label maps that are not those of the recipe."""
    data, manifest = recipe.data, stream.manifest
    for part, wanted, key in (
        ("label_map", data.label_map_classes > 0, "label_map_classes"),
        ("instance_map", data.instance_maps, "instance_maps"),
    ):
        if wanted and part not in manifest.parts:
            raise UserError(
                f"{folder}: its samples have no {part.replace('_', ' ')}s, and the recipe sets data.{key}. Shard them "
                f"with --{part.replace('_', '-')}s, or leave data.{key} out."
            )
    over = [i for i in manifest.label_ids if i >= data.label_map_classes and i != data.ignore_label]
    if data.label_map_classes and over:
        raise UserError(
            f"{folder}: its label maps hold the ids {over[:5]}, and the recipe says data.label_map_classes: "
            f"{data.label_map_classes}. Correct it, or name the id that stands for no class in data.ignore_label."
        )


def _training_stream(recipe: Recipe) -> tuple[Stream, str]:
    """What is trained on, and what identifies it."""
    data = recipe.data
    if data.train is None:
        points = _points(recipe)
        return points, points.digest
    sets = (data.train, *data.mix)
    streams = [
        open_stream(recipe, each.shards, mirror=data.mirror, balanced=data.balance == "classes") for each in sets
    ]
    if not data.mix:
        return streams[0], streams[0].digest
    manifests = [f"{each.weight} of {one.digest}" for each, one in zip(sets, streams, strict=True)]
    weights = [each.weight for each in sets]
    return MixedStream(streams, weights, seed=recipe.seed, lanes=data.canonical_nodes), ", ".join(manifests)


def _points(recipe: Recipe) -> PointStream:
    data = recipe.data
    assert data.points is not None, "the configuration has seen to it"
    return PointStream(data.points.kind, seed=recipe.seed, labelled=data.classes > 0)


def build_trainer(
    recipe: Recipe, told: Told = lambda record, known: None, stop: Callable[[], bool] = lambda: False
) -> tuple[Trainer, World]:
    """Everything that training needs; the run folder is made.

    Args:
        recipe: says what is trained.
        told: is called with each record of an evaluation within the training, on the first rank.
        stop: whether such an evaluation is to end before its time.

    Raises:
        UserError: missing shards, a folder that is no run's, a batch that the ranks do not divide.
    """
    data = recipe.data
    stream, manifest = _training_stream(recipe)
    game = build_game(recipe, trained=True)
    world = World(recipe.training)
    folder = RunFolder(recipe.folder)
    about = {**method_of(recipe), "data.manifest": manifest}
    check_same_run(folder.checkpoints, about)
    parent, begins_with = None, None
    if list_checkpoints(folder.checkpoints):
        parent = folder.parent()
    elif recipe.init_from is not None:
        parent = parent_of(recipe.init_from)
        begins_with = weights_of(parent)
    if world.main:
        folder.claim(dump_yaml(recipe))
        images = Timeline(game.phases).total_nimg
        session = provenance(manifest, str(world.device), world.size, torch.get_num_threads(), images)
        folder.describe(dump_yaml(recipe), {**session, "parent": parent})
    world.wait()
    subject = Subject(folder.path, recipe.name, plain(recipe))
    mirror = mirrors_of(recipe.tracking, subject) if world.main else Mirrors({})
    reading = Reading(data.read_threads, data.read_workers, data.bad_samples)
    inspection, every = None, recipe.evaluation.every_kimg
    if every is not None and recipe.evaluation.metrics:
        evaluator = build_evaluator(recipe, folder, world=world)
        inspection = Inspection(every, lambda: evaluator.look(told, stop))
    setting = Setting(
        recipe.training, recipe.seed, reading, spec_of(recipe), about, begins_with, inspection, flops_of(recipe)
    )
    return Trainer(game, stream, world, folder, mirror, setting), world


def build_counter(recipe: Recipe) -> Counter:
    """What counts the steps of the recipe's game; no file is read for it."""
    return Counter(lambda: build_game(recipe, blank=True), spec_of(recipe))


def flops_of(recipe: Recipe) -> Callable[[int], float]:
    """FLOPs of a step of a phase in the mean, by the phase's index; the counter is made when it is first asked."""
    counter = functools.cache(lambda: build_counter(recipe))
    return lambda index: counter().mean_flops(index)


def evaluation_world(training: TrainingConfig, evaluation: EvaluationConfig) -> World:
    """The processes of an evaluation: found as those of a training are, each with its share of the CPU's threads."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE", "1"))
    threads = evaluation.threads or max(1, len(os.sched_getaffinity(0)) // here)
    return World(replace(training, engine="ddp", deepspeed={}, threads=threads))


def build_evaluator(
    recipe: Recipe,
    folder: RunFolder,
    learned: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> Evaluator:
    """The evaluator of a run.

    Args:
        recipe: the run's.
        folder: the run's.
        learned: is told how far the training of a judge is: (images, of how many).
        world: of :func:`evaluation_world`; None for this process alone.

    Raises:
        UserError: missing shards.
    """
    train = recipe.data.train
    reals = RealImages(
        train=_points(recipe) if train is None else open_stream(recipe, train.shards), held_out=open_held_out(recipe)
    )
    evaluation = recipe.evaluation
    files = metric_files(evaluation, recipe.data.ignore_label)
    ranks, device = (Alone(), prepare_evaluation(recipe)) if world is None else (ranks_of(world), world.device)
    game, spec = build_game(recipe), spec_of(recipe)
    return Evaluator(game, reals, folder, evaluation, files, device, spec, learned, ranks)


def build_comparison(evaluation: EvaluationConfig, reference: ImageStream, world: World) -> Comparison:
    """What takes metrics of images that belong to no run, against ``reference``."""
    return Comparison(reference, evaluation, metric_files(evaluation, None), world.device, ranks_of(world))


def open_shards(location: str) -> ImageStream:
    """A folder of shards, or an address, whatever images it holds.

    Raises:
        UserError: there are none.
    """
    remote = remote_of(RemoteConfig()) if "://" in location else None
    place = Place(location, remote)
    found = parse_manifest(place.read(MANIFEST), place.show(MANIFEST))
    return ImageStream(
        location, seed=0, resolution=found.height, width=found.width, channels=found.channels, remote=remote
    )


def metric_files(evaluation: EvaluationConfig, ignore_label: int | None) -> MetricFiles:
    """What metrics need from outside."""
    return MetricFiles(
        inception_weights=_path(evaluation.inception_weights),
        reference_statistics=_path(evaluation.published_statistics),
        dinov2=_path(evaluation.dinov2),
        segmenter=_path(evaluation.segmenter),
        classifier=_path(evaluation.classifier),
        lpips=_path(evaluation.lpips),
        ignore_label=ignore_label,
    )


def prepare_evaluation(recipe: Recipe) -> torch.device:
    """Set the threads that the recipe's evaluation asks for, and how kernels are chosen; the device that it runs on."""
    torch.set_num_threads(recipe.evaluation.threads or len(os.sched_getaffinity(0)))
    return one_device(recipe.training)


def _path(named: str | None) -> Path | None:
    return None if named is None else Path(named).expanduser()


def restored(
    game: Game, checkpoint: Checkpoint, weights: Literal["average", "raw"] = "average"
) -> tuple[dict[str, nn.Module], Progress]:
    """The networks to draw with, and where the checkpoint stands.

    At a phase's end that is the phase, wholly faded in, and not the beginning of the next.

    Args:
        game: whose networks are loaded.
        checkpoint: what from.
        weights: "average" puts averages in their networks' places.

    Raises:
        UserError: the checkpoint is another game's.
    """
    averages = {average.name: copy.deepcopy(game.networks[average.of]) for average in game.averages}
    restore_networks({**game.networks, **averages}, checkpoint.networks)
    timeline, ended = Timeline(game.phases), checkpoint.ended
    if ended is not None and ended >= 0:
        progress = timeline.at_end_of(ended)
    else:
        progress = timeline.progress(checkpoint.clock)
    if weights == "raw":
        return dict(game.networks), progress
    return sampling_networks(game, game.networks, averages), progress
