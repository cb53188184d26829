"""Adversarial autoencoders against independent numpy references, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advgen.capabilities import Begins, Classifies, Concludes, Encodes, Samples
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.game import Batch, Context, ImageSpec, OneSlice, check_game
from advgen.games.aae.config import AaeConfig, GaussianPrior, MixturePrior, SwissRollPrior
from advgen.games.aae.game import Aae
from advgen.games.aae.labels import Clusters, LabelledImages
from advgen.games.aae.networks import Decoder
from advgen.games.aae.priors import draw
from advgen.images import to_signed
from advgen.runtime.checkpoint import StoredMoments, list_checkpoints, read_checkpoint
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.distributed.runs import LABELLED, make_labelled_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play

Array = NDArray[np.float64]
N, CLASSES, K = 6, 3, 2
LABELS = np.array([2, 0, 1, 1, 2, 0])
RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"


def tiny(**settings: Any) -> Aae:
    """Float64, with values everywhere that no initialisation has."""
    torch.manual_seed(0)
    defaults = {"latent_size": K, "hidden": 7, "prior": GaussianPrior(deviation=2.0)}
    game = Aae(AaeConfig(**{**defaults, **settings}), ImageSpec(8, 1, CLASSES))
    check_game(game)
    for network in game.networks.values():
        network.double()
        with torch.no_grad():
            for seed, parameter in enumerate(network.parameters()):
                values = np.random.default_rng(seed).normal(size=tuple(parameter.shape))
                parameter.add_(torch.from_numpy(np.asarray(0.2 * values)))
    return game


def context_of(game: Aae, player: str = "player") -> tuple[Context, Batch]:
    noise = Noise(1, ("train", player, 0), torch.arange(40, 40 + N), torch.float64)
    images = torch.from_numpy(np.tanh(np.random.default_rng(9).normal(size=(N, 1, 8, 8))))
    batch = Batch(images, torch.from_numpy(LABELS))
    return Context(game.networks, Timeline(game.phases).at_start_of(0), noise, OneSlice()), batch


# ------------------------------------------------------------------------------------------------ the numpy reference
def weights_of(network: nn.Module) -> list[tuple[Array, Array]]:
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [(module.weight.detach().numpy(), module.bias.detach().numpy()) for module in linear]


def perceptron(x: Array, network: nn.Module) -> Array:
    """Rectified but for the last layer; of an encoder all are rectified."""
    layers = weights_of(network)
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if number < len(layers) - 1:
            x = np.maximum(x, 0)
    return x


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


class Reference:
    """What the paper says, of the game's weights and noise."""

    def __init__(self, game: Aae, context: Context, images: Array, group: str = "batch") -> None:
        self.game, config = game, game.config
        noise, networks = context.noise, game.networks
        x = ((images + 1) / 2).reshape(len(images), -1)
        self.x = x
        if config.input_noise:
            x = x + config.input_noise * noise.normal(f"{group} input", 1, 8, 8).numpy().reshape(len(images), -1)
        if config.encoder == "universal":
            x = np.concatenate((x, noise.normal(f"{group} beside", config.noise_size).numpy()), axis=1)
        features = np.maximum(perceptron(x, networks["encoder"]), 0)
        self.style = perceptron(features, networks["style"])
        if config.encoder == "gaussian":
            mean, log_deviation = self.style[:, :K], self.style[:, K:]
            self.style = mean + np.exp(log_deviation) * noise.normal(f"{group} encoder", K).numpy()
        self.category = None
        if game.categories:
            self.logits = perceptron(features, networks["category"])
            self.category = softmax(self.logits)

    def code(self) -> Array:
        heads = cast(Decoder, self.game.networks["decoder"]).heads
        if self.category is None:
            return self.style
        if heads is None:
            return np.concatenate((self.category, self.style), axis=1)
        return self.style + self.category @ heads.detach().numpy()

    def reconstruction(self, beside: Array | None = None) -> float:
        code = self.code() if beside is None else np.concatenate((beside, self.code()), axis=1)
        decoded = 1 / (1 + np.exp(-perceptron(code, self.game.networks["decoder"])))
        return float(0.5 * ((decoded - self.x) ** 2).sum(axis=1).mean())


