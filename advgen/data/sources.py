"""Images before they are sharded: folders and .zip files, read in a stable order; and folders written whole."""

from __future__ import annotations

import os
import re
import shutil
import socket
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from advgen.data.config import EarthTiles, FolderImages
from advgen.errors import UserError
from advgen.files import sync_file, sync_folder

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_WAY_OUT = "Give a folder or .zip of images in images.path, or use `kind: earth` for tiles of the Earth."


@dataclass(frozen=True)
class SourceImage:
    """One image file.

    Attributes:
        key: name in the shards, unique: the place in the source's order, as 8 digits.
        bytes: the file's content.
        label: index into the source's classes, or None.
        name: path within the source, for people.
    """

    key: str
    bytes: bytes
    label: int | None
    name: str


@dataclass(frozen=True)
class Source:
    """A collection of images in a stable order. Iterating reads one file after the other.

    Attributes:
        where: the folder or file, for messages.
        names: paths within it, in natural order (``2.png`` before ``10.png``).
        classes: names of classes, in natural order; empty without labels.
        opened: gives, while it is entered, the function that reads a file of this name.
    """

    where: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    opened: Callable[[], AbstractContextManager[Callable[[str], bytes]]]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[SourceImage]:
        labels = {name: label for label, name in enumerate(self.classes)}
        with self.opened() as read:
            for number, name in enumerate(self.names):
                label = labels[name.partition("/")[0]] if labels else None
                try:
                    data = read(name)
                except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
                    raise UserError(
                        f"{self.where}: {name} cannot be read ({error}). Remove it, or make it readable."
                    ) from None
                yield SourceImage(f"{number:08d}", data, label, name)


def open_source(images: FolderImages | EarthTiles, progress: Callable[[int, int], None] | None = None) -> Source:
    """Find the images; Earth tiles are cut first where they are not there yet.

    Args:
        images: what to read.
        progress: called with (done, total) while tiles are cut.

    Raises:
        UserError: the place is missing, holds no images, or its folders are no classes.
    """
    if isinstance(images, EarthTiles):
        from advgen.data.earth import prepare_earth

        folder = prepare_earth(images, progress)
        return _from_folder(folder, labelled=False)
    path = Path(images.path).expanduser()
    labelled = images.labels == "folders"
    if not path.exists():
        raise UserError(f"{path}: does not exist. {_WAY_OUT}")
    if path.is_dir():
        return _from_folder(path, labelled)
    if path.suffix.lower() == ".zip":
        return _from_zip(path, labelled)
    raise UserError(f"{path}: is neither a folder nor a .zip file. {_WAY_OUT}")


def _from_folder(folder: Path, labelled: bool) -> Source:
    names: list[str] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        # Links are followed (classes are often linked together), each real folder once, so that circles end.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=_natural)
        relative = Path(parent).relative_to(folder)
        names.extend((relative / file).as_posix() for file in files)

    @contextmanager
    def opened() -> Iterator[Callable[[str], bytes]]:
        yield lambda name: (folder / name).read_bytes()

    return _source(str(folder), names, labelled, opened)


def _from_zip(path: Path, labelled: bool) -> Source:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is no readable .zip file ({error}). Copy or download it again.") from None

    @contextmanager
    def opened() -> Iterator[Callable[[str], bytes]]:
        with zipfile.ZipFile(path) as archive:
            yield archive.read

    return _source(str(path), names, labelled, opened)


def _source(
    where: str,
    files: list[str],
    labelled: bool,
    opened: Callable[[], AbstractContextManager[Callable[[str], bytes]]],
) -> Source:
    shown = [name for name in files if not _hidden(name)]
    if not shown:
        raise UserError(f"{where}: is empty. {_WAY_OUT}")
    names = tuple(sorted((n for n in shown if n.lower().endswith(EXTENSIONS)), key=_natural))
    if not names:
        others = ", ".join(sorted({PurePosixPath(name).suffix or PurePosixPath(name).name for name in shown})[:5])
        raise UserError(
            f"{where}: holds no PNG, JPEG or WebP image (its {len(shown)} files: {others}). "
            "Convert them, or give another place in images.path."
        )
    return Source(where, names, _classes(where, names) if labelled else (), opened)


def _classes(where: str, names: tuple[str, ...]) -> tuple[str, ...]:
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise UserError(
            f"{where}: {loose} lies in no sub-folder, so it has no class. "
            "Put every image into the folder of its class, or set images.labels to 'none'."
        )
    classes = tuple(sorted({name.partition("/")[0] for name in names}, key=_natural))
    if len(classes) == 1:
        raise UserError(
            f"{where}: all images lie in one folder ({classes[0]}), which is only one class. "
            f"Give the place that holds the folders of the classes, or set images.labels to 'none'."
        )
    return classes


def _hidden(name: str) -> bool:
    """Files that systems leave behind: ``.DS_Store``, ``__MACOSX/``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Numbers sort by value; the name itself settles what is left (``1.png`` and ``01.png``)."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part], name


@contextmanager
def new_folder(out: Path, *, replace: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` (flat: files only); on success it is synced and becomes ``out``.

    Args:
        out: new or empty; with ``replace`` it may hold files of the same names, which are replaced one by one.
        sync: wait until every file is on the disk; slow for thousands of files that can be made again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    start, host = f".{out.name}.", socket.gethostname()
    for left in out.parent.glob(f"{start}{host}.*.tmp"):
        if not _runs(left.name.split(".")[-2]):
            shutil.rmtree(left, ignore_errors=True)  # of a process of this machine that was killed
    temporary = out.parent / f"{start}{host}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if sync:
            for path in temporary.iterdir():
                sync_file(path)
            sync_folder(temporary)
        if replace and out.is_dir() and any(out.iterdir()):
            for path in temporary.iterdir():
                os.replace(path, out / path.name)
            sync_folder(out)
        else:
            os.replace(temporary, out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True
