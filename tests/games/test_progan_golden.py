"""The ProGAN game against golden values of an independent numpy reference (progan_reference.py), in float64."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.ema import ConstantDecay, update_average
from advgen.game import Batch, Context, ImageSpec, OneSlice, Progress
from advgen.games.progan.config import ProganConfig, WganGp, ZeroCentred
from advgen.games.progan.game import Progan
from advgen.games.progan.networks import DiscriminatorEnd, fade_images
from advgen.nn.equalized import EqualizedConv2d
from advgen.nn.normalization import MinibatchStddev
from advgen.optim import Adam, build_optimizer
from advgen.schedules import LearningRate
from tests.games import progan_reference as reference

GOLDEN: dict[str, Any] = json.loads(reference.GOLDEN.read_text())
CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-7}  # the file holds 8 to 10 decimals


def case_name(case: dict[str, Any]) -> str:
    parts = (f"{key}={case[key]}" for key in ("label_size", "resolution", "alpha", "group", "fused") if key in case)
    return "-".join(parts)


def tiny_game(label_size: int, fused: bool = True, **settings: Any) -> Progan:
    """The reference's tiny networks with its weights, as a game."""
    config = ProganConfig(
        fmap_base=32, fmap_max=8, latent_size=8, minibatch_group=4, fused_downsampling=fused, **settings
    )
    game = Progan(config, ImageSpec(16, 3, label_size))
    projects = config.conditioning == "projection"
    weights = (reference.projection_weights if projects else reference.tiny_weights)(label_size)
    translated = {ours(name): torch.from_numpy(value) for name, value in weights.items()}
    for name, network in game.networks.items():
        network.double()
        own = {k.removeprefix(f"{name}."): v for k, v in translated.items() if k.startswith(f"{name}.")}
        network.load_state_dict(own)
    return game


def ours(name: str) -> str:
    """The reference's name of a weight in our networks."""
    side, size, layer, kind = name.split("/")
    r = size.split("x")[0]
    network = {"g": "generator", "d": "discriminator"}[side]
    if layer == "torgb":
        return f"{network}.to_rgb.{r}.{kind}"
    if layer == "fromrgb":
        return f"{network}.from_rgb.{r}.{kind}"
    if name == "g/4x4/dense/bias":
        return "generator.blocks.4.bias"
    return f"{network}.blocks.{r}.{layer}.{kind}"


def labels_of(label_size: int, n: int) -> Tensor | None:
    return torch.arange(n) % label_size if label_size else None


class FixedNoise:
    """Stands for the context's noise: the golden latents and mixing factors."""

    def __init__(self, z: Tensor, mixing: Tensor) -> None:
        self.z, self.mixing = z, mixing

    def normal(self, purpose: str, *shape: int) -> Tensor:
        return {"latent": self.z}[purpose]

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        return {"mixing": self.mixing.reshape(-1, *shape)}[purpose]


def context_of(game: Progan, case: dict[str, Any]) -> tuple[Context, Batch]:
    """The golden case's batch at its place in the growth."""
    phases = [p for p in game.phases if p.resolution == case["resolution"] and p.fade == (case["alpha"] < 1)]
    phase = phases[0]
    progress = Progress(0, 0, phase, round(case["alpha"] * phase.kimg * 1000) if phase.fade else 0)
    assert progress.fade == pytest.approx(case["alpha"])
    z = torch.from_numpy(reference.array("z", (8, 8)))[:4]
    mixing = torch.tensor(case["mix"], dtype=torch.float64)
    context = Context(game.networks, progress, FixedNoise(z, mixing), OneSlice())  # type: ignore[arg-type]
    images = torch.from_numpy(reference.tiny_images(case["resolution"], 4))
    return context, Batch(images, labels_of(case["label_size"], 4))


@pytest.mark.parametrize("case", GOLDEN["generator"], ids=case_name)
def test_generator_labels_before_pixel_norm_gains_and_fade(case: dict[str, Any]) -> None:
    game = tiny_game(case["label_size"])
    z = torch.from_numpy(reference.array("z", (8, 8)))
    with torch.no_grad():
        images = game.networks["generator"](z, labels_of(case["label_size"], 8), case["resolution"], case["alpha"])
    np.testing.assert_allclose(images[0].numpy(), np.array(case["first"])[0], **CLOSE)
    assert images.abs().mean().item() == pytest.approx(case["mean_abs"], abs=1e-8)


@pytest.mark.parametrize("case", GOLDEN["discriminator"], ids=case_name)
def test_discriminator(case: dict[str, Any]) -> None:
    game = tiny_game(case["label_size"], case["fused"])
    for module in game.networks["discriminator"].modules():
        if isinstance(module, MinibatchStddev):
            module.group = case["group"]
    images = torch.from_numpy(reference.tiny_images(case["resolution"]))
    with torch.no_grad():
        scores, logits = game.networks["discriminator"](images, None, case["alpha"], OneSlice())
    np.testing.assert_allclose(scores.numpy(), case["scores"], **CLOSE)
    np.testing.assert_allclose(logits.numpy(), np.array(case["logits"]).reshape(8, -1), **CLOSE)


