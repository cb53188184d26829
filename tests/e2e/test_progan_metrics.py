"""ProGAN's metrics of a run that grows, as a person takes them; and of games that cannot be walked through."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from advgen.metrics.records import read_records
from pipelines.__main__ import main
from tests.helpers import tiny_recipe

pytestmark = pytest.mark.slow


class Squares(torch.nn.Module):
    """Stands for LPIPS: any TorchScript of two images does."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))


NAMES = ("swd", "ms_ssim", "lpips_diversity", "ppl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("progan")
    assert main(["train", str(tiny_recipe(folder))]) == 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(Squares()), folder / "lpips.pt")
    return folder / "runs/tiny"


def test_metrics_of_a_run_that_grows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From 4 pixels on; pyramids and scales begin at 16."""
    lpips = str(run.parents[1] / "lpips.pt")
    command = ["evaluate", str(run), "--metrics", ",".join(NAMES), "--lpips", lpips]
    assert main(command) == 0
    records = read_records(run / "metrics.jsonl")
    seen = {name: {record["resolution"] for record in records if record["name"] == name} for name in NAMES}
    assert seen == {"swd": {16}, "ms_ssim": {16}, "lpips_diversity": {4, 8, 16}, "ppl": {4, 8, 16}}
    floors = {record["name"] for record in records if record["moment"] == "floor"}
    assert floors == {"swd", "ms_ssim", "lpips_diversity"}
    end = {record["name"]: record for record in records if record["moment"] == "end" and record["resolution"] == 16}
    assert end["swd"]["parts"] == {"16": end["swd"]["value"]} and end["swd"]["value"] > 0
    assert -1 <= end["ms_ssim"]["value"] <= 1 and "parts" not in end["ms_ssim"]
    assert end["ppl"]["value"] > 0 and end["lpips_diversity"]["value"] > 0
    assert end["swd"]["protocol"]["directions"] == 512 and end["ppl"]["protocol"]["epsilon"] == 1e-4
    told = capsys.readouterr().out
    assert f"mean of  16: {end['swd']['value']:.2f}" in told
    assert main(command) == 0
    assert read_records(run / "metrics.jsonl") == records
    assert capsys.readouterr().out.count("(known)") == len(records)
    assert not [path for path in (run.parents[1] / "cache").glob("*") if path.suffix not in (".json", ".safetensors")]


def test_batches_do_not_move_them(run: Path) -> None:
    """The records, but for last bits of the networks that another batch gives."""
    lpips = str(run.parents[1] / "lpips.pt")
    found: list[list[float]] = []
    for batch in (3, 8):
        (run / "metrics.jsonl").unlink(missing_ok=True)
        config = run / "config.yaml"
        text = config.read_text()
        recipe = yaml.safe_load(text)
        recipe["evaluation"]["batch_size"] = batch
        config.write_text(yaml.safe_dump(recipe))
        try:
            assert main(["evaluate", str(run), "--latest", "--metrics", "swd,ms_ssim,ppl", "--lpips", lpips]) == 0
        finally:
            config.write_text(text)
        found.append([record["value"] for record in read_records(run / "metrics.jsonl")])
    assert len(found[0]) == 5
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_what_cannot_be_taken_is_one_message(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--metrics", "ppl"]) == 2
    assert "evaluation.lpips" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--metrics", "ppl", "--lpips", str(run / "config.yaml")]) == 2
    assert "is no TorchScript" in capsys.readouterr().err
