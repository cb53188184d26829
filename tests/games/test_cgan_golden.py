"""The class-conditional GAN against an independent numpy reference (cgan_reference.py), in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.ema import update_average
from advgen.errors import UserError
from advgen.game import Across, Batch, Context, ImageSpec, OneSlice, Outcome, check_game, sampling_networks
from advgen.games.cgan import resnet
from advgen.games.cgan.config import CGanConfig
from advgen.games.cgan.game import CGan
from advgen.games.cgan.mlp import Maxout, MlpDiscriminator, MlpGenerator, dropout_masks
from advgen.losses.adversarial import LOSSES
from advgen.nn.batch_norm import BatchNorm
from advgen.optim import Adam
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engines import prepare
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.games import cgan_reference as reference
from tests.slices import in_slices

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-10}  # float64, sums in another order
CLASSES = 3
LABELS = [2, 0, 1, 1, 2, 0]


def array(seed: int, *shape: int) -> reference.Array:
    return np.random.default_rng(seed).normal(size=shape)


def scatter(network: nn.Module) -> None:
    """Values everywhere that no initialisation has: gains other than 1, biases other than 0."""
    with torch.no_grad():
        for seed, parameter in enumerate(network.parameters()):
            parameter.add_(torch.from_numpy(0.3 * array(seed, *parameter.shape)))


def tiny(resolution: int = 8, **settings: Any) -> CGan:
    torch.manual_seed(0)
    defaults = {"width": 2, "latent_size": 5, "spectral_norm": False}
    game = CGan(CGanConfig(**{**defaults, **settings}), ImageSpec(resolution, 3, CLASSES))
    for network in game.networks.values():
        scatter(network.double())
    return game


def weights_of(network: nn.Module) -> dict[str, reference.Array]:
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


def context_of(game: CGan, player: str, across: Across | None = None, n: int = len(LABELS)) -> tuple[Context, Batch]:
    """The context and batch of a slice, or of the whole batch of n samples from position 40."""
    across = across or OneSlice()
    positions = across.own(torch.arange(40, 40 + n))
    noise = Noise(1, ("train", player, 0), positions, torch.float64)
    progress = Timeline(game.phases).at_start_of(0)
    images = torch.from_numpy(np.tanh(array(9, n, 3, game.resolution, game.resolution)))
    labels = torch.tensor(LABELS)[torch.arange(n) % len(LABELS)]
    return Context(game.networks, progress, noise, across), Batch(across.own(images), across.own(labels))


def loss_of(game: CGan, player: str, across: Across | None = None) -> Outcome:
    context, batch = context_of(game, player, across)
    return game.generator_loss(context, batch) if player == "generator" else game.discriminator_loss(context, batch)


def buffers_of(game: CGan) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in game.networks["generator"].named_buffers()}


# -------------------------------------------------------------------------------------------------------------- layers
def test_conditional_batch_norm_has_gains_and_biases_of_each_class() -> None:
    norm = BatchNorm(2, CLASSES).double()
    scatter(norm)
    x = array(3, 6, 2, 3, 3) * 2 + 5
    expected = reference.batch_norm({f"n.{k}": v for k, v in weights_of(norm).items()}, "n", x, LABELS)
    found = norm(torch.from_numpy(x), OneSlice(), torch.tensor(LABELS))
    np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


def test_maxout_takes_the_largest_piece_of_each_unit() -> None:
    layer = Maxout(4, units=3, pieces=5).double()
    scatter(layer)
    x = array(0, 7, 4)
    expected = reference.maxout({f"m.{k}": v for k, v in weights_of(layer).items()}, "m", x, 3, 5)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, **CLOSE)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 3)])
def test_generator_block(inputs: int, outputs: int) -> None:
    block = resnet.GeneratorBlock(inputs, outputs, CLASSES).double()
    scatter(block)
    x = array(5, 6, inputs, 4, 4)
    expected = reference.generator_block({f"b.{k}": v for k, v in weights_of(block).items()}, "b", x, LABELS)
    found = block(torch.from_numpy(x), torch.tensor(LABELS), OneSlice())
    assert found.shape == (6, outputs, 8, 8)
    np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 3), (3, 3)])
@pytest.mark.parametrize(("halve", "first"), [(True, True), (True, False), (False, False)])
def test_discriminator_block(inputs: int, outputs: int, halve: bool, first: bool) -> None:
    block = resnet.DiscriminatorBlock(inputs, outputs, halve, resnet.Layers(), first).double()
    scatter(block)
    x = array(6, 2, inputs, 4, 4)
    weights = {f"b.{k}": v for k, v in weights_of(block).items()}
    expected = reference.discriminator_block(weights, "b", x, halve, first)
    found = block(torch.from_numpy(x))
    assert found.shape == (2, outputs, *((2, 2) if halve else (4, 4)))
    np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


# ------------------------------------------------------------------------------------------------------------ networks
@pytest.mark.parametrize("resolution", [4, 16])
def test_resnet_generator_and_what_biases_would_add(resolution: int) -> None:
    """The paper's code has biases in the blocks' convolutions; normalisation takes each of them out again."""
    network = tiny(resolution).networks["generator"]
    weights, z = weights_of(network), array(1, 6, 5)
    found = network(torch.from_numpy(z), torch.tensor(LABELS), OneSlice()).detach().numpy()
    assert found.shape == (6, 3, resolution, resolution)
    np.testing.assert_allclose(found, reference.generator(weights, z, LABELS), **CLOSE)
    biases: Mapping[str, reference.Array] = {
        name.replace(".weight", ".bias"): array(4, len(value))
        for name, value in weights.items()
        if name.startswith("blocks.") and value.ndim == 4
    }
    assert not set(biases) & set(weights)
    np.testing.assert_allclose(found, reference.generator({**weights, **biases}, z, LABELS), rtol=0, atol=1e-9)


@pytest.mark.parametrize("resolution", [16, 64])
@pytest.mark.parametrize("conditioning", ["projection", "concat"])
def test_resnet_discriminator_s_logit(resolution: int, conditioning: str) -> None:
    network = tiny(resolution, conditioning=conditioning).networks["discriminator"]
    weights, images = weights_of(network), np.tanh(array(2, 2, 3, resolution, resolution))
    halves = [halve for _, halve in resnet.discriminator_channels(2, resolution)]
    labels, concat_at = [2, 1], 3 if conditioning == "concat" else None
    features = reference.discriminator_features(weights, images, halves, labels, concat_at)
    if conditioning == "projection":
        expected = reference.projection_logit(weights, features, labels)
    else:
        expected = reference.dense(weights, "last", features)[:, 0]
    found = network(torch.from_numpy(images), torch.tensor(labels)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-10)
    other = network(torch.from_numpy(images), torch.tensor([0, 1])).detach().numpy()
    assert abs(other[0] - found[0]) > 1e-6
    assert other[1] == found[1]


@pytest.mark.parametrize(
    ("resolution", "up", "down", "last"),
    [
        (32, [256, 256, 256, 256], [128, 128, 128, 128], 8),  # Miyato et al. 2018
        (64, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 2),  # Miyato & Koyama 2018, and so at 128
        (128, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 4),
    ],
)
def test_widths_of_the_papers(resolution: int, up: list[int], down: list[int], last: int) -> None:
    assert resnet.generator_channels(64, resolution) == up
    blocks = resnet.discriminator_channels(64, resolution)
    assert [channels for channels, _ in blocks] == down
    assert resolution >> sum(halve for _, halve in blocks) == last


def test_the_discriminator_has_a_width_of_its_own() -> None:
    def sizes(**widths: int) -> list[int]:
        networks = tiny(8, **widths).networks
        return [sum(p.numel() for p in networks[name].parameters()) for name in ("generator", "discriminator")]

    small, large = sizes(width=2), sizes(width=4)
    assert sizes(width=2, discriminator_width=4) == [small[0], large[1]]


@pytest.mark.parametrize("resolution", [4, 8, 128, 256])
def test_any_resolution_has_networks(resolution: int) -> None:
    game = tiny(resolution)
    images = game.networks["generator"](torch.zeros(2, 5, dtype=torch.float64), torch.tensor([0, 1]))
    assert images.shape == (2, 3, resolution, resolution)
    assert game.networks["discriminator"](images, torch.tensor([0, 1])).shape == (2,)


@pytest.mark.parametrize("dropped", [True, False])
def test_perceptrons(dropped: bool) -> None:
    game = tiny(4, architecture="mlp")
    generator, discriminator = game.networks["generator"], game.networks["discriminator"]
    z, pixels = array(1, 6, 5), array(2, 6, 3 * 16)
    labels = reference.one_hot(LABELS, CLASSES)
    for network, units in ((generator, MlpGenerator.masked), (discriminator, MlpDiscriminator.masked)):
        masks = [torch.from_numpy(array(i, 6, count)) for i, count in enumerate(units)] if dropped else []
        arrays = [mask.numpy() for mask in masks] or [np.ones((6, count)) for count in units]
        if network is generator:
            expected = reference.mlp_generator(weights_of(network), z, labels, arrays)
            found = network(torch.from_numpy(z), torch.tensor(LABELS), masks).flatten(1)
        else:
            expected = reference.mlp_discriminator(weights_of(network), pixels, labels, arrays)
            images = torch.from_numpy(pixels).reshape(6, 3, 4, 4)
            found = network(images, torch.tensor(LABELS), masks)
        np.testing.assert_allclose(found.detach().numpy(), expected, **CLOSE)


def test_dropout_masks_keep_the_mean_and_follow_the_samples() -> None:
    masks = dropout_masks(Noise(0, ("x",), torch.arange(400)), "p", (50, 30), 0.25)
    assert [mask.shape for mask in masks] == [(400, 50), (400, 30)]
    assert {round(value, 6) for value in masks[0].unique().tolist()} == {0.0, round(4 / 3, 6)}
    assert masks[0].mean().item() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(masks[0][:, :30], masks[1])
    some = dropout_masks(Noise(0, ("x",), torch.arange(1, 400, 2)), "p", (50, 30), 0.25)
    assert torch.equal(some[1], masks[1][1::2])
    assert dropout_masks(Noise(0, ("x",), torch.arange(4)), "p", (50,), 0.0) == []


# -------------------------------------------------------------------------------------------------------------- losses
def test_hinge() -> None:
    real, fake = np.array([2.0, 0.3, -1.5]), np.array([-3.0, -0.2, 0.8])
    expected = reference.hinge(real, fake)
    assert expected == pytest.approx(((0.7 + 2.5) / 3 + (0.8 + 1.8) / 3, 0.8))
    found = LOSSES["hinge"].discriminator(torch.from_numpy(real), torch.from_numpy(fake))
    assert found.item() == pytest.approx(expected[0], abs=1e-12)
    assert LOSSES["hinge"].generator(torch.from_numpy(fake), None).item() == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("loss", ["hinge", "non_saturating"])
def test_losses_of_both_players_take_the_batch_s_labels(loss: str) -> None:
    game = tiny(8, loss=loss)
    with torch.no_grad():  # scores near 0, where every sample counts
        for name in ("last.weight", "embedding.weight"):
            game.networks["discriminator"].get_parameter(name).mul_(0.01)
    generator, discriminator = (weights_of(game.networks[name]) for name in ("generator", "discriminator"))
    halves = [halve for _, halve in resnet.discriminator_channels(2, 8)]

    def scores(images: reference.Array) -> reference.Array:
        features = reference.discriminator_features(discriminator, images, halves, LABELS)
        return reference.projection_logit(discriminator, features, LABELS)

    for index, player in enumerate(("discriminator", "generator")):
        context, batch = context_of(game, player)
        z = context.noise.normal("latent", 5).numpy()
        fake = scores(reference.generator(generator, z, LABELS))
        assert 0.1 < np.abs(fake).max() < 1
        assert len(set(fake)) == 6
        rule = reference.hinge if loss == "hinge" else reference.logistic
        expected = rule(scores(batch.images.numpy()), fake)[index]
        assert loss_of(game, player).loss.item() == pytest.approx(expected, rel=1e-10)


def test_perceptrons_drop_units_in_training_and_not_in_samples() -> None:
    game = tiny(8, architecture="mlp")
    plain = copy.copy(game)
    plain.config = replace(game.config, dropout=0.0)
    for player in ("generator", "discriminator"):
        assert loss_of(game, player).loss.item() != loss_of(plain, player).loss.item()
    noise = Noise(0, ("s",), torch.arange(4), torch.float64)
    progress = Timeline(game.phases).at_start_of(0)
    z = noise.uniform("latent", 5)
    labels = (noise.uniform("label") * CLASSES).long()
    torch.testing.assert_close(game.sample(game.networks, progress, noise), game.networks["generator"](z, labels))


# ---------------------------------------------------------------------------------------------------------- statistics
@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("architecture", ["resnet", "mlp"])
def test_two_slices_are_the_whole_batch(architecture: str, player: str) -> None:
    """The mean of the slices' losses, the mean of their gradients, and the running statistics of each."""
    whole = tiny(8, architecture=architecture)
    parts = [copy.deepcopy(whole) for _ in range(2)]
    outcome = loss_of(whole, player)
    outcome.loss.backward()
    losses = in_slices(2, lambda across: loss_of(parts[across.index], player, across).loss)
    torch.stack(losses).sum().backward()  # each rank's backward sends gradients to the others
    torch.testing.assert_close(torch.stack(losses).mean(), outcome.loss, rtol=1e-12, atol=0)
    names = [name for name, p in whole.networks[player].named_parameters() if p.grad is not None]
    assert len(names) > 5
    for name in names:
        shares = [part.networks[player].get_parameter(name).grad for part in parts]
        gradient = torch.stack([share for share in shares if share is not None]).mean(dim=0)
        torch.testing.assert_close(gradient, whole.networks[player].get_parameter(name).grad, rtol=1e-9, atol=1e-12)
    for part in parts:
        for name, value in buffers_of(part).items():
            torch.testing.assert_close(value, buffers_of(whole)[name], rtol=1e-12, atol=1e-14)


