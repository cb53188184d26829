"""All benchmarks by one command: `python scripts/bench.py NAME --help` tells what each measures and how.

Each prints the machine and Markdown tables; `--json FILE` writes machine, versions, command and every raw figure.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from advgen.errors import UserError  # noqa: E402

COMMANDS = {
    "step": "a training step of ProGAN beside the same step written in the obvious way",
    "variants": "a step of a recipe under several precisions and layouts: rate, share of the ceiling, memory",
    "train": "the trainer beside a bare loop of the same networks, and its wait for data",
    "loader": "images a second of the loader beside other loaders",
    "evaluate": "the heavy parts of an evaluation beside the reference implementations; loading under computing",
    "checkpoint": "how long a checkpoint stops the training",
    "startup": "seconds to the first step, of a resume, and from phase to phase",
    "memory": "memory of a rank under each engine",
    "phases": "the last of nine phases after the eight before it, and alone",
    "scaling": "what ranks send one another, and the model of a step on n ranks beside the clock",
    "predict": "the model's prediction for 8 to 512 GPUs",
    "sharding": "images a second of sharding, its memory, and what levels take",
    "compare": "a comparison of many runs: time, size, first paint",
    "against": "short forms of these, in this checkout and in an older one",
}


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names with the others."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in COMMANDS:
        try:
            importlib.import_module(f"scripts.benchmarks.{name}").main(rest)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0
    lines = "\n".join(f"  {each:<11} {text}" for each, text in COMMANDS.items())
    if name in ("-h", "--help"):
        print(f"{__doc__}\n{lines}")
        return 0
    print(f"error: no benchmark is named '{name}'. There are:\n{lines}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
