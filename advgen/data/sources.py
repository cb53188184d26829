"""Images before they are sharded: what is a sample among the files of a place, in a stable order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from advgen.data.config import EarthTiles, FolderImages, PairedImages
from advgen.data.decode import BadImage
from advgen.data.labels import Labels, read_table
from advgen.data.listing import Files, Listing, Rejected, hidden, list_folder, list_tars, list_zip, natural
from advgen.data.manifest import MANIFEST, PARTS, parse_manifest
from advgen.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")
_OF_MAPS = (*EXTENSIONS, ".tif", ".tiff", ".bmp")
_PICTURES = (
    *(".bmp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".ppm"),
    *(".pgm", ".pbm", ".pnm", ".tga", ".psd", ".exr", ".hdr", ".ico", ".svg", ".eps", ".dng", ".cr2", ".nef", ".arw"),
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_WAY_OUT = "Give a folder or .zip of images in images.path, or use `kind: earth` for tiles of the Earth."


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
        others: how many files are no pictures (tables, notes, what systems leave behind), or of parts not asked for.
        unique: whether images that stand twice were looked for, and rejected.
    """

    where: str
    place: Files
    items: tuple[Item, ...]
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("image",)
    rejected: tuple[Rejected, ...] = ()
    label_map_classes: int | None = None
    ignore_label: int | None = None
    others: int = 0
    unique: bool = False

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

        return open_source(prepare_earth(images, progress))
    path = Path(images.path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: does not exist. {_WAY_OUT}")
    if path.is_dir():
        return _of_folder(path, images.labels)
    if path.is_file() and path.suffix.lower() == ".zip":
        return _labelled(path, Files("zip", path), list_zip(path), images.labels)
    if path.is_file() and path.suffix.lower() == ".tar":
        return _labelled(path, Files("tar", path.parent), list_tars(path.parent, [path.name]), images.labels)
    raise UserError(f"{path}: is neither a folder nor a .zip or .tar file. {_WAY_OUT}")


def _of_folder(path: Path, labels: str) -> Source:
    """A source of a folder's images, or of its tars if there are none."""
    listing = list_folder(path)
    loose, named = _apart(path, listing)
    tars = sorted({name for name in loose.sizes if name.lower().endswith(".tar")} | named, key=natural)
    if tars and not any(name.lower().endswith(EXTENSIONS) and not hidden(name) for name in loose.sizes):
        if missing := set(tars) - listing.sizes.keys():
            raise UserError(f"{path / min(missing)}: is missing. Copy the folder again, or run `advgen shard` again.")
        return _of_tars(path, listing, tars, labels)
    source = _labelled(path, Files("folder", path), loose, labels)
    return replace(source, others=source.others + len(listing.sizes) - len(loose.sizes))


def _apart(path: Path, listing: Listing) -> tuple[Listing, set[str]]:
    """(a folder's files without the sets that `advgen shard` wrote, the tars of these sets without their levels).

    A set among images was made from them; levels hold the same samples again.
    """
    named = {PurePosixPath(name).parent: tars for name in listing.sizes if (tars := _named(path, name)) is not None}
    if not named:
        return listing, set()
    loose = {name: n for name, n in listing.sizes.items() if named.keys().isdisjoint(PurePosixPath(name).parents)}
    return replace(listing, sizes=loose), set().union(*named.values())


def _named(path: Path, name: str) -> set[str] | None:
    """The tars that a manifest of advgen's names; None for other files."""
    data = (path / name).read_bytes() if PurePosixPath(name).name == MANIFEST else b""
    if b'"index_sha256"' not in data:
        return None
    return {str(PurePosixPath(name).parent / shard.name) for shard in parse_manifest(data, str(path / name)).shards}


def _of_tars(path: Path, folder: Listing, tars: list[str], labels: str) -> Source:
    """A source of tars; other pictures and archives of their folder are rejected."""
    inside = list_tars(path, tars)
    beside = [name for name in folder.sizes if not hidden(name) and name.lower().endswith((*EXTENSIONS, *_PICTURES))]
    packed = [n for n in folder.sizes if not hidden(n) and n.lower().endswith(_ARCHIVES) and not n.endswith(".tar")]
    rejected = [Rejected(name, "lies beside tars of images, and is not read") for name in (*beside, *packed)]
    listing = Listing(inside.sizes, inside.tokens, (*folder.rejected, *rejected, *inside.rejected))
    return _labelled(path, Files("tar", path), listing, labels)


def _pictures(listing: Listing, endings: tuple[str, ...], tar: bool = False) -> tuple[list[str], list[Rejected]]:
    """(names of what is read, in natural order; what a person may think was read, too, and was not)."""
    names, rejected = [], list(listing.rejected)
    for name in sorted((name for name in listing.sizes if not hidden(name)), key=natural):
        lower = name.lower()
        if lower.endswith(endings):
            # A sample's key in a tar ends at the first dot.
            extension = PurePosixPath(lower).name.partition(".")[2]
            if not tar or f".{extension}" in endings:
                names.append(name)
            elif extension not in {f"{part}.png" for part in PARTS[1:]}:
                rejected.append(
                    Rejected(name, f"is another part of its sample (.{extension}); KEY.png or KEY.jpg is read")
                )
        elif lower.endswith(_PICTURES):
            rejected.append(Rejected(name, "is a picture of a kind that is not read: convert it to PNG, JPEG or WebP"))
        elif lower.endswith(_ARCHIVES):
            rejected.append(
                Rejected(name, "is an archive among other files, and is not read: unpack it, or give it alone")
            )
    return names, rejected


def _labelled(path: Path, place: Files, listing: Listing, labels: str) -> Source:
    """A source of all images among the files."""
    names, rejected = _pictures(listing, EXTENSIONS, place.kind == "tar")
    shown = [name for name in listing.sizes if not hidden(name)]
    first = f"; the first that is left out: {rejected[0].name} {rejected[0].reason}" if rejected else ""
    if not shown:
        raise UserError(f"{path}: is empty{first}. {_WAY_OUT}")
    if not names:
        others = ", ".join(sorted({PurePosixPath(name).suffix or PurePosixPath(name).name for name in shown})[:5])
        raise UserError(
            f"{path}: holds no PNG, JPEG or WebP image (its {len(shown)} files: {others}){first}. "
            "Convert them, or give another place in images.path."
        )
    others = len(listing.sizes) - len(names) - len({bad.name for bad in rejected} & listing.sizes.keys())
    known = _labels_of(path, place, names, listing, labels)
    rejected += _strangers(known, names, rejected)
    items: list[Item] = []
    for number, name in enumerate(names):
        label = known.label.get(name)
        if known.classes and label is None:
            rejected.append(Rejected(name, f"has no label in {known.table or 'its tar'}"))
            continue
        group = known.group.get(name) or str(PurePosixPath(name).parent)
        token = listing.tokens.get(name, name)
        items.append(Item(f"{number:08d}", name, (token,), listing.sizes[name], label, group))
    if labels == "cls":
        others -= len(names)  # a label each
    return Source(str(path), place, tuple(items), known.classes, rejected=tuple(rejected), others=max(0, others))


def _strangers(known: Labels, names: Iterable[str], rejected: list[Rejected]) -> list[Rejected]:
    """What a table names and is not there."""
    told = {*names, *(bad.name for bad in rejected)}
    reason = "stands in the labels' table, but there is no such image"
    return [Rejected(name, reason) for name in known.label if name not in told] if known.table else []


def _labels_of(path: Path, place: Files, names: list[str], listing: Listing, labels: str) -> Labels:
    if labels == "none":
        return Labels()
    if labels == "folders":
        classes = _classes(str(path), names)
        numbers = {name: number for number, name in enumerate(classes)}
        return Labels(classes, {name: numbers[name.partition("/")[0]] for name in names})
    files, tokens = listing.sizes, listing.tokens
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
    found: dict[str, dict[str, list[str]]] = {}
    listings: dict[str, Listing] = {}
    rejected: dict[Rejected, None] = {}  # a folder of several parts tells its files once
    for part, (folder, suffix) in folders.items():
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder of {part.replace('_', ' ')}s.")
        listings[part], found[part] = _apart(folder, list_folder(folder))[0], {}
        names, bad = _pictures(listings[part], EXTENSIONS if part == "image" else _OF_MAPS)
        rejected |= {Rejected(os.path.relpath(folder.absolute() / one.name, root), one.reason): None for one in bad}
        for name in names:
            if _stem(name).endswith(suffix):
                found[part].setdefault(_stem(name).removesuffix(suffix), []).append(name)
    known = _labels_of(
        folders["image"][0],
        Files("folder", folders["image"][0]),
        [name for names in found["image"].values() for name in names],
        listings["image"],
        images.labels,
    )
    tokens = {
        part: {
            stem: [os.path.relpath(folder.absolute() / name, root) for name in names] for stem, names in some.items()
        }
        for (part, some), (folder, _) in zip(found.items(), folders.values(), strict=True)
    }
    items: list[Item] = []
    for number, stem in enumerate(sorted(set().union(*found.values()), key=natural)):
        double = [names for part in folders if len(names := tokens[part].get(stem, [])) > 1]
        lacking = [part.replace("_", " ") for part in folders if stem not in found[part]]
        name = found["image"][stem][0] if stem in found["image"] else stem
        if double or lacking:
            reason = f"stands for several files: {', '.join(double[0])}" if double else ""
            rejected[Rejected(stem, reason or f"has no {' and no '.join(lacking)}")] = None
        elif known.classes and name not in known.label:
            rejected[Rejected(tokens["image"][stem][0], f"has no label in {known.table}")] = None
        else:
            files = tuple(tokens[part][stem][0] for part in folders)
            group = known.group.get(name) or str(PurePosixPath(stem).parent)
            size, label = listings["image"].sizes[name], known.label.get(name)
            items.append(Item(f"{number:08d}", files[0], files, size, label, group))
    strangers = _strangers(known, (name for names in found["image"].values() for name in names), [])
    bad = [*rejected, *strangers]
    if not items:
        raise UserError(
            f"{images.path}: no image has all its parts; the first: {bad[0].name if bad else '-'}"
            f" {bad[0].reason if bad else 'is not there'}."
        )
    everything = {os.path.relpath(folders[p][0].absolute() / n, root) for p in folders for n in listings[p].sizes}
    used = {name for some in tokens.values() for names in some.values() for name in names}
    return Source(
        images.path,
        Files("folder", root),
        tuple(items),
        known.classes,
        tuple(folders),
        tuple(bad),
        images.label_map_classes,
        images.ignore_label,
        others=len(everything - used - {one.name for one in bad}),
    )


def _stem(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name


def _classes(where: str, names: list[str]) -> tuple[str, ...]:
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise UserError(
            f"{where}: {loose} lies in no sub-folder, so it has no class. "
            "Put every image into the folder of its class, or set images.labels to 'none'."
        )
    classes = tuple(sorted({name.partition("/")[0] for name in names}, key=natural))
    strange = next((name for name in classes if name.encode("utf-8", "replace").decode() != name), None)
    if strange is not None:
        raise UserError(f"{where}: the folder {strange!r} has a name that is no UTF-8, and gives a class. Rename it.")
    if len(classes) == 1:
        raise UserError(
            f"{where}: all images lie in one folder ({classes[0]}), which is only one class. "
            f"Give the place that holds the folders of the classes, or set images.labels to 'none'."
        )
    return classes