def test_running_statistics_move_in_the_generator_s_turn_only() -> None:
    game = tiny(8)
    before = buffers_of(game)
    assert len(before) == 2 * (2 + 1)
    loss_of(game, "discriminator")
    assert all(torch.equal(value, before[name]) for name, value in buffers_of(game).items())
    loss_of(game, "generator")
    assert not any(torch.equal(value, before[name]) for name, value in buffers_of(game).items())


@pytest.mark.parametrize("conditioning", ["projection", "concat"])
def test_blocks_that_are_computed_twice_move_statistics_once(conditioning: str) -> None:
    plain, twice = (tiny(8, conditioning=conditioning) for _ in range(2))
    calls: list[int] = []
    first = next(m for m in twice.networks["generator"].modules() if isinstance(m, BatchNorm))
    first.register_forward_hook(lambda *_: calls.append(1))
    prepare(twice, TrainingConfig(activation_checkpointing=True))
    for game in (plain, twice):
        loss_of(game, "generator").loss.backward()
    assert len(calls) == 2, "the first normalisation was computed in the forward pass and again in the backward"
    for name, value in buffers_of(twice).items():
        assert torch.equal(value, buffers_of(plain)[name]), name
    for one, other in zip(
        plain.networks["generator"].parameters(), twice.networks["generator"].parameters(), strict=True
    ):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-14)


