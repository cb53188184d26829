"""Networks that leave the house, and a look at what a run has left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from advgen import exporting
from advgen.config import load_recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from tests.e2e.conftest import Cli, environment


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one's own, at ``tmp_path``."""
    (made,) = (trained / "runs").iterdir()
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def newest(run: Path) -> Path:
    return run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()


def left_over(run: Path) -> list[Path]:
    return [path for path in (run / "export").glob("*")] if (run / "export").is_dir() else []


def test_everything_that_is_exported_draws_the_average(run: Path, cli: Cli) -> None:
    done = cli("export", run, "--formats", "safetensors,torchscript,onnx")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    target = run / "export" / newest(run).name
    names = {"README.md", "config.yaml", "export.json", "generator.safetensors", "model.onnx", "model.pt"}
    assert {path.name for path in target.iterdir()} == names | {"samples.png"}
    stored = load_file(newest(run) / "networks.safetensors")
    exported = load_file(target / "generator.safetensors")
    averages = {key.removeprefix("generator_ema."): value for key, value in stored.items() if "_ema." in key}
    assert exported.keys() == averages.keys()
    assert all(torch.equal(exported[key], averages[key]) for key in exported)
    assert any(not torch.equal(exported[key], stored[f"generator.{key}"]) for key in exported)

    card = (target / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 3
    facts = json.loads((target / "export.json").read_text())
    side = facts["resolution"]
    shape = f"assert tuple(images.shape) == (4, 3, {side}, {side}) and abs(images).max() <= 1\n"
    program = snippets[0] + shape + snippets[1] + shape + snippets[2]
    program += f"z = torch.randn(4, {facts['inputs'][0][2][0]})\n"
    program += "one, two = draw(z), session.run(None, {'z': z.numpy()})[0]\n"
    program += f"three = game.networks['generator'](z, None, {side}, 1.0)\n"
    program += "near = dict(atol=1e-5, rtol=1e-5)\n"
    program += "torch.testing.assert_close(one, three, **near)\n"
    program += "torch.testing.assert_close(torch.from_numpy(two), three, atol=1e-4, rtol=1e-4)\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=target, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_exported(run: Path, cli: Cli) -> None:
    for arguments, text in (
        (("--formats", "pickle"), "--formats: unknown ['pickle']"),
        (("--checkpoint", "7"), "000000000007: is not a complete checkpoint"),
        (("--to", str(run)), "is there already. Remove it, or name another folder by --to."),
    ):
        done = cli("export", run, *arguments)
        assert done.returncode == 2
        assert text in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    file = newest(run) / "networks.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = cli("export", run)
    assert done.returncode == 2
    assert "networks.safetensors: is damaged" in done.stderr
    assert left_over(run) == []


def test_a_failure_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "render", full)
    folder = RunFolder(run)
    with pytest.raises(OSError, match="No space left"):
        exporting.export_run(load_recipe(folder.config), folder, None, None, ["torchscript"])
    assert left_over(run) == []


def test_onnx_without_its_packages(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    folder = RunFolder(run)
    with pytest.raises(UserError, match=r"needs the package onnxruntime. Install advgen\[export\]"):
        exporting.export_run(load_recipe(folder.config), folder, None, None, ["onnx"])
    assert left_over(run) == []


def test_inspect(run: Path, tmp_path: Path, cli: Cli) -> None:
    done = cli("inspect", run)
    assert done.returncode == 0, done.stderr
    assert newest(run).name in done.stdout
    assert "whole" in done.stdout
    facts = json.loads(cli("inspect", run, "--json").stdout)
    assert not facts["damaged"]
    assert facts["nimg"] == int(newest(run).name)

    facts = json.loads(cli("inspect", newest(run), "--json").stdout)
    assert facts["networks"]["generator"]["values"] == facts["networks"]["generator_ema"]["values"] > 0
    assert set(facts["moments"]) == {"generator", "discriminator"}
    assert "moments of generator" in cli("inspect", newest(run)).stdout

    save_file({"a": torch.tensor([1.0, float("nan"), -3.0])}, tmp_path / "file.safetensors")
    (row,) = json.loads(cli("inspect", tmp_path / "file.safetensors", "--json").stdout)["tensors"]
    assert (row["not_finite"], row["largest"], row["mean"]) == (1, 3.0, -1.0)
    assert "float32" in cli("inspect", tmp_path / "file.safetensors").stdout


def test_inspect_finds_damage(run: Path, tmp_path: Path, cli: Cli) -> None:
    file = newest(run) / "state.json"
    file.write_text(file.read_text() + " ")
    for place in (run, newest(run)):
        done = cli("inspect", place)
        assert done.returncode == 1
        assert "is damaged (its checksum differs)" in " ".join(done.stdout.split())
    (newest(run) / "complete.json").unlink()
    done = cli("inspect", run)
    assert done.returncode == 1
    assert "is not a complete checkpoint" in " ".join(done.stdout.split())
    for file, content in ((run / "run.json", "{"), (run / "config.yaml", "name: !!python/name:os.system x")):
        file.write_text(content)
        done = cli("inspect", run)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr
    (tmp_path / "file.safetensors").write_bytes(b"no tensors")
    for place, text in ((tmp_path / "file.safetensors", "cannot be read"), (tmp_path, "is no run folder")):
        done = cli("inspect", place)
        assert done.returncode == 2
        assert text in done.stderr
        assert "Traceback" not in done.stderr
