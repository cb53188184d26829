"""The laws of the house that import-linter cannot see: names, random draws, output, torch.distributed, slow imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADVGEN = ROOT / "advgen"
RUNTIME = ADVGEN / "runtime"
GAMES = ADVGEN / "games"

# Drawing from torch's or numpy's global state, where a step must draw through its context.
DRAWS = {
    *(f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")),
    *(f"torch.{name}" for name in ("rand_like", "randn_like", "randint_like", "poisson")),
    *(f"{module}.{name}" for module in ("nn", "torch.nn") for name in ("Dropout", "Dropout2d", "Dropout3d", "RReLU")),
    *(f"{module}.{name}" for module in ("F", "torch.nn.functional") for name in ("dropout", "dropout2d", "rrelu")),
    *(f"{module}.gumbel_softmax" for module in ("F", "torch.nn.functional")),
}
DRAWING_MODULES = ("np.random", "numpy.random", "torch.distributions", "random")
DRAWING_METHODS = {"normal_", "uniform_", "bernoulli_", "exponential_", "random_", "log_normal_", "multinomial"}


def sources(*places: Path) -> list[Path]:
    found = [path for place in places for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    assert found
    return found


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every imported name in full: ``from torch import distributed`` gives ``torch.distributed``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``a.b.c`` as written; empty for anything that is not a plain dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def draws(tree: ast.AST, initialisation: bool) -> Iterator[ast.AST]:
    """Where random numbers are drawn behind the context's back. ``initialisation``: constructors may draw."""
    exempt: set[ast.AST] = set()
    if initialisation:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                exempt.update(ast.walk(node))
    for node, name in imports(tree):
        if within(name, *DRAWING_MODULES) or name in DRAWS or within(name, "torch.nn.Dropout"):
            yield node
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            layer = name.startswith(("nn.", "torch.nn."))  # a layer that draws at every step, wherever it is made
            drawn = name in DRAWS or within(name, *DRAWING_MODULES)
            # The methods are asked of any object; torch.nn.init is for constructors and helpers of theirs.
            method = node.attr in DRAWING_METHODS and not within(name, "nn.init", "torch.nn.init", "init")
            if (drawn and layer) or ((drawn or method) and node not in exempt):
                yield node


PLAYED = ("trainer", "journal", "setting", "pictures", "evaluation")


def test_trainer_evaluation_and_runtime_name_no_game_and_no_player() -> None:
    names = [path.name for path in GAMES.iterdir() if (path / "__init__.py").exists()]
    assert {"gan", "progan"} <= set(names)
    word = re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])|generator|discriminator|critic", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources(
            ADVGEN / "trainer.py",
            ADVGEN / "journal.py",
            ADVGEN / "setting.py",
            ADVGEN / "pictures.py",
            ADVGEN / "evaluation.py",
            RUNTIME,
        )
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if word.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(("folder", "initialisation"), [("games", True), ("nn", True), ("losses", False)])
def test_random_numbers_come_from_the_context(folder: str, initialisation: bool) -> None:
    found = [
        place(path, node)
        for path in sources(ADVGEN / folder)
        for node in draws(ast.parse(path.read_text()), initialisation)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "x = torch.randn(3)",
        "x = torch.rand_like(y)",
        "layer = nn.Dropout(0.5)",
        "x = F.dropout(y)",
        "x = np.random.rand(3)",
        "from torch import randn",
        "from numpy.random import default_rng",
        "import random",
        "y.normal_()",
        "class A:\n    def __init__(self):\n        self.drop = nn.Dropout(0.5)",
    ],
)
def test_a_draw_is_found(line: str) -> None:
    assert list(draws(ast.parse(line), initialisation=True))


@pytest.mark.parametrize(
    "line",
    [
        "x = context.noise.normal('latent', (3,))",
        "class A:\n    def __init__(self):\n        self.weight = nn.Parameter(torch.randn(3))",
        "nn.init.normal_(y)",
    ],
)
def test_what_is_no_draw_is_let_be(line: str) -> None:
    assert not list(draws(ast.parse(line), initialisation=True))


def test_only_the_runtime_knows_processes_and_services() -> None:
    found = [
        f"{place(path, node)}: {name}"
        for path in sources(ADVGEN, ROOT / "pipelines")
        if RUNTIME not in path.parents
        for node, name in imports(ast.parse(path.read_text()))
        if within(name, "torch.distributed", "accelerate", "deepspeed", "wandb")
    ]
    found += [
        place(path, node)
        for path in sources(ADVGEN, ROOT / "pipelines")
        if RUNTIME not in path.parents
        for node in ast.walk(ast.parse(path.read_text()))
        if dotted(node) == "torch.distributed"
    ]
    assert found == []


def test_the_library_prints_nothing() -> None:
    found = [
        place(path, node)
        for path in sources(ADVGEN)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    assert found == []


@pytest.mark.parametrize(
    "statement",
    [
        "import advgen.config",
        "from pipelines.__main__ import main; main(['--help'])",
        "from pipelines.__main__ import main; main(['train', '--help'])",
    ],
)
def test_what_must_start_at_once_does_not_import_torch(statement: str) -> None:
    program = f"""
import sys
try:
    {statement}
except SystemExit as end:
    assert not end.code, end.code
sys.exit("torch was imported" if "torch" in sys.modules else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