VARIANTS: dict[str, dict[str, Any]] = {
    "unsupervised": {"input_noise": 0.3},
    "supervised": {"encoder": "gaussian"},
    "semi_supervised": {"encoder": "universal", "input_noise": 0.2},
    "clustering": {"clusters": 4},
    "dimension_reduction": {"labelled": 0, "clusters": 4, "head_distance": 1.5, "head_weight": 0.7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_reconstruction(variant: str) -> None:
    game = tiny(variant=variant, **VARIANTS[variant])
    context, batch = context_of(game)
    reference = Reference(game, context, batch.images.numpy())
    expected = reference.reconstruction(np.eye(CLASSES)[LABELS] if variant == "supervised" else None)
    heads = cast(Decoder, game.networks["decoder"]).heads
    assert (heads is not None) == (variant == "dimension_reduction")
    if heads is not None:
        h = heads.detach().numpy()
        pairs = [np.linalg.norm(h[i] - h[j]) for i in range(4) for j in range(i)]
        assert min(pairs) < 1.5 < max(pairs)
        expected += 0.7 * sum(max(0.0, 1.5 - distance) for distance in pairs)
    assert game.reconstruction_loss(context, batch).loss.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_adversaries(variant: str) -> None:
    game = tiny(variant=variant, **VARIANTS[variant])
    context, batch = context_of(game)
    reference = Reference(game, context, batch.images.numpy())
    prior = 2.0 * context.noise.normal("batch", K).numpy()
    judge = game.networks["discriminator"]
    told, found = softplus(-perceptron(prior, judge)).mean(), softplus(perceptron(reference.style, judge)).mean()
    fooled = softplus(-perceptron(reference.style, judge)).mean()
    if reference.category is not None:
        judge = game.networks["category_discriminator"]
        chosen = np.floor(context.noise.uniform("category").numpy() * game.categories).astype(int)
        assert len(set(chosen)) > 1
        told += softplus(-perceptron(np.eye(game.categories)[chosen], judge)).mean()
        found += softplus(perceptron(reference.category, judge)).mean()
        fooled += softplus(-perceptron(reference.category, judge)).mean()
    assert game.discriminator_loss(context, batch).loss.item() == pytest.approx(told + found, rel=1e-10)
    assert game.generator_loss(context, batch).loss.item() == pytest.approx(fooled, rel=1e-10)


@pytest.mark.parametrize("labelled", [None, 6])
def test_a_prior_that_is_conditioned_on_labels(labelled: int | None) -> None:
    """Beside codes and draws stands the label; images without one have a class of their own."""
    game = tiny(prior=MixturePrior(components=CLASSES, conditioned=True), labelled=labelled)
    context, batch = context_of(game)
    noise, judge = context.noise, game.networks["discriminator"]
    groups: list[tuple[str, Array, NDArray[np.int64] | None]] = [("known", batch.images.numpy(), LABELS)]
    if labelled:
        few = cast(LabelledImages, game.networks["labelled"])
        few.images.copy_(torch.from_numpy(np.random.default_rng(3).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)))
        chosen = np.floor(noise.uniform("labelled").numpy() * 6).astype(int)
        known = few.images.numpy()[chosen] / 127.5 - 1, np.array([0, 0, 1, 1, 2, 2])[chosen]
        groups = [("batch", batch.images.numpy(), None), ("known", *known)]
    drawn, found = [], []
    for name, images, labels in groups:
        told = np.full(N, CLASSES) if labels is None else labels
        onehot = np.eye(CLASSES + bool(labelled))[told]
        known_labels = None if labels is None else torch.from_numpy(labels)
        prior = draw(game.config.prior, K, noise, known_labels, CLASSES, name).numpy()
        drawn.append(perceptron(np.concatenate((prior, onehot), axis=1), judge))
        style = Reference(game, context, images, name).style
        found.append(perceptron(np.concatenate((style, onehot), axis=1), judge))
    d, f = np.concatenate(drawn), np.concatenate(found)
    # Bytes become [-1, 1] in float32.
    expected = softplus(-d).mean() + softplus(f).mean()
    assert game.discriminator_loss(context, batch).loss.item() == pytest.approx(expected, rel=1e-6)
    assert game.generator_loss(context, batch).loss.item() == pytest.approx(softplus(-f).mean(), rel=1e-6)


@pytest.mark.parametrize("labelled", [None, 6])
def test_labels_are_learned_of_the_labelled(labelled: int | None) -> None:
    game = tiny(variant="semi_supervised", labelled=labelled, input_noise=0.1)
    context, batch = context_of(game)
    images, labels = batch.images.numpy(), LABELS
    if labelled:
        few = cast(LabelledImages, game.networks["labelled"])
        few.images.copy_(torch.from_numpy(np.random.default_rng(3).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)))
        chosen = np.floor(context.noise.uniform("labelled").numpy() * 6).astype(int)
        assert len(set(chosen)) > 2
        images, labels = few.images.numpy()[chosen] / 127.5 - 1, np.array([0, 0, 1, 1, 2, 2])[chosen]
    probabilities = Reference(game, context, images).category
    assert probabilities is not None
    outcome = game.labels_loss(context, batch)
    assert outcome.loss.item() == pytest.approx(-np.log(probabilities[np.arange(N), labels]).mean(), rel=1e-6)
    assert outcome.scalars["error"].item() == pytest.approx((probabilities.argmax(axis=1) != labels).mean())


