"""What a recipe must be to run on machines that see none of this machine's files but the recipe itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.launch.secrets import check_recipe
from advgen.strict_config import flatten, plain


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
