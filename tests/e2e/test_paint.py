"""`advgen paint`: the page as a person uses it, in a real browser without a window, over a tiny trained run."""

from __future__ import annotations

import base64
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advgen.data.fitting import read_ids
from pipelines.__main__ import main
from tests.distributed.runs import PAIRED, make_paired_shards, write_recipe
from tests.e2e.conftest import environment
from tests.games.test_resume import GAME_SETTINGS, play
from tests.helpers import tiny_recipe

pytest.importorskip("advgen.tools.paint", reason="the extra `paint` is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with label maps, instance maps and ``runs/tiny``, which paints 16 x 16 pixels of four classes."""
    folder = tmp_path_factory.mktemp("paint")
    make_paired_shards(folder)
    small = {"training__sample_rows": 1, "training__sample_columns": 2}
    recipe = write_recipe(folder / "r.yaml", name="tiny", game=GAME_SETTINGS["pix2pixhd"], **PAIRED, **small)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert play(recipe, None)
    return folder


@contextmanager
def served(folder: Path, *arguments: str, end: signal.Signals) -> Iterator[str]:
    """The address of `advgen paint ARGUMENTS`, which must end without a word when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "paint", "runs/tiny", "--port", "0", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"http://127\.0\.0\.1:\d+/", line)
            assert found is not None, (line, process.stderr and process.stderr.read())
            yield found[0]
            process.send_signal(end)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out, err) == (0, "", "")
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with served(place, end=signal.SIGINT) as found:
        yield found


class Page:
    """What a person does on the page, and sees."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        self.painted()

    def painted(self) -> np.ndarray:
        self.page.wait_for_selector("body[data-state=ready]", timeout=30_000)
        return self.canvas("picture")

    def canvas(self, name: str) -> np.ndarray:
        """uint8 [16, 16, 3]."""
        png = self.page.locator(f"#{name}").evaluate("canvas => canvas.toDataURL()").partition(",")[2]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))

    def ids(self) -> np.ndarray:
        """The map's ids, by the colours that stand beside the classes."""
        script = "all => all.map(each => getComputedStyle(each).backgroundColor.match(/\\d+/g).map(Number))"
        colours = np.array(self.page.locator(".swatch").evaluate_all(script))
        hit = (self.canvas("map")[:, :, None] == colours).all(axis=-1)
        assert (hit.sum(axis=-1) == 1).all()
        return hit.argmax(axis=-1)

    def choose(self, name: str) -> None:
        self.page.get_by_text(name, exact=True).click()

    def stroke(self, *points: tuple[float, float]) -> None:
        """With the mouse over these pixels (x, y)."""
        box = self.page.locator("#map").bounding_box()
        side = box["width"] / 16
        where = [(box["x"] + (x + 0.5) * side, box["y"] + (y + 0.5) * side) for x, y in points]
        self.page.mouse.move(*where[0])
        self.page.mouse.down()
        for x, y in where[1:]:
            self.page.mouse.move(x, y, steps=4)
        self.page.mouse.up()

    def load(self, button: str, file: Path) -> None:
        """A file that is good, until its picture is on the way."""
        with self.page.expect_response("**/paint"):
            self.page.set_input_files(button, file)

    def message(self) -> str:
        self.page.wait_for_selector("#message:not([hidden])")
        return self.page.inner_text("#message")


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    context = browser.new_context(has_touch=True, accept_downloads=True)
    page = Page(context.new_page(), address)
    yield page
    assert page.complaints == []
    context.close()


