"""Penalties of critics whose gradients are known: D(x) = w . x with gradient w, and D(x) = sum a x^2 / 2 with a x."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.losses.config import PenaltyConfig
from advgen.losses.penalties import drift, gradient_penalty, input_gradient, r1, r2, with_penalties
from advgen.seeds import Noise

SHAPE = (5, 2, 3, 3)
RANDOM = np.random.RandomState(4)
REAL, FAKE = RANDOM.randn(*SHAPE), RANDOM.randn(*SHAPE)
W = RANDOM.randn(*SHAPE[1:])
MIXING = RANDOM.rand(5, 1, 1, 1)
SCORES = np.array([0.5, -2.0, 1.5, 3.0, 0.25])


def tensor(values: Any, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


class Linear:
    """[n, c, h, w] to [n]."""

    def __init__(self, w: Tensor) -> None:
        self.w, self.calls = w, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.w * x).flatten(1).sum(dim=1)


class Quadratic(Linear):
    """[n, c, h, w] to [n]."""

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.w * x.square()).flatten(1).sum(dim=1) / 2


class FixedNoise:
    """Stands for a step's noise."""

    def __init__(self, mixing: Tensor | None) -> None:
        self.mixing = mixing

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        assert self.mixing is not None, "drawn, though no penalty needs it"
        assert (purpose, shape) == ("mixing", tuple(self.mixing.shape[1:]))
        return self.mixing


def norms(gradient: Any) -> Any:
    """[n] of [n, c, h, w]."""
    return np.sqrt((gradient**2).reshape(len(gradient), -1).sum(axis=1))


def gp(gradient: Any, target: float, scale: float = 1.0) -> float:
    return float(((scale * norms(gradient) - target) ** 2).mean() / target**2)


# ------------------------------------------------------------------------------------------------------- one by one
def test_r1_and_r2_of_a_linear_critic_are_the_square_of_its_slope() -> None:
    for penalty, images in ((r1, REAL), (r2, FAKE)):
        w = tensor(W, grad=True)
        value = penalty(Linear(w), tensor(images))
        assert value.shape == ()
        assert value.item() == pytest.approx((W**2).sum(), rel=1e-12)
        value.backward()
        assert w.grad is not None
        np.testing.assert_allclose(w.grad.numpy(), 2 * W, rtol=1e-12)


def test_r1_and_r2_of_a_quadratic_critic_depend_on_where_they_are_taken() -> None:
    for penalty, images in ((r1, REAL), (r2, FAKE)):
        a = tensor(W, grad=True)
        value = penalty(Quadratic(a), tensor(images))
        assert value.item() == pytest.approx((norms(W * images) ** 2).mean(), rel=1e-12)
        value.backward()
        assert a.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), (2 * W * images**2).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(("target", "scale"), [(1.0, 1.0), (750.0, 1.0), (1.0, 0.25)])
def test_the_gradient_penalty_is_taken_between_real_and_fake(target: float, scale: float) -> None:
    a = tensor(W, grad=True)
    value = gradient_penalty(Quadratic(a), tensor(REAL), tensor(FAKE), tensor(MIXING), target, scale)
    mixed = REAL + MIXING * (FAKE - REAL)
    assert value.item() == pytest.approx(gp(W * mixed, target, scale), rel=1e-12)
    value.backward()
    length = scale * norms(W * mixed).reshape(-1, 1, 1, 1)
    slope = (2 * (length - target) * scale**2 * W * mixed**2 / length).mean(axis=0) / target**2
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), slope, rtol=1e-10)


def test_the_gradient_penalty_pulls_a_slope_towards_its_target_from_both_sides() -> None:
    for slope in (0.5, 2.0):
        w = tensor([[[slope]]], grad=True)
        gradient_penalty(
            Linear(w), tensor(np.ones((2, 1, 1, 1))), tensor(np.zeros((2, 1, 1, 1))), tensor(0.5)
        ).backward()
        assert w.grad is not None and w.grad.item() == pytest.approx(2 * (slope - 1))


def test_a_flat_critic_has_a_penalty_and_no_nan() -> None:
    w = tensor(0 * W, grad=True)
    value = gradient_penalty(Linear(w), tensor(REAL), tensor(FAKE), tensor(MIXING))
    value.backward()
    assert value.item() == 1.0
    assert w.grad is not None and not w.grad.any()


def test_drift_is_the_mean_square_of_scores() -> None:
    scores = tensor(SCORES, grad=True)
    value = drift(scores)
    value.backward()
    assert value.item() == pytest.approx((SCORES**2).mean(), rel=1e-12)
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.numpy(), 2 * SCORES / 5, rtol=1e-12)


def test_no_gradient_goes_to_the_images() -> None:
    real, fake = tensor(REAL, grad=True), tensor(FAKE, grad=True)
    critic = Quadratic(tensor(W, grad=True))
    (r1(critic, real) + r2(critic, fake) + gradient_penalty(critic, real, fake, tensor(MIXING))).backward()
    assert real.grad is None and fake.grad is None


