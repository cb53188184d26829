"""Batch normalisation over the global batch against the plain formula and torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from advgen.game import Across, OneSlice
from advgen.nn.batch_norm import BatchNorm, move_statistics
from tests.slices import in_slices


def features(n: int = 6, shape: tuple[int, ...] = (3, 2, 4), seed: int = 0) -> Tensor:
    """[n, *shape] whose channels have means and deviations of their own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    channel = torch.arange(1.0, shape[0] + 1).reshape(-1, *(1,) * (len(shape) - 1))
    return x * channel + 3 * channel


def layer(classes: int = 0) -> BatchNorm:
    """Of three channels, with gains and biases that differ."""
    norm = BatchNorm(3, classes).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, norm.weight.numel()).reshape(norm.weight.shape))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, norm.bias.numel()).reshape(norm.bias.shape))
    return norm


def plain(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """The formula on the whole batch; gain and bias [n, c]."""
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdim=True)
    variance = ((x - mean) ** 2).mean(axes, keepdim=True)
    spread = (...,) + (None,) * (x.ndim - 2)
    return gain[spread] * (x - mean) / (variance + 1e-5) ** 0.5 + bias[spread]


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("shape", [(3, 2, 4), (3,)], ids=str)
def test_values_gradients_and_their_gradients_are_those_of_the_whole_batch(
    slices: int, classes: int, shape: tuple[int, ...]
) -> None:
    norm, x = layer(classes), features(shape=shape).requires_grad_(True)
    labels = torch.tensor([0, 3, 1, 3, 0, 2]) if classes else None

    def share(across: Across) -> Tensor:
        own = None if labels is None else across.own(labels)
        return norm(across.own(x), across, own)

    outputs = in_slices(slices, share)
    ours = torch.stack(outputs, dim=1).flatten(0, 1)
    gain, bias = ((p[labels] if classes else p.expand(6, 3)) for p in (norm.weight, norm.bias))
    theirs = plain(x, gain, bias)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    # A curved function of the output, so that second derivatives do not vanish; then the norm of its gradient.
    uneven, found, expected = features(shape=shape, seed=1), [], []
    for out, kept in ((ours, found), (theirs, expected)):
        (first,) = torch.autograd.grad((out**3 * uneven).sum(), x, create_graph=True)
        kept.append(first)
        kept += torch.autograd.grad(first.square().sum(), (x, norm.weight, norm.bias))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        assert one.abs().max() > 1e-3


def test_double_backward_by_finite_differences() -> None:
    norm = layer(classes=2)
    labels = torch.tensor([0, 1, 1])

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, OneSlice(), labels))

    inputs = (features(3, (3, 2)).requires_grad_(True), norm.weight, norm.bias)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("slices", [1, 2])
def test_running_statistics_are_torch_s_and_move_only_when_asked(slices: int) -> None:
    norms = [layer() for _ in range(slices)]
    theirs = nn.BatchNorm2d(3).double().train()
    theirs.load_state_dict({**norms[0].state_dict(), "num_batches_tracked": torch.tensor(0)})
    for seed in range(3):
        x = features(4, seed=seed)
        before = [copy.deepcopy(norm.state_dict()) for norm in norms]
        outputs = in_slices(slices, lambda across, x=x: norms[across.index](across.own(x), across))
        for norm, old in zip(norms, before, strict=True):
            assert all(torch.equal(value, old[name]) for name, value in norm.state_dict().items())
            move_statistics(nn.Sequential(norm))
        torch.testing.assert_close(torch.stack(outputs, dim=1).flatten(0, 1), theirs(x), rtol=0, atol=1e-12)
        for norm in norms:
            for name in ("running_mean", "running_var"):
                torch.testing.assert_close(getattr(norm, name), getattr(theirs, name), rtol=1e-12, atol=0)
    x = features(2, seed=9)
    torch.testing.assert_close(norms[0](x, None), theirs.eval()(x), rtol=0, atol=1e-12)


def test_moments_are_float32_where_features_are_not() -> None:
    x = features(8).bfloat16()
    out = BatchNorm(3)(x, OneSlice())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out, plain(x.double(), torch.ones(8, 3), torch.zeros(8, 3)).bfloat16(), rtol=1e-2, atol=1e-2
    )
