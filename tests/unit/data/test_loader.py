from __future__ import annotations

import gc
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.compat import WebDataset

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.loader import Loader
from advgen.data.mixed import MixedStream
from advgen.data.parts import Replaced
from advgen.data.shards import load_manifest, write_shards
from advgen.data.sources import open_source
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from tests.unit.data.make import folder_of, picture, shards_of, uneven_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    shards_of(folder, 30, 7, classes=2)
    return folder / "shards"


def stream_of(folder: Path, **options) -> ImageStream:
    return ImageStream(folder, **{"seed": 3, "resolution": 8, "channels": 3, "block_shards": 2, **options})


def slices(start: int, stop: int, batch: int, rank: int, ranks: int) -> list[np.ndarray]:
    """What a rank asks for, as :meth:`advgen.runtime.world.World.positions` does."""
    return [np.arange(first + rank, first + batch, ranks) for first in range(start, stop, batch)]


LAYOUTS = ([13], [7, 1, 4, 2], [3, 3, 9, 1, 1, 5, 11, 2], [1] * 17)
KEYS = {picture(number, 4).transpose(2, 0, 1).tobytes(): f"{number:08d}" for number in range(40)}
BATCH = 30


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """The tars of each layout."""
    return [uneven_shards(tmp_path_factory.mktemp("uneven"), sizes) for sizes in LAYOUTS]


def global_batches(tars: list[Path], lanes: int, batches: range, ranks: int, workers: int, end: int, processes=False):  # type: ignore[no-untyped-def]
    """The keys of some global batches, as ranks read them that would go on to ``end``; told by the pixels."""
    found = [[""] * BATCH for _ in batches]
    with ExitStack() as stack:
        loaders = []
        for rank in range(ranks):
            stream = stream_of(tars[0].parent, resolution=4, lanes=lanes)
            requests = [(p, None) for p in slices(batches.start * BATCH, end * BATCH, BATCH, rank, ranks)]
            loader = Loader(stream, requests, threads=workers, workers=workers if processes else 0)
            loaders.append(stack.enter_context(loader))
        for keys, parts in zip(found, zip(*loaders, strict=True), strict=False):
            for rank, part in enumerate(parts):
                keys[rank::ranks] = [KEYS[image.tobytes()] for image in part.images]
    return found


def check_epochs_and_resume(tars: list[Path], lanes: int, killed: int, before, after, processes: bool) -> None:  # type: ignore[no-untyped-def]
    """Read to ``killed`` by (ranks, workers) ``before`` and from there by those ``after``."""
    n = sum(LAYOUTS[[len(layout) for layout in LAYOUTS].index(len(tars))])
    end = (3 * n + BATCH - 1) // BATCH
    whole = global_batches(tars, lanes, range(end), 1, 0, end)
    flat = [key for each in whole for key in each]
    for epoch in range(3):
        assert sorted(flat[epoch * n : (epoch + 1) * n]) == sorted(KEYS.values())[:n]
    killed %= end
    for batches, (ranks, workers) in ((range(killed), before), (range(killed, end), after)):
        found = global_batches(tars, lanes, batches, ranks, workers, end, processes)
        assert found == whole[batches.start : batches.stop]


hosts = st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([0, 1, 3]))


@settings(max_examples=25, deadline=None)
@given(
    layout=st.sampled_from(range(len(LAYOUTS))),
    lanes=st.sampled_from([1, 2, 3]),
    killed=st.integers(0, 9),
    before=hosts,
    after=hosts,
)
def test_each_epoch_has_every_key_once_and_a_resume_on_others_goes_on_with_it(  # type: ignore[no-untyped-def]
    uneven: list[list[Path]], layout: int, lanes: int, killed: int, before, after
) -> None:
    check_epochs_and_resume(uneven[layout], lanes, killed, before, after, processes=False)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize(("before", "after"), [((2, 1), (5, 0)), pytest.param((2, 3), (5, 1), marks=pytest.mark.slow)])
def test_so_it_is_with_processes(uneven: list[list[Path]], before: tuple[int, int], after: tuple[int, int]) -> None:
    check_epochs_and_resume(uneven[2], 1, 2, before, after, processes=True)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the garbage collector
def test_webdataset_finds_the_same_keys(uneven: list[list[Path]]) -> None:
    for tars, sizes in zip(uneven, LAYOUTS, strict=True):
        samples = list(WebDataset([str(path) for path in tars], shardshuffle=False))
        gc.collect()
        assert [sample["__key__"] for sample in samples] == sorted(KEYS.values())[: sum(sizes)]
        ours = stream_of(tars[0].parent, resolution=4)
        assert sorted(ours.keys_of(np.arange(sum(sizes)))) == [sample["__key__"] for sample in samples]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # more than there may be cores
