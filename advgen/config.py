"""The recipe: one experiment, from images to figures. Importing it does not import torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator

from advgen.data.config import DataConfig
from advgen.games.aae.config import AaeConfig
from advgen.games.ali.config import AliConfig
from advgen.games.avb.config import AvbConfig
from advgen.games.cgan.config import CGanConfig
from advgen.games.gan.config import GanConfig
from advgen.games.implicit_vi.config import ImplicitViConfig
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.progan.config import ProganConfig
from advgen.metrics import METRICS
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.protocols import PROTOCOLS
from advgen.runtime.config import TrackingConfig, TrainingConfig
from advgen.strict_config import YamlText, configuration, flatten, parse, plain, read_yaml

# What may change between a run and its resumption: length, reporting and hardware. The data are compared by
# their manifest and not by where they lie.
_FREE = (
    "name",
    "runs",
    "game.total_kimg",
    "game.perceptual_weights",
    "data.train",
    "data.held_out",
    "data.mix",
    "data.bad_samples",
    "data.sharding",
    "data.remote",
    "data.cache_mib",
    "data.read_threads",
    "data.read_workers",
    "training",
    "evaluation",
    "tracking",
    "compare_with",
)
_BINDING = ("training.precision",)


@configuration
class Recipe:
    """One experiment."""

    name: str
    """Name of the run and of its folder."""
    game: Annotated[
        AaeConfig | AliConfig | AvbConfig | CGanConfig | GanConfig | ImplicitViConfig | Pix2PixHdConfig | ProganConfig,
        Discriminator("kind"),
    ]
    """The method."""
    data: DataConfig
    """The images."""
    seed: int = 0
    """Of initialisation, order and noise."""
    training: TrainingConfig = TrainingConfig()
    """Hardware, logging, checkpoints."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured."""
    tracking: TrackingConfig = TrackingConfig()
    """W&B and TensorBoard."""
    init_from: str | None = None
    """RUN@NIMG: begin with the weights and averages of a run folder's checkpoint, and nothing else of it."""
    compare_with: tuple[str, ...] = ()
    """Run folders, folders of some, or patterns (runs/baseline-*): the report stage also writes compare.html, which
    sets the run against them."""
    runs: str = "runs"
    """Folder in which run folders lie."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError("name must begin with a letter or digit and hold only letters, digits, '.', '_' and '-'")
        if not 0 <= self.seed < 2**63:
            raise ValueError("seed must lie in [0, 2**63)")
        if self.init_from is not None and not re.fullmatch(r".+@[0-9]+", self.init_from):
            raise ValueError("init_from must be RUN@NIMG, a run folder and the images seen at one of its checkpoints")
        wanted = "images" if self.data.points is None else "points"
        for name in self.evaluation.metrics:
            named = PROTOCOLS[name].figures.values() if name in PROTOCOLS else (name,)
            if any(each in METRICS and METRICS[each].data != wanted for each in named):
                fitting = ", ".join(spec.name for spec in METRICS.values() if spec.data == wanted)
                raise ValueError(
                    f"evaluation.metrics: {name} is not taken of {wanted}; name metrics that are ({fitting}), or none "
                    "([])"
                )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs) / self.name


def load_recipe(path: Path, overrides: Sequence[str] = (), stage: str = "train") -> Recipe:
    """The recipe in a YAML file, with flags such as ``--training.threads 2`` on top.

    Raises:
        UserError: every mistake in the file, with its line.
        SystemExit: a wrong flag (code 2), or ``--help`` (code 0).
    """
    recipe = parse(Recipe, read_yaml(path), str(path))
    if not overrides:
        return recipe
    import tyro

    changed = tyro.cli(
        Recipe,
        prog=f"advgen {stage} {path}",
        default=recipe,
        args=list(overrides),
        config=(tyro.conf.AvoidSubcommands,),
    )
    return parse(Recipe, YamlText(plain(changed), {}), "flags")


def method_of(recipe: Recipe) -> dict[str, Any]:
    """What a run is bound to, as dotted names; two recipes that agree here continue each other's runs."""
    flat = flatten(plain(recipe))
    return {
        name: value
        for name, value in flat.items()
        if name in _BINDING or not any(name == free or name.startswith(free + ".") for free in _FREE)
    }
