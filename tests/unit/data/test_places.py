from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.loader import Loader
from advgen.data.places import Place, Remote
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.data.stream import ImageStream
from advgen.errors import UserError
from tests.unit.data.make import folder_of, shards_of
from tests.unit.data.servers import Server, serving

DATA = np.random.RandomState(0).bytes(3_000_000)
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.bin").write_bytes(DATA)
    with serving(tmp_path / "served") as server:
        yield server


def place_at(server: Server, cache: Path, **options) -> Place:
    settings = {"tries": 3, "pause_seconds": 0.01, "stall_seconds": 10, **options}  # a busy machine stalls, too
    return Place(server.address, Remote(cache, **settings))


def fetch(place: Place, name: str = "a.bin", data: bytes = DATA) -> bool:
    """Whether the file has the content that it should have."""
    with os.fdopen(place.opened(name, len(data), hashlib.sha256(data).hexdigest()), "rb") as file:
        return file.read() == data


def path_in(cache: Path, data: bytes = DATA) -> Path:
    content = hashlib.sha256(data).hexdigest()
    return cache / content[:2] / content


def test_a_file_is_fetched_once_and_kept(server: Server, tmp_path: Path) -> None:
    place = place_at(server, tmp_path / "cache")
    path = path_in(tmp_path / "cache")
    assert fetch(place) and path.read_bytes() == DATA
    asked = server.got.copy()
    assert fetch(place_at(server, tmp_path / "cache")) and server.got == asked
    path.write_bytes(DATA[:-1])  # a cache that something else has damaged
    assert fetch(place)
    assert [p.name for p in path.parent.iterdir()] == [HASH]


def test_threads_and_processes_fetch_it_once_together(server: Server, tmp_path: Path) -> None:
    alone = place_at(server, tmp_path / "one")
    fetch(alone)
    once = server.got["/a.bin"]
    server.got.clear()
    place = place_at(server, tmp_path / "cache")
    with ThreadPoolExecutor(4) as threads, multiprocessing.get_context("spawn").Pool(2) as processes:
        results = processes.map_async(fetch, [place] * 2)
        assert all(threads.map(fetch, [place] * 4))
        assert all(results.get(60))
    assert server.got["/a.bin"] == once


@pytest.mark.parametrize("faults", [[500, 503], ["short"], ["stall"], [500, "wrong"], ["wrong"]])
def test_what_passes_is_tried_again(server: Server, tmp_path: Path, faults: list[int | str]) -> None:
    server.faults["a.bin"] = faults
    assert fetch(place_at(server, tmp_path / "cache", stall_seconds=2))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (500, r"a\.bin: cannot be fetched after 3 tries"),
        ("short", r"cannot be fetched after 3 tries"),
        ("stall", r"cannot be fetched after 3 tries \(no byte came for 0\.5 s\)"),
        ("wrong", r"a\.bin: has another content than the manifest says, twice"),
        (403, "access is denied"),
        (404, "is missing"),
    ],
)
def test_what_stays_is_one_error_soon(server: Server, tmp_path: Path, fault: int | str, message: str) -> None:
    server.faults["a.bin"] = [fault] * 99
    began = time.monotonic()
    with pytest.raises(UserError, match=message):
        fetch(place_at(server, tmp_path / "cache", stall_seconds=0.5 if fault == "stall" else 10))
    assert time.monotonic() - began < 8
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_whoever_waited_for_a_fetch_that_failed_fails_with_it(server: Server, tmp_path: Path) -> None:
    place = place_at(server, tmp_path / "cache", tries=2, stall_seconds=0.5)
    server.faults["a.bin"] = ["stall"] * 99
    began = time.monotonic()
    with ThreadPoolExecutor(4) as threads, multiprocessing.get_context("spawn").Pool(1) as processes:
        results = processes.map_async(failure, [place])
        told = [*threads.map(failure, [place] * 4), *results.get(60)]
    # A process takes its time to start, and one that came later tries for itself.
    assert all("cannot be fetched after 2 tries" in text for text in told)
    assert time.monotonic() - began < 8
    assert server.got["/a.bin"] <= 4
    server.faults.clear()
    assert fetch(place_at(server, tmp_path / "cache"))


