"""How the program's process ends: everything is closed, and no interpreter is taken apart beside gloo's threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.distributed.runs import ROOT, environment

# A stage whose process holds what tells of either way to end: what is closed at exit, and what is left to the
# interpreter's own end.
STAGE = """
import atexit, sys, types

class Late:
    def __del__(self, write=sys.stderr.write):
        write("taken apart\\n")

def main(arguments):
    atexit.register(print, "closed")
    sys.late = Late()
    print("worked")
    {ends}

sys.modules["pipelines.status"] = types.SimpleNamespace(main=main)
sys.argv = ["advgen", "status"]
from pipelines.__main__ import program
program()
"""

PROGRAM = (sys.executable, "-m", "pipelines")


def command(ends: str) -> list[str]:
    return [sys.executable, "-c", STAGE.format(ends=ends)]


def ending(ends: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(ends), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("code", [0, 2, 85])
def test_all_is_closed_and_written_and_nothing_taken_apart(code: int) -> None:
    done = ending(f"return {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "worked\nclosed\n", "")


def test_an_exception_is_told_by_the_interpreter() -> None:
    done = ending("raise RuntimeError('a defect')")
    assert done.returncode == 1 and "RuntimeError: a defect" in done.stderr and "taken apart" in done.stderr


@pytest.mark.parametrize(("arguments", "code"), [(command("return 0"), 141), ([*PROGRAM, "--help"], 0)])
def test_a_reader_that_has_gone_is_no_defect(arguments: list[str], code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(arguments, cwd=ROOT, env=buffered, stdout=writer, stderr=subprocess.PIPE, timeout=100)
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, b"")
