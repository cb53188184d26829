"""pix2pixHD's networks and losses against an independent numpy reference (pix2pixhd_reference.py), in float64."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.games.pix2pixhd.config import Pix2PixHdConfig
from advgen.games.pix2pixhd.encoder import Encoder, find_instances, means, spread
from advgen.games.pix2pixhd.networks import Generator, LocalEnhancer, MultiscaleDiscriminator, normalization
from advgen.losses import matching
from advgen.nn.boundaries import instance_edges, one_hot
from tests.games import pix2pixhd_reference as reference

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 1e-9}
SMALL = Pix2PixHdConfig(ngf=4, downsamplings=2, global_blocks=2, enhancers=2, local_blocks=1)
DISCRIMINATOR = Pix2PixHdConfig(ndf=3, discriminator_channels_max=8, discriminators=3)


def tensor(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(reference.array(name, shape))


def load(network: nn.Module, weights: reference.Weights, config: Pix2PixHdConfig) -> None:
    """The reference's weights, every one of them and no other."""
    network.double().load_state_dict({ours(name, config): torch.from_numpy(w) for name, w in weights.items()})


def ours(name: str, config: Pix2PixHdConfig) -> str:
    """The reference's name of a weight in our networks."""
    part, *rest = name.split("/")
    if scale := re.fullmatch(r"scale(\d)", part):
        layer = int(rest[0].removeprefix("layer"))
        inner = "" if layer == config.discriminator_layers + 1 else ".0"
        return f"scales.{scale[1]}.layers.{layer}{inner}.{'bias' if rest[1:] else 'weight'}"
    if rest[0] == "last":
        return f"{part}.to_image.0.{'bias' if rest[1:] else 'weight'}"
    conv = f".{rest[1]}.0.weight" if rest[1:] else ".0.weight"
    kind, digits = re.fullmatch(r"([a-z]+)(\d*)", rest[0]).groups()  # type: ignore[union-attr]
    number = int(digits or 0)
    if part == "global":
        begin = {"first": 0, "down": 1, "block": 1 + config.downsamplings}
        begin["up"] = begin["block"] + config.global_blocks
        return f"global.trunk.{begin[kind] + number}{conv}"
    inner = {"first": "down.0", "down": "down.1", "block": f"body.{number}", "up": f"body.{config.local_blocks}"}
    return f"{part}.{inner[kind]}{conv}"


def small_generator() -> tuple[Generator, dict[str, reference.Array]]:
    weights = reference.drawn(reference.shapes(5, 4, 2, 2, 2, 1))
    generator = Generator(SMALL, 5)
    load(generator, weights, SMALL)
    return generator, weights


def test_a_layer_norm_is_of_all_channels_of_an_image() -> None:
    x = tensor("layer norm", 2, 3, 4, 5)
    layer = normalization("layer", 3).double()
    scale, offset = tensor("scale", 3), tensor("offset", 3)
    layer.load_state_dict({"weight": scale, "bias": offset})
    flat = x.numpy().reshape(2, -1)
    z = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    expected = z.reshape(x.shape) * scale.numpy()[:, None, None] + offset.numpy()[:, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, **CLOSE)


def test_of_a_style_that_is_the_same_everywhere_an_instance_norm_leaves_nothing() -> None:
    condition, style = tensor("condition", 1, 3, 20, 20), torch.tensor([0.7, -0.4], dtype=torch.float64)
    plane = style[None, :, None, None].expand(1, 2, 20, 20)
    moved: dict[str, float] = {}
    for norm in ("instance", "layer"):
        generator = Generator(dataclasses.replace(SMALL, norm=norm), 5).double()
        with torch.no_grad():
            images = [generator(torch.cat((condition, sign * plane), 1)) for sign in (1, -1)]
        moved[norm] = (images[0] - images[1]).abs().max().item()
    assert moved["instance"] < 1e-9 < 1e-3 < moved["layer"]


