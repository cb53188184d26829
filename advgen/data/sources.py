"""Images before they are sharded: folders, .zip files and tars, listed in a stable order and read by name."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from advgen.data.config import EarthTiles, FolderImages, PairedImages
from advgen.data.decode import BadImage
from advgen.data.labels import Labels, read_table
from advgen.data.tars import check_name, members
from advgen.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 1 << 30
"""A file of more bytes is no image; one in a .zip may say that it is small and grow without end."""
_WAY_OUT = "Give a folder or .zip of images in images.path, or use `kind: earth` for tiles of the Earth."

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Item:
    """One sample of a source.

    Attributes:
        key: name in the shards, unique: the place in the source's order, as 8 digits.
        name: path of the image within the source, for people.
        files: what to read for each part; an image first.
        size: of the image file, in bytes.
        label: index into the source's classes, or None.
        group: samples of one group go to one side of a split.
    """

    key: str
    name: str
    files: tuple[str, ...]
    size: int
    label: int | None = None
    group: str = ""


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
class Source:
    """A collection of samples in a stable order.

    Attributes:
        where: the folder or file, for messages.
        place: where the files are read from.
        items: in natural order of their names (``2.png`` before ``10.png``).
        classes: names of classes; empty without labels.
        parts: what every sample is made of.
        rejected: what can be seen to be bad before anything is decoded.
        label_map_classes: ids of label maps are below; None without.
        ignore_label: an id that is allowed besides.
    """

    where: str
    place: Files
    items: tuple[Item, ...]
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("image",)
    rejected: tuple[Rejected, ...] = ()
    label_map_classes: int | None = None
    ignore_label: int | None = None

    def __len__(self) -> int:
        return len(self.items)


def open_source(
    images: FolderImages | PairedImages | EarthTiles, progress: Callable[[int, int], None] | None = None
) -> Source:
    """Find the images; Earth tiles are cut first where they are not there yet.

    Args:
        images: what to read.
        progress: called with (done, total) while tiles are cut.

    Raises:
        UserError: the place is missing, holds no images, its folders are no classes, or a name leads out of it.
    """
    if isinstance(images, PairedImages):
        return _paired(images)
    if isinstance(images, EarthTiles):
        from advgen.data.earth import prepare_earth

        return open_source(FolderImages(path=str(prepare_earth(images, progress))))
    path = Path(images.path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: does not exist. {_WAY_OUT}")
    if path.is_dir():
        files = _walk(path)
        tars = [name for name in files if name.lower().endswith(".tar")]
        if tars and not any(name.lower().endswith(EXTENSIONS) for name in files):
            return _labelled(path, Files("tar", path), *_tar_files(path, sorted(tars, key=_natural)), images.labels)
        return _labelled(path, Files("folder", path), files, {}, images.labels)
    if path.suffix.lower() == ".zip":
        return _labelled(path, Files("zip", path), _zip_files(path), {}, images.labels)
    if path.suffix.lower() == ".tar":
        return _labelled(path, Files("tar", path.parent), *_tar_files(path.parent, [path.name]), images.labels)
    raise UserError(f"{path}: is neither a folder nor a .zip or .tar file. {_WAY_OUT}")


def _labelled(path: Path, place: Files, files: dict[str, int], tokens: dict[str, str], labels: str) -> Source:
    """A source of all images among the files (name to size); tokens tell how to read a name, where not by itself."""
    shown = [name for name in files if not _hidden(name)]
    if not shown:
        raise UserError(f"{path}: is empty. {_WAY_OUT}")
    names = sorted((name for name in shown if name.lower().endswith(EXTENSIONS)), key=_natural)
    if not names:
        others = ", ".join(sorted({PurePosixPath(name).suffix or PurePosixPath(name).name for name in shown})[:5])
        raise UserError(
            f"{path}: holds no PNG, JPEG or WebP image (its {len(shown)} files: {others}). "
            "Convert them, or give another place in images.path."
        )
    known = _labels_of(path, place, names, files, tokens, labels)
    listed = set(names)
    rejected = (
        [
            Rejected(name, "stands in the labels' table, but there is no such image")
            for name in known.label
            if name not in listed
        ]
        if known.table
        else []
    )
    items: list[Item] = []
    for number, name in enumerate(names):
        label = known.label.get(name)
        if known.classes and label is None:
            rejected.append(Rejected(name, f"has no label in {known.table or 'its tar'}"))
            continue
        group = known.group.get(name) or str(PurePosixPath(name).parent)
        items.append(Item(f"{number:08d}", name, (tokens.get(name, name),), files[name], label, group))
    return Source(str(path), place, tuple(items), known.classes, rejected=tuple(rejected))


def _labels_of(
    path: Path, place: Files, names: list[str], files: dict[str, int], tokens: dict[str, str], labels: str
) -> Labels:
    if labels == "none":
        return Labels()
    if labels == "folders":
        classes = _classes(str(path), names)
        numbers = {name: number for number, name in enumerate(classes)}
        return Labels(classes, {name: numbers[name.partition("/")[0]] for name in names})
    with place.opened() as read:
        if labels == "cls":
            found = {name: f"{_stem(name)}.cls" for name in names}
            texts = {name: read(tokens.get(other, other)) for name, other in found.items() if other in files}
            return Labels.of_texts(str(path), {name: text.decode("utf-8", "replace") for name, text in texts.items()})
        inside = labels in files
        try:
            data = read(tokens.get(labels, labels)) if inside else Path(labels).expanduser().read_bytes()
        except (BadImage, OSError) as error:
            raise UserError(f"{labels}: the labels' table cannot be read ({error}).") from None
    return read_table(f"{path}: {labels}" if inside else labels, data)


def _paired(images: PairedImages) -> Source:
    given = {
        "image": (images.path, images.image_suffix),
        "label_map": (images.label_maps, images.label_map_suffix),
        "instance_map": (images.instance_maps, images.instance_map_suffix),
        "line_art": (images.line_art, images.line_art_suffix),
    }
    folders = {part: (Path(path).expanduser(), suffix) for part, (path, suffix) in given.items() if path}
    root = Path(os.path.commonpath([folder.absolute() for folder, _ in folders.values()]))
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for part, (folder, suffix) in folders.items():
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder of {part.replace('_', ' ')}s.")
        endings = EXTENSIONS if part == "image" else (*EXTENSIONS, ".tif", ".tiff", ".bmp")
        found[part] = {}
        for name, size in _walk(folder).items():
            stem = _stem(name)
            if not _hidden(name) and name.lower().endswith(endings) and stem.endswith(suffix):
                token = os.path.relpath(folder.absolute() / name, root)
                found[part][stem.removesuffix(suffix)] = (token, size)
    items, rejected = [], []
    for number, stem in enumerate(sorted(set().union(*found.values()), key=_natural)):
        lacking = [part.replace("_", " ") for part in folders if stem not in found[part]]
        if lacking:
            rejected.append(Rejected(stem, f"has no {' and no '.join(lacking)}"))
            continue
        files = tuple(found[part][stem][0] for part in folders)
        group = str(PurePosixPath(stem).parent)
        items.append(Item(f"{number:08d}", files[0], files, found["image"][stem][1], None, group))
    if not items:
        raise UserError(
            f"{images.path}: no image has all its parts; the first: {rejected[0].name if rejected else '-'}"
            f" {rejected[0].reason if rejected else 'is not there'}."
        )
    return Source(
        images.path,
        Files("folder", root),
        tuple(items),
        (),
        tuple(folders),
        tuple(rejected),
        images.label_map_classes,
        images.ignore_label,
    )


def _walk(folder: Path) -> dict[str, int]:
    """Relative names of all files and their sizes."""
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        # Links are followed (classes are often linked together), each real folder once, so that circles end.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=_natural)
        for file in files:
            path = Path(parent) / file
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size if path.exists() else 0
    return sizes


def _zip_files(path: Path) -> dict[str, int]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is no readable .zip file ({error}). Copy or download it again.") from None
    for name in sizes:
        check_name(str(path), name)
    return sizes


def _tar_files(folder: Path, tars: list[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Names "tar/member" with their sizes, and how each is read."""
    sizes, tokens = {}, {}
    for tar in tars:
        for member in members(folder / tar):
            name = f"{tar.removesuffix('.tar')}/{member.name}"
            sizes[name] = member.size
            tokens[name] = f"{member.offset} {member.size} {tar}"
    return sizes, tokens


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


def _stem(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name


def _classes(where: str, names: list[str]) -> tuple[str, ...]:
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