def test_a_stroke_is_painted_and_taken_back(page: Page) -> None:
    blank = page.painted()
    assert (page.ids() == 0).all()
    assert re.fullmatch(r"painted in \d+ ms", page.page.inner_text("#time"))
    page.choose("class 2")
    page.stroke((2, 3), (12, 3))
    assert (page.ids()[3, 2:13] == 2).all() and page.ids().sum() == 22
    drawn = page.painted()
    assert (drawn != blank).any()
    page.choose("class 1")
    page.choose("Fill")
    page.stroke((8, 12))
    filled = page.ids()
    assert (filled[3, 2:13] == 2).all() and (filled == 1).sum() == 245
    assert (page.painted() != drawn).any()
    page.choose("Undo")
    assert page.ids().sum() == 22 and (page.painted() == drawn).all()
    page.page.keyboard.press("Control+z")
    assert (page.ids() == 0).all() and (page.painted() == blank).all()
    assert page.page.locator("#undo").is_disabled()
    page.choose("Redo")
    page.choose("Redo")
    assert (page.ids() == filled).all()
    page.choose("Clear to class")
    assert (page.ids() == 1).all()


def test_brushes_have_sizes_and_fingers_draw(page: Page) -> None:
    page.choose("class 3")
    box = page.page.locator("#map").bounding_box()
    page.page.touchscreen.tap(box["x"] + box["width"] / 32, box["y"] + box["height"] / 32)
    assert page.ids()[0, 0] == 3 and (page.ids() == 3).sum() == 1
    for _ in range(5):
        page.page.keyboard.press("]")
    page.stroke((8, 8))
    # A disc of 6 pixels round the middle of a pixel: by hand, 29 of its pixels' middles are within 3.
    assert (page.ids() == 3).sum() == 30


def test_styles_are_numbered(page: Page, place: Path) -> None:
    page.load("#load", place / "label-maps/0003.png")
    first = page.painted()
    page.choose("Another style")
    assert page.page.input_value("#seed") == "1"
    assert (page.painted() != first).any()
    page.page.fill("#seed", "0")
    page.page.keyboard.press("Enter")
    assert (page.painted() == first).all()


def test_maps_are_loaded_painted_as_sample_does_and_saved(page: Page, place: Path, tmp_path: Path) -> None:
    maps = {"label": place / "label-maps/0005.png", "instance": place / "instance-maps/0005.png"}
    page.load("#load", maps["label"])
    alone = page.painted()
    assert (page.ids() == read_ids(maps["label"].read_bytes())).all()
    assert page.page.inner_text("#instances") == "the connected parts of each class"
    page.load("#load-instances", maps["instance"])
    assert page.page.inner_text("#instances") == "0005.png"
    picture = page.painted()
    assert (picture != alone).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        painted = ["sample", "runs/tiny", str(tmp_path / "s.png"), "--label-map", str(maps["label"])]
        assert main([*painted, "--instances", str(maps["instance"])]) == 0
    assert (picture == np.asarray(Image.open(tmp_path / "s.png"))).all()

    saved = {}
    for button, name in (("#save-map", "tiny-map.png"), ("#save-picture", "tiny-0.png")):
        with page.page.expect_download() as download:
            page.page.click(button)
        assert download.value.suggested_filename == name
        saved[name] = Path(download.value.path()).read_bytes()
        (tmp_path / name).write_bytes(saved[name])
    assert (read_ids(saved["tiny-map.png"]) == read_ids(maps["label"].read_bytes())).all()
    assert (np.asarray(Image.open(tmp_path / "tiny-map.png").convert("RGB")) == page.canvas("map")).all()
    assert (np.asarray(Image.open(tmp_path / "tiny-0.png")) == picture).all()

    # Instances belong to the map that they were loaded for, and come back with it.
    page.choose("class 3")
    page.stroke((1, 1), (14, 14))
    assert page.page.inner_text("#instances") == "the connected parts of each class"
    page.choose("Undo")
    assert page.page.inner_text("#instances") == "0005.png" and (page.painted() == picture).all()


def test_bad_files_are_told_on_the_page(page: Page, place: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(tmp_path / "nine.png")
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "low.png")
    page.choose("class 1")
    page.stroke((2, 3), (12, 3))
    before = page.ids(), page.painted()
    for button, name, message in (
        ("#load", "text.png", "text.png: is no image of a known format"),
        ("#load", "nine.png", "nine.png: holds the ids [9]; this run knows 0 to 3."),
        ("#load", "low.png", "low.png: has 16 x 8 pixels; this run paints 16 x 16."),
        ("#load-instances", "low.png", "low.png: has 16 x 8 pixels, its label map 16 x 16."),
    ):
        page.page.set_input_files(button, tmp_path / name)
        page.page.get_by_text(message).wait_for()
        assert (page.ids() == before[0]).all() and (page.canvas("picture") == before[1]).all()
    page.page.set_input_files("#load", place / "label-maps/0003.png")
    page.page.wait_for_selector("#message", state="hidden")


