"""pix2pixHD as a game: what learns when, what is refused, what is painted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advgen.build import build_game, restored
from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.game import Batch, Context, ImageSpec, OneSlice, Timeline
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.game import Pix2PixHd
from advgen.runtime.checkpoint import list_checkpoints, phase_ended, read_checkpoint
from advgen.seeds import Noise
from tests.distributed.runs import PAIRED, ROOT, logged, make_paired_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play

SETTINGS = GAME_SETTINGS["pix2pixhd"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pix2pixhd")
    make_paired_shards(folder)
    return folder


def recipe_of(place: Path, name: str, **changes: Any) -> Path:
    data = {**PAIRED, "training__sample_rows": 1, "training__sample_columns": 2}
    return write_recipe(place / f"{name}.yaml", name=name, **{"game": SETTINGS, **data, **changes})


def ends_of(run: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The networks at each phase's end, by the phase's number."""
    checkpoints = [(phase_ended(path), path) for path in list_checkpoints(run / "checkpoints")]
    return {str(end): dict(read_checkpoint(path).networks) for end, path in checkpoints if end is not None}


@pytest.mark.parametrize("stops", [[], [9]], ids=["left alone", "stopped after the global generator was let go"])
def test_the_global_generator_is_frozen_and_let_go_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, stops: list[int]
) -> None:
    """The released code never unfreezes it, and a resume there never does."""
    monkeypatch.chdir(place)
    name = f"frozen-{len(stops)}"
    recipe = recipe_of(place, name)
    assert all(not play(recipe, steps) for steps in stops) and play(recipe, None)
    ends = ends_of(place / "runs" / name)
    assert list(ends) == ["-1", "0", "1", "2"]

    def moved(part: str, before: str, after: str) -> bool:
        names = [n for n in ends["0"] if n.startswith(part) and n.endswith("weight")]
        assert names
        return not all(torch.equal(ends[before][n], ends[after][n]) for n in names)

    assert moved("generator.global.trunk", "-1", "0") and not moved("generator.enhancer1", "-1", "0")
    assert not moved("generator.global", "0", "1") and not moved("encoder", "0", "1")
    assert moved("generator.enhancer1", "0", "1") and moved("discriminator", "0", "1")
    assert moved("generator.global.trunk", "1", "2") and moved("encoder", "1", "2")
    assert not moved("generator.global.to_image", "0", "2"), "an enhanced part's own image is not looked at"
    rates = {(r["phase"], r["nimg"]): r["values"]["generator/learning_rate"] for r in logged(place / "runs" / name)}
    first = [rate for (phase, _), rate in rates.items() if phase == "global"]
    assert first[:3] == [2e-4] * 3 and first[3] == pytest.approx(2e-4) and first[4] == pytest.approx(1e-4)
    assert all(ends["2"]["styles.counts"] > 0), "styles are clustered at a phase's end"


def game_of(spec: ImageSpec | None = None, **settings: Any) -> Pix2PixHd:
    torch.manual_seed(0)
    config = Pix2PixHdConfig(**{k: v for k, v in {**SETTINGS, **settings}.items() if k != "kind"})
    return Pix2PixHd(config, spec or ImageSpec(16, label_map_classes=4, instance_maps=True))


def batch_of(count: int, height: int, width: int) -> Batch:
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.uniform(-1, 1, (count, 3, height, width))).float()
    maps = [torch.from_numpy(random.integers(0, 4, (count, height, width))) for _ in range(2)]
    return Batch(images, None, *maps)


def test_losses_of_both_players_are_those_of_one_forward() -> None:
    game, batch = game_of(pool_size=0, feature_matching_weight=0.0), batch_of(2, 16, 16)
    noise = Noise(0, ("test",), torch.arange(2))
    progress = Timeline(game.phases).at_end_of(2)
    context = Context(game.networks, progress, noise, OneSlice())
    found = game.generator_loss(context, batch)
    fake = found.detached["fake"]
    condition = game.condition(batch, torch.float32)
    assert condition.shape == (2, 5, 16, 16) and (condition[:, :4].sum(dim=1) == 1).all()
    real, painted = (
        [scale[-1].detach().double() for scale in game.networks["discriminator"](condition, images)]
        for images in (batch.images, fake)
    )
    wanted = sum((logits - 1).square().mean() for logits in painted)
    assert found.loss.item() == pytest.approx(float(wanted), rel=1e-5), "least squares, summed over scales, not halved"
    halved = sum((a - 1).square().mean() + b.square().mean() for a, b in zip(real, painted, strict=True)) / 2
    left = dataclasses.replace(context, detached={"generator": found.detached})
    assert game.discriminator_loss(left, batch).loss.item() == pytest.approx(float(halved), rel=1e-5)
    (turn,) = game.phases[0].turns
    assert turn.update == "simultaneous" and [player.name for player in turn.players] == ["generator", "discriminator"]