def test_samples_are_the_average_s_and_do_not_depend_on_their_neighbours() -> None:
    game = tiny(8)
    average = copy.deepcopy(game.networks["generator"])
    loss_of(game, "generator")
    update_average(average, game.networks["generator"], 0.5)
    networks = sampling_networks(game, game.networks, {"generator_ema": average})
    progress = Timeline(game.phases).at_start_of(0)
    eight, one = (game.sample(networks, progress, Noise(0, ("s",), torch.arange(n), torch.float64)) for n in (8, 1))
    torch.testing.assert_close(eight[:1], one, rtol=0, atol=1e-14)
    for name, value in average.named_buffers():
        assert torch.equal(value, buffers_of(game)[name])


# ------------------------------------------------------------------------------------------------------------ the game
def test_recipe_of_the_paper_is_the_default() -> None:
    with torch.device("meta"):
        game = CGan(CGanConfig(rampdown_kimg=3200), ImageSpec(32, 3, 10))
    check_game(game)
    (phase,) = game.phases
    assert [(p.name, p.repeat) for p in phase.players] == [("discriminator", 5), ("generator", 1)]
    assert all(p.optimizer == Adam(betas=(0.0, 0.9)) for p in phase.players)
    assert (phase.batch_size, phase.statistic_groups, game.config.latents) == (64, 1, 128)
    rates = phase.learning_rates["generator"]
    assert (rates.at(0), rates.at(1_600_000), rates.at(3_200_000)) == (2e-4, 1e-4, 0.0)
    assert game.config.adversarial == "hinge"
    assert CGanConfig(architecture="mlp").adversarial == "non_saturating"
    assert CGanConfig(architecture="mlp").latents == 100


