"""What lies in folders, .zip files and tars: names, sizes, and how each file is read. Nobody vouches for any of it."""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from advgen.data.decode import BadImage
from advgen.data.tars import check_name, members
from advgen.errors import UserError

MAX_BYTES = 1 << 28
"""A file of more bytes is no image; one in a .zip may say that it is small and grow without end."""

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Files:
    """Where files are read from; may be sent to another process.

    Attributes:
        kind: "folder", "zip" or "tar".
        path: the folder, the .zip, or the folder of the tars.
    """

    kind: str
    path: Path

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """Give the function that reads a file by its name; it raises BadImage."""
        if self.kind == "zip":
            with zipfile.ZipFile(self.path) as archive:
                yield lambda name: _guarded(lambda: _from_archive(archive, name))
        elif self.kind == "tar":
            yield lambda name: _guarded(lambda: _from_tar(self.path, name))
        else:
            yield lambda name: _guarded(lambda: _from_file(self.path / name))


@dataclass(frozen=True)
class Rejected:
    """A file that is left out, and why (the end of a sentence)."""

    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The files of a place.

    Attributes:
        sizes: bytes of each file that can be read, by its name.
        tokens: what to read it by, where not by its name.
        rejected: what is no file that can be read, or not the only one of its name.
    """

    sizes: dict[str, int]
    tokens: dict[str, str] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()


def list_folder(folder: Path) -> Listing:
    """All files of a folder and its sub-folders, by their relative names."""
    sizes: dict[str, int] = {}
    rejected: list[Rejected] = []
    seen: set[str] = set()

    def closed(error: OSError) -> None:
        rejected.append(Rejected(os.path.relpath(error.filename, folder), f"cannot be opened ({error.strerror})"))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=closed):
        # Links are followed (classes are often linked together), each real folder once, so that circles end.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=natural)
        for file in files:
            path = Path(parent) / file
            name = path.relative_to(folder).as_posix()
            try:
                about = path.stat()
            except OSError as error:
                rejected += [] if hidden(name) else [Rejected(name, f"cannot be read ({error.strerror})")]
                continue
            if stat.S_ISREG(about.st_mode):
                sizes[name] = about.st_size
            elif not hidden(name):
                # Opening a pipe would wait for its other end for ever.
                rejected.append(Rejected(name, "is a pipe, socket or device, and no file"))
    return Listing(sizes, {}, tuple(rejected))


def list_zip(path: Path) -> Listing:
    """All files of a .zip.

    Raises:
        UserError: it cannot be read, or a name leads out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = [(entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is no readable .zip file ({error}). Copy or download it again.") from None
    for name, _ in files:
        check_name(str(path), name)
    return _once(files, {}, [])


def list_tars(folder: Path, tars: list[str]) -> Listing:
    """All files of tars, by the names "tar/member".

    Raises:
        UserError: a tar is damaged, or a name leads out of it.
    """
    files: list[tuple[str, int]] = []
    tokens: dict[str, str] = {}
    rejected: list[Rejected] = []
    for tar in tars:
        start, links = tar.removesuffix(".tar"), list[str]()
        for member in members(folder / tar, links):
            files.append((f"{start}/{member.name}", member.size))
            tokens[f"{start}/{member.name}"] = f"{member.offset} {member.size} {tar}"
        rejected += [Rejected(f"{start}/{name}", "is a link, pipe or device, and no file") for name in links]
    return _once(files, tokens, rejected)


def _once(files: list[tuple[str, int]], tokens: dict[str, str], rejected: list[Rejected]) -> Listing:
    """Without names that stand several times: programs do not agree on which of the files is meant."""
    counts = Counter(name for name, _ in files)
    double = [Rejected(name, f"stands there {count} times") for name, count in counts.items() if count > 1]
    sizes = {name: size for name, size in files if counts[name] == 1}
    return Listing(sizes, tokens, (*rejected, *double))


def hidden(name: str) -> bool:
    """Files that systems leave behind: ``.DS_Store``, ``__MACOSX/``."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Numbers sort by value; the name itself settles what is left (``1.png`` and ``01.png``)."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    # By their length and then as text: int() refuses numbers of thousands of digits.
    digits = [part.lstrip("0") if "0" <= part[0] <= "9" else None for part in parts]
    return [(1, 0, part) if d is None else (0, len(d), d) for part, d in zip(parts, digits, strict=True)], name


def _guarded(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BadImage(f"cannot be read ({why})") from None


def _from_file(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise BadImage(f"is larger than {MAX_BYTES:,} bytes")
        return file.read()


def _from_archive(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MAX_BYTES:
        raise BadImage(f"says it is larger than {MAX_BYTES:,} bytes")
    with archive.open(name) as file:
        return file.read(MAX_BYTES)  # zipfile gives no more than the entry says, and checks its CRC


def _from_tar(folder: Path, token: str) -> bytes:
    offset, size, tar = token.split(" ", 2)
    if int(size) > MAX_BYTES:
        raise BadImage(f"says it is larger than {MAX_BYTES:,} bytes")
    with (folder / tar).open("rb") as file:
        return os.pread(file.fileno(), int(size), int(offset))
