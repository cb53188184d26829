"""Stages that are skipped when their inputs are the same and their outputs are there, hash by hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from advgen.files import sha256, write_json
from advgen.strict_config import digest


class StageLog:
    """Records of finished stages in ``<run folder>/stages``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def done(self, stage: str, inputs: Any) -> bool:
        """Whether the stage has run on these inputs and all it wrote is still as it was."""
        try:
            record = json.loads((self._folder / f"{stage}.json").read_text())
            return record["inputs"] == digest(inputs) and all(
                sha256(Path(path)) == content for path, content in record["outputs"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def record(self, stage: str, inputs: Any, outputs: Iterable[Path]) -> None:
        """Remember that the stage has run."""
        hashes = {str(path): sha256(path) for path in outputs}
        write_json(self._folder / f"{stage}.json", {"inputs": digest(inputs), "outputs": hashes})

    def run(self, stage: str, inputs: Any, action: Callable[[], Iterable[Path]]) -> bool:
        """Run the stage unless it is done; ``action`` returns the files it wrote. Returns whether it ran."""
        if self.done(stage, inputs):
            return False
        self.record(stage, inputs, action())
        return True
