from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from advgen.errors import UserError
from advgen.tools.video import check_video, save_video

av = pytest.importorskip("av", reason="the extra `video` is not installed")


def moving(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """A bright bump that goes round a circle once, in colours that change slowly."""
    y, x = np.mgrid[:height, :width]
    frames: list[NDArray[np.uint8]] = []
    for angle in 2 * np.pi * np.arange(count) / count:
        far = np.hypot(y - height / 2 - 10 * np.sin(angle), x - width / 2 - 10 * np.cos(angle))
        bump = 200 * np.exp(-((far / 12) ** 2))
        frames.append(np.stack([bump, bump * (1 + np.cos(angle)) / 2, x * 2], axis=-1).astype(np.uint8))
    return frames


def decoded(path: Path) -> list[NDArray[np.int64]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_an_mp4_holds_the_frames_and_says_what_it_is(tmp_path: Path) -> None:
    frames, path = moving(40), tmp_path / "new" / "ring.mp4"
    save_video(path, iter(frames), 40, 20, "seed 3; run süß")
    found = decoded(path)
    assert len(found) == 40
    # Lossy, with colours at half the resolution.
    assert max(np.abs(f - g).mean() for f, g in zip(found, frames, strict=True)) < 3
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.pix_fmt) == ("h264", 20, "yuv420p")
        assert container.duration == 2_000_000 and container.metadata["comment"] == "seed 3; run süß"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "plays before it is loaded"
    assert [p.name for p in path.parent.iterdir()] == ["ring.mp4"]


def test_odd_sides_get_their_last_pixels_twice(tmp_path: Path) -> None:
    frames = moving(3, 33, 41)
    save_video(tmp_path / "odd.mp4", iter(frames), 3, 10, "")
    for found, frame in zip(decoded(tmp_path / "odd.mp4"), frames, strict=True):
        assert found.shape == (34, 42, 3) and np.abs(found[:33, :41] - frame).mean() < 3
        assert np.abs(found[33] - found[32]).mean() < 4


@pytest.mark.parametrize("fps", [7, 30, 50])
def test_a_gif_lasts_as_long_as_it_should_and_begins_again(tmp_path: Path, fps: int) -> None:
    frames, path = moving(2 * fps), tmp_path / "ring.gif"
    save_video(path, iter(frames), 2 * fps, fps, "seed 3")
    with Image.open(path) as image:
        assert image.info["loop"] == 0 and image.info["comment"] == b"seed 3"
        lengths, found = [], []
        for page in ImageSequence.Iterator(image):
            lengths.append(page.info["duration"])
            found.append(np.asarray(page.convert("RGB")).astype(int))
    assert sum(lengths) == 2000 and max(lengths) - min(lengths) <= 10
    assert len(found) == 2 * fps
    # 256 colours a frame.
    assert max(np.abs(f - g).mean() for f, g in zip(found, frames, strict=True)) < 4


def test_grey_frames_of_a_gif_are_exact(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frames = [np.repeat(np.roll(ramp, shift)[..., None], 3, axis=2) for shift in range(4)]
    save_video(tmp_path / "grey.gif", iter(frames), 4, 10, "")
    with Image.open(tmp_path / "grey.gif") as image:
        for page, frame in zip(ImageSequence.Iterator(image), frames, strict=True):
            np.testing.assert_array_equal(np.asarray(page.convert("RGB")), frame)


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_what_fails_on_the_way_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"ring.{ending}"
    save_video(path, iter(moving(4)), 4, 10, "")
    before = path.read_bytes()

    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from moving(4)[:2]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        save_video(path, broken(), 4, 10, "")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_could_not_be_written_is_refused_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fps, message in (
        ("ring.avi", 10, "ends in .mp4 or .gif"),
        ("ring.gif", 51, "--fps 51: must be at least 1, and of a GIF at most 50"),
    ):
        with pytest.raises(UserError, match=message):
            check_video(tmp_path / name, fps)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_video(tmp_path / "folder.gif", 10)
    monkeypatch.setitem(sys.modules, "av", None)
    check_video(tmp_path / "ring.gif", 10)
    with pytest.raises(UserError, match=r"needs the package av. Install advgen\[video\], or name a file"):
        check_video(tmp_path / "ring.mp4", 10)
