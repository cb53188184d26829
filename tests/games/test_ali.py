"""Adversarially learned inference against an independent numpy reference (ali_reference.py), in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.build import open_stream
from advgen.capabilities import Begins, Encodes, Exports, Samples
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.game import Across, Batch, Context, ImageSpec, OneSlice, Outcome, check_game
from advgen.games.ali.architectures import PAPER, Architecture, Layers
from advgen.games.ali.config import AliConfig, ArchitectureName
from advgen.games.ali.game import Ali
from advgen.games.ali.networks import Block, Decoder, Discriminator, Encoder, Stack, dropped
from advgen.runtime.checkpoint import list_checkpoints, read_checkpoint
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.distributed.runs import LABELLED, make_labelled_shards, write_recipe
from tests.games import ali_reference as reference
from tests.games.test_resume import GAME_SETTINGS, play
from tests.slices import in_slices

N, CLASSES = 6, 3
LABELS = np.array([2, 0, 1, 1, 2, 0])


def tiny(**settings: Any) -> Ali:
    """Float64, with values everywhere that no initialisation has."""
    torch.manual_seed(0)
    defaults = {"architecture": "small", "width": 0.06, "latent_size": 5, "conditional": True}
    game = Ali(AliConfig(**{**defaults, **settings}), ImageSpec(8, 3, CLASSES))
    for network in game.networks.values():
        network.double()
        with torch.no_grad():
            for seed, parameter in enumerate(network.parameters()):
                values = np.random.default_rng(seed).normal(size=tuple(parameter.shape))
                parameter.add_(torch.from_numpy(np.asarray(0.3 * values)))
    return game


def context_of(game: Ali, player: str, across: Across | None = None) -> tuple[Context, Batch]:
    across = across or OneSlice()
    noise = Noise(1, ("train", player, 0), across.own(torch.arange(40, 40 + N)), torch.float64)
    images = torch.from_numpy(np.tanh(np.random.default_rng(9).normal(size=(N, 3, 8, 8))))
    batch = Batch(across.own(images), across.own(torch.from_numpy(LABELS)))
    return Context(game.networks, Timeline(game.phases).at_start_of(0), noise, across), batch


def both(game: Ali, across: Across | None = None) -> tuple[Outcome, Outcome]:
    """Outcomes of generator and discriminator, as a simultaneous turn has them."""
    context, batch = context_of(game, "generator", across)
    first = game.generator_loss(context, batch)
    context, _ = context_of(game, "discriminator", across)
    return first, game.discriminator_loss(replace(context, detached={"generator": first.detached}), batch)


def networks_of(game: Ali) -> tuple[Encoder, Decoder, Discriminator]:
    encoder, decoder, discriminator = (game.networks[name] for name in ("encoder", "decoder", "discriminator"))
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder) and isinstance(discriminator, Discriminator)
    return encoder, decoder, discriminator


def block_of(stack: Stack, number: int) -> Block:
    block = stack.blocks[number]
    assert isinstance(block, Block)
    return block


def weights_of(network: nn.Module) -> dict[str, reference.Array]:
    return {name: value.detach().numpy() for name, value in network.named_parameters()}


def rows(layers: Layers) -> list[tuple[int, int, bool, bool]]:
    return [(layer.stride, layer.padding, layer.up, layer.norm) for layer in layers]


def test_features_of_a_conditional_encoder_need_labels() -> None:
    """So a probe, which gives none, is refused: the label would be in the features."""
    game = tiny(conditional=True)
    context, batch = context_of(game, "generator")
    with pytest.raises(UserError, match="take labels"):
        game.features(game.networks, context.progress, Batch(batch.images))


def test_features_are_the_last_hidden_layers_and_the_outputs() -> None:
    """Their last entries are means and deviations, and what comes before reproduces them by the last layer."""
    game = tiny(conditional=False)
    context, batch = context_of(game, "generator")
    encoder, _, _ = networks_of(game)
    with torch.no_grad():
        features = game.features(game.networks, context.progress, batch)
        mean = game.encode(game.networks, context.progress, batch)
        hidden = features[:, :-10]
        last = encoder.last(hidden[:, -encoder.stack.outputs :, None, None]).flatten(1)
    assert torch.equal(features[:, -10:-5], mean)
    torch.testing.assert_close(last, features[:, -10:], rtol=0, atol=1e-12)
    sizes = [layer.maps for layer in game.architecture.encoder]
    assert hidden.shape == (N, sizes[-1] + 16 * sizes[-2])  # two layers, of 1 and of 4 x 4 pixels


# ------------------------------------------------------------------------------------------------ against the reference
@pytest.mark.parametrize("conditional", [True, False])
def test_networks_and_losses(conditional: bool) -> None:
    game = tiny(conditional=conditional)
    a, (context, batch) = game.architecture, context_of(game, "generator")
    labels, classes = (LABELS, CLASSES) if conditional else (None, 0)
    weights = {name: weights_of(network) for name, network in game.networks.items()}
    images = (batch.images.numpy() + 1) / 2
    z, epsilon = (context.noise.normal(name, 5).numpy() for name in ("latent", "encoder"))
    encoded = reference.encoder(weights["encoder"], images, epsilon, rows(a.encoder), a.leak, labels, classes)
    decoded = reference.decoder(weights["decoder"], z, rows(a.decoder), a.leak, labels, classes)
    generator, discriminator = both(game)
    np.testing.assert_allclose(generator.detached["encoded"], encoded, rtol=0, atol=1e-10)
    np.testing.assert_allclose(generator.detached["decoded"], 2 * decoded - 1, rtol=0, atol=1e-10)
    twice = None if labels is None else np.concatenate((labels, labels))
    pairs = np.concatenate((images, decoded)), np.concatenate((encoded, z))
    parts = [rows(layers) for layers in (a.images, a.latent, a.joint)]
    logits = reference.discriminator(weights["discriminator"], *pairs, parts, a.leak, a.pieces, twice, classes)
    assert logits.std() > 0.01
    expected = reference.losses(logits[:N], logits[N:])
    assert discriminator.loss.item() == pytest.approx(expected[0], rel=1e-9)
    assert generator.loss.item() == pytest.approx(expected[1], rel=1e-9)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


def test_cycle_consistency_is_the_generator_s_alone() -> None:
    """The mean squared difference between images and what is made of their latents, and nothing else changes."""
    plain, game = tiny(), tiny(cycle_weight=0.7)
    first, opposing = both(plain)
    with_cycle, same = both(game)
    a, (_, batch) = game.architecture, context_of(game, "generator")
    encoded = first.detached["encoded"].numpy()
    again = 2 * reference.decoder(weights_of(game.networks["decoder"]), encoded, rows(a.decoder), a.leak, LABELS, 3) - 1
    cycle = ((again - batch.images.numpy()) ** 2).mean()
    assert cycle > 0.1
    assert with_cycle.loss.item() == pytest.approx(first.loss.item() + 0.7 * cycle, rel=1e-9)
    assert with_cycle.scalars["cycle"].item() == pytest.approx(cycle, rel=1e-9)
    assert same.loss.item() == opposing.loss.item()
    for ours, theirs in zip(networks_of(game), networks_of(plain), strict=True):  # running statistics: of the prior's
        torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=0, atol=0)
    for name in ("encoder", "decoder"):  # both learn of it
        each = [next(g.networks[name].parameters()) for g in (game, plain)]
        (ours,), (theirs,) = (
            torch.autograd.grad(o.loss, w, retain_graph=True) for o, w in zip((with_cycle, first), each, strict=True)
        )
        assert not torch.allclose(ours, theirs, rtol=1e-3)


def test_maxout_of_the_paper_s_discriminator() -> None:
    a = PAPER["cifar10"]
    with torch.no_grad():
        game = Ali(AliConfig(width=1 / 32, latent_size=5, dropout=0.0), ImageSpec(32))
        network = game.networks["discriminator"].double()
        for parameter in network.parameters():
            parameter.mul_(30).add_(0.01)
        images, z = (np.random.default_rng(3).random(size=shape) for shape in ((2, 3, 32, 32), (2, 5)))
        found = network(torch.from_numpy(2 * images - 1), torch.from_numpy(z))
    parts = [rows(layers) for layers in (a.images, a.latent, a.joint)]
    expected = reference.discriminator(weights_of(network), images, z, parts, a.leak, 2, None, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)


def test_gradients_of_both_players_are_those_of_one_forward() -> None:
    """With dropout: the discriminator leaves out the same inputs for both players."""
    game = tiny(dropout=0.3)
    generator, discriminator = both(game)
    generated = [p for name in ("encoder", "decoder") for p in game.networks[name].parameters()]
    judged = list(game.networks["discriminator"].parameters())
    ours = torch.autograd.grad(generator.loss, generated), torch.autograd.grad(discriminator.loss, judged)
    context, batch = context_of(game, "generator")
    labels, noise = torch.from_numpy(LABELS), replace(context.noise, scope=("train", "dropout"))
    z = context.noise.normal("latent", 5)
    encoded = game.networks["encoder"](batch.images, context.noise.normal("encoder", 5), labels, OneSlice())
    decoded = game.networks["decoder"](z, labels, OneSlice())
    pair = torch.cat((batch.images, decoded)), torch.cat((encoded, z)), torch.cat((labels, labels))
    real, fake = game.networks["discriminator"](*pair, OneSlice(), noise).chunk(2)
    softplus = nn.functional.softplus
    losses = softplus(real).mean() + softplus(-fake).mean(), softplus(-real).mean() + softplus(fake).mean()
    theirs = [
        torch.autograd.grad(loss, p, retain_graph=True) for loss, p in zip(losses, (generated, judged), strict=True)
    ]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(list(one), list(other), rtol=1e-9, atol=1e-12)
    (phase,) = game.phases
    assert [turn.update for turn in phase.turns] == ["simultaneous"]


def test_rates_fall_at_the_end_where_asked() -> None:
    (phase,) = tiny(total_kimg=4.0, rampdown_kimg=2.0, learning_rate=0.1).phases
    rates = [[phase.learning_rates[name].at(nimg) for nimg in (0, 2000, 3000, 4000)] for name in phase.learning_rates]
    assert rates == [[0.1, 0.1, 0.05, 0.0]] * 2


def test_log_odds_of_the_data() -> None:
    game = tiny()
    images = torch.from_numpy(np.tanh(np.random.default_rng(2).normal(size=(10, 3, 8, 8))))
    images[:, :, 0, 0], images[:, :, 0, 1] = -1.0, 1.0
    game.begin(game.networks, iter([Batch(images[:8]), Batch(images[8:])]))
    _, decoder, _ = networks_of(game)
    bias = decoder.bias.detach()
    mean = np.clip((images.numpy() + 1).mean(axis=0) / 2, 0.5 / 255, 1 - 0.5 / 255)
    np.testing.assert_allclose(bias, np.log(mean / (1 - mean)), rtol=0, atol=1e-12)
    with torch.no_grad():
        decoder.last.weight.zero_()
        means = game.decode(
            game.networks,
            Timeline(game.phases).at_start_of(0),
            torch.zeros(2, 5).double(),
            Batch(images[:2], torch.tensor([0, 1])),
        )
    np.testing.assert_allclose(means[0], 2 * mean - 1, rtol=0, atol=1e-12)
    before = bias.clone()
    game.begin(game.networks, iter([]))
    assert torch.equal(bias, before)


def test_the_trainer_shows_a_new_run_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_labelled_shards(tmp_path)
    path = write_recipe(tmp_path / "ali.yaml", name="ali", game=GAME_SETTINGS["ali"], **LABELLED)
    assert not play(path, 1)
    start = read_checkpoint(list_checkpoints(tmp_path / "runs" / "ali" / "checkpoints")[0])
    assert start.clock.step == 0
    recipe = load_recipe(path)
    images = open_stream(recipe, "labelled").read(np.arange(20), recipe.data.resolution).images
    mean = np.clip(images.astype(np.float64).mean(axis=0) / 255, 0.5 / 255, 1 - 0.5 / 255)
    for name in ("decoder", "decoder_ema"):
        np.testing.assert_allclose(start.networks[f"{name}.bias"], np.log(mean / (1 - mean)), rtol=0, atol=1e-5)


def test_statistics_move_once_and_in_their_own_player_s_turn() -> None:
    game = tiny()
    names = {"generator": ("encoder", "decoder"), "discriminator": ("discriminator",)}

    def means(player: str) -> list[Tensor]:
        found = [dict(game.networks[name].named_buffers()) for name in names[player]]
        return [value.clone() for each in found for key, value in each.items() if key.endswith("running_mean")]

    begin = {player: means(player) for player in names}
    context, batch = context_of(game, "generator")
    first = game.generator_loss(context, batch)
    middle = {player: means(player) for player in names}
    judged, _ = context_of(game, "discriminator")
    game.discriminator_loss(replace(judged, detached={"generator": first.detached}), batch)
    for before, after in (
        (begin["generator"], middle["generator"]),
        (middle["discriminator"], means("discriminator")),
    ):
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(begin["discriminator"], middle["discriminator"], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(middle["generator"], means("generator"), strict=True))
    with torch.no_grad():
        encoder, _, discriminator = networks_of(game)
        seen = block_of(encoder.stack, 0).conv((batch.images + 1) / 2)
        torch.testing.assert_close(means("generator")[0], 0.05 * seen.mean(dim=(0, 2, 3)))
        pairs = (torch.cat((batch.images, first.detached["decoded"])) + 1) / 2
        first_block, second_block = (block_of(discriminator.images, number) for number in (0, 1))
        seen = second_block.conv(first_block(pairs, OneSlice()))
        torch.testing.assert_close(means("discriminator")[0], 0.05 * seen.mean(dim=(0, 2, 3)))


# ----------------------------------------------------------------------------------------------------- the paper's nets
PARAMETERS = {
    "cifar10": {"encoder": 3_118_496, "decoder": 981_152, "discriminator": 2_612_033},
    "svhn": {"encoder": 3_315_488, "decoder": 1_767_584, "discriminator": 5_284_097},
    "celeba64": {"encoder": 7_058_048, "decoder": 11_811_392, "discriminator": 15_191_105},
}
"""Weights, biases, scales and offsets that the paper's tables come to."""
DROPOUT = {
    "cifar10": ([0.2, 0.5, 0.5, 0.5, 0.5], [0.2, 0.5], [0.5, 0.5], 0.5),
    "svhn": ([0.2] * 5, [0.2] * 2, [0.2] * 2, 0.2),
    "celeba64": ([0.2] * 5, [0.2] * 2, [0.2] * 2, 0.2),
}


