"""``advgen STAGE ...``: finds the stage and turns errors that a user can mend into one message."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import logging
import os
import sys
import traceback
from importlib import metadata

from advgen.errors import AgreedError, UserError

STAGES = {
    "run": "all stages of a recipe in order, skipping what is done",
    "submit": "all stages of a recipe as jobs of a cluster",
    "sweep": "a recipe with a grid of values and several seeds, here or as jobs",
    "status": "tell how the jobs of a run or a sweep are",
    "cancel": "cancel the jobs of a run or a sweep",
    "shard": "write images into WebDataset shards",
    "train": "train a recipe's game, or go on with it",
    "evaluate": "take metrics of a run's checkpoints",
    "likelihood": "estimate how probable a run finds held-out data",
    "sample": "draw images from a run",
    "paint": "draw label maps in the browser, and see them painted",
    "sync": "send runs to W&B or TensorBoard, from their own logs",
    "report": "write a run's report as one HTML file",
    "compare": "set runs against one another in one HTML file",
    "runs": "list runs with their state, progress and newest metrics",
    "show": "write a run's report and open it",
    "clean": "remove old checkpoints and caches of runs",
    "export": "write a run's networks as files that stand alone, with a model card",
    "verify": "check a folder of shards, and show what is in it",
    "inspect": "tell what stands in a run, a checkpoint or a file of tensors",
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
        "`advgen STAGE --help` tells what a stage takes, `advgen --version` which this is. A first run:",
        "  advgen run pipelines/recipes/earth-progan-demo.yaml",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns its exit code (README, "Exit codes")."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"advgen {metadata.version('advgen')}")
        return 0
    stage, *rest = arguments
    if stage not in STAGES:
        print(f"advgen: unknown stage '{stage}'. Known stages: {', '.join(STAGES)}.", file=sys.stderr)
        return 2
    try:
        code = importlib.import_module(f"pipelines.{stage}").main(rest)
        sys.stdout.flush()  # what cannot be written is told below
    except UserError as error:
        if _rank() == 0 or not isinstance(error, AgreedError):
            place = f" [rank {_rank()}]" if _many() else ""
            print(f"advgen {stage}{place}: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit would raise again
        code = 141
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not full:
            raise
        place = error.filename or "some file"
        print(f"advgen {stage}: {place}: {error.strerror}. Free the place, or name another.", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        code = 130
    except Exception:
        if not _many():
            raise
        traceback.print_exc()
        code = 1
    if code and _many():
        # Other processes wait for this one in a collective: leave at once, without taking the process group apart.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _many() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def program() -> None:
    """The command ``advgen``: runs a stage, and ends the process before its interpreter is taken apart.

    Threads of gloo may let go of a tensor late, when the last collective is long done (a barrier holds on to the works
    before it). That takes the interpreter's lock, and where the interpreter is being taken apart it aborts the process:
    code 134 after a run that went well.
    """
    codes: list[int] = []
    atexit.register(_leave, codes)  # the first that is registered runs last, when everything else is closed
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: list[int]) -> None:
    if codes:  # else an exception ends the process, which is the interpreter's to tell
        logging.shutdown()
        with contextlib.suppress(OSError):  # a usage that nobody reads to its end
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    program()
