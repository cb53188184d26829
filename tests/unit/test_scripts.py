"""Scripts and the Dockerfile by their linters; what goes into the image's build, and what is tested in it."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.runs import ROOT

TOOLS = Path(sys.executable).parent


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def scripts() -> list[Path]:
    """Every file whose first line names a shell."""
    found = []
    for path in tracked():
        with path.open("rb") as file:
            first = file.readline()
        if first.startswith(b"#!") and b"sh" in first.split()[-1]:
            found.append(path)
    return found


def test_shellcheck_passes_on_every_script() -> None:
    paths = scripts()
    assert {"node.sh", "setup.sh", "train.sbatch", "run"} <= {path.name for path in paths}
    done = subprocess.run([TOOLS / "shellcheck", *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint_passes_on_the_dockerfile(tmp_path: Path) -> None:
    done = subprocess.run([TOOLS / "hadolint", "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((ROOT / "Dockerfile").read_text().replace("USER 10001:10001", "USER root"))
    done = subprocess.run([TOOLS / "hadolint", "--no-color", wrong], capture_output=True, text=True)
    assert "DL3002" in done.stdout  # the last user should not be root


def test_the_build_reads_little() -> None:
    """``.dockerignore`` lets through what is copied, and no more than 5 MB."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    sizes = {path: path.stat().st_size for path in tracked() if any(_under(path, pattern) for pattern in taken)}
    assert sum(sizes.values()) < 5_000_000
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    sources = [word for words in copies for word in words if not word.startswith("--")]
    local = [source for source in sources if not source.startswith("/")]
    assert len(local) >= 8
    for source in local:
        assert (ROOT / source).exists(), source
        assert any(_under(ROOT / source, pattern) for pattern in taken), f"{source} is not in the build's context"


def _under(path: Path, pattern: str) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/")


def test_smoke_tests_are_there() -> None:
    names = (ROOT / "tests" / "smoke.txt").read_text().split()
    assert len(names) >= 5
    assert [name for name in names if not (ROOT / name).is_file()] == []
    assert "@tests/smoke.txt" in (ROOT / "Dockerfile").read_text()


def test_the_image_has_the_user_of_the_pods() -> None:
    from advgen.launch.kubernetes import _USER

    assert f"USER {_USER}:{_USER}" in (ROOT / "Dockerfile").read_text()
