"""What costs nothing: held-out maps of a run, each class painted in its mean colour, against the real pictures.

    python scripts/earth_baselines.py runs/NAME

The colours are those of the training pictures. Told are the figures of the run's metrics by the run's own protocol: the
same held-out maps, in the same order, against the same reference. A painter that is trained has to beat them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from advgen.build import build_evaluator  # noqa: E402
from advgen.config import Recipe  # noqa: E402
from advgen.evaluation import Evaluator  # noqa: E402
from advgen.metrics.pictures import Pictures  # noqa: E402
from advgen.runtime.run_folder import RunFolder  # noqa: E402
from advgen.strict_config import parse, read_yaml  # noqa: E402


def mean_colours(pictures: Iterator[Pictures], classes: int) -> Tensor:
    """uint8 [classes, c]: the mean of all pixels of each class."""
    sums, counts = torch.zeros(classes, 3, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    for batch in pictures:
        assert batch.label_map is not None
        where = batch.label_map.flatten()
        sums.index_add_(0, where, batch.images.movedim(1, -1).flatten(0, 2).double())
        counts += torch.bincount(where, minlength=classes)
    return (sums / counts[:, None]).round().to(torch.uint8)


def painted(evaluator: Evaluator, colours: Tensor, resolution: int, count: int) -> Iterator[Pictures]:
    """The maps that the run's pictures are painted from, in flat colours."""
    for start in range(0, count, evaluator.config.batch_size):
        positions = np.arange(start, min(start + evaluator.config.batch_size, count))
        like = evaluator.showing.conditions(positions, resolution)
        assert like is not None and like.label_map is not None
        images = colours[like.label_map].movedim(-1, 1).contiguous()
        yield Pictures(images, None, like.label_map, again=lambda _, images=images: images)


def main() -> None:
    folder = RunFolder(Path(sys.argv[1])).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    evaluator = build_evaluator(recipe, folder)
    resolution = recipe.data.resolution
    colours = mean_colours(evaluator.reference.pictures(resolution), recipe.data.label_map_classes)
    found = evaluator.figures(lambda count: painted(evaluator, colours, resolution, count), resolution)
    print(
        json.dumps({"colours": colours.tolist(), **{name: asdict(result) for name, result in found.items()}}, indent=1)
    )


if __name__ == "__main__":
    main()
