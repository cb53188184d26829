"""pix2pixHD as a game: what learns when, what is refused, what is painted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from advgen.build import build_game, restored
from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.game import Batch, Context, Game, ImageSpec, OneSlice
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.game import Pix2PixHd
from advgen.games.pix2pixhd.styles import Styles
from advgen.runtime.checkpoint import list_checkpoints, phase_ended, read_checkpoint
from advgen.runtime.config import TrainingConfig
from advgen.runtime.validation import check_setting
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.distributed.runs import PAIRED, ROOT, logged, make_paired_shards, write_recipe
from tests.games import pix2pixhd_reference as reference
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


def test_a_pool_and_accumulation_are_refused_at_once() -> None:
    """The pool takes the fakes of a batch in their order, which micro-batches do not hold together."""
    accumulated = TrainingConfig(accumulation=2)
    check_setting(cast(Game, game_of(pool_size=0)), accumulated, 1)
    with pytest.raises(UserError, match=r"Lower training\.accumulation"):
        check_setting(cast(Game, game_of(pool_size=3)), accumulated, 1)


class Seen(torch.nn.Module):
    """Stands for a generator, and paints what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", torch.nn.Parameter(torch.zeros(1)))

    def forward(self, inputs: torch.Tensor, stage: int) -> torch.Tensor:
        return inputs


@pytest.mark.parametrize("ignore", [0, 2, 255])
def test_pixels_that_stand_for_no_class_have_no_channel(ignore: int) -> None:
    """In training, and in what is painted; an id among the classes, or not."""
    game = game_of(ImageSpec(16, label_map_classes=4, instance_maps=True, ignore_label=ignore))
    batch = batch_of(2, 6, 5)
    assert batch.label_map is not None and batch.instance_map is not None
    batch.label_map[1, 2:4] = ignore
    labels, ids = batch.label_map.numpy(), batch.instance_map.numpy()
    expected = np.zeros((2, 5, 6, 5))
    for n, y, x in np.ndindex(2, 6, 5):
        if labels[n, y, x] != ignore:
            expected[n, labels[n, y, x], y, x] = 1
    expected[:, 4] = [reference.edges(own) for own in ids]
    np.testing.assert_array_equal(game.condition(batch, torch.float32).numpy(), expected)
    networks = {**game.networks, "generator": Seen()}
    noise, progress = Noise(0, ("x",), torch.arange(2)), Timeline(game.phases).at_end_of(2)
    painted = game.sample(networks, progress, noise, dataclasses.replace(batch, images=torch.empty(0)))
    np.testing.assert_array_equal(painted[:, :5].detach().numpy(), expected)


def test_styles_are_clustered_without_what_stands_for_no_class() -> None:
    game = game_of(ImageSpec(16, label_map_classes=4, instance_maps=True, ignore_label=2))
    batch = batch_of(1, 16, 16)
    labels, ids = torch.zeros(1, 16, 16, dtype=torch.int64), torch.zeros(1, 16, 16, dtype=torch.int64)
    ids[:, 4:8], ids[:, 8:] = 1, 2
    labels[:, 2:4], labels[:, 4:8], labels[:, 8:] = 2, 2, 3  # of the first instance a half, of the second all
    shown = dataclasses.replace(batch, label_map=labels, instance_map=ids)
    game.conclude(game.networks, Timeline(game.phases).at_end_of(2), iter([shown]))
    assert styles_of(game).counts.tolist() == [1, 0, 0, 1]


def styles_of(game: Pix2PixHd) -> Styles:
    styles = game.networks["styles"]
    assert isinstance(styles, Styles)
    return styles


def test_an_edit_of_one_instance_changes_its_pixels_alone() -> None:
    game, like = game_of(), batch_of(1, 12, 9)
    rows = torch.from_numpy(np.random.RandomState(0).normal(size=(8, 2))).float()
    styles_of(game).fit(torch.arange(4).repeat(2), rows, seed=0)
    assert like.label_map is not None and like.instance_map is not None
    like.label_map.copy_(like.instance_map)
    noise = Noise(0, ("x",), torch.arange(1))
    before, *after = (game.planes(game.networks, noise, like, styles) for styles in ({}, {2: 0}, {2: 1}))
    where = like.instance_map[0] == 2
    same = [torch.equal(planes, before) for planes in after]
    assert sorted(same) == [False, True], "of two styles one is that of the seed"
    for style, planes in enumerate(after):
        assert torch.equal(planes[0, :, ~where], before[0, :, ~where])
        assert torch.equal(planes[0, 2:, where].T, styles_of(game).centres[2, style].expand(int(where.sum()), 2))
        assert torch.equal(planes[0, :2], before[0, :2])


@pytest.mark.parametrize(("height", "width"), [(16, 32), (18, 26), (21, 13), (70, 53), (32, 64)])
def test_maps_of_any_size_are_painted(height: int, width: int) -> None:
    game = game_of()
    progress = Timeline(game.phases).at_end_of(2)
    like = dataclasses.replace(batch_of(2, height, width), images=torch.empty(0))
    game.check_maps(game.networks, progress, like, {})
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
    labels = torch.zeros(1, 16, 16).long()
    lacking, small = Batch(torch.empty(0), None, labels), Batch(torch.empty(0), None, labels[:, :2], labels[:, :2])
    with pytest.raises(UserError, match="These networks see instances"):
        game.sample(game.networks, progress, noise, lacking)
    for like, message in (
        (Batch(torch.empty(0)), "paints from label maps"),
        (lacking, "These networks see instances"),
        (small, "Images of 2x16 are too small"),
    ):
        with pytest.raises(UserError, match=message):
            game.check_maps(game.networks, progress, like, {})
    plain = game_of(ImageSpec(16, label_map_classes=4), encoder_features=0, edges=False)
    plain.check_maps(plain.networks, progress, lacking, {})
    with pytest.raises(UserError, match="this run has no styles: it was trained without an encoder"):
        plain.check_maps(plain.networks, progress, lacking, {0: 0})


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


def test_ade20k_s_recipe_sees_151_classes_and_nothing_else() -> None:
    recipe = load_recipe(ROOT / "pipelines/recipes/pix2pixhd-ade20k-256.yaml")
    with torch.device("meta"):
        game = build_game(recipe)
    assert [(phase.name, phase.kimg, phase.resolution) for phase in game.phases] == [("global", 4042, 256)]
    assert game.networks.keys() == {"generator", "discriminator"}
    first = next(p for p in game.networks["generator"].parameters())
    assert first.shape == (64, 151, 7, 7)


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
