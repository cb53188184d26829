"""W&B's offline files, read by W&B's own reader."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def offline_folders(run: Path) -> list[Path]:
    """W&B's offline folders in a run folder, oldest first."""
    return sorted(path for path in (run / "wandb").glob("offline-run-*") if path.is_dir())


def read_offline(folder: Path) -> list[dict[str, Any]]:
    """The records in one of them, as ``wandb leet inspect`` prints them."""
    from wandb.util import get_core_path

    (file,) = folder.glob("*.wandb")
    command = [get_core_path(), "leet", "inspect", "--json", "--no-observability", "--run-file", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]
