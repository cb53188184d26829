"""``advgen STAGE ...``: finds the stage and turns errors that a user can mend into one message."""

from __future__ import annotations

import importlib
import sys

from advgen.errors import UserError

STAGES = {
    "run": "all stages of a recipe in order, skipping what is done",
    "shard": "write images into WebDataset shards",
    "train": "train a recipe's game, or go on with it",
    "evaluate": "take metrics of a run's checkpoints",
    "sample": "draw images from a run",
    "report": "write a run's report as one HTML file",
}

USAGE = "\n".join(
    [
        "usage: advgen STAGE [arguments]",
        "",
        "Training pipeline for image GANs.",
        "",
        "stages:",
        *(f"  {name:<10} {text}" for name, text in STAGES.items()),
        "",
        "`advgen STAGE --help` tells what a stage takes. A first run:",
        "  advgen run pipelines/recipes/earth-progan-demo.yaml",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns its exit code (0 done, 2 bad input, 130 interrupted)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    stage, *rest = arguments
    if stage not in STAGES:
        print(f"advgen: unknown stage '{stage}'. Known stages: {', '.join(STAGES)}.", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"pipelines.{stage}").main(rest)
    except UserError as error:
        print(f"advgen {stage}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"advgen {stage}: {error.filename}: {error.strerror}. Free the place, or name another.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