@pytest.mark.parametrize(
    ("stage", "height", "width"), [(0, 8, 8), (0, 9, 14), (1, 16, 24), (1, 13, 11), (2, 32, 32), (2, 17, 30)]
)
def test_generator_at_every_stage_and_any_size(stage: int, height: int, width: int) -> None:
    generator, weights = small_generator()
    condition = tensor("condition", 2, 5, height, width)
    with torch.no_grad():
        images = generator(condition, stage)
    assert images.shape == (2, 3, height, width)
    expected = reference.generator(weights, condition.numpy(), stage, downs=2, blocks=2, local_blocks=1)
    np.testing.assert_allclose(images.numpy(), expected, **CLOSE)
    if stage == 2:
        torch.testing.assert_close(generator(condition), images)


def test_residual_blocks_of_an_enhancer_get_its_own_features_plus_those_of_the_global_generator() -> None:
    generator, weights = small_generator()
    enhancer = generator.get_submodule("enhancer1")
    assert isinstance(enhancer, LocalEnhancer)
    seen: list[Tensor] = []
    handle = enhancer.body[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    condition = tensor("condition", 1, 5, 16, 16)
    with torch.no_grad():
        generator(condition, 1)
        handle.remove()
        own = enhancer.down(condition)
    coarse = reference.trunk(weights, "global", reference.halved(condition.numpy()), downs=2, blocks=2)
    assert seen[0].shape == (1, 4, 8, 8)
    np.testing.assert_allclose(seen[0].numpy(), own.numpy() + coarse, **CLOSE)


def test_too_small_an_image_is_refused() -> None:
    generator, _ = small_generator()
    with pytest.raises(UserError, match="8x20 are too small"):
        generator(tensor("condition", 1, 5, 8, 20), 1)


def test_the_paper_s_generator_and_its_channels() -> None:
    with torch.device("meta"):
        g1 = Generator(Pix2PixHdConfig(), 36)
        both = Generator(Pix2PixHdConfig(enhancers=1), 36)
    spec = reference.shapes(36, 64, 4, 9)
    assert sum(p.numel() for p in g1.parameters()) == sum(int(np.prod(shape)) for shape in spec.values()) == 182_525_379
    assert {n: tuple(p.shape) for n, p in g1.named_parameters()} == {
        ours(name, Pix2PixHdConfig()): shape for name, shape in spec.items()
    }
    enhancer = both.get_submodule("enhancer1")
    shapes = reference.shapes(36, 64, 4, 9, 1, 3)
    enhanced = sum(int(np.prod(shape)) for name, shape in shapes.items() if name.startswith("enhancer1"))
    assert sum(p.numel() for p in enhancer.parameters()) == enhanced
    # The local residual blocks work on the global generator's 64 channels, the image is made of 32.
    assert both.get_parameter("enhancer1.body.0.conv0.0.weight").shape == (64, 64, 3, 3)
    assert both.get_parameter("enhancer1.to_image.0.weight").shape == (3, 32, 7, 7)


def test_used_parts_are_those_that_get_a_gradient() -> None:
    generator, _ = small_generator()
    for stage in range(3):
        generator.zero_grad(set_to_none=True)
        generator(tensor("condition", 1, 5, 17, 17), stage).square().sum().backward()
        learnt = {name for name, p in generator.named_parameters() if p.grad is not None}
        used = generator.used(stage)
        assert learnt == {n for n, _ in generator.named_parameters() if any(n.startswith(part + ".") for part in used)}
    assert generator.used(1) == ["global.trunk", "enhancer1"]


def test_weights_begin_at_a_deviation_of_two_hundredths() -> None:
    torch.manual_seed(0)
    generator = Generator(Pix2PixHdConfig(ngf=16, downsamplings=2), 8)
    weights = torch.cat([p.flatten() for n, p in generator.named_parameters() if n.endswith("weight")])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(weights.mean().item()) < 1e-4
    assert [n for n, _ in generator.named_parameters() if n.endswith("bias")] == ["global.to_image.0.bias"]
    assert not generator.get_parameter("global.to_image.0.bias").any()


def test_discriminators_and_feature_matching() -> None:
    config = DISCRIMINATOR
    weights = reference.drawn(reference.discriminator_shapes(5 + 3, 3, 3, 3, 8))
    network = MultiscaleDiscriminator(config, 5 + 3)
    load(network, weights, config)
    condition = tensor("condition", 2, 5, 45, 32)
    real, fake = tensor("real", 2, 3, 45, 32), tensor("fake", 2, 3, 45, 32).requires_grad_()
    expected = [reference.discriminator(weights, condition.numpy(), x.detach().numpy(), 3, 3) for x in (real, fake)]
    found = [network(condition, x) for x in (real, fake)]
    for theirs, own in zip(expected, found, strict=True):
        assert [len(scale) for scale in own] == [5, 5, 5]
        for theirs_scale, own_scale in zip(theirs, own, strict=True):
            for a, b in zip(theirs_scale, own_scale, strict=True):
                np.testing.assert_allclose(b.detach().numpy(), a, **CLOSE)
    loss = matching.feature_matching(found[0], found[1])
    assert loss.item() == pytest.approx(reference.feature_matching(expected[0], expected[1], 3), abs=1e-12)
    loss.backward()
    assert fake.grad is not None and fake.grad.abs().sum() > 0
    # Summed over the scales, each a mean over its patches.
    total = matching.over_scales(lambda a, b: (a - 1).square().mean() + b.square().mean(), found[0], found[1])
    by_hand = sum(((a[-1] - 1) ** 2).mean() + (b[-1] ** 2).mean() for a, b in zip(*expected, strict=True))
    assert total.item() == pytest.approx(by_hand, rel=1e-12)


def test_channels_of_the_paper_s_discriminator() -> None:
    with torch.device("meta"):
        network = MultiscaleDiscriminator(Pix2PixHdConfig(discriminators=3, discriminator_layers=4), 39)
    spec = reference.discriminator_shapes(39, 64, 4, 3, 512)
    config = Pix2PixHdConfig(discriminator_layers=4)
    assert {n: tuple(p.shape) for n, p in network.named_parameters()} == {ours(n, config): s for n, s in spec.items()}
    assert [layer[0].out_channels for layer in network.scales[0].layers[:-1]] == [64, 128, 256, 512, 512]  # type: ignore


def test_real_features_get_no_gradient_and_logits_do_not_count() -> None:
    real, fake = (
        [tensor(name, 2, 3).requires_grad_() for name in names] for names in (("a", "b", "c"), ("d", "e", "f"))
    )
    matching.feature_matching([real], [fake]).backward()
    assert [x.grad for x in real] == [None, None, None]
    assert fake[2].grad is None
    # Weight 4 / 2 layers, one scale: a mean over six numbers of +-1.
    torch.testing.assert_close(fake[0].grad, 2.0 * (fake[0] - real[0]).detach().sign() / 6)


def test_perceptual_loss_weighs_the_layers() -> None:
    def network(x: Tensor) -> list[Tensor]:
        return [x * factor for factor in (1.0, 2.0, 3.0, 4.0, 5.0)]

    real, fake = tensor("real", 2, 3, 4, 4).requires_grad_(), tensor("fake", 2, 3, 4, 4).requires_grad_()
    distance = np.abs(real.detach().numpy() - fake.detach().numpy()).mean()
    loss = matching.perceptual(network, real, fake)
    assert loss.item() == pytest.approx(distance * (1 / 32 + 2 / 16 + 3 / 8 + 4 / 4 + 5), rel=1e-12)
    loss.backward()
    assert real.grad is None and fake.grad is not None
    with pytest.raises(ValueError, match="longer|shorter"):
        matching.perceptual(network, real, fake, (1.0, 1.0))


@pytest.mark.parametrize("shape", [(7, 5), (1, 6), (6, 1)])
def test_edges_of_instances(shape: tuple[int, int]) -> None:
    ids = np.random.RandomState(0).randint(0, 2, (3, *shape)) * 26_001
    expected = np.stack([reference.edges(own) for own in ids])
    found = instance_edges(torch.from_numpy(ids)).numpy()
    np.testing.assert_array_equal(found, expected)


def test_one_hot_maps_leave_out_what_is_no_class() -> None:
    labels = torch.tensor([[[0, 1, 2], [255, -1, 3]]])
    expected = torch.zeros(1, 3, 2, 3)
    for label, y, x in ((0, 0, 0), (1, 0, 1), (2, 0, 2)):
        expected[0, label, y, x] = 1.0
    torch.testing.assert_close(one_hot(labels, 3, ignore=255), expected)
    expected[0, 1] = 0.0
    torch.testing.assert_close(one_hot(labels, 3, ignore=1), expected)


def test_instances_are_pooled_by_image() -> None:
    ids = torch.tensor([7, 2**31, -3, 26_001])[torch.from_numpy(np.random.RandomState(0).randint(0, 4, (3, 6, 5)))]
    ids[2] = 5  # one image is a single instance
    features = tensor("features", 3, 2, 6, 5)
    instances = find_instances(ids)
    assert instances.images.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert instances.ids.tolist() == [-3, 7, 26_001, 2**31] * 2 + [5]
    pairs = zip(instances.images, instances.ids, strict=True)
    assert instances.areas.tolist() == [int((ids[n] == i).sum()) for n, i in pairs]
    found = spread(means(features, instances), instances)
    np.testing.assert_allclose(found.numpy(), reference.pooled(features.numpy(), ids.numpy()), rtol=0, atol=1e-12)
    assert means(features.bfloat16(), instances).dtype == torch.float32


def test_gradient_of_the_pooling_is_the_pooling_of_the_gradient() -> None:
    """A mean over an instance, spread over it, is a symmetric projection."""
    ids = torch.from_numpy(np.random.RandomState(1).randint(0, 3, (2, 4, 4)))
    features, weight = tensor("features", 2, 3, 4, 4).requires_grad_(), tensor("weight", 2, 3, 4, 4)
    instances = find_instances(ids)
    (spread(means(features, instances), instances) * weight).sum().backward()
    assert features.grad is not None
    np.testing.assert_allclose(features.grad.numpy(), reference.pooled(weight.numpy(), ids.numpy()), rtol=0, atol=1e-12)


def test_a_million_pixels_are_summed_exactly_enough() -> None:
    features = torch.full((1, 1, 1024, 1024), 0.1)
    mean = means(features, find_instances(torch.zeros(1, 1024, 1024, dtype=torch.int32)))
    assert mean.item() == pytest.approx(features[0, 0, 0, 0].item(), rel=1e-7)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 14)])