def failure(place: Place) -> str:
    with pytest.raises(UserError) as raised:
        fetch(place)
    return str(raised.value)


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    assert fetch(place_at(server, tmp_path / "cache", tries=1))
    assert server.got["/a.bin"] == 1


def test_a_damaged_index_in_the_cache_is_fetched_again_once(server: Server, tmp_path: Path) -> None:
    place = place_at(server, tmp_path / "cache")
    assert place.read("a.bin", HASH) == DATA
    path_in(tmp_path / "cache").write_bytes(DATA[:1000])
    assert place.read("a.bin", HASH) == DATA and server.got["/a.bin"] == 2


def test_readers_do_not_mind_that_files_are_removed_meanwhile(tmp_path: Path) -> None:
    """A cache for hardly one file, and many who use it."""
    manifest = shards_of(tmp_path, 40, 2)
    limit = max(shard.bytes for shard in manifest.files) + 600
    wanted = stream_at(tmp_path / "shards", None).read(np.arange(40)).images
    with serving(tmp_path / "shards") as server:

        def read(number: int) -> bool:
            remote = Remote(tmp_path / "cache", limit_bytes=limit, tries=2, pause_seconds=0.01)
            stream = stream_at(server.address, remote, cache_bytes=0)
            requests = [(np.arange(start, start + 8), None) for start in range(0, 40, 8)]
            with Loader(stream, requests, threads=2) as batches:
                return bool((np.concatenate([batch.images for batch in batches]) == wanted).all())

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(read, range(3)))


def test_a_phase_fetches_only_the_level_that_it_reads(tmp_path: Path) -> None:
    images = folder_of(tmp_path / "images", 24, size=64)
    config = ShardingConfig(shard_samples=4, shuffle_seed=None)
    write_shards(open_source(FolderImages(path=str(images))), tmp_path / "s", resolution=64, channels=3, config=config)
    with serving(tmp_path / "s") as server:
        remote = Remote(tmp_path / "cache", tries=2, pause_seconds=0.01)
        stream = ImageStream(server.address, seed=0, resolution=64, channels=3, block_shards=2, remote=remote)

        def fetched(level: int) -> set[str]:
            server.got.clear()
            for start in range(0, 24, 4):
                stream.read(np.arange(start, start + 4), level)
            until = time.monotonic() + 10
            while stream._place._fetching and time.monotonic() < until:
                time.sleep(0.01)
            return {path.rpartition("/")[0] for path in server.got}

        assert fetched(32) <= {"/r0032", ""} and not any(
            path.endswith(".tar") and "r0" not in path for path in server.got
        )
        assert fetched(64) == {""}
        assert len([path for path in server.got if path.endswith(".tar")]) == 6


