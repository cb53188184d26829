"""What a recipe must be to run on machines that see none of this machine's files but the recipe itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from advgen.config import Recipe, flatten
from advgen.errors import UserError
from advgen.launch.secrets import check_recipe
from advgen.strict_config import parse, plain, read_yaml

Settings = TypeVar("Settings")

# The checkout that this module is of: scripts, and settings that come with them.
CHECKOUT = Path(__file__).parents[2]


def load_settings(kind: type[Settings], name: str) -> Settings:
    """Settings of a cloud: ``cloud/NAME.yaml`` here or in the checkout, or a path that ends in .yaml.

    Raises:
        UserError: there are none of that name, with those that there are; every mistake in the file.
    """
    if name.endswith((".yaml", ".yml")):
        return parse(kind, read_yaml(Path(name)), name)
    folders = dict.fromkeys((Path("cloud").resolve(), CHECKOUT / "cloud"))
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return parse(kind, read_yaml(path), str(path))
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise UserError(
        f"--cluster {name}: there is no cloud/{name}.yaml. Known: {', '.join(known) or 'none'}. Copy the one for your "
        "kind of machines, and fill in yours."
    )


def check_portable(recipe: Recipe, storage: str) -> None:
    """See that every path of a recipe is one of a folder that the machines share.

    Args:
        recipe: with all flags applied.
        storage: what that folder is, for the message.

    Raises:
        UserError: a path begins at this machine's root or leads out of the folder, or the recipe holds a secret.
    """
    values = plain(recipe)
    check_recipe(values)
    for name, value in flatten(_numbered(values)).items():
        if isinstance(value, str) and (value.startswith("/") or ".." in Path(value).parts):
            raise UserError(
                f"{name}: {value} is a path of this machine, which the others do not see. Put it into {storage}, and "
                "name it relative to that."
            )


def _numbered(value: Any) -> Any:
    """Lists as mappings of their positions, so that each entry has a dotted name."""
    if isinstance(value, Mapping):
        return {key: _numbered(each) for key, each in value.items()}
    if isinstance(value, list):
        return {str(number): _numbered(each) for number, each in enumerate(value)}
    return value
