"""A real HTTP server on loopback that can be told to fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        got: how often each path was asked for by GET.
        faults: by the end of a path, what to do with the next GETs, one after the other: a status, "stall", "short" or
            "wrong".
        ranges: whether it knows them.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.got: Counter[str] = Counter()
        self.faults: dict[str, list[int | str]] = {}
        self.ranges = True
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.server.got[self.path] += 1
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        faults = next((f for end, f in self.server.faults.items() if self.path.endswith(end)), [])
        fault = faults.pop(0) if faults and body else ""
        if not path.is_file():
            fault = 404
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        asked, first, last = self.headers.get("Range") if self.server.ranges else None, 0, len(data) - 1
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        part = data[first : last + 1]
        self.send_response(206 if asked else 200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if not body:
            return
        if fault == "wrong":
            part = bytes(len(part))
        if fault in ("stall", "short"):
            part = part[: len(part) // 2]
        self.wfile.write(part)
        self.wfile.flush()
        if fault == "stall":
            self.server.ended.wait(20)
        if fault in ("stall", "short"):
            self.close_connection = True


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of a folder, in a thread."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
