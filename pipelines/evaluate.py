"""``advgen evaluate RUN``: metrics of a run's checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.config import Recipe
from advgen.metrics import METRICS, metric
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import YamlText, parse, plain, read_yaml
from pipelines.terminal import Counting, console

if TYPE_CHECKING:
    from advgen.metrics.records import Record


def main(argv: list[str]) -> int:
    """Evaluate a run."""
    known = "; ".join(f"{spec.name}: {spec.describe}; {spec.better} is better" for spec in METRICS.values())
    parser = argparse.ArgumentParser(
        prog="advgen evaluate",
        description="Take metrics of a run's checkpoints (phase ends and the newest), with the real-versus-real floor. "
        f"Figures that are there by the same protocol are not taken again. Metrics: {known}.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--metrics", help="names, separated by commas; the recipe's by default")
    parser.add_argument("--samples", type=int, help="generated images; the recipe's number by default")
    parser.add_argument("--latest", action="store_true", help="the newest checkpoint only")
    parser.add_argument("--inception-weights", help="file with the weights of FID's Inception network, for fid")
    parser.add_argument("--segmenter", help="TorchScript file, for miou and pixel_accuracy; else one is trained")
    parser.add_argument("--classifier", help="TorchScript file, for recognised; else one is trained")
    parser.add_argument("--lpips", help="TorchScript file, for lpips_diversity and ppl")
    parser.add_argument("--judge-images", type=int, help="images that a segmenter or classifier is trained on")
    given = parser.parse_args(argv)
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    changes: dict[str, object] = {}
    if given.metrics:
        changes["metrics"] = tuple(metric(name.strip()).name for name in given.metrics.split(","))
    for name in ("samples", "inception_weights", "segmenter", "classifier", "lpips", "judge_images"):
        if getattr(given, name) is not None:
            changes[name] = getattr(given, name)
    values = plain(recipe)
    values["evaluation"].update(changes)
    recipe = parse(Recipe, YamlText(values, {}), "flags")
    evaluate(recipe, folder, only_latest=given.latest)
    return 0


def evaluate(recipe: Recipe, folder: RunFolder, only_latest: bool = False) -> list[Record]:
    """Take the recipe's metrics and tell each figure."""
    for name in recipe.evaluation.metrics:
        metric(name)
    from advgen.build import build_evaluator

    def told(record: Record, before: bool) -> None:
        known = " (known)" if before else ""
        error = record.get("standard_error")
        within = "" if error is None else f" ± {_figure(error)}"
        console.print(
            f"{record['name']} {record['moment']:<10} {record['phase']:<14} {record['nimg'] / 1000:8.1f} kimg "
            f"{_figure(record['value']):>10}{within}{known}"
        )
        if by_class := record.get("per_class"):
            figures = (f"{label}: {'-' if value is None else _figure(value)}" for label, value in enumerate(by_class))
            console.print(f"  by class  {', '.join(figures)}")
        if parts := record.get("parts"):
            console.print(f"  mean of  {', '.join(f'{part}: {_figure(value)}' for part, value in parts.items())}")

    learned = Counting("judge, images learned from", None)
    return build_evaluator(recipe, folder, learned).run(told, only_latest)


def _figure(value: float) -> str:
    """Shares with four digits, distances of hundreds with two."""
    return f"{value:.{2 if abs(value) >= 10 else 4}f}"