@pytest.mark.parametrize(
    ("name", "resolution", "down", "features"),
    [
        ("cifar10", 32, [28, 13, 10, 4, 1, 1], 256),
        ("svhn", 32, [28, 13, 10, 4, 1, 1], 512),
        ("celeba64", 64, [63, 29, 13, 4, 1, 1], 512),
    ],
)
def test_shapes_of_the_paper_s_networks(
    name: ArchitectureName, resolution: int, down: list[int], features: int
) -> None:
    with torch.device("meta"):
        game = Ali(AliConfig(architecture=name), ImageSpec(resolution))
        check_game(game)
        encoder, decoder, discriminator = networks_of(game)
        x, sides = torch.empty(2, 3, resolution, resolution), []
        for block in encoder.stack.blocks:
            x = block(x, OneSlice())
            sides.append(x.shape[-1])
        assert sides == down
        latents = {"cifar10": 64, "svhn": 256, "celeba64": 256}[name]
        assert encoder.last.weight.shape == (2 * latents, 512, 1, 1)
        z = torch.empty(2, latents)
        assert decoder(z, None, OneSlice()).shape == (2, 3, resolution, resolution)
        assert decoder.bias.shape == (3, resolution, resolution)
        images = torch.empty(2, 3, resolution, resolution)
        assert discriminator(images, z, None, OneSlice()).shape == (2,)
    assert discriminator.images.outputs == features
    sizes = {key: sum(p.numel() for p in network.parameters()) for key, network in game.networks.items()}
    assert sizes == PARAMETERS[name]
    found: Architecture = game.architecture
    left_out = [[layer.dropout for layer in layers] for layers in (found.images, found.latent, found.joint)]
    assert (*left_out, found.dropout_last) == DROPOUT[name]
    assert [layer.norm for layer in found.images] == [name != "cifar10" and number > 0 for number in range(5)]