# ------------------------------------------------------------------------------------------------------------ priors
def many(prior: Any, size: int = 2, labels: Tensor | None = None, classes: int = 0, n: int = 40_000) -> Array:
    return draw(prior, size, Noise(5, ("test",), torch.arange(n), torch.float64), labels, classes).numpy()


def test_the_gaussian_prior() -> None:
    codes = many(GaussianPrior(deviation=5.0), 4)
    assert codes.mean(axis=0) == pytest.approx(np.zeros(4), abs=4 * 5 / 200)  # four standard errors
    np.testing.assert_allclose(np.cov(codes.T), 25 * np.eye(4), rtol=0, atol=4 * 25 * np.sqrt(2 / 40_000))


def test_the_mixture_prior() -> None:
    """Turned back by its component's angle, each point is of one Gaussian beside the origin."""
    prior, components = MixturePrior(distance=3.0, deviations=(1.0, 0.2)), 10
    labels = torch.arange(40_000) % components
    codes = many(prior, labels=labels, classes=components)
    angle = 2 * np.pi * labels.numpy() / components
    along = codes[:, 0] * np.cos(angle) + codes[:, 1] * np.sin(angle)
    across = -codes[:, 0] * np.sin(angle) + codes[:, 1] * np.cos(angle)
    assert along.mean() == pytest.approx(3.0, abs=4 / 200) and along.std() == pytest.approx(1.0, abs=4 / 280)
    assert across.mean() == pytest.approx(0.0, abs=0.8 / 200) and across.std() == pytest.approx(0.2, abs=0.8 / 280)
    assert np.corrcoef(along, across)[0, 1] == pytest.approx(0, abs=4 / 200)
    # Without labels every component is as likely: by angle, where they hardly overlap.
    free = many(prior)
    shares = np.bincount(np.round(np.arctan2(free[:, 1], free[:, 0]) * 10 / (2 * np.pi)).astype(int) % 10) / 40_000
    assert shares == pytest.approx(np.full(10, 0.1), abs=4 * np.sqrt(0.09 / 40_000))


def test_the_swiss_roll_prior() -> None:
    """The square of the way along it is uniform, and each class has its stretch of that."""
    prior = SwissRollPrior(radius=5.0, turns=2.0, deviation=0.0)
    codes = many(prior)
    radius = np.linalg.norm(codes, axis=1)
    square = np.sort((radius / 5.0) ** 2)
    assert np.abs(square - (np.arange(40_000) + 0.5) / 40_000).max() < 1.95 / 200  # Kolmogorov and Smirnov's at .001
    angle = 4 * np.pi * radius / 5.0
    np.testing.assert_allclose(codes, np.stack((np.cos(angle), np.sin(angle)), 1) * radius[:, None], atol=1e-9)
    labels = torch.arange(40_000) % 4
    radius = np.linalg.norm(many(prior, labels=labels, classes=4), axis=1)
    assert np.array_equal(np.minimum(np.floor(4 * (radius / 5.0) ** 2 + 1e-9), 3), labels.numpy())
    off = many(SwissRollPrior(radius=5.0, turns=2.0, deviation=0.3)) - codes
    assert off.std(axis=0) == pytest.approx([0.3, 0.3], abs=4 * 0.3 / 280)


