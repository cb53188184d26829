"""A recipe with all four stages, whose paths are relative to the folder that machines share."""

from __future__ import annotations

from typing import Any

from advgen.config import Recipe
from advgen.strict_config import YamlText, parse


def four_stages(**changes: Any) -> Recipe:
    """Images to a report; ``changes`` replace keys of the top level."""
    values: dict[str, Any] = {
        "name": "faces",
        "data": {
            "resolution": 16,
            "train": {"shards": "data/faces/train", "images": {"kind": "folder", "path": "images/faces"}},
            "held_out": {"shards": "data/faces/held-out"},
        },
        "game": {"kind": "progan", "minibatch_group": 4},
        "evaluation": {"metrics": ["fd_lite0"]},
    }
    return parse(Recipe, YamlText({**values, **changes}, {}), "test")
