"""What a game makes of held-out images: as it encodes and decodes them, and the classes that it takes them for.

Each rank is shown its slice of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from advgen.capabilities import Classifies, Encodes, Represents
from advgen.errors import UserError
from advgen.game import Batch, Progress
from advgen.images import to_bytes, to_signed
from advgen.metrics.pictures import Pictures, in_groups
from advgen.metrics.probe import fit_probe
from advgen.metrics.reals import Reals


def reconstructed(
    game: Encodes, networks: Mapping[str, nn.Module], progress: Progress, held_out: Reals
) -> Iterator[Pictures]:
    """Held-out images as they are encoded (by means) and decoded."""
    for real in in_groups(held_out.own_pictures(progress.phase.resolution)):
        batch = _batch(real)
        with torch.no_grad():
            latents = game.encode(networks, progress, batch)
            images = to_bytes(game.decode(networks, progress, latents, batch))
        yield Pictures(images, real.labels)


def answered(
    game: Classifies, networks: Mapping[str, nn.Module], progress: Progress, held_out: Reals
) -> Iterator[Pictures]:
    """Held-out images, with the classes that the game takes them for."""
    for real in in_groups(held_out.own_pictures(progress.phase.resolution)):
        with torch.no_grad():
            likeliest, answers = game.classify(networks, progress, _batch(real)).max(dim=1)
        answers = answers.where(likeliest > 0, -1)  # no class at all, as of clusters that have none yet
        yield Pictures(real.images, real.labels, answers=answers)


def probed(
    game: Encodes,
    networks: Mapping[str, nn.Module],
    progress: Progress,
    reference: Reals,
    held_out: Reals,
    classes: int,
    labelled: int,
) -> Iterator[Pictures]:
    """Held-out images, with the classes that a linear probe of the game's features takes them for.

    The probe learns from the first ``labelled`` training images of the reference, as many of each class. The game
    is not told labels: they would be in the features.

    Raises:
        UserError: there are too few of a class, or the game finds no features of an image without its label.
    """
    resolution = progress.phase.resolution
    if labelled < classes:
        raise UserError(
            f"probe_error: evaluation.probe_labels is {labelled}, less than the {classes} classes. Raise it."
        )

    def features(batch: Batch) -> Tensor:
        with torch.no_grad():
            if isinstance(game, Represents):
                return game.features(networks, progress, batch)
            return game.encode(networks, progress, batch)

    probe = fit_probe(*_labelled(features, in_groups(reference.pictures(resolution)), classes, labelled), classes)
    for real in in_groups(held_out.own_pictures(resolution)):
        yield Pictures(real.images, real.labels, answers=probe.answers(features(Batch(to_signed(real.images)))))


def _labelled(
    features: Callable[[Batch], Tensor], pictures: Iterator[Pictures], classes: int, count: int
) -> tuple[Tensor, Tensor]:
    """Features and labels of the first images of each class."""
    each, seen = count // classes, [0] * classes
    found: list[Tensor] = []
    labels: list[Tensor] = []
    for real in pictures:
        assert real.labels is not None, "the metric has seen to it"
        kept: list[int] = []
        for row, label in enumerate(real.labels.tolist()):
            if seen[label] < each:
                seen[label] += 1
                kept.append(row)
        if kept:
            found.append(features(Batch(to_signed(real.images)))[kept])
            labels.append(real.labels[kept])
        if min(seen) == each:
            return torch.cat(found), torch.cat(labels)
    least = min(seen)
    raise UserError(
        f"probe_error: evaluation.probe_labels asks for {each} images of each class, and there are {least} of class "
        f"{seen.index(least)} among evaluation.reference_samples. Lower the one, or raise the other."
    )


def _batch(real: Pictures) -> Batch:
    return Batch(to_signed(real.images), real.labels)
