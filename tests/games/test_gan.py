"""The plain GAN: its losses by name, penalties, and spectral normalisation through real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Batch, Context, ImageSpec, OneSlice, Progress
from advgen.games.gan.config import GanConfig
from advgen.games.gan.game import Gan
from advgen.games.progan.config import ProganConfig, WganGp, ZeroCentred
from advgen.games.progan.game import Progan
from advgen.losses.config import LossName
from advgen.runtime.checkpoint import StoredMoments, latest_checkpoint, read_checkpoint
from advgen.seeds import Noise
from advgen.strict_config import YamlText, parse
from tests.distributed.runs import make_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play
from tests.unit.losses.reference import REFERENCE

N = 6
ZERO_CENTRED = ("non_saturating", "hinge", "lsgan", "relativistic")


def setting(game: Gan | Progan, step: int = 0, micro_batch: int = 0, seed: int = 0) -> tuple[Context, Batch]:
    """A context and a batch of N images of the first phase, in float64."""
    for network in game.networks.values():
        network.double()
    phase = game.phases[0]
    torch.manual_seed(seed)
    images = torch.randn(N, 3, phase.resolution, phase.resolution, dtype=torch.float64)
    noise = Noise(1, ("test",), torch.arange(N), torch.float64)
    context = Context(game.networks, Progress(step, 0, phase, 0), noise, OneSlice(), micro_batch=micro_batch)
    return context, Batch(images)


def small_gan(**changes: Any) -> Gan:
    torch.manual_seed(0)
    return Gan(GanConfig(**{"latent_size": 4, "width": 4, "width_max": 8, **changes}), ImageSpec(8))


def small_progan(loss: WganGp | ZeroCentred) -> Progan:
    torch.manual_seed(0)
    config = ProganConfig(fmap_base=32, fmap_max=8, latent_size=4, minibatch_group=None, batch_size=N, loss=loss)
    return Progan(config, ImageSpec(8))


def scores(game: Gan | Progan, context: Context, batch: Batch) -> tuple[Any, Any]:
    """Of the discriminator at reals and fakes, as numpy arrays."""
    z = context.noise.normal("latent", 4)
    found = []
    with torch.no_grad():
        if isinstance(game, Gan):
            judged = (batch.images, game.networks["generator"](z))
            found = [game.networks["discriminator"](images) for images in judged]
        else:
            judged = (batch.images, game.networks["generator"](z, None, 4, 1.0))
            found = [game.networks["discriminator"](images, None, 1.0, OneSlice())[0] for images in judged]
    return found[0].numpy(), found[1].numpy()


# ------------------------------------------------------------------------------------------------------------- losses
@pytest.mark.parametrize("name", REFERENCE)
def test_both_players_of_gan_have_the_loss_that_is_named(name: LossName) -> None:
    game = small_gan(loss=name, r1_gamma=0.0)
    context, batch = setting(game)
    expected = [formula(*scores(game, context, batch)) for formula in REFERENCE[name]]
    got = [loss(context, batch).loss.item() for loss in (game.discriminator_loss, game.generator_loss)]
    assert got == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("kind", ZERO_CENTRED)
def test_both_players_of_progan_have_the_loss_that_is_named(kind: Any) -> None:
    game = small_progan(ZeroCentred(kind=kind, r1_gamma=0.0))
    context, batch = setting(game)
    expected = [formula(*scores(game, context, batch)) for formula in REFERENCE[kind]]
    got = [loss(context, batch).loss.item() for loss in (game.discriminator_loss, game.generator_loss)]
    assert got == pytest.approx(expected, abs=1e-10)


def test_only_the_relativistic_generator_looks_at_reals() -> None:
    for make in (lambda name: small_gan(loss=name), lambda name: small_progan(ZeroCentred(kind=name))):
        for name, looks in (("relativistic", True), ("hinge", False)):
            game = make(name)
            values = [game.generator_loss(*setting(game, seed=seed)).loss.item() for seed in (0, 1)]
            assert (values[0] != values[1]) == looks


def test_penalties_are_added_and_logged_at_their_steps() -> None:
    options = {"r1_gamma": 2.0, "r1_every": 2, "r2_gamma": 4.0, "r2_every": 3, "gp_weight": 1.0, "drift": 0.5}
    game, plain = small_gan(**options), small_gan(r1_gamma=0.0)
    for step, lazy in ((0, {"r1": 2.0, "r2": 6.0}), (1, {}), (2, {"r1": 2.0}), (3, {"r2": 6.0})):
        context, batch = setting(game, step)
        outcome = game.discriminator_loss(context, batch)
        rest = plain.discriminator_loss(*setting(plain, step)).loss.item()
        rest += 0.5 * float((scores(game, context, batch)[0] ** 2).mean())
        factors = {"penalty": 1.0, **lazy}
        expected = rest + sum(factor * outcome.scalars[name].item() for name, factor in factors.items())
        assert outcome.loss.item() == pytest.approx(expected, abs=1e-10)
        assert outcome.scalars.keys() == {"loss", "real_score", "fake_score", *factors}


# ------------------------------------------------------------------------------------------------------------ recipes
def read(kind: Any, values: dict[str, Any]) -> Any:
    return parse(kind, YamlText(values, {}), "recipe")


def test_keys_of_older_recipes_mean_what_they_meant() -> None:
    gan = read(GanConfig, {"kind": "gan", "r1_gamma": 5.0, "r1_every": 2})
    assert (gan.r1_gamma, gan.r1_every, gan.loss, gan.spectral_norm) == (5.0, 2, "non_saturating", False)
    assert GanConfig() == GanConfig(r1_gamma=10.0, r1_every=1, r2_gamma=0.0, gp_weight=0.0, drift=0.0)
    r1 = {"kind": "non_saturating", "r1_gamma": 0.1, "r1_gamma_by_resolution": {"16": 1.0}, "r1_every": 8}
    loss = read(ProganConfig, {"kind": "progan", "loss": r1}).loss
    for resolution, gamma in ((8, 0.1), (16, 1.0)):
        penalties = loss.penalties_at(resolution)
        assert (penalties.r1_gamma, penalties.r1_every, penalties.r2_gamma) == (gamma, 8, 0.0)
        assert (penalties.gp_weight, penalties.drift) == (0.0, 0.0)
    loss = read(ProganConfig, {"kind": "progan", "loss": {"kind": "wgan_gp", "target": 750.0}}).loss
    penalties = loss.penalties_at(8)
    assert (penalties.gp_weight, penalties.gp_target, penalties.drift) == (10.0, 750.0, 0.001)
    assert (penalties.r1_gamma, penalties.r2_gamma) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (GanConfig, {"loss": "hinges"}, "loss"),
        (GanConfig, {"r1_every": 0}, "r1_every"),
        (GanConfig, {"gp_target": 0.0}, "gp_target"),
        (ProganConfig, {"loss": {"kind": "wgan_gp", "weight": -1.0}}, "weight"),
        (ProganConfig, {"loss": {"kind": "hinge", "r2_gamma": -1.0}}, "r2_gamma"),
        (ProganConfig, {"loss": {"kind": "hinge", "weight": 1.0}}, "known here|did you mean"),
        (ProganConfig, {"loss": {"kind": "hinges"}}, "relativistic"),
    ],
)
def test_wrong_settings_are_told(kind: Any, values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read(kind, values)


# ------------------------------------------------------------------------------------------- spectral normalisation
def estimates(game: Gan) -> list[Tensor]:
    return [value.clone() for name, value in game.networks["discriminator"].named_buffers() if name.endswith("u")]


def moved(game: Gan, before: list[Tensor]) -> set[bool]:
    return {not torch.equal(old, new) for old, new in zip(before, estimates(game), strict=False)}


@pytest.mark.parametrize("architecture", ["resnet", "mlp"])
def test_estimates_move_once_an_update_of_the_discriminator(architecture: Any) -> None:
    game = small_gan(architecture=architecture, hidden=8, spectral_norm=True)
    layers = [m for m in game.networks["discriminator"].modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    context, batch = setting(game)
    before = estimates(game)
    assert len(before) == len(layers) >= 3
    game.generator_loss(context, batch).loss.backward()
    game.discriminator_loss(setting(game, micro_batch=1)[0], batch).loss.backward()
    game.sample(game.networks, context.progress, context.noise)
    assert moved(game, before) == {False}
    game.discriminator_loss(context, batch).loss.backward()
    assert moved(game, before[:-1]) == {True}  # the last layer has one row, whose only singular vector is found
    assert not [name for name, _ in game.networks["generator"].named_buffers()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan")
    make_shards(folder)
    return folder


def run(place: Path, name: str, stops: tuple[int, ...] = (), **changes: Any) -> dict[str, Tensor]:
    """The tensors at the end of a run of 10 steps."""
    game = {**GAME_SETTINGS["gan"], "spectral_norm": True, "loss": "hinge", **changes.pop("game", {})}
    small = {"training__sample_rows": 1, "training__sample_columns": 1}
    recipe = write_recipe(place / f"{name}.yaml", name=name, game=game, **small, **changes)
    for steps in stops:
        assert not play(recipe, steps)
    assert play(recipe, None)
    newest = latest_checkpoint(place / "runs" / name / "checkpoints")
    assert newest is not None
    return {**read_checkpoint(newest).networks, **StoredMoments(newest).tensors()}


def test_rates_fall_at_the_end_where_asked() -> None:
    (phase,) = small_gan(total_kimg=4.0, rampdown_kimg=2.0, learning_rate=0.1).phases
    rates = [[rate.at(nimg) for nimg in (0, 2000, 3000, 4000)] for rate in phase.learning_rates.values()]
    assert rates == [[0.1, 0.1, 0.05, 0.0]] * 2
    with pytest.raises(ValueError, match="rampdown_kimg"):
        GanConfig(rampdown_kimg=-1.0)


def test_a_run_resumes_bit_for_bit_and_keeps_its_estimates(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    whole, cut = run(place, "whole"), run(place, "cut", stops=(3, 2))
    assert any(name.startswith("discriminator.") and name.endswith(".u") for name in whole)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    "changes", [{"training__accumulation": 2}, {"training__activation_checkpointing": True}], ids=str
)
def test_micro_batches_and_recomputation_make_the_same_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(place)
    name = next(iter(changes))
    one, other = (run(place, f"{name}-{len(extra)}", training__precision="float64", **extra) for extra in ({}, changes))
    assert one.keys() == other.keys()
    for key, value in one.items():
        np.testing.assert_allclose(cast(Any, value), cast(Any, other[key]), rtol=0, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("loss", ["relativistic", "wgan"])
def test_other_losses_train(place: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    monkeypatch.chdir(place)
    game = {"loss": loss, "spectral_norm": False, "r2_gamma": 1.0, "gp_weight": 1.0}
    assert all(value.isfinite().all() for value in run(place, loss, game=game).values())