@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_what_threads_give(shards: Path, workers: int) -> None:
    stream = stream_of(shards, mirror=True)
    requests = [(positions, level) for level in (8, 4) for positions in slices(5, 65, 15, 1, 3)]
    with (
        Loader(stream, requests, threads=2) as wanted,
        Loader(stream, iter(requests), workers=workers, ahead=2) as found,
    ):
        for one, other in zip(wanted, found, strict=True):
            assert (one.images == other.images).all() and one.labels is not None and other.labels is not None
            assert (one.labels == other.labels).all()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # half a batch
def test_a_process_that_is_killed_is_an_error_and_no_hang(shards: Path) -> None:
    import multiprocessing

    before = {child.pid for child in multiprocessing.active_children()}
    with Loader(stream_of(shards), ((np.arange(8), None) for _ in range(10**6)), workers=1) as batches:
        next(batches)
        (worker,) = [child for child in multiprocessing.active_children() if child.pid not in before]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)  # a wish to stop is the trainer's
        next(batches)
        os.kill(worker.pid, signal.SIGKILL)
        # torch raises from its handler of SIGCHLD, which may run while this loop does, and not the loader.
        with pytest.raises((UserError, RuntimeError), match=r"ended from outside|killed by signal"):
            for _ in range(1000):
                next(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_replaced_counted_and_limited(tmp_path: Path, workers: int) -> None:
    manifest = shards_of(tmp_path, 12, 4)
    path = tmp_path / "shards" / manifest.shards[1].name
    data = bytearray(path.read_bytes())
    data[512:552] = bytes(40)  # the first sample of the shard
    path.write_bytes(data)
    requests = [(np.arange(start, start + 6), None) for start in range(0, 24, 6)]
    told: list[Replaced] = []
    stream = stream_of(tmp_path / "shards", cache_bytes=0)
    with Loader(stream, requests, workers=workers, bad_samples=1, told=told.append) as batches:
        images = np.concatenate([batch.images for batch in batches])
    assert len(told) == 1 and told[0].place.endswith("4.png)") and told[0].by == "00000005"
    indices = stream.index_of(np.arange(24))
    assert (images[indices == 4][0] == images[indices == 5][0]).all()
    with (
        Loader(stream, requests, workers=workers, bad_samples=0) as batches,
        pytest.raises(UserError, match=r"shard-000001\.tar:00000004:512"),
    ):
        list(batches)
    path.write_bytes(bytes(len(data)))
    with pytest.raises(UserError, match="and so do all 4 of the shard"):
        stream_of(tmp_path / "shards", cache_bytes=0).read(np.arange(12))


def test_levels_come_from_their_files_and_cost_no_full_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(FolderImages(path=str(folder_of(tmp_path / "images", 9, size=128))))
    write_shards(source, tmp_path / "with", resolution=128, channels=3, config=ShardingConfig(shard_samples=4))
    config = ShardingConfig(shard_samples=4, levels="none")
    write_shards(source, tmp_path / "without", resolution=128, channels=3, config=config)
    assert [level.height for level in load_manifest(tmp_path / "with").levels] == [64, 32]
    decoded: list[int] = []
    stream = stream_of(tmp_path / "with", resolution=128)
    read = stream._shards.read
    monkeypatch.setattr(stream._shards, "read", lambda n, p, height: decoded.append(height) or read(n, p, height))
    plain = stream_of(tmp_path / "without", resolution=128)
    for level, stored in ((128, 128), (64, 64), (32, 32), (16, 32), (4, 32)):
        found, wanted = stream.read(np.arange(9), level).images, plain.read(np.arange(9), level).images
        assert set(decoded) == {stored}
        # The levels of PNGs are lossless; below 32 pixels they are means of rounded means.
        assert np.abs(found.astype(int) - wanted).max() <= (0 if level >= 32 else 1)
        decoded.clear()


def test_classes_balanced_and_sets_mixed(tmp_path: Path) -> None:
    for name, count in (("a", 20), ("b", 12)):
        folder = folder_of(tmp_path / name, count, classes=2)
        for path in list((folder / "class1").iterdir())[2:]:
            path.unlink()
        source = open_source(FolderImages(path=str(folder), labels="folders"))
        config = ShardingConfig(shard_samples=5, duplicates="keep")
        write_shards(source, tmp_path / f"{name}-shards", resolution=8, channels=3, config=config)
    streams = [stream_of(tmp_path / f"{name}-shards", balanced=True) for name in ("a", "b")]
    labels = streams[0].read(np.arange(40)).labels
    assert labels is not None and (np.bincount(labels) == 20).all()
    mixed = MixedStream(streams, [3.0, 1.0], seed=1)
    batch = mixed.read(np.arange(64))
    assert batch.images.shape == (64, 3, 8, 8) and batch.labels is not None and (np.bincount(batch.labels) > 20).all()
    assert (mixed.read(np.arange(64)[5:9]).images == batch.images[5:9]).all()


def test_a_mixture_is_read_by_processes_and_names_a_set_that_does_not_fit(shards: Path, tmp_path: Path) -> None:
    shards_of(tmp_path / "b", 12, 5, classes=2)
    mixed = MixedStream([stream_of(shards), stream_of(tmp_path / "b" / "shards")], [1.0, 2.0], seed=4)
    requests = [(positions, None) for positions in slices(0, 32, 8, 0, 1)]
    with Loader(mixed, requests) as wanted, Loader(mixed, requests, workers=1) as found:
        for one, other in zip(wanted, found, strict=True):
            assert (one.images == other.images).all()
    shards_of(tmp_path / "c", 4, 2)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'c' / 'shards'}: its classes or parts")):
        MixedStream([stream_of(shards), stream_of(tmp_path / "c" / "shards")], [1.0, 2.0], seed=4)


