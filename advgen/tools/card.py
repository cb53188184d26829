"""A model card: what a person who gets the weights without the run has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Card:
    """What stands on a card.

    Attributes:
        name: of the run.
        game: the recipe's ``game.kind``.
        resolution, channels, classes: of the images.
        phase, fade: where the checkpoint stands.
        nimg: images seen.
        seed: of the run.
        manifest: digest of the training data.
        versions, commit: of the training; None where they are not known.
        networks: file, what is in it and number of parameters, in order.
        inputs: names, types and shapes (without the batch) of what the drawing module takes.
        formats: further files by format, each with its largest relative difference.
        metrics: records of the checkpoint.
        picture: name of a picture beside the card, or None.
    """

    name: str
    game: str
    resolution: int
    channels: int
    classes: int
    phase: str
    fade: float
    nimg: int
    seed: int
    manifest: str
    versions: Mapping[str, str]
    commit: str | None
    networks: Sequence[tuple[str, str, int]]
    inputs: Sequence[tuple[str, str, list[int]]]
    formats: Mapping[str, tuple[str, float]]
    metrics: Sequence[Mapping[str, Any]]
    picture: str | None


def render(card: Card) -> str:
    """The card as Markdown."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8"))
    return template.render(card=card) + "\n"