@pytest.mark.parametrize("classes", [0, 1])
def test_data_without_classes_are_refused(classes: int) -> None:
    with pytest.raises(UserError, match="data.classes"):
        CGan(CGanConfig(), ImageSpec(32, 3, classes))


@pytest.mark.parametrize("architecture", ["resnet", "mlp"])
def test_drawer_is_the_generator(architecture: str) -> None:
    game = tiny(8, architecture=architecture)
    module, inputs = game.drawer(game.networks, Timeline(game.phases).at_start_of(0))
    images = module(**{name: value.double() if value.is_floating_point() else value for name, value in inputs.items()})
    assert images.shape == (2, 3, 8, 8)
    assert images.abs().max() <= 1


def test_every_layer_of_the_discriminator_is_divided_by_its_largest_singular_value() -> None:
    game = tiny(spectral_norm=True)
    discriminator = game.networks["discriminator"]
    names = {name.removesuffix(".weight") for name, p in discriminator.named_parameters() if p.ndim > 1}
    assert names and names == {name.removesuffix(".u") for name, _ in discriminator.named_buffers()}
    before = {name: u.clone() for name, u in discriminator.named_buffers()}
    loss_of(game, "generator")
    assert all(torch.equal(u, before[name]) for name, u in discriminator.named_buffers())
    loss_of(game, "discriminator")
    moved = [name for name, u in discriminator.named_buffers() if not torch.equal(u, before[name])]
    assert set(moved) == {name for name, u in before.items() if len(u) > 1}, "a layer of one output has u = 1"
