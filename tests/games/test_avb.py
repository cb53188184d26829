"""Adversarial variational Bayes: Algorithm 1's gradients against a float64 transcription of the paper's equations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from advgen.capabilities import Encodes, Samples, ScoresLikelihood
from advgen.errors import UserError
from advgen.game import Across, Batch, Context, ImageSpec, OneSlice, Outcome, check_game
from advgen.games.avb.config import AvbConfig
from advgen.games.avb.game import Avb
from advgen.games.avb.networks import BasisEncoder
from advgen.likelihood.models import LinearGaussian
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.slices import in_slices

N, LATENTS, HIDDEN = 6, 3, 5
SPEC = ImageSpec(4, 1)


def tiny(spec: ImageSpec = SPEC, **settings: Any) -> Avb:
    """Float64, with values everywhere that no initialisation has."""
    torch.manual_seed(0)
    sizes = {"hidden": HIDDEN, "adversary_hidden": 4, "latent_size": LATENTS, "noise_size": 2}
    defaults = {"architecture": "mlp", "basis": 2, "basis_hidden": 3, "binarization": "threshold", **sizes}
    game = Avb(AvbConfig(**{**defaults, **settings}), spec)
    for network in game.networks.values():
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return game


def context_of(game: Avb, player: str, across: Across | None = None, nimg: int = 0) -> tuple[Context, Batch]:
    across = across or OneSlice()
    noise = Noise(1, ("train", player, 0), across.own(torch.arange(40, 40 + N)), torch.float64)
    draw = torch.Generator().manual_seed(9)
    images = 2 * torch.rand(N, *[game.spec.channels, *2 * [game.spec.resolution]], generator=draw, dtype=torch.float64)
    progress = replace(Timeline(game.phases).at_start_of(0), nimg=nimg)
    return Context(game.networks, progress, noise, across), Batch(across.own(images - 1))


def losses(game: Avb, across: Across | None = None) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for player in game.phases[0].players:
        context, batch = context_of(game, player.name, across)
        found[player.name] = player.loss(context, batch)
    return found


# --------------------------------------------------------------------- the paper's equations, written a second time
def linear(game: Avb, name: str, x: Tensor) -> Tensor:
    weights = {path: value for network, value in named(game).items() for path, value in [(network, value)]}
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def named(game: Avb) -> dict[str, Tensor]:
    return {f"{n}.{path}": p for n, network in game.networks.items() for path, p in network.named_parameters()}


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, x.exp() - 1)


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def encoder_features(game: Avb, x: Tensor, noises: list[Tensor] | None) -> Tensor:
    for number in range(2):
        x = linear(game, f"encoder.features.layers.{number}", x)
        if noises is not None:
            x = x + linear(game, f"encoder.features.noises.{number}", noises[number])
        x = elu(x)
    return x


def adversary(game: Avb, x: Tensor, z: Tensor, quadratic: bool) -> Tensor:
    y = torch.cat((x, z), dim=1)
    for number in range(3):
        y = leaky(linear(game, f"adversary.layers.{number}", y))
    return linear(game, "adversary.last", y)[:, 0] + (0.5 * (z * z).sum(1) if quadratic else 0)


def log_likelihood(game: Avb, x: Tensor, z: Tensor) -> Tensor:
    """Of pixels x in {0, 1}."""
    y = linear(game, "decoder.layers.0", elu(linear(game, "decoder.first", z)))
    chance = 1 / (1 + (-linear(game, "decoder.layers.1", elu(y))).exp())
    return (x * chance.log() + (1 - x) * (1 - chance).log()).sum(1)


def log_gaussian(z: Tensor, mean: Tensor | float = 0.0, variance: Tensor | float = 1.0) -> Tensor:
    spread = torch.as_tensor(variance, dtype=z.dtype)
    return (-0.5 * (z - mean) ** 2 / spread - 0.5 * spread.log() - 0.5 * math.log(2 * math.pi)).sum(1)


def algorithm_1(game: Avb) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of equation 3.7 in encoder and decoder, and of 3.3 in the adversary, by name."""
    context, batch = context_of(game, "model")
    x = (batch.images.flatten(1) > 0).double()
    seen = 2 * x - 1
    noise = replace(context.noise, scope=("train", "shared"))
    moments: tuple[Tensor, Tensor] | None = None
    if game.adaptive:
        heads = linear(game, "encoder.last", encoder_features(game, seen, None))
        z0, a = heads[:, :LATENTS], elu(heads[:, LATENTS:].reshape(N, 2, LATENTS) - 5) + 1
        e = noise.normal("encoder", 2, 2)
        weights = named(game)
        basis: list[Tensor] = []
        for i in range(2):
            v = e[:, i]
            for number in range(4):
                v = elu(v) if number else v
                v = v @ weights[f"encoder.weights.{number}"][i] + weights[f"encoder.biases.{number}"][i]
            basis.append(v)
        z = z0 + sum(a[:, i] * v for i, v in enumerate(basis))
        mean = z0 + sum(a[:, i] * v.mean(0) for i, v in enumerate(basis))
        variance = sum(a[:, i] ** 2 * v.var(0, correction=0) for i, v in enumerate(basis))
        assert isinstance(mean, Tensor) and isinstance(variance, Tensor) and isinstance(z, Tensor)
        # Numbers, of which nothing is differentiated.
        moments = mean.detach().clone(), variance.detach().clone() + 1e-4
        shown = (z - moments[0]) / moments[1].sqrt()
        divergence = adversary(game, seen, shown, False) + log_gaussian(z, *moments) - log_gaussian(z)
    else:
        noises = [noise.normal(f"layer {number}", 2) for number in range(2)]
        z = shown = linear(game, "encoder.last", encoder_features(game, seen, noises))
        divergence = adversary(game, seen, z, True)
    model = {name: p for name, p in named(game).items() if not name.startswith("adversary")}
    primal = (divergence - log_likelihood(game, x, z)).mean() / 16
    first = dict(zip(model, torch.autograd.grad(primal, list(model.values())), strict=True))
    other = replace(context.noise, scope=("train", "adversary", 0)).normal("contrast", LATENTS)
    chance = [1 / (1 + (-adversary(game, seen, y, not game.adaptive)).exp()) for y in (shown.detach(), other)]
    dual = -(chance[0].log() + (1 - chance[1]).log()).mean()
    psi = {name: p for name, p in named(game).items() if name.startswith("adversary")}
    return first, dict(zip(psi, torch.autograd.grad(dual, list(psi.values())), strict=True))


