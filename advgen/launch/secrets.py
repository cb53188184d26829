"""Keys and passwords: known by their names only, and never part of what is written, shown or given to a command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from advgen.errors import UserError

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|COOKIE|SIGNATURE", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Shorter values stand in texts by chance.
_LEAST_CHARACTERS = 8


def looks_secret(name: str) -> bool:
    """Whether a variable or setting of this name holds what nobody else should read."""
    return _SECRET.search(name) is not None


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse variables that are to be written into a file and should not be.

    Raises:
        ValueError: a name is none, or looks like a secret.
    """
    for name in variables:
        if not _NAME.fullmatch(name):
            raise ValueError(f"environment: {name!r} is no name of a variable")
        if looks_secret(name):
            raise ValueError(
                f"environment: {name} looks like a secret, and would be written into files; leave it "
                "out here: docs/slurm.md and docs/cloud.md tell how jobs get it"
            )


def check_names(names: Iterable[str]) -> None:
    """Refuse what is no variable's name: a value, say.

    Raises:
        ValueError: one is none; it is not shown, as it may be the secret itself.
    """
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("secrets: give names of variables, as WANDB_API_KEY, and no values")


def check_recipe(values: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse a recipe with a password or key in it: it is copied to where others read.

    Args:
        values: of the recipe, plain and nested.
        prefix: dotted name of where they stand.

    Raises:
        UserError: names the setting, and does not show it.
    """
    for name, value in values.items():
        place = f"{prefix}{name}"
        if isinstance(value, Mapping):
            check_recipe(value, f"{place}.")
        elif isinstance(value, list):
            check_recipe({str(number): each for number, each in enumerate(value)}, f"{place}.")
        elif isinstance(value, str) and (_in_address(value) or (prefix.endswith("options.") and looks_secret(name))):
            raise UserError(
                f"{place}: holds a password or key, and the recipe is copied to where others can read it. Leave it "
                "out, and give it to the jobs as a variable that the store's client knows, as AWS_SECRET_ACCESS_KEY."
            )


def check_text(text: str, environment: Mapping[str, str]) -> None:
    """See that no secret of this process's environment stands in a text that is to be written or shown.

    Raises:
        UserError: names the variable.
    """
    for name, value in environment.items():
        if looks_secret(name) and len(value) >= _LEAST_CHARACTERS and value in text:
            raise UserError(
                f"the value of ${name} stands in the recipe, a flag or the settings, and would be written into a file. "
                "Take it out there; jobs get it as a variable."
            )


def _in_address(text: str) -> bool:
    """Whether an address has a password before its host, or a key among its parameters."""
    if "://" not in text:
        return False
    parts = urlsplit(text)
    return "@" in parts.netloc or any(looks_secret(name) for name, _ in parse_qsl(parts.query))