def test_encoder(height: int, width: int) -> None:
    config = Pix2PixHdConfig(nef=2, encoder_downsamplings=2, encoder_features=3)
    encoder = Encoder(config).double()
    spec = reference.shapes(3, 2, 2, 0)
    weights = reference.drawn(spec)
    as_generator = {ours(n, Pix2PixHdConfig(downsamplings=2, global_blocks=0)): w for n, w in weights.items()}
    own = {n.removeprefix("global.").replace("to_image", "to_features"): w for n, w in as_generator.items()}
    encoder.load_state_dict({n: torch.from_numpy(w) for n, w in own.items()})
    images = tensor("images", 2, 3, height, width)
    ids = np.random.RandomState(2).randint(0, 3, (2, height, width))
    instances = find_instances(torch.from_numpy(ids))
    with torch.no_grad():
        found = spread(encoder(images, instances), instances)
    x = reference.reflected(images.numpy(), 4)
    expected = reference.image(weights, "global", reference.trunk(weights, "global", x, 2, 0))[:, :, :height, :width]
    np.testing.assert_allclose(found.numpy(), reference.pooled(expected, ids), **CLOSE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngf": 6, "enhancers": 2}, "ngf must be a multiple"),
        ({"discriminators": 0}, "discriminators must be at least 1"),
        ({"pool_size": -1}, "pool_size must not be negative"),
        ({"joint_kimg": 10.0, "joint_decay_kimg": 11.0}, "a decay must not be longer"),
        ({"learning_rate": 0.0}, "must be positive"),
    ],
)
def test_settings_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pix2PixHdConfig(**changes)