@pytest.mark.parametrize("adaptive", [True, False], ids=["adaptive contrast", "prior contrast"])
def test_gradients_are_those_of_algorithm_1(adaptive: bool) -> None:
    game = tiny(adaptive_contrast=adaptive)
    expected = algorithm_1(game)
    found = losses(game)
    for loss, wanted in zip((found["model"].loss, found["adversary"].loss), expected, strict=True):
        gradients = torch.autograd.grad(loss, [named(game)[name] for name in wanted])
        for (name, gradient), own in zip(wanted.items(), gradients, strict=True):
            assert gradient.abs().max() > 1e-6, name
            assert (own - gradient).abs().max() < 1e-11, name


def test_the_adversary_s_loss_leaves_the_encoder_alone() -> None:
    game = tiny()
    losses(game)["adversary"].loss.backward()
    assert all(p.grad is None for n in ("encoder", "decoder") for p in game.networks[n].parameters())
    assert all(p.grad is not None for p in game.networks["adversary"].parameters())


@pytest.mark.parametrize("settings", [{}, {"adaptive_contrast": False, "binarization": "stochastic"}], ids=str)
def test_what_the_model_leaves_is_what_the_adversary_would_have_made(settings: dict[str, Any]) -> None:
    """One update of each: the model comes first, and its encoder's forward serves both. Several: the adversary does."""
    game = tiny(**settings)
    assert [player.name for player in game.phases[0].players] == ["model", "adversary"]
    context, batch = context_of(game, "model")
    left = game.model_loss(context, batch).detached
    assert not any(rows.requires_grad for rows in left.values())
    context, _ = context_of(game, "adversary")
    own = game.adversary_loss(context, batch).loss
    assert torch.equal(own, game.adversary_loss(replace(context, detached={"model": left}), batch).loss)
    moved = {**left, "shown": left["shown"] + 1}
    assert not torch.equal(own, game.adversary_loss(replace(context, detached={"model": moved}), batch).loss)
    players = tiny(adversary_repeats=2, **settings).phases[0].players
    assert [(player.name, player.repeat) for player in players] == [("adversary", 2), ("model", 1)]


