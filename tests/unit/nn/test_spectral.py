from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from advgen.losses.penalties import r1
from advgen.nn.spectral import SpectralConv2d, SpectralEmbedding, SpectralLinear, normalized, power_iteration

Layer = SpectralConv2d | SpectralLinear | SpectralEmbedding
LAYERS: dict[str, Callable[[], Layer]] = {
    "conv": lambda: SpectralConv2d(3, 5, 3, stride=2, padding=1),
    "linear": lambda: SpectralLinear(7, 4),
    "embedding": lambda: SpectralEmbedding(6, 3),
}


def made(name: str) -> Layer:
    """A layer in float64, the same every time."""
    torch.manual_seed(5)
    return LAYERS[name]().double()


def matrix(layer: Layer) -> np.ndarray:
    return layer.weight.detach().numpy().reshape(len(layer.weight), -1)


def small_critic() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        SpectralConv2d(2, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), SpectralLinear(4 * 9, 1)
    ).double()


def images() -> Tensor:
    torch.manual_seed(3)
    return torch.randn(4, 2, 3, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_one_iteration_is_the_papers(name: str) -> None:
    layer = made(name)
    w, u = matrix(layer), layer.u.numpy().copy()
    assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6)
    power_iteration(layer)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    u = w @ v / np.linalg.norm(w @ v)
    np.testing.assert_allclose(layer.u.numpy(), u, rtol=0, atol=1e-12)
    v = w.T @ u / np.linalg.norm(w.T @ u)
    got = normalized(layer.weight, layer.u).detach().numpy()
    np.testing.assert_allclose(got, layer.weight.detach().numpy() / (u @ w @ v), rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_many_iterations_find_the_largest_singular_value(name: str) -> None:
    layer = made(name)
    for _ in range(500):
        power_iteration(layer)
    largest = np.linalg.svd(matrix(layer), compute_uv=False)[0]
    weight = normalized(layer.weight, layer.u).detach().numpy()
    np.testing.assert_allclose(weight, layer.weight.detach().numpy() / largest, rtol=1e-9)
    assert np.linalg.norm(weight.reshape(len(weight), -1), 2) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_the_plain_ones_with_the_weight_divided(name: str) -> None:
    layer = made(name)
    power_iteration(layer)
    weight = normalized(layer.weight, layer.u)
    torch.manual_seed(0)
    if isinstance(layer, SpectralConv2d):
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        expected = F.conv2d(x, weight, layer.bias, stride=2, padding=1)
    elif isinstance(layer, SpectralLinear):
        x = torch.randn(2, 7, dtype=torch.float64)
        expected = x @ weight.t() + layer.bias
    else:
        x = torch.tensor([4, 0, 4])
        expected = weight[x]
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["conv", "linear"])
def test_values_and_gradients_are_those_of_torchs_parametrization(name: str) -> None:
    layer = made(name)
    plain = nn.Conv2d(3, 5, 3, stride=2, padding=1) if isinstance(layer, SpectralConv2d) else nn.Linear(7, 4)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
    theirs: Any = spectral_norm(plain.double(), eps=1e-30)
    state = theirs.parametrizations.weight[0]
    with torch.no_grad():
        state._u.copy_(layer.u)
        state._v.copy_(F.normalize(layer.weight.flatten(1).t() @ layer.u, dim=0))
    for _ in range(3):
        power_iteration(layer)
        ours, other = normalized(layer.weight, layer.u), theirs.weight  # reading theirs moves it
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-12)
        original = theirs.parametrizations.weight.original
        (slope,) = torch.autograd.grad(ours.square().sum() + ours.sum(), layer.weight)
        (expected,) = torch.autograd.grad(other.square().sum() + other.sum(), original)
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)


def test_a_forward_moves_nothing_in_either_mode_and_frozen_or_not() -> None:
    critic = small_critic()
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    for training in (True, False):
        for frozen in (True, False):
            critic.train(training).requires_grad_(not frozen)
            assert torch.equal(critic(images()), critic(images()))
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    power_iteration(critic)
    moved = {name for name, value in critic.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.u"}  # the last layer has one row, whose only singular vector is found


def test_a_gradient_of_a_gradient_goes_through_the_estimate() -> None:
    critic = small_critic()
    power_iteration(critic)

    def penalty() -> Tensor:
        return r1(lambda x: critic(x)[:, 0], images())

    weight = critic[0].weight
    assert isinstance(weight, Tensor)
    (slope,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 1e-5
    with torch.no_grad():
        weight += step * direction
    above = penalty()
    with torch.no_grad():
        weight -= 2 * step * direction
    below = penalty()
    assert (slope * direction).sum().item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-6)


def test_recomputed_activations_give_the_same_gradients() -> None:
    critic = small_critic()
    power_iteration(critic)
    found = []
    for recompute in (False, True):
        critic.zero_grad()

        def judged(x: Tensor, recompute: bool = recompute) -> Tensor:
            if not recompute:
                return critic(x)[:, 0]
            scores = checkpoint(critic, x, use_reentrant=False, preserve_rng_state=False)
            assert isinstance(scores, Tensor)
            return scores[:, 0]

        (judged(images()).square().mean() + r1(judged, images())).backward()
        found.append([parameter.grad for parameter in critic.parameters() if parameter.grad is not None])
    assert len(found[0]) == 4
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_estimates_are_float32_under_autocast() -> None:
    layer = made("linear").float()
    expected = normalized(layer.weight, layer.u)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalized(layer.weight, layer.u), expected)
        assert layer(torch.ones(2, 7)).dtype == torch.bfloat16
        power_iteration(layer)
    other = made("linear").float()
    power_iteration(other)
    assert torch.equal(layer.u, other.u)


def test_state_is_saved_and_begins_as_the_seed_says() -> None:
    one, other = small_critic(), small_critic()
    assert torch.equal(one.state_dict()["0.u"], other.state_dict()["0.u"])
    for _ in range(3):
        power_iteration(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(images()), other(images()))
    power_iteration(one)
    power_iteration(other)
    assert torch.equal(one(images()), other(images()))
