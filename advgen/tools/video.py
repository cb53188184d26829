"""Frames as a video that begins again when it ends: GIF, or MP4 (H.264) by the extra `video`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advgen.errors import UserError
from advgen.files import atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

GIF_MOST_FPS = 50
"""Times in a GIF are hundredths of a second, and browsers slow down what is shorter than two of them."""
_QUALITY = "18"  # x264's constant rate factor; at 18 a loss is hardly seen
_BT601 = 6  # ITU-T H.273, table 4: the matrix by which FFmpeg makes luma and chroma of RGB; players guess without it


def check_video(path: Path, fps: int) -> None:
    """Refuse what could not be written, before anything is drawn.

    Raises:
        UserError: another ending than .gif or .mp4, too many frames a second, or a package is missing.
    """
    ending = path.suffix.lower()
    if ending not in (".gif", ".mp4"):
        raise UserError(f"{path}: name a file that ends in .mp4 or .gif for a video.")
    if fps < 1 or (ending == ".gif" and fps > GIF_MOST_FPS):
        raise UserError(f"--fps {fps}: must be at least 1, and of a GIF at most {GIF_MOST_FPS}.")
    if path.is_dir():
        raise UserError(f"{path}: is a folder. Name a file for a video.")
    if ending == ".mp4":
        try:
            import av  # noqa: F401 - only whether it is there
        except ImportError:
            raise UserError(
                f"{path}: an MP4 needs the package av. Install advgen[video], or name a file that ends in .gif."
            ) from None


def save_video(path: Path, frames: Iterator[NDArray[np.uint8]], count: int, fps: int, about: str) -> None:
    """Write a video, atomically.

    Args:
        path: of the file, as :func:`check_video` takes it.
        frames: uint8 [h, w, 3], all of one size. In an MP4 an odd side gets its last pixels twice.
        count: how many frames.
        fps: frames a second.
        about: text that is stored as the file's comment.
    """
    with atomic(path) as temporary:
        (_save_gif if path.suffix.lower() == ".gif" else _save_mp4)(temporary, frames, count, fps, about)


def _save_gif(path: Path, frames: Iterator[NDArray[np.uint8]], count: int, fps: int, about: str) -> None:
    from PIL import Image

    # Ends are rounded, and not lengths, so that the whole is as long as was asked for.
    ends = [round(100 * number / fps) for number in range(count + 1)]
    lengths = [10 * (end - start) for start, end in pairwise(ends)]
    pictures = (Image.fromarray(frame).quantize(256) for frame in frames)
    next(pictures).save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures,
        duration=lengths,
        loop=0,
        comment=about.encode(),
    )


def _save_mp4(path: Path, frames: Iterator[NDArray[np.uint8]], count: int, fps: int, about: str) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = about
        stream: Any = None
        for number, frame in enumerate(frames):
            even = np.pad(frame, [(0, side % 2) for side in frame.shape[:2]] + [(0, 0)], mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options={"crf": _QUALITY})
                stream.height, stream.width = even.shape[:2]
                stream.pix_fmt = "yuv420p"  # what every player knows
                stream.codec_context.colorspace = _BT601
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
