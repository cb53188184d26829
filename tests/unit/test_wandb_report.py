"""``advgen compare --wandb-report`` with the real client of W&B against a server on loopback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from advgen.report.compare_data import compare, places, read_runs
from advgen.report.compare_tables import as_markdown
from advgen.report.remote_report import key_of, title_of, values_of
from pipelines.__main__ import main
from tests.unit.report.runs import make_small_run, metric
from tests.wandb_server import Stored, WandbServer


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of different rates, both with ids; of the first one the evaluation, too."""
    for name, rate, value in (("a", 0.001, 10.0), ("b", 0.002, 20.0)):
        record = metric(value, standard_error=0.5)
        folder = make_small_run(tmp_path / "runs" / name, settings={"rate": rate}, metrics=[record])
        (folder / "wandb-id").write_text(f"id-{name}\n")
    (tmp_path / "runs" / "a" / "wandb-id-evaluation").write_text("id-a-e\n")
    return tmp_path / "runs"


def compared(capsys: pytest.CaptureFixture[str], runs: Path, *words: str, code: int = 0) -> str:
    """What the command says."""
    out = runs.parent / "page.html"
    out.unlink(missing_ok=True)
    assert main(["compare", str(runs), "--out", str(out), *words]) == code
    assert out.is_file(), "the local file is written whatever W&B says"
    said = capsys.readouterr()
    return " ".join((said.err if code else said.out).split())


def spec_of(server: WandbServer) -> dict[str, Any]:
    (report,) = server.reports.values()
    return json.loads(report["spec"])


def comparison_of(runs: Path):
    return compare(*read_runs(places([str(runs)])))


def test_the_report_holds_verdict_tables_and_curves(
    server: WandbServer, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.runs |= {"id-a": Stored(), "id-a-e": Stored(), "other": Stored()}
    said = compared(capsys, runs, "--wandb-report", "me/p")
    assert server.unknown == []
    (report,) = server.reports.values()
    assert f"made the W&B report {server.url}/me/p/reports/Comparison-of-a,-b--{report['id']}" in said
    assert "me/p does not hold all records of b: the report shows" in said
    assert (report["displayName"], report["type"]) == ("Comparison of a, b", "runs")
    blocks = [block for block in spec_of(server)["blocks"] if block["type"] != "paragraph"]
    assert [block["type"] for block in blocks] == ["markdown-block", "panel-grid"]
    text = blocks[0]["content"]
    assert text == as_markdown(comparison_of(runs))
    assert "rate 0.001 is better than rate 0.002 by 10" in text and "10.00 ± 0.5000" in text and "game.rate" in text

    (runset,) = blocks[1]["metadata"]["runSets"]
    assert runset["project"]["entityName"] == "me" and runset["project"]["name"] == "p"
    (filtered,) = runset["filters"]["filters"]
    assert (filtered["key"], filtered["op"]) == ({"section": "run", "name": "name"}, "IN")
    assert filtered["value"] == ["id-a", "id-a-e"]
    panels = [panel["config"] for panel in blocks[1]["metadata"]["panelBankSectionConfig"]["panels"]]
    assert {panel["xAxis"] for panel in panels} == {"nimg"}
    assert [panel["metrics"] for panel in panels] == [["fid/32"], ["player/loss"], ["speed/images_per_second"]]


def test_the_same_runs_have_one_report(server: WandbServer, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.runs |= {"id-a": Stored(), "id-b": Stored()}
    server.reports["b3RoZXI="] = {  # a person's own, of the same title
        **{"id": "b3RoZXI=", "name": "x", "displayName": "Comparison of a, b", "description": "mine", "spec": "{}"},
        **{"user": None, "createdAt": None, "updatedAt": None},
    }
    compared(capsys, runs, "--wandb-report", "me/p")
    own = next(report for report in server.reports.values() if report["description"] != "mine")
    spec = json.loads(own["spec"])
    own["spec"] = json.dumps({**spec, "discussionThreads": [{"text": "why?"}]})
    (runs / "b" / "wandb-id-evaluation").write_text("id-b-e\n")
    (runs / "b" / "metrics.jsonl").write_text(json.dumps(metric(5.0, standard_error=0.5)) + "\n")
    said = compared(capsys, runs, "--wandb-report", "me/p")
    assert "updated the W&B report" in said and len(server.reports) == 2 and server.unknown == []
    assert server.reports["b3RoZXI="]["description"] == "mine"
    again = json.loads(server.reports[own["id"]]["spec"])
    assert again["discussionThreads"] == [{"text": "why?"}], "discussions stay"
    assert [block["type"] for block in again["blocks"]] == [block["type"] for block in spec["blocks"]]
    assert any("rate 0.002 is better" in block.get("content", "") for block in again["blocks"])

    make_small_run(runs / "c")
    assert "made the W&B report" in compared(capsys, runs, "--wandb-report", "me/p")
    assert len(server.reports) == 3


def test_runs_without_wandb_have_a_report_without_panels(
    server: WandbServer, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in runs.glob("*/wandb-id*"):
        path.unlink()
    assert "does not hold" not in compared(capsys, runs, "--wandb-report", "me/p")
    assert {block["type"] for block in spec_of(server)["blocks"]} == {"paragraph", "markdown-block"}


def test_what_stops_it_is_one_message_beside_the_local_file(
    server: WandbServer, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = compared(capsys, runs, "--wandb-report", "me/typo", code=2)
    assert "--wandb-report me/typo: W&B at" in said and "typo does not exist under entity me" in said
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb_workspaces.reports", None)
        said = compared(capsys, runs, "--wandb-report", "me/p", code=2)
        assert "package wandb-workspaces is not installed. `pip install 'advgen[wandb-report]'`" in said
    assert "me: is not of the form ENTITY/PROJECT" in compared(capsys, runs, "--wandb-report", "me", code=2)
    monkeypatch.delenv("WANDB_API_KEY")
    said = compared(capsys, runs, "--wandb-report", "me/p", code=2)
    assert "there is no key. Set WANDB_API_KEY" in said
    assert server.reports == {}


def test_a_title_fits_and_breaks_no_address(tmp_path: Path) -> None:
    make_small_run(tmp_path / "odd? #1 & <b>")
    for number in range(60):
        make_small_run(tmp_path / f"run-{number:02d}", grids=0)
    many = comparison_of(tmp_path)
    assert len(title_of(many)) == 128 and title_of(many).endswith("... (61 runs)")
    few = comparison_of(tmp_path / "odd? #1 & <b>")
    assert title_of(few) == "Comparison of odd-1-b-" and key_of(few) != key_of(many)


def test_raw_weights_have_the_name_that_trackers_use(tmp_path: Path) -> None:
    records = [metric(1.0), metric(2.0, protocol={"weights": "raw"})]
    run = make_small_run(tmp_path / "a", metrics=records, curves={f"v{number}": [1.0] for number in range(40)})
    names = values_of(comparison_of(run))
    assert {"fid/32", "fid/32 raw"} == set(names[:2]) and len(names) == 30
