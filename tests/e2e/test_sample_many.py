"""`advgen sample`: folders, shards and videos of samples, and what the files say of themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from advgen.config import load_recipe
from advgen.data.stream import ImageStream
from advgen.drawing import Drawer
from advgen.files import sha256
from advgen.images import text_of
from advgen.runtime.run_folder import RunFolder
from advgen.tools.numbered import Series
from pipelines.__main__ import main
from tests.distributed.runs import LABELLED, make_labelled_shards, make_shards, write_recipe
from tests.e2e.test_sample import pixels
from tests.games.test_resume import GAME_SETTINGS, play

SMALL = {"training__sample_rows": 1, "training__sample_columns": 2}
MLP = {"kind": "cgan", "architecture": "mlp", "batch_size": 8, "total_kimg": 0.016}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample-many")
    make_shards(folder)
    make_labelled_shards(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = {**GAME_SETTINGS["aae"], "drops_kimg": [0.008], "total_kimg": 0.016}
        for name, settings in (
            ("progan", {}),
            ("cgan", {"game": GAME_SETTINGS["cgan"], **LABELLED}),
            ("mlp", {"game": MLP, **LABELLED}),
            ("aae", {"game": short, **LABELLED}),
        ):
            assert play(write_recipe(folder / f"{name}.yaml", name=name, **settings, **SMALL), None)
    return folder


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def draw(run: str, out: str, *arguments: str) -> Path:
    assert main(["sample", f"runs/{run}", out, *arguments]) == 0
    return Path(out)


def tiles(path: Path, rows: int, columns: int) -> np.ndarray:
    """The pictures of a grid: [n, h, w, 3]."""
    whole = pixels(path)
    h, w = whole.shape[0] // rows, whole.shape[1] // columns
    return whole.reshape(rows, h, columns, w, 3).swapaxes(1, 2).reshape(-1, h, w, 3)


@pytest.mark.parametrize("run", ["progan", "cgan"])
def test_a_picture_is_the_same_wherever_it_is_drawn(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run, f"{run}-many", "--count", "21", "--seed", "5")
    numbers = sorted(path.name for path in folder.iterdir())
    assert numbers == [f"{number:06d}.png" for number in range(21)]
    many = np.stack([pixels(folder / name) for name in numbers])
    assert len(np.unique(many.reshape(21, -1), axis=0)) == 21
    few = tiles(draw(run, f"{run}-grid.png", "--rows", "3", "--columns", "5", "--seed", "5"), 3, 5)
    assert (few == many[:15]).all()
    later = tiles(draw(run, "l.png", "--rows", "1", "--columns", "4", "--seed", "5", "--first", "17"), 1, 4)
    assert (later == many[17:]).all()
    alone = draw(run, f"{run}-alone", "--count", "1", "--first", "18", "--seed", "5") / "000018.png"
    assert alone.read_bytes() == (folder / "000018.png").read_bytes()
    other = draw(run, f"{run}-other", "--count", "3", "--seed", "6")
    assert (pixels(other / "000002.png") != many[2]).any()
    # Again: only what is missing.
    (folder / "000004.png").unlink()
    capsys.readouterr()
    draw(run, f"{run}-many", "--count", "22", "--seed", "5")
    assert f"{run}-many: 22 samples, 20 of them were there" in capsys.readouterr().out
    assert (pixels(folder / "000004.png") == many[4]).all() and (folder / "000021.png").is_file()


def test_pictures_say_what_they_were_drawn_with() -> None:
    newest = sorted(Path("runs/cgan/checkpoints").glob("[0-9]*"))[-1]
    about = {
        "Software": "advgen 0.1.0",
        "run": "cgan",
        "nimg": str(int(newest.name)),
        "checkpoint": sha256(newest / "complete.json"),
        "weights": "average",
        "precision": "float32",
        "seed": "2",
    }
    folder = draw("cgan", "told", "--count", "3", "--seed", "2", "--classes", "1", "0")
    assert text_of(folder / "000001.png") == {**about, "index": "1", "label": "0"}
    sheet = draw("cgan", "told.png", "--rows", "1", "--columns", "3", "--seed", "2", "--precision", "bf16")
    changed = {"precision": "bfloat16", "index": "0 to 2", "label": "0 1 0"}
    assert text_of(sheet) == {**about, **changed}


def test_classes_are_sorted_into_folders() -> None:
    folder = draw("cgan", "by-class", "--count", "5", "--by-class")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert found == ["0/000000.png", "0/000002.png", "0/000004.png", "1/000001.png", "1/000003.png"]
    flat = draw("cgan", "flat", "--count", "5")
    assert all((folder / name).read_bytes() == (flat / name[2:]).read_bytes() for name in found)


@pytest.mark.parametrize("run", ["progan", "cgan"])
def test_shards_hold_the_folder_s_pictures(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = draw(run, f"{run}-as-files", "--count", "20", "--first", "7")
    shards = draw(run, f"{run}-shards", "--count", "20", "--first", "7", "--shards")
    found = ImageStream(shards, seed=0, resolution=16, channels=3).fetch(np.arange(20))
    names = sorted(path.name for path in folder.iterdir())
    np.testing.assert_array_equal(found.images.transpose(0, 2, 3, 1), np.stack([pixels(folder / n) for n in names]))
    if run == "cgan":
        assert found.labels is not None
        assert found.labels.tolist() == [int(text_of(folder / name)["label"]) for name in names] == [1, 0] * 10
    assert main(["verify", str(shards)]) == 0
    assert main(["shard", str(shards), f"{run}-again", "--resolution", "16"]) == 0, "read as any tars of images"


def test_weights_and_checkpoints_are_chosen() -> None:
    known = [int(path.name) for path in sorted(Path("runs/progan/checkpoints").glob("[0-9]*"))]
    grids = {}
    size = ("--rows", "2", "--columns", "2")
    for name, more in (
        ("newest", ()),
        ("named", ("--checkpoint", str(known[-1]))),
        ("raw", ("--weights", "raw")),
        ("first", ("--checkpoint", str(known[1]))),
    ):
        path = draw("progan", f"w-{name}.png", *size, *more)
        grids[name] = pixels(path)
        told = text_of(path)
        assert told["weights"] == ("raw" if name == "raw" else "average")
        assert told["nimg"] == str(known[1] if name == "first" else known[-1])
    assert (grids["newest"] == grids["named"]).all() and (grids["newest"] != grids["raw"]).any()
    assert grids["first"].shape == (8, 8, 3), "of the phase in which it stood"


def test_truncation_takes_pictures_towards_the_middle() -> None:
    size = ("--rows", "2", "--columns", "8")
    spread = {}
    for threshold in (None, "8", "0.5", "0.01"):
        more = () if threshold is None else ("--truncation", threshold)
        path = draw("cgan", f"t-{threshold}.png", *size, "--classes", "0", *more)
        assert text_of(path).get("truncation") == (None if threshold is None else str(float(threshold)))
        spread[threshold] = tiles(path, 2, 8).astype(float).std(axis=0).mean()
    assert spread["0.01"] < 0.1 * spread["0.5"] < 0.1 * spread[None]
    # Latents that a threshold of 8 hardly touches give the same pictures, but for rounding.
    far, none = (pixels(Path(f"t-{name}.png")).astype(int) for name in ("8", "None"))
    assert abs(far - none).max() <= 1


def video(path: Path) -> np.ndarray:
    """[frames, h, w, 3]."""
    if path.suffix == ".gif":
        with Image.open(path) as image:
            return np.stack([np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(image)]).astype(int)
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


@pytest.mark.parametrize(("run", "ending"), [("progan", "gif"), ("cgan", "mp4"), ("mlp", "gif")])
def test_a_video_is_a_loop_from_the_first_pictures_on(run: str, ending: str) -> None:
    if ending == "mp4":
        pytest.importorskip("av", reason="the extra `video` is not installed")
    size = ("--rows", "1", "--columns", "2", "--magnify", "4")
    path = draw(run, f"{run}.{ending}", "--video", *size, "--seconds", "2", "--fps", "15", "--keys", "3")
    frames = video(path)
    assert frames.shape == (30, 64, 128, 3)
    # The keys are the pictures 0, 1; 2, 3; 4, 5, of the same classes, and stand at the frames 0, 10 and 20.
    for key in range(3):
        still = pixels(draw(run, "still.png", *size, "--first", str(2 * key))).astype(int)
        others = abs(frames[[10 * other for other in range(3) if other != key]] - still).mean(axis=(1, 2, 3))
        # What colours lose in an MP4 or in 256 of a GIF; the small networks' pictures are as rough as any.
        assert abs(frames[10 * key] - still).mean() < min(6, 0.75 * others.min())
    steps = abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert 0 < abs(frames[0] - frames[-1]).mean() <= 1.2 * steps.max(), "the last frame is a step before the first"


@pytest.mark.parametrize("truncation", [None, 0.7])
def test_frames_at_keys_are_the_pictures_to_the_last_bit(truncation: float | None) -> None:
    recipe = load_recipe(Path("cgan.yaml"))
    drawer, series = Drawer(recipe, RunFolder(Path("runs/cgan"))), Series(4, (1, 0), truncation)
    # An odd first number: a cell has the class of its own number, and not of its place.
    frames = list(drawer.loop(series, 5, cells=2, keys=4, frames=20))
    assert len(frames) == 20
    for key in range(4):
        assert torch.equal(frames[5 * key], drawer.draw(series, range(5 + 2 * key, 7 + 2 * key)))
    assert (frames[1].int() - frames[0].int()).abs().max() > 0


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/note.txt").write_text("mine")
    draw("cgan", "drawn", "--count", "2")
    known = ", ".join(str(int(path.name)) for path in sorted(Path("runs/cgan/checkpoints").glob("[0-9]*")))
    for arguments, message in (
        (["cgan", "no", "--count", "0"], "--count 0: must be at least 1"),
        (["cgan", "no", "--count", "2", "--first", "-1"], "--first -1: must be at least 0"),
        (["cgan", "no", "--count", "2", "--classes", "2"], "this run has the classes 0 to 1"),
        (["progan", "no", "--count", "2", "--by-class"], "--by-class: this run has no classes"),
        (["cgan", "full", "--count", "2"], "full: holds note.txt, which is none of these pictures. Name a new folder"),
        (["cgan", "full", "--count", "2", "--shards"], "full: is there already, and holds other pictures"),
        (["cgan", "drawn", "--count", "2", "--seed", "1"], "000000.png: was drawn otherwise: seed '0' and not '1'"),
        (["cgan", "full/note.txt", "--count", "2"], "note.txt: is a file. Name a folder"),
        (["cgan", "no", "--count", "2", "--rows", "2"], "--rows: goes with a grid or --video"),
        (["cgan", "no.png", "--shards"], "--shards: goes with --count. Name one, too, or leave --shards out"),
        (["cgan", "no", "--count", "2", "--shards", "--by-class"], "--by-class: shards have labels"),
        (["cgan", "no.png", "--checkpoint", "7"], f"has no checkpoint of 7 images. There are those of {known}."),
        (["cgan", "no.png", "--truncation", "0"], "--truncation 0.0: must be a number above 0"),
        (["cgan", "no.png", "--truncation", "nan"], "--truncation nan: must be a number above 0"),
        (["mlp", "no.png", "--truncation", "1"], "this run's latents are not of a normal distribution"),
        (["aae", "no.png", "--truncation", "1"], "--truncation: this run's game draws no images of latents alone"),
        (["aae", "no.gif", "--video"], "--video: this run's game draws no images of latents alone"),
        (["cgan", "no.webm", "--video"], "no.webm: name a file that ends in .mp4 or .gif"),
        (["cgan", "no.gif", "--video", "--fps", "60"], "of a GIF at most 50"),
        (["cgan", "no.gif", "--video", "--keys", "1"], "--keys 1: must be at least 2"),
        (["cgan", "no.gif", "--video", "--seconds", "0.01"], "a video must have at least 2 frames"),
        (["cgan", "no.gif", "--video", "--seconds", "inf"], "--seconds inf: must be a number above 0"),
    ):
        assert main(["sample", f"runs/{arguments[0]}", *arguments[1:]]) == 2, arguments
        assert message in " ".join(capsys.readouterr().err.split()), arguments
        assert not any(Path().glob("no*")), arguments
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["000000.png", "000001.png"]
    assert [path.name for path in Path("full").iterdir()] == ["note.txt"]
