"""Settings that do not go with the data."""

from __future__ import annotations

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.games.aae.config import AaeConfig, MixturePrior


def check_settings(config: AaeConfig, spec: ImageSpec) -> None:
    """Refuse them.

    Raises:
        UserError: names the setting and the way out.
    """
    r = spec.resolution
    if spec.width not in (None, r):
        raise UserError(f"game.kind: aae takes squares, and data.width is {spec.width} beside {r}. Leave it out.")
    if not spec.bounded:
        raise UserError(
            f"game.kind: aae decodes values in [-1, 1], and those of data.points ({spec.points}) are any numbers. Use "
            "ali, gan or avb, or images."
        )
    if config.architecture == "small" and (r < 8 or r & (r - 1)):
        raise UserError(f"game.architecture: small takes a power of two from 8 on, and data.resolution is {r}.")
    learns = config.variant == "dimension_reduction" and config.labelled != 0
    needed = {"game.prior.conditioned": config.conditioned, f"game.variant: {config.variant}": learns}
    needed[f"game.variant: {config.variant}"] |= config.variant in ("supervised", "semi_supervised")
    for setting, needs in needed.items():
        if needs and spec.classes < 2:
            out = "set game.labelled to 0" if learns else "choose another"
            raise UserError(f"{setting} needs labels, and there are none. Set data.classes, or {out}.")
    if config.labelled and config.labelled % spec.classes:
        raise UserError(
            f"game.labelled: {config.labelled} images cannot be as many of each of {spec.classes} classes. Take a "
            "multiple."
        )
    if isinstance(config.prior, MixturePrior) and config.conditioned and config.prior.components != spec.classes:
        raise UserError(
            f"game.prior.components: {config.prior.components} petals are conditioned on {spec.classes} classes. Make "
            "them as many."
        )