# ------------------------------------------------------------------------------------------------- labels and clusters
def shown(labels: list[int], images: list[int]) -> Iterator[Batch]:
    """Batches of two; each image is of one grey."""
    for start in range(0, len(labels), 2):
        greys = torch.tensor(images[start : start + 2], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
        yield Batch(to_signed(greys), torch.tensor(labels[start : start + 2]))


def test_the_first_images_of_each_class_are_the_labelled_ones() -> None:
    few = LabelledImages(4, ImageSpec(8, 1, 2))
    rest = shown([0, 0, 0, 1, 0, 1, 1, 1], [7, 7, 9, 30, 11, 30, 200, 255])
    few.gather(rest)  # 7 comes twice, and 30
    assert few.images[:, 0, 0, 0].tolist() == [7, 9, 30, 200] and few.labels.tolist() == [0, 0, 1, 1]
    images, labels = few.draw(Noise(0, (), torch.arange(400)), torch.float64)
    assert images.dtype == torch.float64
    greys = (images[:, 0, 0, 0] + 1) * 127.5
    assert {(round(g), y) for g, y in zip(greys.tolist(), labels.tolist(), strict=True)} == {
        (7, 0),
        (9, 0),
        (30, 1),
        (200, 1),
    }
    with pytest.raises(
        UserError, match="2 different images of each class .* the first 4 of the stream are 1 of class 1"
    ):
        LabelledImages(4, ImageSpec(8, 1, 2)).gather(shown([0, 0, 1, 1], [7, 8, 30, 30]))


def test_clusters_take_the_class_of_their_likeliest_image() -> None:
    clusters = Clusters(3)
    assert clusters.classes.tolist() == [-1, -1, -1]
    first = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]), torch.tensor([4, 5])
    second = torch.tensor([[0.2, 0.1, 0.7], [0.45, 0.5, 0.05]]), torch.tensor([6, 7])
    clusters.name(iter([first, second]))
    assert clusters.classes.tolist() == [4, 5, 6]


def test_a_clustering_takes_images_for_the_class_of_their_likeliest_cluster() -> None:
    game = tiny(variant="clustering", clusters=4)
    context, batch = context_of(game)
    assert isinstance(game, Concludes) and game.concluding_images and game.classifies
    logits = Reference(game, context, batch.images.numpy()).category
    assert logits is not None
    assert not game.classify(game.networks, context.progress, batch).any(), "no cluster has a class yet"
    game.conclude(game.networks, context.progress, iter([batch]))
    classes = cast(Clusters, game.networks["clusters"]).classes.numpy()
    assert np.array_equal(classes, LABELS[logits.argmax(axis=0)])
    expected = np.eye(CLASSES)[classes[logits.argmax(axis=1)]]
    found = game.classify(game.networks, context.progress, batch).detach()
    np.testing.assert_array_equal(found, expected)


def test_points_that_are_not_bounded_are_refused() -> None:
    with pytest.raises(UserError, match=r"decodes values in \[-1, 1\], and those of data.points \(grid25\)"):
        Aae(AaeConfig(), ImageSpec(1, 2, points="grid25", bounded=False))


# ------------------------------------------------------------------------------------------------------------- the game
def test_players_and_the_paper_s_schedule() -> None:
    game = tiny(variant="semi_supervised", labelled=6)
    (phase,) = game.phases
    assert [(p.name, p.trains) for p in phase.players] == [
        ("reconstruction", ("encoder", "style", "category", "decoder")),
        ("discriminator", ("discriminator", "category_discriminator")),
        ("generator", ("encoder", "style", "category")),
        ("labels", ("encoder", "category")),
    ]
    assert [turn.update for turn in phase.turns] == ["alternating"]
    momenta = {player.name: cast(Any, player.optimizer).momentum for player in phase.players}
    assert momenta == {"reconstruction": 0.9, "discriminator": 0.1, "generator": 0.1, "labels": 0.9}
    for name, rates in (("reconstruction", (0.01, 0.001, 1e-4)), ("generator", (0.1, 0.01, 0.001))):
        found = [phase.learning_rates[name].at(nimg) for nimg in (0, 2_999_900, 3_000_000, 60_000_000)]
        assert found == pytest.approx([rates[0], rates[0], rates[1], rates[2]], rel=1e-12)
    assert {average.after for average in game.averages} == {"labels"}


def test_samples_and_codes() -> None:
    for variant, settings in VARIANTS.items():
        game = tiny(variant=variant, **settings)
        context, batch = context_of(game)
        assert isinstance(game, Samples) and isinstance(game, Encodes) and isinstance(game, Begins)
        codes = game.encode(game.networks, context.progress, batch)
        again = game.decode(game.networks, context.progress, codes, batch)
        assert again.shape == batch.images.shape and again.abs().max() <= 1
        drawn = game.sample(game.networks, context.progress, context.noise, batch)
        assert drawn.shape == batch.images.shape
        assert isinstance(game, Classifies)
        if game.classifies:
            game.conclude(game.networks, context.progress, iter([batch]))
            probabilities = game.classify(game.networks, context.progress, batch)
            assert probabilities.shape == (N, CLASSES)
            torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(N, dtype=torch.float64))
        else:
            with pytest.raises(UserError, match="tell no classes"):
                game.classify(game.networks, context.progress, batch)
    game = tiny(variant="supervised")
    context, batch = context_of(game)
    with pytest.raises(UserError, match="decoder takes labels"):
        game.decode(game.networks, context.progress, torch.zeros(N, K).double())


