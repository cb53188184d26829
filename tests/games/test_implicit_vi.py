"""Inference with implicit distributions against an independent numpy reference, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.capabilities import Encodes, Samples
from advgen.errors import UserError
from advgen.game import Batch, Context, ImageSpec, OneSlice, check_game
from advgen.games.implicit_vi.config import ImplicitViConfig
from advgen.games.implicit_vi.game import ImplicitVi
from advgen.games.implicit_vi.networks import Denoiser, Features
from advgen.likelihood.models import MODELS
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.games import implicit_vi_reference as reference

N, NOISE, LAYERS, SHARE = 7, 3, 2, 0.3
OBSERVED = {"linear_gaussian": 3, "sprinkler": 1}
CONTRASTS, NAMES = ("prior", "joint"), ("linear_gaussian", "sprinkler")


def tiny(**settings: Any) -> ImplicitVi:
    """Float64, with larger weights than at initialisation."""
    torch.manual_seed(0)
    small = {"hidden": 8, "layers": LAYERS, "noise_size": NOISE, "denoising_deviation": SHARE}
    config = ImplicitViConfig(**{**small, **settings})
    game = ImplicitVi(config, ImageSpec(1, OBSERVED[config.model], points=config.model, bounded=False))
    for network in game.networks.values():
        network.double()
        with torch.no_grad():
            for seed, parameter in enumerate(network.parameters()):
                values = np.random.default_rng(seed).normal(size=tuple(parameter.shape))
                parameter.add_(torch.from_numpy(np.asarray(0.5 * values)))
    return game


def points_of(model: str) -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(4)
    return draw.exponential(8.0, (N, 1)) if model == "sprinkler" else draw.normal(size=(N, 3))


def context_of(game: ImplicitVi, player: str) -> tuple[Context, Batch]:
    noise = Noise(1, ("train", player, 0), torch.arange(40, 40 + N), torch.float64)
    batch = Batch(torch.from_numpy(points_of(game.config.model))[:, :, None, None])
    return Context(game.networks, Timeline(game.phases).at_start_of(0), noise, OneSlice()), batch


def weights_of(game: ImplicitVi, network: str) -> dict[str, reference.Array]:
    return {name: value.numpy().copy() for name, value in game.networks[network].state_dict().items()}


def pairs(game: ImplicitVi, noise: Noise) -> tuple[reference.Array, reference.Array, tuple[Any, Any]]:
    """By the reference: x and z of q, and the pairs of the other class."""
    name, x = game.config.model, points_of(game.config.model)
    z = reference.encoder(name, weights_of(game, "encoder"), x, noise.normal("encoder", NOISE).numpy(), LAYERS)
    prior = reference.DEVIATION[name] * noise.normal("prior", 2).numpy()
    if game.config.contrast == "prior":
        return x, z, (x, prior)
    draw = noise.uniform("observation", 1) if name == "sprinkler" else noise.normal("observation", 3)
    return x, z, (reference.observed(name, prior, draw.numpy()), prior)


# ------------------------------------------------------------------------------------------------ against the reference
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_classifier_s_loss(contrast: str, name: str) -> None:
    game = tiny(model=name, contrast=contrast)
    context, batch = context_of(game, "classifier")
    x, z, others = pairs(game, context.noise)
    weights = weights_of(game, "classifier")
    logits = [reference.classifier(name, weights, *pair, LAYERS) for pair in ((x, z), others)]
    found = game.classifier_loss(context, batch)
    assert found.loss.item() == pytest.approx(reference.logistic(*logits), rel=1e-10)
    assert found.loss.item() != pytest.approx(reference.logistic(*logits[::-1]), rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("contrast", CONTRASTS)
def test_denoisers_loss(contrast: str, name: str) -> None:
    game = tiny(model=name, contrast=contrast, estimator="denoising")
    context, batch = context_of(game, "denoiser")
    x, z, others = pairs(game, context.noise)
    sigma, expected = SHARE * reference.DEVIATION[name], 0.0
    for network, purpose, (at, clean) in (
        ("denoiser", "denoiser", (x, z)),
        ("model_denoiser", "model denoiser", others),
    )[: 1 if contrast == "prior" else 2]:
        for sign in (1, -1):
            noisy = clean + sign * sigma * context.noise.normal(purpose, 2).numpy()
            restored = reference.denoised(name, weights_of(game, network), at, noisy, LAYERS, SHARE)
            expected += reference.squared_error(restored, clean, sigma) / 2
    assert game.denoiser_loss(context, batch).loss.item() == pytest.approx(expected, rel=1e-10)
    assert ("model_denoiser" in game.networks) == (contrast == "joint")


def directions(game: ImplicitVi) -> dict[str, reference.Array]:
    draw = np.random.default_rng(8)
    return {name: draw.normal(size=tuple(p.shape)) for name, p in game.networks["encoder"].named_parameters()}


def moved(weights: reference.Weights, along: reference.Weights, by: float) -> dict[str, reference.Array]:
    return {name: value + by * along[name] if name in along else value for name, value in weights.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("estimator", ["adversarial", "denoising"])
def test_encoder_s_loss_and_gradient(estimator: str, contrast: str, name: str) -> None:
    """The derivative along a random direction of all weights, by differences of the reference."""
    game = tiny(model=name, contrast=contrast, estimator=estimator)
    context, batch = context_of(game, "encoder")
    x, epsilon, along = points_of(name), context.noise.normal("encoder", NOISE).numpy(), directions(game)
    weights = weights_of(game, "encoder")

    def latents(by: float) -> reference.Array:
        return reference.encoder(name, moved(weights, along, by), x, epsilon, LAYERS)

    def divergence(z: reference.Array) -> float:
        log_ratio = reference.classifier(name, weights_of(game, "classifier"), x, z, LAYERS)
        return float((log_ratio - (reference.log_likelihood(name, x, z) if contrast == "prior" else 0)).mean())

    def score(network: str, z: reference.Array) -> reference.Array:
        sigma = SHARE * reference.DEVIATION[name]
        return (reference.denoised(name, weights_of(game, network), x, z, LAYERS, SHARE) - z) / sigma**2

    found = game.encoder_loss(context, batch)
    h, z = 1e-6, latents(0.0)
    if estimator == "adversarial":
        assert found.loss.item() == pytest.approx(divergence(z), rel=1e-10)
        expected = (divergence(latents(h)) - divergence(latents(-h))) / (2 * h)
    else:
        model = reference.joint_gradient(name, x, z) if contrast == "prior" else score("model_denoiser", z)
        change = (latents(h) - latents(-h)) / (2 * h)
        expected = float(((score("denoiser", z) - model) * change).sum(axis=1).mean())
    parameters = dict(game.networks["encoder"].named_parameters())
    gradients = torch.autograd.grad(found.loss, list(parameters.values()))
    slope = sum(float((g.numpy() * along[key]).sum()) for key, g in zip(parameters, gradients, strict=True))
    assert abs(expected) > 1e-3
    assert slope == pytest.approx(expected, rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- properties
@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("estimator", ["adversarial", "denoising"])
def test_the_opponent_s_loss_has_no_gradient_in_the_encoder(estimator: str, contrast: str) -> None:
    game = tiny(contrast=contrast, estimator=estimator)
    (opponent, _) = game.phases[0].players
    opponent.loss(*context_of(game, opponent.name)).loss.backward()
    for name, network in game.networks.items():
        assert all((p.grad is None) == (name == "encoder") for p in network.parameters()), name
    assert opponent.trains == tuple(name for name in game.networks if name != "encoder")


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_encoder_s_loss_has_no_gradient_in_denoisers(contrast: str) -> None:
    """The classifier's logit is differentiated by z, so its own weights are frozen by the engine (test_table.py)."""
    game = tiny(contrast=contrast, estimator="denoising")
    game.encoder_loss(*context_of(game, "encoder")).loss.backward()
    for name, network in game.networks.items():
        assert all((p.grad is None) == (name != "encoder") for p in network.parameters()), name


