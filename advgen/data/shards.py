"""Writing shards: planned first, then made shard by shard on all cores; what is done is never done again."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from advgen.data.config import ShardingConfig
from advgen.data.duplicates import without_duplicates
from advgen.data.fitting import RAW_FRACTION, RAW_HEIGHT, Fit, Shape
from advgen.data.folders import exclusive
from advgen.data.listing import Rejected
from advgen.data.making import Job, Made, make_all
from advgen.data.manifest import (
    MANIFEST,
    VERSION,
    ClassCount,
    Level,
    Manifest,
    Shard,
    dump_manifest,
    index_name,
    parse_manifest,
)
from advgen.data.sources import Item, Source
from advgen.errors import UserError
from advgen.files import sha256, sync_folder, write_json, write_text
from advgen.seeds import key_of, permutation
from advgen.strict_config import digest, plain

Progress = Callable[[int, int], None]
REJECTED = "rejected.jsonl"
_PLAN = "plan.json"


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a local folder of shards.

    Raises:
        UserError: there is none, it is damaged or edited, or of another version.
    """
    try:
        return parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except FileNotFoundError:
        raise UserError(f"{folder}: is no folder of shards (no manifest.json). Run `advgen shard` first.") from None
    except OSError as error:
        raise UserError(f"{folder / MANIFEST}: cannot be read ({error.strerror}).") from None


