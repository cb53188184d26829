"""Penalties on a critic, with gradients through gradients.

The inner gradient runs in float32 with autocast off: squares of half-precision gradients underflow. Each
penalty is a mean over the batch, 0-d.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from advgen.eager import eager
from advgen.game import Context
from advgen.losses.adversarial import AdversarialLoss
from advgen.losses.config import PenaltyConfig
from advgen.precision import at_least_float32
from advgen.seeds import Noise

Critic = Callable[[Tensor], Tensor]


def input_gradient(critic: Critic, images: Tensor) -> Tensor:
    """d/dx of the sum of the critic's scores, with a graph, so that its norm can be trained on.

    A compiled critic runs as it was written here, with the same parameters: compiled code has no double backward.

    Args:
        critic: images [n, ...] to scores [n].
        images: where the gradient is taken; any graph behind them is cut.

    Returns:
        float32 at least, [n, features].
    """
    with torch.autocast(images.device.type, enabled=False), eager():
        x = at_least_float32(images.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def r1(critic: Critic, real: Tensor) -> Tensor:
    """E |grad D(x)|^2 at real images, without the factor gamma / 2 (Mescheder et al. 2018, eq. 9)."""
    return input_gradient(critic, real).square().sum(dim=1).mean()


def r2(critic: Critic, fake: Tensor) -> Tensor:
    """E |grad D(G(z))|^2 at fakes, without the factor gamma / 2 (Mescheder et al. 2018, eq. 10)."""
    return input_gradient(critic, fake).square().sum(dim=1).mean()


def gradient_penalty(
    critic: Critic, real: Tensor, fake: Tensor, mixing: Tensor, target: float = 1.0, scale: float = 1.0
) -> Tensor:
    """E (|grad D(x)| - target)^2 / target^2 between real and fake (Gulrajani et al. 2017, eq. 3).

    The target other than 1, with the division, is ProGAN's form (CIFAR-10: 750). The factor lambda is not in.

    Args:
        real, fake: [n, ...].
        mixing: [n, 1, ...] in [0, 1): 0 is the real image, 1 the fake.
        target: the norm that is asked for.
        scale: factor on the norms. A gradient with respect to an image enlarged k times by repeating pixels
            has 1 / k of the norm, each pixel's share being split over k^2.
    """
    wide = at_least_float32(real.detach())
    mixed = wide.lerp(fake.detach().to(wide.dtype), mixing.to(wide.dtype))
    # vector_norm has the gradient 0 at 0, where the root of a sum of squares would give nan.
    norms = scale * torch.linalg.vector_norm(input_gradient(critic, mixed), dim=1)
    return (norms - target).square().mean() / target**2


def drift(scores: Tensor) -> Tensor:
    """E D(x)^2, which keeps a Wasserstein critic's scores near 0 (Karras et al. 2017, appendix A.1; reals only)."""
    return at_least_float32(scores).square().mean()


def with_penalties(
    loss: Tensor,
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    real_scores: Tensor,
    noise: Noise,
    step: int,
    config: PenaltyConfig,
    fake_critic: Critic | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A discriminator's loss with the penalties that are on, and those as scalars ``r1``, ``r2`` and ``penalty``.

    Lazy ones (Karras et al. 2020, appendix B) are taken where ``every`` divides the step, and multiplied by it.

    Args:
        loss: 0-d, the adversarial loss; penalties are added one after the other.
        critic: images [n, ...] to scores [n], at reals and between reals and fakes.
        real, fake: [n, ...].
        real_scores: the critic's at reals, with their graph; for the drift.
        noise: of the step; where the gradient penalty is on, it draws ``mixing``.
        step: of the run.
        config: which, and their weights.
        fake_critic: the critic at fakes, where they have conditions of their own; None for the same.
        scale: of gradient norms (:func:`gradient_penalty`).
    """
    scalars: dict[str, Tensor] = {}
    if config.r1_gamma > 0 and step % config.r1_every == 0:
        value = r1(critic, real)
        loss = loss + config.r1_every * config.r1_gamma / 2 * value
        scalars["r1"] = value.detach()
    if config.r2_gamma > 0 and step % config.r2_every == 0:
        value = r2(fake_critic or critic, fake)
        loss = loss + config.r2_every * config.r2_gamma / 2 * value
        scalars["r2"] = value.detach()
    if config.gp_weight > 0:
        mixing = noise.uniform("mixing", *(1 for _ in real.shape[1:]))
        value = gradient_penalty(critic, real, fake, mixing, config.gp_target, scale)
        loss = loss + config.gp_weight * value
        scalars["penalty"] = value.detach()
    if config.drift > 0:
        loss = loss + config.drift * drift(real_scores)
    return loss, scalars


def penalised(
    adversarial: AdversarialLoss,
    config: PenaltyConfig,
    context: Context,
    real_critic: Critic,
    fake_critic: Critic,
    real: Tensor,
    fake: Tensor,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The whole loss of a discriminator that judges reals and fakes one by one.

    Args:
        adversarial: the game's.
        config: the game's penalties.
        context: of the loss.
        real_critic, fake_critic: images [n, ...] to scores [n], as reals and as fakes are shown and labelled.
        real, fake: [n, ...], without graph.

    Returns:
        The loss, the scores at reals [n], and scalars: ``real_score``, ``fake_score`` and the penalties'.
    """
    real_scores, fake_scores = real_critic(real), fake_critic(fake)
    scalars = {"real_score": real_scores.detach().mean(), "fake_score": fake_scores.detach().mean()}
    loss, step = adversarial.discriminator(real_scores, fake_scores), context.progress.step
    total, penalties = with_penalties(
        loss, real_critic, real, fake, real_scores, context.noise, step, config, fake_critic
    )
    return total, real_scores, scalars | penalties