def test_moments_carry_no_gradient_and_are_exact() -> None:
    """Against samples: 4,000 draws of one image have the mean and variance that the basis gives."""
    game, count = tiny(), 4000
    encoder = game.networks["encoder"]
    assert isinstance(encoder, BasisEncoder)
    images = context_of(game, "model")[1].images[:1].expand(count, -1, -1, -1)
    noise = Noise(3, ("moments",), torch.arange(count), torch.float64)
    encoded = encoder(images, noise, OneSlice())
    assert encoded.mean is not None and encoded.variance is not None
    assert not encoded.mean.requires_grad and not encoded.variance.requires_grad
    error = (encoded.variance[0] / count).sqrt()
    assert ((encoded.z.mean(0) - encoded.mean[0]).abs() < 1e-9 + 4 * error).all()
    torch.testing.assert_close(encoded.z.var(0), encoded.variance[0], rtol=0.15, atol=0)


def test_gaussian_encoder_s_bound() -> None:
    """KL against 120,000 samples of log q - log p, and equal to the loss."""
    game = tiny(encoder="gaussian")
    assert set(game.networks) == {"encoder", "decoder"}
    context, batch = context_of(game, "model")
    outcome = game.model_loss(context, batch)
    encoded = game.networks["encoder"](batch.images.sign(), replace(context.noise, scope=("train", "shared")))
    draw = torch.Generator().manual_seed(0)
    mean, variance = encoded.mean.detach().repeat(20_000, 1), encoded.variance.detach().repeat(20_000, 1)
    z = mean + variance.sqrt() * torch.randn(mean.shape, generator=draw, dtype=torch.float64)
    ratio = log_gaussian(z, mean, variance) - log_gaussian(z)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert outcome.scalars["divergence"].item() == pytest.approx(float(ratio.mean()), abs=5 * error)
    total = outcome.scalars["negative_log_likelihood"] + outcome.scalars["divergence"]
    assert outcome.loss.item() == pytest.approx(total.item() / 16, rel=1e-12)


def test_annealing_of_the_divergence() -> None:
    game = tiny(annealing_kimg=0.1)

    def weight(nimg: int) -> float:
        context, batch = context_of(game, "model", nimg=nimg)
        outcome = game.model_loss(context, batch)
        scalars = {name: float(value) for name, value in outcome.scalars.items()}
        return (16 * outcome.loss.item() - scalars["negative_log_likelihood"]) / scalars["divergence"]

    assert [weight(nimg) for nimg in (0, 50, 100, 500)] == pytest.approx([0, 0.5, 1, 1], abs=1e-9)


def test_stochastic_pixels_are_the_same_for_both_players_and_new_at_each_step() -> None:
    game = tiny(binarization="stochastic")
    context, batch = context_of(game, "model")
    shared = replace(context.noise, scope=("train", "shared"))
    first = game.observed(batch.images, shared)
    assert not torch.equal(first, game.observed(batch.images, replace(shared, positions=shared.positions + N)))
    adversary_s, _ = context_of(game, "adversary")
    again = game.observed(batch.images, replace(adversary_s.noise, scope=("train", "shared")))
    assert torch.equal(first, again)


@pytest.mark.parametrize("settings", [{}, {"adaptive_contrast": False}], ids=str)
def test_figures_of_an_image_do_not_depend_on_the_others(settings: dict[str, Any]) -> None:
    """Means of codes, and the game's own bound: neither rows nor their number matter."""
    game = tiny(binarization="stochastic", **settings)
    context, batch = context_of(game, "model")
    progress, images = context.progress, batch.images
    means = game.encode(game.networks, progress, Batch(images))
    torch.testing.assert_close(game.encode(game.networks, progress, Batch(images.flip(0))), means.flip(0))
    observed = game.observed(images, context.noise)
    bounds = game.evidence_bound(game.networks, observed, context.noise)
    noise = replace(context.noise, positions=context.noise.positions[2:3])
    torch.testing.assert_close(game.evidence_bound(game.networks, observed[2:3], noise), bounds[2:3])