def level_heights(height: int, width: int, levels: str) -> tuple[int, ...]:
    """Heights of the levels of a set, in pixels, largest first: halves down to the smallest that is stored."""
    found: list[int] = []
    least = max(RAW_HEIGHT, height // RAW_FRACTION)
    while levels == "auto" and height % 2 == 0 and width % 2 == 0 and height // 2 >= least:
        height, width = height // 2, width // 2
        found.append(height)
    return tuple(found)


def write_shards(
    source: Source,
    out: Path,
    *,
    resolution: int | tuple[int, int],
    channels: int,
    config: ShardingConfig | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write all samples of ``source`` into a folder of shards.

    Shards appear in a hidden folder beside ``out``, which takes its name when all are there; a killed run goes on
    from what it had finished. A finished folder is checked, and only damaged shards are made again.

    Args:
        source: the samples.
        out: the folder; new, empty, or one made from the same images with the same settings.
        resolution: side in pixels, or (height, width).
        channels: 1 or 3.
        config: all other settings.
        progress: called with (done, total) images.

    Raises:
        UserError: an image is bad and ``on_bad`` is "fail", all are, or ``out`` holds something else.
    """
    config = config or ShardingConfig()
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    heights = level_heights(height, width, config.levels)
    fit = Fit(
        Shape(height, width, channels),
        config,
        heights,
        raw=bool(heights) and heights[-1] == max(RAW_HEIGHT, height // RAW_FRACTION) and source.parts == ("image",),
        parts=source.parts,
        label_map_classes=source.label_map_classes,
        ignore_label=source.ignore_label,
    )
    with _room(out), exclusive(out, what="shards") as partial:
        plan = _plan(source, fit)
        folder = _folder(out, partial, plan)
        source, rejected = _sorted_out(source, config)
        jobs = _jobs(source, folder, fit)
        if folder == out:
            return _repaired(out, jobs, config.workers, progress)
        made = make_all(jobs, workers=config.workers, fail=config.on_bad == "fail", progress=progress)
        rejected += [bad for one in made for bad in one.rejected]
        manifest = _manifest(source, fit, made, len(rejected))
        if not manifest.samples:
            raise UserError(
                f"{source.where}: no image can be used; the first: {rejected[0].name} {rejected[0].reason}."
            )
        _finish(folder, out, manifest, rejected, jobs)
    return manifest


@contextmanager
def _room(out: Path) -> Iterator[None]:
    """Tell of a full disk which folder it is, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{out}: cannot be written ({error.strerror}). Free the disk: the same command goes on from the shards "
            "that are done. Or name a folder on another disk."
        ) from None


def _plan(source: Source, fit: Fit) -> dict[str, Any]:
    """What the work of an earlier run must have been planned from for it to count."""
    settings = {k: v for k, v in plain(fit.config).items() if k not in ("workers", "on_bad")}
    listing = hashlib.sha256()
    for item in source.items:
        listing.update(json.dumps([item.name, item.size, item.label, *item.files]).encode())
    about = [plain(fit.shape), list(source.classes), list(source.parts), source.label_map_classes, source.ignore_label]
    stamp = [_stamp(source, item) for item in source.items]
    return {"plan": digest([settings, listing.hexdigest(), about, VERSION]), "stamp": digest(stamp)}


def _stamp(source: Source, item: Item) -> list[int]:
    """When the files were last written; an archive's members have the archive's own time."""
    if source.place.kind == "folder":
        return [_mtime(source.place.path / file) for file in item.files]
    path = source.place.path if source.place.kind == "zip" else source.place.path / item.files[0].split(" ", 2)[2]
    return [_mtime(path)]


def _mtime(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _folder(out: Path, partial: Path, plan: dict[str, Any]) -> Path:
    """Where the shards are made: ``out`` if it was finished with this plan, else the hidden folder."""
    if out.exists() and any(out.iterdir()):
        if not (out / MANIFEST).is_file():
            raise UserError(f"{out}: exists and is no folder of shards. Name a new folder.")
        load_manifest(out)
        known = _read_plan(out)
        if known == plan:
            return out
        if not isinstance(known, dict) or known.get("plan") != plan["plan"]:
            raise UserError(
                f"{out}: holds other shards (other images, or other settings); runs that were started on them could "
                "not be resumed. Name a new folder, or remove this one if no run needs it."
            )
        # The same names and sizes, written at another time: only making them tells whether they are the same images.
    for left in partial.rglob("*.tmp"):
        left.unlink()  # half a file of a process that was killed; nobody else writes here
    if _read_plan(partial) != plan:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(partial / _PLAN, plan)
    return partial


def _read_plan(folder: Path) -> Any:
    try:
        return json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _sorted_out(source: Source, config: ShardingConfig) -> tuple[Source, list[Rejected]]:
    """The source without what is bad before anything is decoded."""
    if config.duplicates == "reject" and not source.unique:
        source = without_duplicates(source)
    rejected = list(source.rejected)
    if rejected and config.on_bad == "fail":
        first = rejected[0]
        more = f" ({len(rejected)} such files)" if len(rejected) > 1 else ""
        keep = ", or --duplicates keep" if "same bytes" in first.reason else ""
        raise UserError(
            f"{source.where}: {first.name} {first.reason}{more}. Mend it, or leave out all that is bad: "
            f"--on-bad skip{keep}."
        )
    return source, rejected


def _jobs(source: Source, folder: Path, fit: Fit) -> list[Job]:
    items, seed, each = source.items, fit.config.shuffle_seed, fit.config.shard_samples
    if seed is not None:
        items = tuple(items[i] for i in permutation(key_of(seed, "sharding"), len(items)))
    return [
        Job(number, folder, source.where, source.place, items[start : start + each], fit, len(source.classes))
        for number, start in enumerate(range(0, len(items), each))
    ]


def _manifest(source: Source, fit: Fit, made: list[Made], rejected: int) -> Manifest:
    whole = [one for one in made if one.shard is not None]
    counts = np.sum([one.counts for one in made] or [[]], axis=0, dtype=int).tolist() if source.classes else []
    changed: dict[str, int] = {}
    for one in made:
        for what, count in one.changed.items():
            changed[what] = changed.get(what, 0) + count
    return Manifest(
        version=VERSION,
        height=fit.shape.height,
        width=fit.shape.width,
        channels=fit.shape.channels,
        parts=fit.parts,
        samples=sum(one.shard.samples for one in whole if one.shard is not None),
        classes=tuple(ClassCount(name=n, count=c) for n, c in zip(source.classes, counts, strict=True)),
        label_ids=tuple(sorted(set().union(*(one.label_ids for one in made)))),
        shards=tuple(one.shard for one in whole if one.shard is not None),
        levels=tuple(
            Level(height=h, raw=fit.raw and h == fit.levels[-1], shards=tuple(one.levels[n] for one in whole))
            for n, h in enumerate(fit.levels)
        ),
        crop=fit.config.crop,
        resize_filter=fit.config.resize_filter,
        enlarged=sum(one.enlarged for one in made),
        changed=changed,
        rejected=rejected,
        tool=_tool(),
        duplicates=fit.config.duplicates,
    )


def _finish(folder: Path, out: Path, manifest: Manifest, rejected: list[Rejected], jobs: list[Job]) -> None:
    """The manifest last, then the name."""
    lines = "".join(json.dumps({"name": bad.name, "reason": bad.reason}) + "\n" for bad in rejected)
    write_text(folder / REJECTED, lines)
    write_text(folder / MANIFEST, dump_manifest(manifest))
    for job in jobs:
        job.record.unlink(missing_ok=True)
    if (out / MANIFEST).is_file():
        same = load_manifest(out).digest == manifest.digest
        if same:
            for path in folder.rglob("*"):
                if path.is_file():
                    os.replace(path, out / path.relative_to(folder))
        shutil.rmtree(folder)
        if not same:
            raise UserError(
                f"{out}: holds other shards: images of the same names and sizes have changed. Runs that were started "
                "on them could not be resumed. Name a new folder, or remove this one if no run needs it."
            )
        return
    if out.exists():
        out.rmdir()
    folder.rename(out)
    sync_folder(out.parent)


def _repaired(out: Path, jobs: list[Job], workers: int, progress: Progress | None) -> Manifest:
    """Check a finished folder, and make again what is damaged."""
    manifest = load_manifest(out)
    damaged = set()
    for number, shard in enumerate(manifest.shards):
        for file in (shard, *(level.shards[number] for level in manifest.levels)):
            try:
                check_shard(out, file)
            except UserError:
                damaged.add(shard.name)
        if progress is not None:
            progress(number + 1, len(manifest.shards))
    for one in make_all([job for job in jobs if job.name in damaged], workers=workers, fail=False, progress=progress):
        if one.shard not in manifest.shards:
            raise UserError(
                f"{out}: {'' if one.shard is None else one.shard.name} was damaged, and comes out differently today "
                f"(it was written by {manifest.tool}; this is {_tool()}). Write the shards into a new folder."
            )
    return manifest


def verify_shards(folder: Path, progress: Progress | None = None) -> Manifest:
    """Compare every file with the manifest: sizes and SHA-256. Reads all bytes once.

    Args:
        folder: of shards.
        progress: called with (done, total) files.

    Raises:
        UserError: names the first file that is missing or differs.
    """
    manifest = load_manifest(folder)
    for number, shard in enumerate(manifest.files):
        check_shard(folder, shard)
        if progress is not None:
            progress(number + 1, len(manifest.files))
    return manifest


def check_shard(folder: Path, shard: Shard) -> None:
    """Compare a shard and its index with what the manifest says.

    Raises:
        UserError: one is missing or differs.
    """
    path = folder / shard.name
    if not path.is_file():
        raise UserError(f"{path}: is missing. Copy the folder again, or run `advgen shard` again.")
    if path.stat().st_size != shard.bytes:
        sizes = f"{path.stat().st_size:,} bytes, the manifest says {shard.bytes:,}"
        raise UserError(f"{path}: has {sizes}. Copy it again, or run `advgen shard` again.")
    wanted = {path: shard.sha256}
    if shard.index_sha256:
        wanted[folder / index_name(shard.name)] = shard.index_sha256
    for file, content in wanted.items():
        if not file.is_file() or sha256(file) != content:
            raise UserError(f"{file}: is damaged (SHA-256 differs). Copy it again, or run `advgen shard` again.")


def _tool() -> str:
    """Names and versions of all that the bytes depend on."""
    names = ("advgen", "pillow", "simplejpeg", "numpy")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)
