"""Games on points: nothing is squashed or mapped where they are not bounded, and games of images refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from advgen.build import build_game, spec_of
from advgen.capabilities import Begins
from advgen.config import Recipe, load_recipe
from advgen.data.points import PointStream
from advgen.errors import UserError
from advgen.timeline import Timeline
from advgen.turns import batch_of
from tests.distributed.runs import POINTS, write_recipe
from tests.games.test_resume import GAME_DATA, GAME_SETTINGS

ALI = {**GAME_SETTINGS["ali"], "architecture": "mlp", "width": 0.02, "conditional": False}
GAN = {**GAME_SETTINGS["gan"], "architecture": "mlp", "hidden": 16}
FOUR = {"data": {"points": {"kind": "four_points"}, "resolution": 1, "channels": 4}}


def recipe_of(folder: Path, game: dict[str, Any], **data: Any) -> Recipe:
    return load_recipe(write_recipe(folder / "recipe.yaml", game=game, **{**POINTS, **data}))


@pytest.mark.parametrize("game", [ALI, GAN], ids=["ali", "gan"])
def test_only_bounded_values_are_squashed(tmp_path: Path, game: dict[str, Any]) -> None:
    """The last layer, made a million times as large, leaves [-1, 1] where and only where the data may."""
    for data, bounded in (({}, False), (FOUR, True)):
        recipe = recipe_of(tmp_path, game, **data)
        assert spec_of(recipe).bounded is bounded and spec_of(recipe).points is not None
        built: Any = build_game(recipe)
        network: nn.Module = built.networks["decoder" if "decoder" in built.networks else "generator"]
        last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
        with torch.no_grad():
            last.weight.mul_(1e6)
            points = network(torch.linspace(-2, 2, 16 * game["latent_size"]).reshape(16, -1))
        assert points.shape == (16, 4 if bounded else 2, 1, 1)
        assert (points.abs().max() <= 1) == bounded


def test_ali_takes_points_as_they_are_and_no_log_odds_of_them(tmp_path: Path) -> None:
    built: Any = build_game(recipe_of(tmp_path, ALI))
    assert built.beginning_images == 0
    seen: list[torch.Tensor] = []
    for name, part in (
        ("encoder", built.networks["encoder"].stack),
        ("discriminator", built.networks["discriminator"].images),
    ):
        part.register_forward_pre_hook(lambda _, given, name=name: seen.append(given[0]))
    batch = batch_of(PointStream("grid25", seed=0).read(torch.arange(8).numpy()), torch.device("cpu"), labelled=False)
    latents = built.encode(built.networks, Timeline(built.phases).at_end_of(0), batch)
    built.networks["discriminator"](batch.images, latents)
    assert len(seen) == 2 and all(torch.equal(given, batch.images) for given in seen)
    assert batch.images.abs().max() > 3


def test_bounded_points_have_log_odds(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, ALI, **FOUR)
    built = build_game(recipe)
    assert isinstance(built, Begins) and built.beginning_images == 20
    batch = batch_of(
        PointStream("four_points", seed=0).read(torch.arange(400).numpy()), torch.device("cpu"), labelled=False
    )
    built.begin(built.networks, iter([batch]))
    share = (batch.images.double() == 1).double().mean(0)
    bias = cast(Any, built.networks["decoder"]).bias
    torch.testing.assert_close(bias.sigmoid().double(), share, rtol=0, atol=1e-6)
    assert (share - 0.25).abs().max() < 5 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize(
    ("game", "told"),
    [
        (GAME_SETTINGS["ali"], "game.architecture: small"),
        (GAME_SETTINGS["cgan"], "game.kind: cgan"),
        (GAME_SETTINGS["gan"], "game.architecture: resnet"),
        ({**GAN, "augment": {"kind": "ada"}}, "game.augment: ada"),
        (GAME_SETTINGS["pix2pixhd"], "game.kind: pix2pixhd"),
        (GAME_SETTINGS["progan"], "game.kind: progan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_games_of_images_refuse_points(tmp_path: Path, game: dict[str, Any], told: str) -> None:
    recipe = recipe_of(tmp_path, {**game, **({"conditional": False} if game["kind"] == "ali" else {})})
    with pytest.raises(UserError, match=rf"^{told} takes images, and data.points names a set of points \(grid25\)"):
        build_game(recipe)


def test_metrics_of_the_other_kind_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"fd_lite0 is not taken of points; name metrics that are \(modes, high_quality\)"
    ):
        recipe_of(tmp_path, GAN, evaluation={"metrics": ["fd_lite0"]})
    with pytest.raises(UserError, match="modes is not taken of images"):
        load_recipe(
            write_recipe(tmp_path / "images.yaml", evaluation={"metrics": ["modes"]}, **GAME_DATA.get("gan", {}))
        )
    assert recipe_of(tmp_path, GAN, evaluation={"metrics": []}).evaluation.metrics == ()
