"""Encoder, classifier and denoiser: perceptrons of observations and of a second vector, both made tame first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgen.likelihood.models import MODELS, GenerativeModel
from advgen.seeds import Noise

_SIMULATED = 4096


class Features(nn.Module):
    """Observations as networks take them: the model's own x have mean 0 and deviation 1 in each coordinate.

    The sprinkler's x is positive with a long tail, and goes in as log(1 + x).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._model: GenerativeModel = MODELS[name]()
        model = self._model
        noise = Noise(0, ("features", name), torch.arange(_SIMULATED))
        x = model.tamed(model.observe(model.deviation * noise.normal("latent", model.latents), noise))
        self.register_buffer("mean", x.mean(dim=0))
        self.register_buffer("deviation", x.std(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """[n, observed] to the same shape."""
        return (self._model.tamed(x) - self.get_buffer("mean")) / self.get_buffer("deviation")


class Perceptron(nn.Module):
    """Observations and a second vector through hidden layers with SiLU, whose gradient is smooth as the inputs move.

    The encoder learns by the classifier's gradient, so that kinks of a rectifier would reach it.
    """

    def __init__(self, name: str, second: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.features = Features(name)
        inputs, stack = MODELS[name].observed + second, nn.Sequential()
        for _ in range(layers):
            stack.extend((nn.Linear(inputs, hidden), nn.SiLU()))
            inputs = hidden
        self.stack = stack.append(nn.Linear(inputs, outputs))

    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        """[n, observed] and [n, second] to [n, outputs]."""
        return self.stack(torch.cat((self.features(x), second), dim=1))


class Encoder(Perceptron):
    """Draws z of q(z | x): a function of x and of noise, scaled by the prior's deviation."""

    def __init__(self, name: str, noise: int, hidden: int, layers: int) -> None:
        super().__init__(name, noise, MODELS[name].latents, hidden, layers)
        self._deviation = MODELS[name].deviation

    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        """[n, observed] and epsilon [n, noise] from N(0, 1) to z, [n, latents]."""
        return self._deviation * super().forward(x, second)


class Classifier(Perceptron):
    """Log-ratios of two densities of pairs (x, z)."""

    def __init__(self, name: str, hidden: int, layers: int) -> None:
        super().__init__(name, MODELS[name].latents, 1, hidden, layers)
        self._deviation = MODELS[name].deviation

    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        """[n, observed] and z [n, latents] to [n]."""
        return super().forward(x, second / self._deviation)[:, 0]


class Denoiser(Perceptron):
    """Takes noise N(0, sigma^2 I) off z, given x: F(z) = z + sigma^2 s(x, z).

    The perceptron is s. Where F is the best in mean square, s is the gradient of the logarithm of the density of the
    noisy z (Tweedie's formula; Vincent 2011), and keeps its size as sigma gets small.

    Attributes:
        sigma: deviation of the noise.
    """

    def __init__(self, name: str, share: float, hidden: int, layers: int) -> None:
        super().__init__(name, MODELS[name].latents, MODELS[name].latents, hidden, layers)
        self._deviation = MODELS[name].deviation
        self.sigma = share * self._deviation

    def forward(self, x: Tensor, second: Tensor) -> Tensor:
        """[n, observed] and noisy z [n, latents] to z without its noise, [n, latents]."""
        return second + self.sigma**2 * self.score(x, second)

    def score(self, x: Tensor, z: Tensor) -> Tensor:
        """(F(z) - z) / sigma^2, [n, latents]: the gradient of the blurred density's logarithm at z."""
        return super().forward(x, z / self._deviation)
