"""What a game may be able to do besides being trained; asked for by ``isinstance``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from advgen.game import Batch, Progress
from advgen.seeds import Noise


@runtime_checkable
class Samples(Protocol):
    """A game that can draw images."""

    def sample(
        self, networks: Mapping[str, nn.Module], progress: Progress, noise: Noise, like: Batch | None = None
    ) -> Tensor:
        """One image a noise row: float [n, c, r, w], nominally in [-1, 1], at the progress' resolution.

        Args:
            networks: by name, averages in their networks' places.
            progress: where the run stands.
            noise: a row an image.
            like: labels and maps that the images are to have; its images are not looked at. None: labels at random.

        Raises:
            UserError: a game that paints from label maps is given none.
        """
        ...


@runtime_checkable
class Paints(Protocol):
    """A game that paints label maps, whole or in tiles, with styles at random or chosen ones.

    Attributes:
        styled: whether there are styles, so that one map has several pictures.
    """

    styled: bool

    def check_maps(
        self, networks: Mapping[str, nn.Module], progress: Progress, like: Batch, styles: Mapping[int, int]
    ) -> None:
        """Refuse maps that it cannot paint.

        Args:
            networks: by name, averages in their networks' places.
            progress: where the run stands.
            like: with the maps.
            styles: chosen ones, by the id of an instance: the number of a style of its class.

        Raises:
            UserError: maps are missing or too small; an instance or a style is not there.
        """
        ...

    def planes(self, networks: Mapping[str, nn.Module], noise: Noise, like: Batch, styles: Mapping[int, int]) -> Tensor:
        """All that a picture is painted from, pixel by pixel: float32 [n, planes, h, w], of which tiles may be cut.

        Args:
            networks: by name, averages in their networks' places.
            noise: a row an image, of the styles that are not chosen.
            like: with the maps.
            styles: as :meth:`check_maps` takes them.
        """
        ...

    def paint(self, networks: Mapping[str, nn.Module], progress: Progress, planes: Tensor) -> Tensor:
        """Pictures of planes: float [n, c, h, w], nominally in [-1, 1]."""
        ...

    def stride(self, progress: Progress) -> int:
        """Tiles begin and end at multiples of it, and are larger."""
        ...


@runtime_checkable
class Recomputes(Protocol):
    """A game that names the parts whose inner activations may be computed again instead of kept."""

    def blocks(self) -> Sequence[nn.Module]:
        """Modules of its networks; each is a function of its inputs and parameters alone."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """A game that finds images of latents."""

    def decode(
        self, networks: Mapping[str, nn.Module], progress: Progress, latents: Tensor, like: Batch | None = None
    ) -> Tensor:
        """Images of latents: float [n, c, r, w], nominally in [-1, 1]; with the labels of ``like``.

        Raises:
            UserError: the game takes labels, and there are none.
        """
        ...


@runtime_checkable
class DrawsLatents(Decodes, Protocol):
    """A game whose samples are images of latents that are drawn, so that one can walk among them.

    Attributes:
        normal_latents: whether they are of N(0, s^2 I), where ways between them are arcs
            (:func:`advgen.interpolation.slerp`), or of a box, where they are lines.
    """

    normal_latents: bool

    def latents(self, noise: Noise) -> Tensor:
        """float [n, latents], a row of noise each: those that :meth:`Samples.sample` draws with the same noise."""
        ...


@runtime_checkable
class Encodes(Decodes, Protocol):
    """A game that finds latents of images, and images of latents."""

    def encode(
        self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch, noise: Noise | None = None
    ) -> Tensor:
        """Latents of images: float [n, latents].

        Args:
            networks: by name, averages in their networks' places.
            progress: where the run stands.
            images: with labels, where the game takes them.
            noise: a row an image, of latents that are drawn; None: their means.
        """
        ...


@runtime_checkable
class ScoresLikelihood(Protocol):
    """A game with a likelihood p(x | z) and a prior N(0, deviation^2 I), so that the evidence p(x) can be estimated.

    Log-probabilities are in nats, [n]: of all values of a sample together.

    Attributes:
        latent_size: of z.
        prior_deviation: of the prior, in each coordinate.
    """

    latent_size: int
    prior_deviation: float

    def observed(self, images: Tensor, noise: Noise | None) -> Tensor:
        """What the likelihood is of, as black and white pixels: [n, c, r, r]; drawn with noise where it is drawn."""
        ...

    def log_likelihood(self, networks: Mapping[str, nn.Module], observed: Tensor, latents: Tensor) -> Tensor:
        """log p(x | z)."""
        ...

    def observe(self, networks: Mapping[str, nn.Module], latents: Tensor, noise: Noise) -> Tensor:
        """x of p(x | z), as :meth:`observed` gives it."""
        ...

    def proposal(self, networks: Mapping[str, nn.Module], observed: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Means and deviations of q(z | x), [n, latents] each."""
        ...

    def evidence_bound(self, networks: Mapping[str, nn.Module], observed: Tensor, noise: Noise) -> Tensor:
        """E_q log p(x | z) - KL(q || p) by one sample of z and by the game's own idea of the divergence.

        An adversary's divergence may be too small, and the figure above the evidence.
        """
        ...


@runtime_checkable
class Represents(Protocol):
    """A game that has more to say of an image than its latents."""

    def features(self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch) -> Tensor:
        """Features for a linear probe: float [n, k].

        Args:
            networks: by name, averages in their networks' places.
            progress: where the run stands.
            images: with labels, where the game takes them.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """A game whose networks tell the classes of images.

    Attributes:
        classifies: whether they do with these settings.
    """

    classifies: bool

    def classify(self, networks: Mapping[str, nn.Module], progress: Progress, images: Batch) -> Tensor:
        """Probabilities of each class: float [n, classes].

        Args:
            networks: by name, averages in their networks' places.
            progress: where the run stands.
            images: their labels are not looked at.
        """
        ...


@runtime_checkable
class Begins(Protocol):
    """A game that takes statistics of the data before a run's first step.

    Attributes:
        beginning_images: how many images it is shown; may be 0.
    """

    beginning_images: int

    def begin(self, networks: Mapping[str, nn.Module], batches: Iterator[Batch]) -> None:
        """Set parameters and buffers of the networks, the same on every rank; averages begin with them.

        Args:
            networks: by name, as they were initialised.
            batches: whole batches of the first phase from the beginning of the stream, the same on every rank.
        """
        ...


@runtime_checkable
class Concludes(Protocol):
    """A game that takes statistics of the data when a phase has ended, before its checkpoint is written.

    Attributes:
        concluding_images: how many images it is shown.
    """

    concluding_images: int

    def conclude(self, networks: Mapping[str, nn.Module], progress: Progress, batches: Iterator[Batch]) -> None:
        """Fill buffers of the networks, the same on every rank.

        Args:
            networks: by name, as they were trained.
            progress: the phase's end.
            batches: whole batches from the beginning of the stream, the same on every rank.
        """
        ...


@runtime_checkable
class Exports(Protocol):
    """A game whose images one plain module can draw, without the game and its code."""

    def drawer(self, networks: Mapping[str, nn.Module], progress: Progress) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """The module, and an example of each of its inputs, two rows each, by the name of the argument.

        The module returns images: float32 [n, c, r, r], nominally in [-1, 1], at the progress' resolution and fade.
        """
        ...