@pytest.mark.parametrize("case", GOLDEN["minibatch_stddev"], ids=lambda c: f"{c['batch']}-{c['group']}")
def test_minibatch_stddev_takes_strided_groups_and_biased_variance(case: dict[str, Any]) -> None:
    x = torch.from_numpy(reference.array("stddev", (16, 2, 4, 4)))[: case["batch"]]
    out = MinibatchStddev(case["group"])(x, OneSlice())
    assert out.shape[1] == 3
    torch.testing.assert_close(out[:, :2], x)
    statistic = torch.tensor(case["statistic"], dtype=torch.float64)
    torch.testing.assert_close(out[:, 2], statistic[:, None, None].expand(-1, 4, 4), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", GOLDEN["losses"], ids=case_name)
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (WganGp(norm_at="current"), "d_wgan_gp"),
        (WganGp(norm_at="output"), "d_wgan_gp_full"),
        (WganGp(norm_at="current", target=750.0), "d_wgan_gp_target_750"),
        (ZeroCentred(r1_gamma=0.0), "d_logistic"),
        (ZeroCentred(r1_gamma=10.0, r1_every=4), "d_logistic with r1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_losses_of_both_players(case: dict[str, Any], loss: WganGp | ZeroCentred, expected: str) -> None:
    game = tiny_game(case["label_size"], case["fused"], loss=loss)
    context, batch = context_of(game, case)
    labelled = case.get("label_real", 0.0) + case.get("label_fake", 0.0)
    r1 = expected.endswith("with r1")
    value = case["d_logistic"] + 4 * case["r1_gamma_10"] if r1 else case[expected]
    outcome = game.discriminator_loss(context, batch)
    assert outcome.loss.item() == pytest.approx(value + labelled, abs=1e-7)
    generator = game.generator_loss(context, batch).loss.item()
    own = case["g_wgan" if isinstance(loss, WganGp) else "g_logistic"]
    assert generator == pytest.approx(own + case.get("label_fake", 0.0), abs=1e-7)


PLACES = [(4, 1.0), (8, 0.3), (8, 1.0), (16, 0.3), (16, 1.0)]


@pytest.mark.parametrize(("resolution", "alpha"), PLACES)
def test_a_projection_adds_the_inner_product_of_embedding_and_last_features(resolution: int, alpha: float) -> None:
    game = tiny_game(3, conditioning="projection")
    weights, images = reference.projection_weights(3), reference.tiny_images(resolution)
    features = reference.discriminator_features(weights, images, resolution, alpha)
    for labels in (torch.arange(8) % 3, torch.tensor([2, 2, 0, 1, 1, 1, 1, 0])):
        with torch.no_grad():
            scores, logits = game.networks["discriminator"](torch.from_numpy(images), labels, alpha, OneSlice())
        expected = reference.projection_score(weights, features, np.eye(3)[labels.numpy()])
        np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=1e-11)
        assert logits.shape == (8, 0)


@pytest.mark.parametrize(("resolution", "alpha"), [(4, 1.0), (8, 0.3)])
def test_losses_with_a_projection_see_labels_in_every_score_and_penalty(resolution: int, alpha: float) -> None:
    """At reals, at fakes and between them; the norms are exact to rounding (complex steps, no backpropagation)."""
    weights, labels = reference.projection_weights(3), np.eye(3)[np.arange(4) % 3]
    reals = reference.process_reals(reference.tiny_images(resolution, 4), alpha)
    fakes = reference.generator(weights, reference.array("z", (8, 8))[:4], labels, resolution, alpha)
    mix = np.array([0.1, 0.35, 0.6, 0.85])

    def score(images: reference.Array) -> reference.Array:
        features = reference.discriminator_features(weights, images, resolution, alpha)
        return reference.projection_score(weights, features, labels)

    def squares(images: reference.Array) -> reference.Array:
        return (reference.input_gradient(score, images) ** 2).sum(axis=(1, 2, 3))

    norms = np.sqrt(squares(reference.lerp(reals, fakes, mix[:, None, None, None])))
    real, fake = score(reals), score(fakes)
    logistic = (np.logaddexp(0, fake) + np.logaddexp(0, -real)).mean()
    zero_centred = logistic + 5 * squares(reals).mean() + 2 * squares(fakes).mean()
    wgan, r1_r2 = WganGp(norm_at="current"), ZeroCentred(r1_gamma=10.0, r1_every=1, r2_gamma=4.0, r2_every=1)
    case = {"resolution": resolution, "alpha": alpha, "label_size": 3, "mix": mix}
    for loss, expected in (
        (wgan, (reference.d_wgan_gp(real, fake, norms), -fake.mean())),
        (r1_r2, (zero_centred, np.logaddexp(0, -fake).mean())),
    ):
        game = tiny_game(3, loss=loss, conditioning="projection")
        context, batch = context_of(game, case)
        outcomes = [player(context, batch) for player in (game.discriminator_loss, game.generator_loss)]
        assert [outcome.loss.item() for outcome in outcomes] == pytest.approx(expected, abs=1e-9)
        assert "labels" not in outcomes[0].scalars


def test_an_embedding_has_the_scale_of_the_score_s_own_weights() -> None:
    torch.manual_seed(0)

    def end_of(kind: Any, classes: int) -> DiscriminatorEnd:
        game = Progan(ProganConfig(conditioning=kind), ImageSpec(4, 3, classes))
        end = game.networks["discriminator"].get_submodule("blocks.4")
        assert isinstance(end, DiscriminatorEnd)
        return end

    classifier, projection = end_of("classifier", 10), end_of("projection", 10)
    assert classifier.embedding is None and classifier.dense1.weight.shape == (11, 512)
    assert projection.embedding is not None and projection.dense1.weight.shape == (1, 512)
    assert projection.embedding.weight.shape == (10, 512) and projection.embedding.bias is None
    assert projection.embedding.weight.std().item() == pytest.approx(1, abs=0.05)
    assert projection.embedding.scale == projection.dense1.scale == pytest.approx(512**-0.5, rel=1e-12)
    assert end_of("projection", 0).embedding is None


def test_drift_is_of_reals_only_and_r1_is_lazy() -> None:
    case = next(c for c in GOLDEN["losses"] if c["resolution"] == 4)
    with_drift = tiny_game(0, loss=WganGp(drift=1.0, weight=0.0))
    context, batch = context_of(with_drift, case)
    value = with_drift.discriminator_loss(context, batch).loss.item()
    assert value == pytest.approx(case["wasserstein"] + 1000 * case["drift"], abs=1e-7)
    lazy = tiny_game(0, loss=ZeroCentred(r1_gamma=10.0, r1_every=4))
    context, batch = context_of(lazy, case)
    later = Context(context.networks, Progress(3, 0, context.progress.phase, 0), context.noise, context.across)
    assert lazy.discriminator_loss(later, batch).loss.item() == pytest.approx(case["d_logistic"], abs=1e-7)


def test_reals_are_faded_too() -> None:
    x = torch.tensor(GOLDEN["process_reals"]["x"], dtype=torch.float64)
    for key, alpha in (("alpha_1", 1.0), ("alpha_03", 0.3)):
        torch.testing.assert_close(fade_images(x, alpha), torch.tensor(GOLDEN["process_reals"][key]).double())


def test_average_moves_after_the_discriminator_and_before_the_generator() -> None:
    case = GOLDEN["average"]
    game = tiny_game(0, average=ConstantDecay(decay=case["beta"]))
    phase = game.phases[0]
    assert [player.name for player in phase.players] == ["discriminator", "generator"]
    assert [average.after for average in game.averages] == ["discriminator"]
    network, average = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(case["start"])
        average.weight.fill_(case["start"])
    for after, expected in zip(case["g"], case["average"], strict=True):
        update_average(average, network, game.averages[0].decay.at(0, 16))
        with torch.no_grad():
            network.weight.fill_(after)
        assert average.weight.item() == pytest.approx(expected, abs=1e-12)


def test_adam_and_its_reset() -> None:
    case = GOLDEN["adam"]
    gradients = torch.tensor(case["grads"], dtype=torch.float64)
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = build_optimizer(Adam(), {"x": parameter})
    for step, gradient in enumerate(gradients):
        if step in case["resets"]:
            optimizer = build_optimizer(Adam(), {"x": parameter})
        for group in optimizer.param_groups:
            group["lr"] = case["lr"]
        parameter.grad = gradient.clone()
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), case["torch"][step], rtol=1e-10, atol=0)


