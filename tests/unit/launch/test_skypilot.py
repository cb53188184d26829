"""The file for SkyPilot, read by SkyPilot itself in a virtual environment of its own: its packages are not ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.launch.plan import plan
from advgen.launch.settings import load_settings
from advgen.launch.skypilot import RECIPE, Cloud, command, pipeline
from advgen.strict_config import YamlText, parse
from tests.distributed.runs import ROOT
from tests.unit.launch.recipes import four_stages

VERSION = "0.14.1"

# Reads the file as `sky jobs launch` does, and each of its tasks alone.
READ = """
import json, sys, yaml, sky
from sky.utils import dag_utils
def told(task):
    resources = next(iter(task.resources))
    return {
        "name": task.name, "nodes": task.num_nodes, "spot": resources.use_spot, "gpus": resources.accelerators,
        "bucket": {place: [storage.source, storage.mode.value] for place, storage in task.storage_mounts.items()},
        "files": task.file_mounts, "envs": task.envs,
    }
dag = dag_utils.load_chain_dag_from_yaml(sys.argv[1])
alone = []
for document in list(yaml.safe_load_all(open(sys.argv[1])))[1:]:
    with open("task.yaml", "w") as file:
        yaml.safe_dump(document, file)
    alone.append(told(sky.Task.from_yaml("task.yaml")))
print(json.dumps({"name": dag.name, "chain": dag.is_chain(), "tasks": [told(t) for t in dag.tasks], "alone": alone}))
"""


def cloud(**values: Any) -> Cloud:
    given = {"kind": "cloud", "bucket": "s3://my-bucket/advgen", "nodes": 2, "secrets": ["WANDB_API_KEY"]}
    return parse(Cloud, YamlText({**given, "environment": {"NCCL_DEBUG": "WARN"}, **values}, {}), "cloud/x.yaml")


def written(folder: Path, **values: Any) -> Path:
    """The file, with the recipe beside it."""
    recipe = four_stages()
    (folder / "recipe.yaml").write_text("name: faces\n")
    file = folder / "skypilot.yaml"
    file.write_text(pipeline(recipe, plan(recipe, RECIPE), cloud(**values), folder / "recipe.yaml"))
    return file


@pytest.fixture(scope="session")
def sky_python() -> Path:
    """The interpreter of an environment with SkyPilot, made once a checkout."""
    folder = ROOT / ".cache" / f"skypilot-{VERSION}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".cache" / "uv" / "bin")
        assert uv is not None, "scripts/setup.sh brings uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        done = subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", python, f"skypilot=={VERSION}"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            if "CI" in os.environ:
                pytest.fail(done.stderr)
            pytest.skip(f"SkyPilot cannot be installed here: {done.stderr.splitlines()[-1:]}")
        (folder / "ready").touch()
    return python


def read(python: Path, file: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(file.parent), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [python, "-c", READ, file], cwd=file.parent, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_skypilot_takes_the_file(tmp_path: Path, sky_python: Path) -> None:
    done = read(sky_python, written(tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["name"] == "faces"
    assert told["chain"]
    assert told["alone"] == told["tasks"]
    assert [task["name"] for task in told["tasks"]] == [
        "faces-shard",
        "faces-train",
        "faces-evaluate",
        "faces-report",
    ]
    assert [task["nodes"] for task in told["tasks"]] == [1, 2, 1, 1]
    assert [task["gpus"] for task in told["tasks"]] == [None, {"A100": 8}, {"A100": 8}, None]
    for task in told["tasks"]:
        assert task["spot"]
        assert task["bucket"] == {"/advgen/bucket": ["s3://my-bucket/advgen", "MOUNT_CACHED"]}
        assert list(task["files"]) == ["/advgen/recipe.yaml"]
        assert task["envs"]["NCCL_DEBUG"] == "WARN"


@pytest.mark.slow
@pytest.mark.parametrize(("place", "key"), [((), "num_node"), (("resources",), "use_spots")])
def test_skypilot_refuses_a_wrong_key(tmp_path: Path, sky_python: Path, place: tuple[str, ...], key: str) -> None:
    file = written(tmp_path)
    documents = list(yaml.safe_load_all(file.read_text()))
    target = documents[2]
    for name in place:
        target = target[name]
    target[key] = 2
    file.write_text(yaml.safe_dump_all(documents))
    done = read(sky_python, file)
    assert done.returncode != 0
    assert f"Instead of '{key}'" in done.stderr


def test_secrets_are_named_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "0123456789abcdef0123"
    monkeypatch.setenv("WANDB_API_KEY", value)
    documents = list(yaml.safe_load_all(written(tmp_path).read_text()))
    assert all(task["secrets"] == {"WANDB_API_KEY": None} for task in documents[1:])
    words = command(Path("skypilot.yaml"), four_stages(), cloud())
    assert words[words.index("--secret") + 1] == "WANDB_API_KEY"
    assert value not in " ".join(words)


def test_what_a_recipe_names_is_no_command(tmp_path: Path) -> None:
    recipe = replace(four_stages(), runs="my runs/$(touch pwned); touch pwned #'")
    documents = list(yaml.safe_load_all(pipeline(recipe, plan(recipe, RECIPE), cloud(nodes=1), tmp_path / "r.yaml")))
    lines = documents[2]["run"].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("runs="))
    end = next(number for number, line in enumerate(lines) if line.startswith("export ADVGEN_RUN"))
    script = "\n".join([*lines[begin : end + 1], 'printf "%s" "$ADVGEN_RUN"'])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"/advgen/bucket/{recipe.runs}/{recipe.name}"
    assert not (tmp_path / "pwned").exists()


def test_one_machine_needs_no_other_folder(tmp_path: Path) -> None:
    one, two = (list(yaml.safe_load_all(written(tmp_path, nodes=n).read_text()))[2] for n in (1, 2))
    assert "share.sh" in two["run"]
    assert "sshfs" in two["setup"]
    assert "share.sh" not in one["run"]
    assert "sshfs" not in one["setup"]


def test_paths_of_the_file_are_relative_to_where_sky_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = four_stages()
    file = ROOT / "runs/faces/launch/recipe.yaml"
    task = list(yaml.safe_load_all(pipeline(recipe, plan(recipe, RECIPE), cloud(), file)))[1]
    assert task["workdir"] == "."
    assert task["file_mounts"]["/advgen/recipe.yaml"] == "runs/faces/launch/recipe.yaml"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bucket": "my-bucket"}, "bucket must be an address such as"),
        ({"bucket": "s3://me:pw@b"}, "without a password"),
        ({"accelerators": "A100"}, "accelerators must be NAME:COUNT"),
        ({"nodes": 0}, "nodes must be at least 1"),
        ({"spott": True}, "spott: unknown key; did you mean 'spot'"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cloud(**changes)


def test_the_task_in_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/cloud.md shows what is printed."""
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(Path("pipelines/recipes/progan-celebahq-1024-8gpu.yaml"))
    settings = load_settings(Cloud, "cloud/example-aws.yaml", "cloud")
    jobs = [job for job in plan(recipe, RECIPE) if job.stage == "train"]
    text = (ROOT / "docs/cloud.md").read_text()
    assert pipeline(recipe, jobs, settings, recipe.folder / "launch/recipe.yaml") in text
    file = recipe.folder / "launch/skypilot.yaml"
    assert f"# {' '.join(command(file, recipe, settings))}\n" in text
