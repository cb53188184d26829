"""Tensors that took long to compute and are kept: statistics of real images, weights of judges.

A cache entry is ``<digest>.safetensors`` beside ``<digest>.json``, the digest being one of the key. The JSON holds the
key in full and the hash of the tensors, and is written last: an entry is used only if both agree.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from advgen import files, strict_config
from advgen.errors import UserError
from advgen.metrics.ranks import Alone, Ranks, any_of, bytes_of_first
from advgen.metrics.statistics import FeatureStatistics

T = TypeVar("T")

_FORMAT = 1
_log = logging.getLogger(__name__)


def reference_statistics(
    key_parts: Mapping[str, Any], cache: Path, compute: Callable[[], FeatureStatistics], ranks: Ranks = Alone()
) -> FeatureStatistics:
    """Statistics of a reference set, so that real images pass the feature network once: see :func:`kept`.

    Args:
        key_parts: the manifest's digest, the extractor's identity, the resolution, the count, which samples.
        cache: folder of the entries.
        compute: makes the statistics.
        ranks: all of which call this.

    Returns:
        The statistics, on the CPU if they were read.
    """
    dump, load = FeatureStatistics.to_tensors, FeatureStatistics.from_tensors
    return kept("reference statistics", key_parts, cache, compute, dump, load, ranks)


def named_statistics(path: Path, key_parts: Mapping[str, Any]) -> FeatureStatistics:
    """Statistics in an entry that a person names, as ``advgen evaluate reference`` writes them.

    Args:
        path: the ``.safetensors`` file; its ``.json`` lies beside it.
        key_parts: of the statistics that are wanted.

    Raises:
        UserError: there is no such entry, it is damaged, or is one of other statistics: says what differs.
    """
    way_out = "Write it by `advgen evaluate reference SHARDS`, or name none: it is then computed."
    try:
        entry = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        there, wanted = strict_config.flatten(entry["key"]), strict_config.flatten(plain_key(key_parts))
        rows = [
            f"  {name}: {there.get(name)!r} in the file, {wanted.get(name)!r} wanted"
            for name in sorted({*there, *wanted})
            if there.get(name) != wanted.get(name)
        ]
        if rows:
            text = "\n".join(rows)
            raise UserError(f"{path}: holds statistics of something else:\n{text}\n{way_out}")
        return FeatureStatistics.from_tensors(safetensors.torch.load(_content(entry, path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path}: is no whole file of reference statistics ({error}). {way_out}") from None


def kept(
    what: str,
    key_parts: Mapping[str, Any],
    cache: Path,
    compute: Callable[[], T],
    dump: Callable[[T], Mapping[str, Tensor]],
    load: Callable[[dict[str, Tensor]], T],
    ranks: Ranks = Alone(),
) -> T:
    """What is stored under this very key; else it is computed, and stored.

    Of several ranks the first one reads and writes; what it has read goes to the others, who need not see its disk.

    Args:
        what: it is, for messages.
        key_parts: all that it depends on, as plain JSON values.
        cache: folder of the entries; made where it is missing.
        compute: makes it; called only where no sound entry is found.
        dump: gives its contiguous tensors.
        load: makes it of them; raises ValueError or RuntimeError where they are others.
        ranks: all of which call this, and ``compute`` if it is not there.

    Returns:
        It. A damaged entry is replaced, and a folder that cannot be written costs only the next computation: both are
        logged as warnings, not raised.

    Raises:
        TypeError: ``key_parts`` holds something that JSON cannot express.
    """
    key, tensors = plain_key(key_parts), entry_of(key_parts, cache)
    found: bytes | None = None
    try:
        if ranks.index == 0 and (found := _read(key, tensors)) is not None:
            load(safetensors.torch.load(found))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        _log.warning("%s: the stored %s are damaged (%s) and are computed anew.", tensors, what, error)
        found = None
    if any_of(found is not None, ranks):
        return load(safetensors.torch.load(bytes_of_first(found or b"", ranks)))
    made = compute()
    try:
        if ranks.index == 0:
            _write(key, dump(made), tensors)
    except OSError as error:
        reason = error.strerror or error
        _log.warning("%s: %s could not be stored (%s); the next run starts over.", cache, what, reason)
    return made


def plain_key(key_parts: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it stands in an entry.

    Raises:
        TypeError: it holds something that JSON cannot express.
    """
    return json.loads(json.dumps(strict_config.plain(key_parts), sort_keys=True))


def entry_of(key_parts: Mapping[str, Any], cache: Path) -> Path:
    """The file in which the tensors of a key lie, or would; its key lies beside it, as ``.json``."""
    return cache / f"{strict_config.digest(plain_key(key_parts))}.safetensors"


def _read(key: Any, tensors: Path) -> bytes | None:
    """None where there is no entry of the key."""
    sidecar = tensors.with_suffix(".json")
    if not sidecar.exists():
        return None
    entry = json.loads(sidecar.read_text(encoding="utf-8"))
    if entry["format"] != _FORMAT or entry["key"] != key:
        return None
    return _content(entry, tensors)


def _content(entry: Mapping[str, Any], tensors: Path) -> bytes:
    content = tensors.read_bytes()
    if entry["sha256"] != hashlib.sha256(content).hexdigest():
        raise ValueError("its hash differs from the recorded one")
    return content


def _write(key: Any, state: Mapping[str, Tensor], tensors: Path) -> None:
    content = safetensors.torch.save(dict(state))
    with files.atomic(tensors) as temporary:
        temporary.write_bytes(content)
    files.write_json(
        tensors.with_suffix(".json"), {"format": _FORMAT, "key": key, "sha256": hashlib.sha256(content).hexdigest()}
    )