def test_bad_samples_are_counted_over_all_loaders(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 12, 4)
    known: set[str] = set()
    for number in range(2):
        path = tmp_path / "shards" / manifest.shards[number].name
        path.write_bytes(path.read_bytes()[:512] + bytes(40) + path.read_bytes()[552:])
        stream = stream_of(tmp_path / "shards", cache_bytes=0)
        loader = Loader(stream, [(np.arange(12), None)], bad_samples=1, known=known)
        if number == 0:
            assert len(next(loader).replaced) == 1
        else:
            with pytest.raises(UserError, match=r"2 such samples; data\.bad_samples is 1"):
                next(loader)


def test_a_far_position_is_read_without_what_comes_before(shards: Path) -> None:
    stream = stream_of(shards)
    stream.read(np.array([10**12]))
    assert len(stream._shards._opened) == 1


def test_crops_and_flips_treat_all_parts_alike(tmp_path: Path) -> None:
    from PIL import Image

    from advgen.data.config import PairedImages
    from advgen.nn.boundaries import instance_edges

    random = np.random.RandomState(0)
    for part in ("images", "labels", "instances", "lines"):
        (tmp_path / part).mkdir()
    for number in range(6):
        ids = random.randint(0, 5, (4, 8)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(np.repeat((ids * 50).astype(np.uint8)[..., None], 3, 2)).save(tmp_path / f"images/{number}.png")
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / f"labels/{number}.png")
        Image.fromarray((ids * 70_000).astype(np.int32)).save(tmp_path / f"instances/{number}.tif")
        Image.fromarray((ids * 50).astype(np.uint8)).save(tmp_path / f"lines/{number}.png")
    (tmp_path / "images" / "left.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    paired = PairedImages(
        path=str(tmp_path / "images"),
        label_maps=str(tmp_path / "labels"),
        label_map_classes=5,
        instance_maps=str(tmp_path / "instances"),
        line_art=str(tmp_path / "lines"),
    )
    source = open_source(paired)
    with pytest.raises(UserError, match="left has no label map and no instance map and no line art"):
        write_shards(source, tmp_path / "s", resolution=(32, 64), channels=3)
    manifest = write_shards(
        source, tmp_path / "s", resolution=(32, 64), channels=3, config=ShardingConfig(on_bad="skip", shard_samples=4)
    )
    assert manifest.label_ids == (0, 1, 2, 3, 4) and manifest.parts[1:] == ("label_map", "instance_map", "line_art")
    stream = stream_of(tmp_path / "s", resolution=32, width=64, crop=16, mirror=True)
    seen = set()
    for level in (32, 16):
        batch = stream.read(np.arange(40), level)
        side = level // 2
        assert batch.images.shape == (40, 3, side, side)
        assert batch.label_map is not None and batch.instance_map is not None and batch.line_art is not None
        assert (batch.images[:, 0] == batch.label_map * 50).all() and (batch.line_art[:, 0] == batch.images[:, 0]).all()
        assert (batch.instance_map == batch.label_map * 70_000).all()
        edges = instance_edges(torch.from_numpy(batch.instance_map)).numpy()
        across = batch.instance_map[..., 1:] != batch.instance_map[..., :-1]
        assert edges.any() and edges[..., 1:][across].all() and edges[..., :-1][across].all() and not edges.all()
        seen |= {image.tobytes() for image in batch.images}
    assert len(seen) > 30
