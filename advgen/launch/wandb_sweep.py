"""A sweep for W&B's own agents: the file that ``wandb sweep`` takes, and what an agent is to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from advgen.errors import UserError
from advgen.launch.yaml_text import documents


def sweep_file(name: str, project: str, axes: Mapping[str, Sequence[str]], command: Sequence[str]) -> str:
    """The file's text. W&B hands out every combination once; an agent starts the command with its own.

    Args:
        name: of the sweep.
        project: of W&B.
        axes: values as :func:`advgen.launch.sweep.axes` has them.
        command: to which ``KEY=VALUE`` of each key is added, word by word: no shell reads it.

    Raises:
        UserError: nothing is varied, or a word that the agent would take for a macro of its own.
    """
    if not axes:
        raise UserError("--wandb-sweep: nothing is varied. Give --grid or --seeds.")
    if macro := next((word for word in command if "${" in word), None):
        raise UserError(f"--wandb-sweep: W&B's agent would replace ${{...}} in {macro}. Write the value itself.")
    parameters = {key: {"values": [_typed(value) for value in values]} for key, values in axes.items()}
    values = {"name": name, "project": project, "program": command[0], "method": "grid", "parameters": parameters}
    return documents([{**values, "command": [*command, "${args_no_hyphens}"]}])


def _typed(text: str) -> int | float | str:
    """A number, for W&B's axes, where the agent will write it as it was given."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(number := kind(text)) == text:
                return number
    return text