def test_the_inner_gradient_is_of_float32_under_autocast_and_of_half_precision_images() -> None:
    layer = torch.nn.Linear(4, 1)
    x = torch.from_numpy(RANDOM.randn(3, 4)).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        gradient = input_gradient(lambda images: layer(images)[:, 0], x)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, layer.weight.detach().expand(3, 4), rtol=0, atol=0)


# --------------------------------------------------------------------------------------------------------- together
ALL = PenaltyConfig(r1_gamma=10.0, r1_every=2, r2_gamma=6.0, r2_every=3, gp_weight=4.0, gp_target=2.0, drift=0.5)


def together(config: PenaltyConfig, step: int, **changes: Any) -> tuple[float, dict[str, float]]:
    noise = FixedNoise(tensor(MIXING) if config.gp_weight else None)
    total, scalars = with_penalties(
        tensor(7.0),
        Quadratic(tensor(W, grad=True)),
        tensor(REAL),
        tensor(FAKE),
        tensor(SCORES, grad=True),
        noise,  # type: ignore[arg-type]
        step,
        config,
        **changes,
    )
    assert all(value.shape == () and not value.requires_grad for value in scalars.values())
    return total.item(), {name: value.item() for name, value in scalars.items()}


@pytest.mark.parametrize("step", range(7))
def test_penalties_are_added_by_weight_and_lazy_ones_at_their_steps(step: int) -> None:
    at_real, at_fake = (float((norms(W * images) ** 2).mean()) for images in (REAL, FAKE))
    between = gp(W * (REAL + MIXING * (FAKE - REAL)), target=2.0)
    expected, told = 7.0 + 4.0 * between + 0.5 * float((SCORES**2).mean()), {"penalty": between}
    if step in (0, 2, 4, 6):
        expected, told = expected + 2 * 10.0 / 2 * at_real, {**told, "r1": at_real}
    if step in (0, 3, 6):
        expected, told = expected + 3 * 6.0 / 2 * at_fake, {**told, "r2": at_fake}
    total, scalars = together(ALL, step)
    assert total == pytest.approx(expected, rel=1e-12)
    assert scalars == pytest.approx(told, rel=1e-12)


def test_nothing_is_computed_or_drawn_where_all_are_off() -> None:
    critic = Quadratic(tensor(W, grad=True))
    loss, images = tensor(7.0), tensor(REAL)
    total, scalars = with_penalties(loss, critic, images, images, images, FixedNoise(None), 0, PenaltyConfig())  # type: ignore[arg-type]
    assert total is loss and not scalars and critic.calls == 0


def test_gradients_go_through_the_sum() -> None:
    w, scores = tensor(W, grad=True), tensor(SCORES, grad=True)
    config = PenaltyConfig(r1_gamma=3.0, drift=0.5)
    noise: Any = FixedNoise(None)
    total, _ = with_penalties(tensor(0.0), Linear(w), tensor(REAL), tensor(FAKE), scores, noise, 0, config)
    total.backward()
    assert w.grad is not None and scores.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), 3.0 * W, rtol=1e-12)
    np.testing.assert_allclose(scores.grad.numpy(), SCORES / 5, rtol=1e-12)


def test_fakes_may_have_a_critic_of_their_own_and_norms_a_scale() -> None:
    slope = tensor(3 * W, grad=True)
    _, scalars = together(ALL, 0, fake_critic=Linear(slope), scale=0.25)
    assert scalars["r1"] == pytest.approx((norms(W * REAL) ** 2).mean(), rel=1e-12)
    assert scalars["r2"] == pytest.approx(9 * (W**2).sum(), rel=1e-12)
    assert scalars["penalty"] == pytest.approx(gp(W * (REAL + MIXING * (FAKE - REAL)), 2.0, 0.25), rel=1e-12)


def test_vectors_are_mixed_as_images_are() -> None:
    noise = Noise(0, ("test",), torch.arange(5), torch.float64)
    real, fake = tensor(REAL.reshape(5, -1)), tensor(FAKE.reshape(5, -1))
    w = tensor(W.reshape(-1), grad=True)
    _, scalars = with_penalties(tensor(0.0), Quadratic(w), real, fake, real, noise, 0, PenaltyConfig(gp_weight=1.0))
    mixing = noise.uniform("mixing", 1).numpy()
    mixed = W.reshape(-1) * (real.numpy() + mixing * (fake.numpy() - real.numpy()))
    assert scalars["penalty"].item() == pytest.approx(gp(mixed, 1.0), rel=1e-12)


# ---------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize(
    "wrong",
    [{"r1_gamma": -1.0}, {"r2_gamma": -1.0}, {"gp_weight": -1.0}, {"drift": -1.0}, {"gp_target": 0.0}]
    + [{"r1_every": 0}, {"r2_every": 0}],
    ids=str,
)
def test_settings_without_a_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PenaltyConfig(**wrong)