def test_adaptive_contrast_keeps_its_digits_in_bf16() -> None:
    """Where q is narrow: the standardised latents and the correction are those of float32 to a few hundredths."""
    game = tiny(latent_size=8)
    for network in game.networks.values():
        network.float()
    encoder, (context, batch) = game.networks["encoder"], context_of(game, "model")
    assert isinstance(encoder, BasisEncoder)
    with torch.no_grad():
        encoder.last.bias[8:] -= 2  # a_i of about e^-7
    noise, images = replace(context.noise, dtype=torch.float32), batch.images.float()

    def contrast() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found = game._contrast(encoder(images, noise, OneSlice()))  # pyright: ignore[reportPrivateUsage]
        return found.shown, found.correction

    exact = contrast()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = contrast()
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == torch.float32
        assert (one - other).abs().max() < 0.1


@pytest.mark.parametrize("settings", [{}, {"adaptive_contrast": False}, {"encoder": "gaussian"}], ids=str)
def test_three_ranks_have_the_loss_of_one(settings: dict[str, Any]) -> None:
    game = tiny(**settings)
    whole, parts = losses(game), in_slices(3, lambda across: losses(game, across))
    for name, outcome in whole.items():
        mean = sum(part[name].loss.item() for part in parts) / 3
        assert mean == pytest.approx(outcome.loss.item(), rel=1e-10)


@pytest.mark.parametrize("architecture", ["conv", "mlp"])
@pytest.mark.parametrize("encoder", ["black_box", "gaussian"])
def test_capabilities(architecture: str, encoder: str) -> None:
    settings = {"channels": 2, "adaptive_contrast": architecture == "conv", "likelihood": "gaussian"}
    game = tiny(ImageSpec(16, 3), architecture=architecture, encoder=encoder, **settings)
    check_game(game)
    assert isinstance(game, Samples) and isinstance(game, Encodes) and isinstance(game, ScoresLikelihood)
    progress, noise = Timeline(game.phases).at_end_of(0), Noise(0, ("x",), torch.arange(4), torch.float64)
    images = game.sample(game.networks, progress, noise)
    assert images.shape == (4, 3, 16, 16)
    latents = game.encode(game.networks, progress, Batch(images), noise)
    means = game.encode(game.networks, progress, Batch(images))
    assert latents.shape == means.shape == (4, LATENTS) and not torch.equal(latents, means)
    assert torch.equal(means, game.encode(game.networks, progress, Batch(images)))
    assert game.decode(game.networks, progress, latents).shape == images.shape
    _, deviation = game.proposal(game.networks, images, noise)
    assert (deviation > 0).all()
    assert game.evidence_bound(game.networks, images, noise).shape == (4,)


def test_a_written_down_model() -> None:
    """Its likelihood is the model's own, its observations are drawn from it, and nothing but the encoder learns."""
    spec = ImageSpec(1, 3, points="linear_gaussian", bounded=False)
    game = tiny(spec, model="linear_gaussian", latent_size=2)
    assert set(game.networks) == {"encoder", "adversary"}
    noise = Noise(0, ("x",), torch.arange(5), torch.float64)
    x = game.sample(game.networks, Timeline(game.phases).at_start_of(0), noise)
    z = noise.normal("latent", 2)
    model = LinearGaussian()
    torch.testing.assert_close(x[:, :, 0, 0], model.observe(z, noise))
    torch.testing.assert_close(game.log_likelihood(game.networks, x, z), model.log_likelihood(x.flatten(1), z))
    with pytest.raises(UserError, match="has no decoder"):
        game.decode(game.networks, Timeline(game.phases).at_start_of(0), z)


POINTS = ImageSpec(1, 3, points="linear_gaussian", bounded=False)


@pytest.mark.parametrize(
    ("spec", "settings", "words"),
    [
        (ImageSpec(16, 3, width=32), {}, "data.width is 32"),
        (ImageSpec(4), {"architecture": "conv"}, "power of two from 8 on, not 4"),
        (POINTS, {}, "bernoulli is one of values in"),
        (POINTS, {"model": "sprinkler", "latent_size": 2}, "points in 1 dimensions"),
        (ImageSpec(16), {"model": "linear_gaussian", "latent_size": 2}, "Set data.points"),
        (POINTS, {"model": "linear_gaussian"}, "has 2 latents"),
        (POINTS, {"model": "linear_gaussian", "latent_size": 2, "architecture": "conv"}, "Set it to mlp"),
    ],
)
def test_data_that_do_not_fit_are_refused(spec: ImageSpec, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny(spec, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"basis": 0}, "basis must be at least 1"),
        ({"deviation": 0.0}, "deviation must be positive"),
        ({"annealing_kimg": -1.0}, "must not be negative"),
    ],
)
def test_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AvbConfig(**settings)