def test_samples_are_of_the_class_that_is_asked_for() -> None:
    """Where codes have classes: the decoder is given the prior's component, or the category, of the label."""
    seen: list[Tensor] = []

    def watch(module: nn.Module, codes: tuple[Tensor, ...]) -> None:
        seen.append(codes[0].detach())

    for settings in ({"prior": MixturePrior(components=3, conditioned=True)}, {"variant": "semi_supervised"}):
        game = tiny(**settings)
        context, batch = context_of(game)
        game.networks["decoder"].register_forward_pre_hook(watch)
        game.sample(game.networks, context.progress, context.noise, batch)
    petals, categories = seen
    assert torch.equal(petals, draw(MixturePrior(components=3), 2, context.noise, torch.from_numpy(LABELS), 3))
    assert categories[:, :CLASSES].argmax(dim=1).tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": MixturePrior(), "latent_size": 8}, "prior mixture lies in the plane; set latent_size to 2, not 8"),
        ({"prior": SwissRollPrior(), "latent_size": 3}, "prior swiss_roll lies in the plane"),
        ({"variant": "clustering", "labelled": 100}, "takes no labels"),
        ({"variant": "supervised", "labelled": 100}, "needs every label"),
        ({"labelled": 100}, "takes no labels"),
        ({"variant": "semi_supervised", "labelled": 0}, "leaves nothing to learn labels from"),
        (
            {"variant": "semi_supervised", "prior": MixturePrior(conditioned=True), "latent_size": 2},
            "leaves the label out of the style",
        ),
    ],
)
def test_settings_that_contradict_one_another(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AaeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "classes", "message"),
    [
        ({"prior": MixturePrior(conditioned=True), "latent_size": 2}, 0, "game.prior.conditioned needs labels"),
        ({"prior": MixturePrior(conditioned=True), "latent_size": 2}, 3, "10 petals are conditioned on 3 classes"),
        ({"variant": "semi_supervised"}, 0, "game.variant: semi_supervised needs labels"),
        ({"variant": "dimension_reduction"}, 0, "needs labels, .* or set game.labelled to 0"),
        ({"variant": "semi_supervised", "labelled": 10}, 3, "cannot be as many of each of 3 classes"),
    ],
)
def test_settings_that_do_not_go_with_the_data(settings: dict[str, Any], classes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Aae(AaeConfig(**settings), ImageSpec(8, 1, classes))


@pytest.mark.parametrize("name", ["aae-mnist", "aae-mnist-semi", "aae-mnist-2d"])
def test_recipes(name: str) -> None:
    assert isinstance(load_recipe(RECIPES / f"{name}.yaml").game, AaeConfig)


# ------------------------------------------------------------------------------------------------------------ real runs
@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aae")
    make_labelled_shards(folder)
    return folder


def test_each_optimizer_of_the_encoder_has_moments_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three players train it; a checkpoint keeps what each has, and the images that have labels."""
    monkeypatch.chdir(place)
    recipe = write_recipe(place / "a.yaml", name="a", game=GAME_SETTINGS["aae"], **LABELLED)
    assert not play(recipe, 3)
    path = list_checkpoints(place / "runs" / "a" / "checkpoints")[-1]
    moments = StoredMoments(path).tensors()
    ours = [
        moments[f"{who}/encoder.hidden.0.weight/momentum_buffer"] for who in ("reconstruction", "generator", "labels")
    ]
    assert all(tensor.any() for tensor in ours)
    assert not torch.allclose(ours[0], ours[1]) and not torch.allclose(ours[1], ours[2])
    assert not torch.allclose(ours[0], ours[2])
    assert "labels/style.weight/momentum_buffer" not in moments
    images = read_checkpoint(path).networks["labelled.images"]
    assert len(images.flatten(1).unique(dim=0)) == len(images) == 4


def test_more_labelled_images_than_there_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    game = {**GAME_SETTINGS["aae"], "labelled": 98}
    with pytest.raises(UserError, match=r"game\.labelled: 49 different images of each class .* are 48 of class"):
        play(write_recipe(place / "b.yaml", name="b", game=game, **LABELLED), 1)


def test_zero_is_refused_where_players_share_a_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    settings = {"game": GAME_SETTINGS["aae"], "training__engine": "zero2", **LABELLED}
    with pytest.raises(
        UserError, match=r"is trained by players 'reconstruction' and 'generator'.*training\.engine: ddp"
    ):
        play(write_recipe(place / "c.yaml", name="c", **settings), 1)
