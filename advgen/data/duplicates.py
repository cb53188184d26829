"""Images that stand twice: found by size first, so that few bytes are read."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from advgen.data.decode import BadImage
from advgen.data.listing import Read, Rejected
from advgen.data.sources import Item, Source

_HEAD = 4096


def find_duplicates(source: Source, threads: int = 8) -> list[tuple[Item, Item]]:
    """(later, first) of all images with the same bytes, in the source's order. What cannot be read is no duplicate.

    Only files of the same size are read, and wholly only those of a folder whose first 4,096 bytes agree, too.

    Args:
        source: the samples; of those with several parts, the images are compared.
        threads: read so many files at a time.
    """
    groups = _grouped(source.items, lambda item: str(item.size))
    with ThreadPoolExecutor(threads, thread_name_prefix="advgen-duplicates") as pool, source.place.opened() as read:
        if source.place.kind == "folder":
            heads = partial(_head, source)
            groups = [finer for group in groups for finer in _split(group, pool.map(heads, group))]
        found: list[tuple[Item, Item]] = []
        for group in groups:
            # A .zip is read by one thread: its file has one position.
            whole = map if source.place.kind == "zip" else pool.map
            for same in _split(group, whole(partial(_digest, read), group)):
                found += [(later, same[0]) for later in same[1:]]
    return sorted(found, key=lambda pair: pair[0].key)


def without_duplicates(source: Source) -> Source:
    """The source without images that stand twice, which are rejected: the first of them stays."""
    found = find_duplicates(source)
    later = {item.key for item, _ in found}
    rejected = tuple(Rejected(item.name, f"has the same bytes as {first.name}") for item, first in found)
    items = tuple(item for item in source.items if item.key not in later)
    return replace(source, items=items, rejected=(*source.rejected, *rejected), unique=True)


def _grouped(items: Iterable[Item], key) -> list[list[Item]]:  # type: ignore[no-untyped-def]
    return _split(list(items), map(key, items))


def _split(items: Iterable[Item], keys: Iterable[str]) -> list[list[Item]]:
    """Groups of at least two with the same key; an empty key is no group's."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        groups[key].append(item)
    return [group for key, group in groups.items() if key and len(group) > 1]


def _head(source: Source, item: Item) -> str:
    try:
        with (source.place.path / item.files[0]).open("rb") as file:
            return hashlib.sha256(file.read(_HEAD)).hexdigest()  # of a million files, so not the bytes
    except OSError:
        return ""


def _digest(read: Read, item: Item) -> str:
    try:
        return hashlib.sha256(read(item.files[0])).hexdigest()
    except BadImage:
        return ""