def test_regression_alone_trains_no_discriminators() -> None:
    """The baseline that a GAN is compared with: pix2pix's L1 distance (Isola et al. 2017, eq. 3) and nothing else."""
    alone: dict[str, Any] = {"adversarial_weight": 0.0, "feature_matching_weight": 0.0, "l1_weight": 100.0}
    game, batch = game_of(**alone), batch_of(2, 16, 16)
    for phase in game.phases:
        assert [player.name for player in phase.players] == ["generator"] and "discriminator" not in phase.trains
    progress = Timeline(game.phases).at_end_of(2)
    found = game.generator_loss(
        Context(game.networks, progress, Noise(0, ("test",), torch.arange(2)), OneSlice()), batch
    )
    distance = np.abs(found.detached["fake"].double().numpy() - batch.images.double().numpy()).mean()
    assert found.loss.item() == pytest.approx(100 * distance, rel=1e-5)
    assert set(found.scalars) == {"loss", "l1"}
    with pytest.raises(ValueError, match="every weight of the generator's loss is 0"):
        game_of(**{**alone, "l1_weight": 0.0})


@pytest.mark.parametrize(("height", "width"), [(16, 32), (18, 26), (21, 13)])
def test_maps_of_any_size_are_painted(height: int, width: int) -> None:
    game = game_of()
    progress = Timeline(game.phases).at_end_of(2)
    like = dataclasses.replace(batch_of(2, height, width), images=torch.empty(0))
    images = game.sample(game.networks, progress, Noise(0, ("x",), torch.arange(2)), like)
    assert images.shape == (2, 3, height, width) and images.abs().max() <= 1


def test_another_style_is_another_picture(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    path = recipe_of(place, "styles")
    assert play(path, None)
    recipe: Recipe = load_recipe(path)
    game = build_game(recipe)
    networks, progress = restored(game, read_checkpoint(list_checkpoints(place / "runs/styles/checkpoints")[-1]))
    like = batch_of(1, 16, 16)
    assert isinstance(game, Pix2PixHd)
    drawn = [game.sample(networks, progress, Noise(seed, ("x",), torch.arange(1)), like) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_what_the_data_lack_is_told() -> None:
    for spec, settings, message in (
        (ImageSpec(16), {}, "paints from label maps"),
        (ImageSpec(16, label_map_classes=4), {}, "game.edges needs instance maps"),
        (ImageSpec(16, label_map_classes=4), {"edges": False}, "game.encoder_features needs instance maps"),
        (ImageSpec(16, 1, label_map_classes=4, instance_maps=True), {"perceptual": "lite0"}, "Set data.channels to 3"),
        (ImageSpec(18, label_map_classes=4, instance_maps=True), {"enhancers": 2}, "do not divide images of 18 x 18"),
    ):
        with pytest.raises(UserError, match=message):
            game_of(spec, **settings)
    game = game_of()
    noise, progress = Noise(0, ("x",), torch.arange(1)), Timeline(game.phases).at_end_of(0)
    with pytest.raises(UserError, match="paints from label maps"):
        game.sample(game.networks, progress, noise)
    with pytest.raises(UserError, match="These networks see instances"):
        game.sample(game.networks, progress, noise, Batch(torch.empty(0), None, torch.zeros(1, 16, 16).long()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__label_map_classes": 3}, r"hold the ids \[3\], and the recipe says data.label_map_classes: 3"),
        ({"data__train": {"shards": "plain"}}, "its samples have no label maps"),
        ({"game": {**SETTINGS, "perceptual": "vgg19", "perceptual_weights": "none.pth"}}, "none.pth: cannot be read"),
    ],
)
def test_shards_and_files_that_do_not_fit_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], message: str
) -> None:
    from advgen.build import build_trainer
    from tests.unit.data.make import shards_of

    monkeypatch.chdir(place)
    if not (place / "plain").exists():
        shards_of(place / "other", 8, 4, size=16)
        (place / "other" / "shards").rename(place / "plain")
    with pytest.raises(UserError, match=message):
        build_trainer(load_recipe(recipe_of(place, "refused", **change)))


def test_the_paper_s_recipe_has_its_phases_and_widths() -> None:
    recipe = load_recipe(ROOT / "pipelines/recipes/pix2pixhd-cityscapes-2048.yaml")
    with torch.device("meta"):
        game = build_game(recipe)
    assert [(phase.name, phase.resolution) for phase in game.phases] == [
        ("global", 512),
        ("enhancer 1 alone", 1024),
        ("enhancer 1 and before", 1024),
    ]
    count = sum(p.numel() for p in game.networks["generator"].get_submodule("global").parameters())
    assert abs(count / 1e6 - 182.5) < 0.1