def test_settings_of_the_paper_are_the_default() -> None:
    config = AliConfig()
    assert (config.optimizer.betas, config.learning_rate, config.batch_size) == ((0.5, 0.999), 1e-4, 100)
    cifar = PAPER["cifar10"]
    assert (cifar.leak, cifar.pieces, cifar.images[0].dropout, cifar.images[1].dropout) == (0.1, 2, 0.2, 0.5)
    assert (PAPER["svhn"].leak, PAPER["celeba64"].leak) == (0.01, 0.02)


# ------------------------------------------------------------------------------------------------------------- the game
def test_dropout_follows_the_samples() -> None:
    noise = Noise(0, ("x",), torch.arange(300))
    x = torch.ones(600, 20)
    whole = dropped(x, 0.25, noise, "p")
    assert {round(value, 5) for value in whole.unique().tolist()} == {0.0, round(4 / 3, 5)}
    assert whole.mean().item() == pytest.approx(1.0, abs=0.03)
    assert not torch.equal(whole[:300], whole[300:])
    half = dropped(torch.ones(300, 20), 0.25, Noise(0, ("x",), torch.arange(0, 300, 2)), "p")
    assert torch.equal(half, torch.cat((whole[:300:2], whole[300::2])))
    assert dropped(x, 0.25, None, "p") is x


