from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from advgen.data.decode import box_mean
from advgen.data.loader import Loader
from advgen.data.manifest import MANIFEST, Manifest, dump_manifest, index_name
from advgen.data.places import Place
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from tests.unit.data.make import picture, shards_of

N = 47
ALL = np.arange(2 * N)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stream")
    shards_of(folder, N, 5)
    return folder / "shards"


def stream_of(folder: Path, **options) -> ImageStream:
    return ImageStream(folder, **{"seed": 3, "resolution": 8, "channels": 3, "block_shards": 4, **options})


@pytest.mark.parametrize("block_shards", [1, 3, 4, 100])
def test_each_epoch_visits_each_sample_once_in_its_own_order(shards: Path, block_shards: int) -> None:
    stream = stream_of(shards, block_shards=block_shards)
    orders = [stream.index_of(np.arange(e * N, (e + 1) * N)).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert stream_of(shards, block_shards=block_shards, seed=4).index_of(np.arange(N)).tolist() != orders[0]


def test_shuffling_stays_within_blocks_of_shards(shards: Path) -> None:
    indices = stream_of(shards, block_shards=2).index_of(np.arange(10))
    assert len(set((indices // 5).tolist())) <= 3  # the last shard holds 2 samples


def test_order_does_not_depend_on_how_it_is_asked_for(shards: Path) -> None:
    whole = stream_of(shards).index_of(np.arange(5 * N))
    asked = np.random.RandomState(0).permutation(5 * N)
    assert (stream_of(shards).index_of(asked) == whole[asked]).all()
    for p in (0, N - 1, N, 3 * N + 7):
        assert stream_of(shards).index_of(np.array([p]))[0] == whole[p]


def test_the_order_is_the_same_in_every_version(shards: Path) -> None:
    """A resumed run must go on with the order that it began with: these values may never change."""
    stream = stream_of(shards)
    assert stream.index_of(np.arange(12)).tolist() == GOLDEN_FIRST
    assert stream.index_of(np.arange(10**12, 10**12 + 12)).tolist() == GOLDEN_FAR
    assert np.flatnonzero(stream.flips_of(np.arange(24))).tolist() == GOLDEN_FLIPS


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_strided_ranks_together_read_the_whole(shards: Path, ranks: int) -> None:
    whole = stream_of(shards, mirror=True).read(ALL).images
    parts = [stream_of(shards, mirror=True).read(ALL[rank::ranks]).images for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert (whole[rank::ranks] == part).all()


@pytest.mark.parametrize("cache_bytes", [0, 20 * 3 * 64, 1 << 20])
def test_images_are_the_stored_ones_cached_or_not(shards: Path, cache_bytes: int) -> None:
    stream = stream_of(shards, cache_bytes=cache_bytes)
    wanted = np.stack([np.moveaxis(picture(int(i)), -1, 0) for i in stream.index_of(ALL)])
    for level in (8, 2, 8, 4, None):
        samples = stream.read(ALL, level)
        assert samples.labels is None
        assert samples.images.dtype == np.uint8 and samples.images.flags.c_contiguous
        assert (samples.images == box_mean(wanted, level or 8)).all()
        samples.images[:] = 0  # the caller's own: the cache must not change


def test_mirroring_goes_by_position(shards: Path) -> None:
    plain, mirrored = stream_of(shards).read(ALL).images, stream_of(shards, mirror=True).read(ALL).images
    flips = stream_of(shards).flips_of(ALL)
    assert 0.3 < stream_of(shards).flips_of(np.arange(20_000)).mean() < 0.7
    assert (mirrored[flips] == plain[flips][..., ::-1]).all() and (mirrored[~flips] == plain[~flips]).all()
    assert (stream_of(shards).flips_of(ALL[::-3]) == flips[::-3]).all()
    blocks = stream_of(shards).flips_of(np.arange(4 * 4096)).reshape(4, 4096)
    assert 0.45 < (blocks[:-1] == blocks[1:]).mean() < 0.55


def test_labels(tmp_path: Path) -> None:
    shards_of(tmp_path, 10, 3, classes=2)
    stream = stream_of(tmp_path / "shards")
    samples = stream.read(np.arange(10))
    assert samples.labels is not None and samples.labels.dtype == np.int64
    assert (samples.labels == (stream.index_of(np.arange(10)) >= 5)).all()


def test_other_shards_than_the_recipe_says_are_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 px and 3 channels, the recipe says 16 px"):
        stream_of(shards, resolution=16)
    with pytest.raises(UserError, match="Run `advgen shard` first"):
        stream_of(tmp_path)
    with pytest.raises(ValueError, match="level 3"):
        stream_of(shards).read(ALL, 3)
    with pytest.raises(ValueError, match="start at 0"):
        stream_of(shards).read(np.array([-1]))


def test_damage_names_shard_key_offset_and_the_way_out(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 9, 3)
    path = tmp_path / "shards" / manifest.shards[1].name
    data = bytearray(path.read_bytes())
    data[512 : 512 + 40] = bytes(40)
    path.write_bytes(data)
    stream = stream_of(tmp_path / "shards")
    (bad,) = stream.read(np.arange(9)).replaced
    assert "shard-000001.tar:00000003:512" in bad.place and "3.png" in bad.place and bad.by == "00000004"
    with pytest.raises(UserError, match=r"shard-000001\.tar:00000003:512: .*3\.png.*run `advgen shard` again"):
        next(Loader(stream, [(np.arange(9), None)]))
    path.write_bytes(data[:-512])
    with pytest.raises(UserError, match="the manifest says"):
        stream_of(tmp_path / "shards").read(np.arange(9))
    path.unlink()
    with pytest.raises(UserError, match="cannot be opened"):
        stream_of(tmp_path / "shards").read(np.arange(9))


def test_many_shards_share_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen.data.open_shards.MAX_OPEN", 2)
    shards_of(tmp_path, 12, 1)
    stream = stream_of(tmp_path / "shards", cache_bytes=0)
    requests = [(np.arange(24), None)] * 6
    with Loader(stream, requests, threads=3, ahead=6) as batches:
        images = [batch.images for batch in batches]
    assert all((image == images[0]).all() for image in images)
    assert len(stream._shards._opened) <= 2


def test_an_index_is_read_once_however_few_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen.data.open_shards.MAX_OPEN", 2)
    shards_of(tmp_path, 30, 2, classes=2)
    read: list[str] = []
    stream = stream_of(tmp_path / "shards", cache_bytes=0, balanced=True)
    place = stream._shards._place
    monkeypatch.setattr(place, "read", lambda name, sha256: read.append(name) or Place.read(place, name, sha256))
    samples = stream.read(np.arange(60))
    assert read == []  # all were read for their labels
    assert samples.labels is not None and (np.bincount(samples.labels) == 30).all()
    monkeypatch.setattr("advgen.data.open_shards.INDEX_BYTES", 3 * 2 * 24)  # three shards
    again = stream_of(tmp_path / "shards", cache_bytes=0, balanced=True)
    assert len(again._shards._indexes) == 3 and (again.read(np.arange(60)).images == samples.images).all()


LINE = ["00000000", None, "0.png", [[512, 10]]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([["a", None, "n", [[512, 1 << 42]]]] * 3, "lies outside the"),
        ([["a", None, "n", [[1 << 70, 10]]]] * 3, "lies outside the"),
        ([["a", None, "n", [[-5, 10]]]] * 3, "lies outside the"),
        ([["a", None, "n", [["x", "y"]]]] * 3, "lies outside the"),
        ([["a", None, "n", [[512]]]] * 3, "not enough values"),
        ([["a", None, "n", [[512, 10]] * 2]] * 3, "has 2 parts, the manifest says 1"),
        ([["a", None]] * 3, "not enough values"),
        ([["a", None, "n", 7]] * 3, "not iterable"),
        ([["a", 1 << 70, "n", [[512, 10]]]] * 3, "the manifest has 0 classes"),
        ([[7, None, "n", [[512, 10]]]] * 3, "is no sample"),
        ([5, 6, 7], "is no index of its shard"),
        ([LINE], "lists 1 samples, the manifest says 3"),
        (b"{x\n" * 3, "is no index of its shard"),
        (b"[" * 100_000, "is no index of its shard"),
        (b"\xff\xfe", "is no index of its shard"),
    ],
)
def test_an_index_that_cannot_be_true_is_refused_by_name(tmp_path: Path, lines, message: str) -> None:  # type: ignore[no-untyped-def]
    """Its checksum fits: whoever made the shards made it so."""
    manifest = shards_of(tmp_path, 6, 3)
    folder, first = tmp_path / "shards", manifest.shards[0]
    data = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / index_name(first.name)).write_bytes(data)
    forged = dataclasses.replace(first, index_sha256=hashlib.sha256(data).hexdigest())
    changed = dataclasses.replace(manifest, shards=(forged, *manifest.shards[1:]))
    (folder / MANIFEST).write_text(dump_manifest(changed))
    with pytest.raises(UserError, match=r"shard-000000\.idx: .*" + message):
        stream_of(folder).fetch(np.arange(3))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_prefetch_gives_the_requests_in_order(shards: Path, threads: int) -> None:
    before = threading.active_count()
    stream = stream_of(shards, cache_bytes=1000)
    requests = [(np.arange(i, i + 7), level) for i in range(0, 70, 7) for level in (8, None, 4)]
    with Loader(stream, iter(requests), threads=threads, ahead=3) as batches:
        for (positions, level), batch in zip(requests, batches, strict=True):
            assert (batch.images == stream.read(positions, level).images).all()
    assert threading.active_count() == before


def test_prefetch_hands_errors_on_and_ends_its_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    manifest: Manifest = shards_of(tmp_path, 4, 1)
    stream = stream_of(tmp_path / "shards", block_shards=1)
    third = int(stream.index_of(np.array([2]))[0])
    (tmp_path / "shards" / manifest.shards[third].name).unlink()
    batches = Loader(stream, [(np.array([p]), None) for p in range(4)], threads=2, ahead=4)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(UserError, match="cannot be opened"):
        next(batches)
    assert threading.active_count() == before
    unread = Loader(stream, ((np.array([0]), None) for _ in range(10**9)), threads=2, ahead=3)
    next(unread)
    unread.close()
    unread.close()
    assert threading.active_count() == before


GOLDEN_FIRST = [28, 43, 29, 37, 5, 41, 44, 40, 38, 25, 35, 27]
GOLDEN_FAR = [35, 21, 18, 13, 16, 15, 37, 20, 7, 46, 45, 5]
GOLDEN_FLIPS = [0, 3, 5, 6, 7, 10, 11, 13, 14, 15, 16, 17, 22]
