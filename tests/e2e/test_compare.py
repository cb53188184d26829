"""`advgen compare`: the page as a person uses it, in a real browser without a window, over made-up runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from scripts.benchmarks import compare as bench_compare
from tests.unit.report.runs import make_small_run, metric

ODD = "<b onclick=alert(1)>odd"


def make_runs(folder: Path) -> None:
    """Two groups of two seeds, one of a single run with markup in its name and a protocol of its own."""
    for rate, values in ((0.001, (10.0, 11.0)), (0.004, (30.0, 9.0))):
        for seed, value in enumerate(values):
            curves = {"player/loss": [value / step for step in range(1, 61)]}
            run = {"seed": seed, "settings": {"rate": rate}, "metrics": [metric(2 * value, 500), metric(value)]}
            make_small_run(folder / f"rate{rate}-seed{seed}", curves=curves, **run)
    ill = {"player/real_score": [9.0] * 60, "player/fake_score": [-9.0] * 60}
    odd = [metric(5.0, protocol={"samples": 10})]
    make_small_run(folder / ODD, settings={"rate": 0.002}, metrics=odd, curves=ill)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("compare")
    make_runs(folder / "runs")
    assert main(["compare", str(folder / "runs"), "--out", str(folder / "out.html")]) == 0
    return (folder / "out.html").as_uri()


class Page:
    """The page, its complaints, and what it asked for."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def runs(self) -> list[str]:
        """Names in the table of runs, from the top, of those that are shown."""
        return self.page.locator("#runs tbody tr:visible th").all_inner_texts()

    def curves(self) -> str:
        return self.page.get_attribute("#chart", "aria-label")

    def serious(self) -> list[str]:
        """Violations that axe-core calls serious or critical."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="module")
def wide(browser: Any, address: str) -> Iterator[Page]:
    """One page for all tests: they leave the filter empty."""
    page = Page(browser, address, viewport={"width": 1300, "height": 900})
    yield page
    # Nothing but the file itself and what stands in it.
    assert [url for url in page.asked if url != address and not url.startswith("data:")] == []
    assert page.complaints == []
    page.context.close()


NAMES = [ODD, "rate0.001-seed0", "rate0.001-seed1", "rate0.004-seed0", "rate0.004-seed1"]


def test_the_verdict_stands_on_top(wide: Page) -> None:
    texts = wide.page.locator(".verdict li").all_inner_texts()
    assert len(texts) == 2 and "No group is better beyond the noise: rate 0.001 is ahead of rate 0.004" in texts[1]
    assert "Only rate 0.002 has it" in texts[0] and "Measured with samples 10" in texts[0]
    assert "wins outright" in wide.page.inner_text("aside[aria-label=Warnings]")


def test_headings_sort_by_click_and_by_key(wide: Page) -> None:
    assert wide.runs() == NAMES
    heading = wide.page.locator("#runs thead th").filter(has_text="fid [2] best")
    button = heading.get_by_role("button")
    button.click()
    order = [NAMES[4], NAMES[1], NAMES[2], NAMES[3], ODD]  # 9, 10, 11, 30, and none last
    assert wide.runs() == order and heading.get_attribute("aria-sort") == "ascending"
    button.focus()
    wide.page.keyboard.press("Enter")
    assert wide.runs() == [*order[3::-1], ODD] and heading.get_attribute("aria-sort") == "descending"
    wide.page.locator("#runs thead button").first.click()
    assert wide.runs() == NAMES


def test_words_filter_tables_curves_and_samples(wide: Page) -> None:
    wide.page.evaluate("document.getElementById('samples').scrollIntoView()")
    wide.page.wait_for_selector("#sheets figure")
    wide.page.select_option("#value", label="player/loss")
    assert wide.curves() == "player/loss over thousands of images: 5 curves"
    wide.page.fill("#filter", "SEED0 rate0.00")
    assert wide.runs() == [NAMES[1], NAMES[3]]
    assert wide.page.inner_text("#count") == "2 of 5 runs"
    assert wide.curves().endswith("2 curves")
    assert wide.page.locator("#sheets figure:visible").count() == 2
    wide.page.get_by_role("checkbox", name="rate 0.004").uncheck()
    assert wide.curves().endswith("1 curves")
    wide.page.get_by_role("checkbox", name="rate 0.004").check()
    wide.page.fill("#filter", "no such run")
    assert wide.runs() == [] and wide.curves().endswith("0 curves")
    wide.page.fill("#filter", "")
    assert wide.runs() == NAMES


def test_hovering_and_keys_read_values(wide: Page) -> None:
    wide.page.select_option("#value", label="fid [2]")
    chart = wide.page.locator("#chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    # The newest point of the worst run: 30 at 1 kimg, on the right edge, in the middle of 9 to 60.
    wide.page.mouse.move(box["x"] + box["width"] - 16, box["y"] + box["height"] * 0.55)
    assert wide.page.inner_text("#tip").split("\n") == ["rate0.004-seed0", "rate 0.004", "30 at 1 kimg"]
    wide.page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert wide.page.locator("#tip").is_hidden()
    chart.focus()
    for key, said in (
        ("ArrowRight", "10 at 1 kimg"),
        ("ArrowLeft", "20 at 0.5 kimg"),
        ("ArrowLeft", "20 at 0.5 kimg"),
        ("ArrowDown", "22 at 0.5 kimg"),
    ):
        wide.page.keyboard.press(key)
        assert wide.page.inner_text("#tip").endswith(said)
    wide.page.keyboard.press("Escape")
    wide.page.get_by_label("hours in steps").check()
    chart.focus()
    wide.page.keyboard.press("ArrowUp")
    assert wide.page.inner_text("#tip").endswith("10 at 0.02778 hours")
    wide.page.get_by_label("logarithmic").check()
    wide.page.get_by_label("kimg", exact=True).check()
    assert wide.curves() == "fid [2] over thousands of images: 4 curves"


def test_the_slider_goes_through_the_training(wide: Page) -> None:
    wide.page.evaluate("document.getElementById('samples').scrollIntoView()")
    picture = wide.page.locator("#sheets figure img").first
    wide.page.wait_for_function("document.querySelector('#sheets img').complete")
    newest = picture.get_attribute("src")
    assert picture.get_attribute("alt") == f"Samples of {ODD} at 1 kimg"
    assert picture.evaluate("image => image.naturalWidth") == 64
    wide.page.focus("#moment")
    wide.page.keyboard.press("ArrowLeft")
    assert wide.page.inner_text("#moment-text") == "0.5 kimg"
    assert picture.get_attribute("alt").endswith("at 0.5 kimg") and picture.get_attribute("src") != newest
    assert wide.page.get_attribute("#moment", "aria-valuetext") == "0.5 kimg"


@pytest.mark.parametrize(
    "how",
    [
        {"viewport": {"width": 1300, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 375, "height": 800}, "color_scheme": "dark", "has_touch": True},
    ],
    ids=["wide and light", "phone and dark"],
)
def test_it_is_readable_on_any_screen(browser: Any, address: str, how: dict[str, Any]) -> None:
    page = Page(browser, address, **how)
    page.page.evaluate("document.getElementById('samples').scrollIntoView()")
    page.page.wait_for_selector("#sheets figure img[src]")
    width = page.page.evaluate("document.documentElement.scrollWidth")
    assert width <= how["viewport"]["width"]
    dark = page.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 80)")
    assert dark == (how["color_scheme"] == "dark")
    assert page.serious() == [] and page.complaints == []
    page.context.close()


@pytest.mark.slow
def test_hundreds_of_runs_make_a_page_that_opens(browser: Any, tmp_path: Path) -> None:
    bench_compare.make_runs(tmp_path / "runs", runs=200, points=1000, grids=10)
    out = tmp_path / "out.html"
    assert main(["compare", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert out.stat().st_size < 25_000_000
    page = Page(browser, out.as_uri())
    assert len(page.runs()) == 200
    page.page.fill("#filter", "run-19")
    assert page.runs() == [f"run-19{digit}" for digit in range(10)]
    assert page.complaints == []
    page.context.close()


def test_mistakes_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    make_small_run(tmp_path / "runs" / "a")
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ([], "Nothing to compare. Name run folders"),
        (["gone"], "gone: names no run folder"),
        (["runs", "--format", "pdf"], "--format pdf: is not known. Known formats: html, md, csv, json."),
        (["--wandb", "a/b", "--filter", "["], "--filter [: is no JSON object"),
    ):
        assert main(["compare", *arguments]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert said.startswith("advgen compare: ") and message in said