def test_two_slices_are_the_whole_batch() -> None:
    whole = [outcome.loss for outcome in both(tiny(dropout=0.3, cycle_weight=0.5))]
    game = tiny(dropout=0.3, cycle_weight=0.5)
    parts = in_slices(2, lambda across: torch.stack([outcome.loss for outcome in both(game, across)]))
    torch.testing.assert_close(torch.stack(parts).mean(dim=0), torch.stack(whole), rtol=1e-10, atol=0)


@pytest.mark.parametrize("encoder", ["gaussian", "deterministic"])
def test_what_it_can_do(encoder: str) -> None:
    game = tiny(encoder=encoder)
    assert all(isinstance(game, each) for each in (Samples, Encodes, Begins, Exports))
    context, batch = context_of(game, "any")
    networks, progress, noise = game.networks, context.progress, context.noise
    with torch.no_grad():
        mean, drawn = (game.encode(networks, progress, batch, each) for each in (None, noise))
        assert mean.shape == (N, 5) and torch.equal(mean, drawn) == (encoder == "deterministic")
        again = game.decode(networks, progress, drawn, batch)
        assert again.shape == game.sample(networks, progress, noise).shape == (N, 3, 8, 8)
        assert again.abs().max() <= 1
        for like in (None, Batch(batch.images)):
            with pytest.raises(UserError, match="take labels"):
                game.decode(networks, progress, drawn, like)
        one = game.encode(networks, progress, batch.strided(0, N))
        torch.testing.assert_close(one, mean[:1])
        torch.testing.assert_close(game.decode(networks, progress, drawn[:1], batch.strided(0, N)), again[:1])
        module, inputs = game.drawer(networks, progress)
        z, labels = inputs["z"].double(), inputs["labels"]
        torch.testing.assert_close(module(z=z, labels=labels), networks["decoder"](z, labels))


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        ({}, ImageSpec(64), "cifar10 is made for 32 pixels"),
        ({"architecture": "celeba64"}, ImageSpec(32), "celeba64 is made for 64 pixels"),
        ({"architecture": "small"}, ImageSpec(24), "a power of two from 8 on"),
        ({"architecture": "small"}, ImageSpec(16, width=32), "takes squares"),
        ({"conditional": True}, ImageSpec(32), "there are no labels"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], spec: ImageSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Ali(AliConfig(**settings), spec)