def test_rampup_of_the_learning_rate() -> None:
    rate = LearningRate(1.0, rampup_kimg=40)
    for nimg, factor in GOLDEN["rampup_40kimg"]:
        assert rate.at(nimg) == pytest.approx(factor, rel=1e-12)


def test_optimizers_are_reset_twice_a_resolution() -> None:
    game = Progan(ProganConfig(fmap_base=32, fmap_max=8), ImageSpec(16))
    assert [(p.name, p.reset_optimizers) for p in game.phases] == [
        ("train 4x4", True),
        ("fade 8x8", True),
        ("train 8x8", True),
        ("fade 16x16", True),
        ("train 16x16", True),
    ]


def test_paper_size_and_channels() -> None:
    with torch.device("meta"):
        game = Progan(ProganConfig(), ImageSpec(1024))
    counts = {name[0]: sum(p.numel() for p in network.parameters()) for name, network in game.networks.items()}
    assert counts == GOLDEN["parameters_1024"]
    assert [game.config.channels_at(4 << i) for i in range(9)] == GOLDEN["channels_4_to_1024"]


@pytest.mark.parametrize("resample", ["up", "down"])
def test_strided_convolution_is_resampling_and_convolution(resample: str) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(3, 5, 3, resample=resample).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight = layer.weight * layer.scale
    if resample == "up":
        wide = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        plain = nn.functional.conv2d(wide, weight, layer.bias, padding=1)
    else:
        plain = nn.functional.avg_pool2d(nn.functional.conv2d(x, weight, layer.bias, padding=1), 2)
    torch.testing.assert_close(layer(x), plain)
