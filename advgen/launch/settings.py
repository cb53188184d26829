"""Settings of machines by name: files of the checkout, and the reader's own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from advgen.errors import UserError
from advgen.strict_config import parse, read_yaml

Settings = TypeVar("Settings")

# The checkout that this module is of: scripts, and settings that come with them.
CHECKOUT = Path(__file__).parents[2]


def load_settings(kind: type[Settings], name: str, folder: str) -> Settings:
    """Settings ``FOLDER/NAME.yaml`` here or in the checkout, or of a path that ends in .yaml.

    Args:
        kind: of settings.
        name: of the file, without its ending, or its path.
        folder: relative to where the program runs, and to the checkout, such as ``slurm/clusters``.

    Raises:
        UserError: there are none of that name, with those that there are; every mistake in the file.
    """
    if name.endswith((".yaml", ".yml")):
        return parse(kind, read_yaml(Path(name)), name)
    folders = dict.fromkeys((Path(folder).resolve(), CHECKOUT / folder))
    for place in folders:
        path = place / f"{name}.yaml"
        if path.is_file():
            return parse(kind, read_yaml(path), str(path))
    known = sorted({path.stem for place in folders for path in place.glob("*.yaml")})
    raise UserError(
        f"--cluster {name}: there is no {folder}/{name}.yaml. Known: {', '.join(known) or 'none'}. Copy one of them, "
        "and fill in yours."
    )