def test_equal_denoisers_leave_the_encoder_where_it_is() -> None:
    game = tiny(contrast="joint", estimator="denoising")
    loss = game.encoder_loss(*context_of(game, "encoder")).loss
    parameters = list(game.networks["encoder"].parameters())
    assert any(g.abs().max() > 1e-3 for g in torch.autograd.grad(loss, parameters))
    game.networks["model_denoiser"].load_state_dict(game.networks["denoiser"].state_dict())
    loss = game.encoder_loss(*context_of(game, "encoder")).loss
    assert all(not g.any() for g in torch.autograd.grad(loss, parameters))


def test_the_best_denoiser_has_the_blurred_density_s_score() -> None:
    """z ~ N(0, t^2 I): the error is least at s(z) = -z / (t^2 + sigma^2), and there 2 - 2 sigma^2 / (t^2 + sigma^2)."""
    t, draw = 0.7, torch.Generator().manual_seed(0)
    denoiser = Denoiser("sprinkler", SHARE, 4, 1).double()
    z, n = (torch.randn(50_000, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    x, sigma = torch.ones(len(z), 1, dtype=torch.float64), denoiser.sigma
    slope = -1 / (t**2 + sigma**2)
    losses = []
    for factor in (0.8, 1.0, 1.2):
        linear = torch.nn.Linear(3, 2, bias=False).double()
        with torch.no_grad():
            linear.weight.copy_(factor * slope * np.sqrt(2) * torch.tensor([[0.0, 1, 0], [0, 0, 1]]))
            denoiser.stack = torch.nn.Sequential(linear)
            losses.append(float(((denoiser(x, t * z + sigma * n) - t * z) / sigma).square().sum(dim=1).mean()))
            torch.testing.assert_close(denoiser.score(x, z), factor * slope * z)
    assert losses[1] < min(losses[0], losses[2]) - 1e-3
    assert losses[1] == pytest.approx(2 + 2 * sigma**2 * slope, abs=0.04)


def test_noise_of_both_signs_has_less_variance() -> None:
    """Of the gradient, at a small sigma: against as many rows whose noise has one sign, a tenth at most."""
    torch.manual_seed(0)
    share, rows = 0.1, 64
    game = tiny(estimator="denoising", denoising_deviation=share)
    (denoiser,) = (each for each in game.networks.values() if isinstance(each, Denoiser))
    parameters, sigma = list(denoiser.parameters()), denoiser.sigma
    assert sigma == pytest.approx(share * np.sqrt(2))
    context, batch = context_of(game, "denoiser")
    batch = Batch(batch.images[:1].expand(rows, -1, -1, -1))

    def gradient(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    both: list[Tensor] = []
    one: list[Tensor] = []
    for repeat in range(40):
        noise = replace(context.noise, positions=torch.arange(rows) + rows * repeat)
        both.append(gradient(game.denoiser_loss(replace(context, noise=noise), batch).loss))
        positions = torch.arange(2 * rows) + 2 * rows * repeat
        noise = replace(context.noise, positions=positions)
        x = batch.images.flatten(1).repeat(2, 1)
        with torch.no_grad():
            z = game.networks["encoder"](x, noise.normal("encoder", NOISE))
        blurred = z + sigma * noise.normal("denoiser", 2)
        one.append(gradient(((denoiser(x, blurred) - z) / sigma).square().sum(dim=1).mean()))
    variances = [torch.stack(each).var(dim=0).sum() for each in (both, one)]
    assert variances[0] < 0.1 * variances[1]
    # The same expectation, within six of its standard errors.
    means = [torch.stack(each).mean(dim=0) for each in (both, one)]
    assert (means[0] - means[1]).norm() < 6 * (sum(variances) / 40) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_features_are_standardised(name: str) -> None:
    model, noise = MODELS[name](), Noise(5, ("fresh",), torch.arange(20_000))
    x = model.observe(model.deviation * noise.normal("latent", 2), noise)
    rows = Features(name)(x)
    assert rows.mean(dim=0).abs().max() < 0.06 and (rows.std(dim=0) - 1).abs().max() < 0.06
    assert rows.abs().max() < 6


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("estimator", ["adversarial", "denoising"])
def test_parts_of_a_batch_are_the_batch(estimator: str, contrast: str) -> None:
    """Noise follows the samples: the mean over two strided parts is the loss of the whole."""
    game = tiny(contrast=contrast, estimator=estimator)
    for player in game.phases[0].players:
        context, batch = context_of(game, player.name)
        context = replace(context, noise=replace(context.noise, positions=context.noise.positions[:6]))
        batch = batch.strided(0, 1)
        batch = Batch(batch.images[:6])
        parts = [
            player.loss(
                replace(context, noise=replace(context.noise, positions=context.noise.positions[k::2])),
                batch.strided(k, 2),
            ).loss
            for k in (0, 1)
        ]
        torch.testing.assert_close(sum(parts) / 2, player.loss(context, batch).loss)


# ------------------------------------------------------------------------------------------------------------- the game
@pytest.mark.parametrize("name", NAMES)
def test_what_it_can_do(name: str) -> None:
    game = tiny(model=name)
    check_game(game)
    assert isinstance(game, Encodes) and not isinstance(game, Samples)
    context, batch = context_of(game, "any")
    networks, progress, noise = game.networks, context.progress, context.noise
    with torch.no_grad():
        drawn, mean = (game.encode(networks, progress, batch, each) for each in (noise, None))
        x, epsilon = points_of(name), noise.normal("encoder", NOISE).numpy()
        expected = reference.encoder(name, weights_of(game, "encoder"), x, epsilon, LAYERS)
        np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(game.encode(networks, progress, batch.strided(3, N)), mean[3:4])
        many = Noise(2, ("many",), torch.arange(4000), torch.float64)
        row = Batch(batch.images[3:4].expand(4000, -1, -1, -1))
        cloud = game.encode(networks, progress, row, many)
        assert ((cloud.mean(dim=0) - mean[3]).abs() < 6 * cloud.std(dim=0) / 256**0.5).all()
        assert (cloud.std(dim=0) > 1e-3).all()
        means = game.decode(networks, progress, drawn)
    np.testing.assert_allclose(means[:, :, 0, 0], reference.mean(name, drawn.numpy()), rtol=1e-12)


def test_a_step_is_the_opponent_s_updates_and_one_of_the_encoder() -> None:
    game = tiny(opponent_steps=4, learning_rate=0.1, opponent_learning_rate=0.2, total_kimg=2.0, rampdown_kimg=1.0)
    (phase,) = game.phases
    assert [(player.name, player.repeat) for player in phase.players] == [("classifier", 4), ("encoder", 1)]
    assert phase.batches_a_step == 4 and phase.turns[0].update == "alternating"
    assert [phase.learning_rates[name].at(1500) for name in ("encoder", "classifier")] == [0.05, 0.1]
    assert dict(tiny(contrast="joint", estimator="denoising").describe())["method"] == "JC-Den"
    assert dict(game.describe())["method"] == "PC-Adv"


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        ("sprinkler", ImageSpec(16), "the data are images. Set data.points.kind: sprinkler, data.resolution: 1"),
        ("sprinkler", ImageSpec(1, 2, points="ring8"), "the data are points of ring8.*data.channels: 1"),
        ("linear_gaussian", ImageSpec(1, 1, points="sprinkler"), "kind: linear_gaussian.*data.channels: 3"),
    ],
)
def test_other_data_are_refused(model: Any, spec: ImageSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImplicitVi(ImplicitViConfig(model=model), spec)


@pytest.mark.parametrize(
    "settings",
    [{"noise_size": 0}, {"opponent_steps": 0}, {"denoising_deviation": 0.0}, {"rampdown_kimg": -1.0}, {"layers": 0}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ImplicitViConfig(**settings)