def test_no_server_at_all(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        place = place_at(server, tmp_path / "cache")
    with pytest.raises(UserError, match="after 3 tries"):
        fetch(place)


def test_the_oldest_files_make_room(server: Server, tmp_path: Path) -> None:
    files = {name: os.urandom(1000) for name in "bcde"}
    for name, data in files.items():
        (tmp_path / "served" / name).write_bytes(data)
    place = place_at(server, tmp_path / "cache", limit_bytes=3000)

    def ask(name: str) -> None:
        assert fetch(place, name, files[name])

    for name in "bcd":
        ask(name)
    paths = {name: path_in(tmp_path / "cache", files[name]) for name in "bcd"}
    for age, name in enumerate("cdb"):
        os.utime(paths[name], (1000 + age, 1000 + age))
    ask("c")  # used again: d is the oldest now
    opened = paths["d"].open("rb")
    ask("e")
    assert [name for name in "bcd" if paths[name].exists()] == ["b", "c"]
    with opened:
        assert opened.read() == files["d"]
    with pytest.raises(UserError, match="more than the whole cache may have"):
        fetch(place)


def test_a_full_disk(server: Server, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        place = place_at(server, disk / "cache")
        other = DATA[::-1]
        (tmp_path / "served" / "b.bin").write_bytes(other)
        assert fetch(place)
        assert fetch(place, "b.bin", other)  # the first makes room
        (disk / "rest").write_bytes(bytes(800_000))
        path_in(disk / "cache", other).unlink()
        (disk / "more").write_bytes(bytes(2_000_000))
        with pytest.raises(UserError, match=r"the cache .* cannot be written \(No space left on device\)"):
            fetch(place)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_transfer_leaves_nothing_that_counts(server: Server, tmp_path: Path) -> None:
    server.faults["a.bin"] = ["stall"]
    place = place_at(server, tmp_path / "cache", stall_seconds=60)
    process = multiprocessing.get_context("spawn").Process(target=fetch, args=(place,))
    process.start()
    while not server.got["/a.bin"]:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert fetch(place)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_hints_are_fetched_meanwhile(server: Server, tmp_path: Path) -> None:
    place = place_at(server, tmp_path / "cache")
    place.wanted([("nothing", 5, "0" * 64), ("a.bin", len(DATA), HASH)])
    path, until = path_in(tmp_path / "cache"), time.monotonic() + 10
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    asked = server.got["/a.bin"]
    assert fetch(place) and server.got["/a.bin"] == asked


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "a\\..\\b", "c:/x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    for place in (Place(tmp_path), Place("http://127.0.0.1:9/x", Remote(tmp_path))):
        with pytest.raises(UserError, match="leads out of it"):
            place.opened(name, 1, HASH)
        with pytest.raises(UserError, match="leads out of it"):
            place.read(name)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    place = Place("http://me:secret@127.0.0.1:9/x?token=secret", Remote(tmp_path))
    assert place.show("a") == "http://127.0.0.1:9/x/a"


def test_an_address_of_no_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nosuch"):
        Place("nosuch://x/y", Remote(tmp_path)).read("manifest.json")


def stream_at(location: str | Path, remote: Remote | None, **options) -> ImageStream:
    return ImageStream(location, seed=3, resolution=8, channels=3, block_shards=2, remote=remote, **options)


def test_a_stream_over_http_is_the_local_one(tmp_path: Path) -> None:
    manifest = shards_of(tmp_path, 30, 4)
    local = stream_at(tmp_path / "shards", None)
    with serving(tmp_path / "shards") as server:
        remote = Remote(tmp_path / "cache", tries=3, pause_seconds=0.01, stall_seconds=10)
        stream = stream_at(server.address, remote, cache_bytes=0)
        server.faults = {manifest.shards[1].name: [500, "wrong"], manifest.shards[2].name: ["short"]}
        requests = [(np.arange(start, start + 10), None) for start in range(0, 60, 10)]
        with Loader(stream, requests) as found, Loader(local, requests) as wanted:
            for one, other in zip(found, wanted, strict=True):
                assert (one.images == other.images).all()
        far = stream_at(server.address, Remote(tmp_path / "far"), cache_bytes=0)
        server.got.clear()
        far.fetch(np.array([29]))
        fetched = {path for path in server.got if path.endswith(".tar")}
        assert fetched == {f"/{manifest.shards[-1].name}"}
        (tmp_path / "shards" / manifest.shards[0].name).unlink()
        gone = stream_at(server.address, Remote(tmp_path / "gone", tries=1), cache_bytes=0)
        with pytest.raises(UserError, match=r"shard-000000\.tar: is missing"):
            gone.fetch(np.array([0]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of moto and botocore
def test_a_stream_from_s3_is_the_local_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
    boto3 = pytest.importorskip("boto3", reason="the extra `dev` is not installed")
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "y"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    shards_of(tmp_path, 20, 4)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="images")
        for path in (tmp_path / "shards").iterdir():
            client.upload_file(str(path), "images", f"set/{path.name}")
        client.close()
        remote = Remote(tmp_path / "cache", tries=2, pause_seconds=0.01, options=(("endpoint_url", endpoint),))
        stream, local = stream_at("s3://images/set", remote), stream_at(tmp_path / "shards", None)
        assert (stream.read(np.arange(40)).images == local.read(np.arange(40)).images).all()
        with pytest.raises(UserError, match="s3://images/other: is no folder of shards"):
            stream_at("s3://images/other", remote)
    finally:
        server.stop()