def test_only_the_newest_map_is_painted_and_shown(page: Page) -> None:
    blank, held = page.painted(), []
    page.page.route("**/paint", lambda route: held.append(route))  # it takes no built-in function
    page.choose("class 1")
    with page.page.expect_request("**/paint"):
        page.stroke((2, 2), (12, 2))
    for row in (6, 10):  # while the first is in work
        page.stroke((2, row), (12, row))
    with page.page.expect_request("**/paint"):
        held[0].continue_()
    assert (page.canvas("picture") == blank).all()
    held[1].continue_()
    newest = page.painted()
    assert len(held) == 2 and (newest != blank).any()
    page.page.unroute("**/paint")
    page.choose("Undo")
    assert (page.painted() != newest).any()
    page.choose("Redo")
    assert (page.painted() == newest).all()


def test_a_server_that_is_gone_is_told_on_the_page(page: Page) -> None:
    page.page.route("**/paint", lambda route: route.abort())
    page.stroke((1, 1))
    page.choose("Clear to class")
    page.choose("class 1")
    page.stroke((1, 1))
    assert "The server does not answer" in page.message()
    page.complaints.clear()  # browsers log a failed request themselves
    page.page.unroute("**/paint")
    page.stroke((5, 5))
    page.page.wait_for_selector("#message", state="hidden")


def test_it_begins_with_maps_and_ends_when_asked(place: Path) -> None:
    maps = ("--map", "label-maps/0003.png", "--instances", "instance-maps/0003.png")
    with served(place, *maps, end=signal.SIGTERM) as address, urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    assert '"ids": ' in text and '"name": "instance-maps/0003.png"' in text


def test_mistakes_are_one_message(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(place)
    config = (place / "runs/tiny/config.yaml").read_text()
    for name, text in (
        ("bare", config),
        ("five", config.replace("label_map_classes: 4", "label_map_classes: 5")),
        ("many", config.replace("label_map_classes: 4", "label_map_classes: 300")),
        ("other", tiny_recipe(place / "other").read_text()),
    ):
        if name == "five":
            shutil.copytree("runs/tiny", "runs/five")
        Path("runs", name).mkdir(exist_ok=True)
        Path("runs", name, "config.yaml").write_text(text)
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(place / "low.png")
    good = "label-maps/0003.png"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["elsewhere"], "elsewhere: is not a run folder"),
            (["runs/other"], "runs/other: this run was not trained on label maps"),
            (["runs/bare"], "runs/bare: has no checkpoint to draw from"),
            (["runs/five"], "does not fit the recipe's network 'generator'"),
            (["runs/many"], "runs/many: has 300 classes, the page at most 256"),
            (["runs/tiny", "--instances", good], "--instances: goes with a label map"),
            (["runs/tiny", "--map", "gone.png"], "gone.png: cannot be read"),
            (["runs/tiny", "--map", "low.png"], "low.png: has 16 x 8 pixels; this run paints 16 x 16"),
            (["runs/tiny", "--map", good, "--instances", "low.png"], "low.png: has 16 x 8 pixels, its label map"),
            (["runs/tiny", "--port", port], f"--port {port}: cannot be had (Address already in use)"),
        ):
            assert main(["paint", *arguments]) == 2, arguments
            said = " ".join(capsys.readouterr().err.split())
            assert said.startswith("advgen paint: ") and message in said
    monkeypatch.delitem(sys.modules, "advgen.tools.paint", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["paint", "runs/tiny"]) == 2
    assert "needs the package uvicorn. Install advgen[paint]." in capsys.readouterr().err
