"""The page as a browser would take it: one file, all of it there, nothing that runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgen.errors import UserError
from advgen.report import write_report
from advgen.report.data import Metric, read_run
from advgen.report.figures import number, running_mean, thinned
from advgen.report.page import compare, render
from tests.unit.report.conftest import CONFIG, write_lines

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def html(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("out") / "page.html"
    assert write_report(finished_run, out) == out
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_needs_no_other_file(html: str, page: Page):
    assert page.open == []
    assert "http:" not in html
    assert "https:" not in html
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    for tag, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "srcset", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, key)
        assert not [key for key in attributes if key.startswith("on")]


def test_ids_are_unique_and_every_reference_is_met(html: str, page: Page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("href", "xlink:href", "clip-path"):
            value = attributes.get(key) or ""
            target = value.removeprefix("url(").removesuffix(")")
            assert not target.startswith("#") or target[1:] in ids


def test_pictures_charts_and_numbers_are_there(page: Page):
    assert page.count("svg") == 1 + 2 + 4 + 1
    assert page.count("img") == 9 + 1
    for figure in (
        "55.02",
        "18.8 × the floor of 2.930",
        "540 kimg",
        "33,520 steps",
        "21 %",
        "median at 64 px",
        "1h 59m",
    ):
        assert figure in page.text
    for words in ("Lower is better", "fd_lite0 is not FID", "efficientnet_lite0", "0b844c3d9f", "versions.torch"):
        assert words in page.text
    assert "generator/loss: 2 of 838 values are NaN or infinite" in page.text
    assert "spikes reach −6" in page.text


def test_the_latest_samples_come_first_and_larger(page: Page):
    widths = [int(attributes["width"] or 0) for tag, attributes in page.tags if tag == "img"]
    assert widths[0] == 1024
    assert set(widths[1:]) == {512}


def test_text_from_the_run_folder_is_escaped(html: str, page: Page):
    assert "<script" not in html
    assert CONFIG in page.text


def test_names_from_the_log_are_escaped_in_tables_and_charts(tmp_path: Path):
    evil = "<script>x</script>$a$ \"'&"
    record = {"kind": "scalars", "step": 1, "nimg": 5000, "phase": evil, "resolution": None}
    folder = _folder(tmp_path, [{**record, "values": {f"{evil}/loss": 1.0, evil: 2.0}}])
    metric = {"name": evil, "value": 1.0, "nimg": 5, "phase": evil, "moment": evil, "protocol": {evil: evil}}
    write_lines(folder / "metrics.jsonl", [metric])
    text = write_report(folder).read_text()
    assert "<script" not in text
    assert "$a$" in Page(text).text


def test_the_same_run_gives_the_same_bytes(finished_run: Path, html: str):
    assert render(read_run(finished_run)) == html


def test_a_run_with_one_value_and_no_more_can_be_shown(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    out = write_report(folder)
    assert out == folder / "report.html"
    page = Page(out.read_text())
    assert page.count("svg") == 1
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1e30, 2.9e38])
def test_a_run_with_odd_values_only_can_be_shown(tmp_path: Path, value: float):
    lines = [
        {"kind": "scalars", "nimg": n, "phase": "a", "resolution": 4, "values": {"d/loss": value, "other": value}}
        for n in range(0, 6400, 64)
    ]
    folder = _folder(tmp_path, [*lines, {"kind": "rate", "nimg": 6400, "images_per_second": value}])
    metric = {"name": "kid", "nimg": 0, "phase": "a", "moment": "end", "resolution": 4, "value": value}
    write_lines(folder / "metrics.jsonl", [metric, {**metric, "moment": "floor", "value": -0.001}])
    assert Page(write_report(folder).read_text()).count("svg") == 4


def test_pictures_that_cannot_be_read_are_told(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    (folder / "samples" / "reals.png").write_bytes(b"\x89PNG no")
    page = Page(write_report(folder).read_text())
    assert page.count("img") == 0
    assert "samples/reals.png: is no PNG image" in page.text


def test_a_huge_grid_is_embedded_smaller(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    Image.fromarray(np.zeros((1000, 5000, 3), np.uint8)).save(folder / "samples" / "reals.png")
    text = write_report(folder).read_text()
    assert "5000 × 1000 px, shown reduced" in Page(text).text
    assert 'width="512"' in text


def test_a_long_log_is_thinned(tmp_path: Path):
    folder = _folder(tmp_path, [])
    with (folder / "log.jsonl").open("w") as file:
        for i in range(60_000):
            file.write(json.dumps({"kind": "scalars", "nimg": i * 8, "values": {"d/loss": i % 7}}) + "\n")
    out = write_report(folder)
    assert out.stat().st_size < 300_000
    assert "one point of a curve stands for up to 32 records" in Page(out.read_text()).text


def test_figures_are_set_beside_the_floor_of_their_own_resolution_and_protocol():
    def metric(value: float, moment: str, resolution: int, samples: int) -> Metric:
        return Metric("fd", value, 10, "a", moment, resolution, {"samples": samples}, None)

    metrics = [
        *(metric(2.0, "floor", 8, 1000), metric(4.0, "floor", 8, 50), metric(9.0, "floor", 16, 50)),
        *(metric(102.0, "untrained", 8, 1000), metric(12.0, "end", 8, 1000), metric(30.0, "end", 16, 1000)),
    ]
    untrained, trained, other = compare(metrics)
    assert (untrained.left, untrained.metric.moment) == (1.0, "untrained")
    assert (trained.floor, trained.ratio, trained.left, trained.differs) == (metrics[0], 6.0, 0.1, ())
    assert (other.floor, other.left, other.differs) == (metrics[2], None, ("samples",))


def test_shares_are_better_the_higher_and_told_by_class(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    recall = {"name": "recall", "phase": "a", "resolution": 16, "protocol": {}}
    classes = {"per_class": [0.25, None, 0.75]}
    lines = [
        {"name": "fd_lite0", "nimg": 64, "phase": "a", "moment": "end", "resolution": 16, "value": 90.0},
        {**recall, "nimg": 0, "moment": "floor", "value": 0.8, "per_class": [0.81, 0.82, 0.83]},
        {**recall, "nimg": 64, "moment": "end", "value": 0.1, "per_class": [0.11, 0.12, 0.13]},
        {**recall, "nimg": 6400, "moment": "end", "value": 0.6, **classes},
        {**recall, "name": "unknown", "nimg": 0, "moment": "floor", "value": 0.5},
        {"name": "unknown", "nimg": 64, "phase": "a", "moment": "end", "resolution": 16, "value": 1.0},
        {"name": "style_diversity", "nimg": 64, "phase": "a", "moment": "end", "resolution": 16, "value": 0.1},
    ]
    write_lines(folder / "metrics.jsonl", lines)
    text = " ".join(re.sub("<[^>]*>", " ", write_report(folder).read_text()).split())
    directions = (
        "Lower is better.",
        "Higher is better; the floor",
        "Read each figure beside its floor",
        "Higher is better.",
    )
    places = [text.index(words) for words in directions]
    assert places == sorted(places) and [text.count(words) for words in directions] == [1] * 4
    assert "fd_lite0 90.00" in text[: places[0]]  # the headline is the metric that was logged first
    assert "6.4 a end 0.6000 0.8000 0.75 –" in text
    assert "By class class 0 1 2 6.4 kimg 0.2500 – 0.7500 floor 0.8100 0.8200 0.8300" in text
    assert text.count("By class") == 1


def test_a_standard_error_stands_beside_its_figure(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    c2st = {"name": "c2st", "phase": "a", "resolution": 16, "protocol": {}}
    lines = [
        {**c2st, "nimg": 0, "moment": "floor", "value": 0.5, "standard_error": 0.01},
        {**c2st, "nimg": 64, "moment": "start", "value": 0.9},
        {**c2st, "nimg": 6400, "moment": "end", "value": 0.75, "standard_error": 0.02},
    ]
    write_lines(folder / "metrics.jsonl", lines)
    text = " ".join(re.sub("<[^>]*>", " ", write_report(folder).read_text()).split())
    assert "a start 0.9000 0.5000 ± 0.0100 1.80" in text
    assert "a end 0.7500 ± 0.0200 0.5000 ± 0.0100 1.50" in text


def test_errors_name_the_way_out(tmp_path: Path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(folder, tmp_path / "file" / "page.html")
    assert write_report(folder, tmp_path) == tmp_path / "report.html"


def test_matplotlib_keeps_its_settings_and_torch_is_not_loaded(tmp_path: Path):
    folder = _folder(tmp_path, [{"kind": "scalars", "nimg": 64, "values": {"loss": 0.5}}])
    code = (
        "import sys; import advgen.report as r; from pathlib import Path\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"r.write_report(Path({str(folder)!r}))\n"
        "import matplotlib; assert matplotlib.rcParams['svg.fonttype'] == matplotlib.rcParamsDefault['svg.fonttype']\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_running_mean_and_thinning_keep_a_constant_and_a_mean():
    assert running_mean(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    assert len(running_mean(np.arange(11.0))) == 11
    points = np.column_stack([np.arange(64.0)] * 4)
    less = thinned(points, 20)
    assert len(less) == 16
    assert less[0].tolist() == [1.5, 1.5, 0.0, 3.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.3456, "12.35"),
        (-0.5, "−0.5000"),
        (1234567.0, "1,234,567"),
        (1e-5, "1e−05"),
        (float("nan"), "not finite"),
    ],
)
def test_numbers_for_people(value: float, text: str):
    assert number(value) == text


def _folder(tmp_path: Path, log: list[dict]) -> Path:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    write_lines(folder / "log.jsonl", log)
    return folder
