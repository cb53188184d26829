"""As much of W&B's server as `wandb sweep` and `wandb agent` ask for: it hands out a grid, one by one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml


class SweepServer:
    """Answers GraphQL on the loopback device.

    Attributes:
        config: of the sweep, as `wandb sweep` sent it.
        given: values of each run that was handed out.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.given: list[dict[str, Any]] = []
        self._left: Iterator[tuple[Any, ...]] = iter(())

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of one GraphQL request."""
        if "upsertSweep" in query:
            self.config = yaml.safe_load(variables["config"])
            self._left = itertools.product(*(each["values"] for each in self.config["parameters"].values()))
            project = {"id": "p", "name": self.config["project"], "entity": {"id": "e", "name": "me"}}
            return {"upsertSweep": {"sweep": {"name": "s1", "project": project}, "configValidationWarnings": []}}
        if "SweepWithRuns" in query:
            return {"project": {"sweep": {"config": yaml.safe_dump(self.config), "runs": {"edges": []}}}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "a1"}}}
        if "agentHeartbeat" in query:
            busy = json.loads(variables["runState"])
            return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps([] if busy else [self._next()])}}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _next(self) -> dict[str, Any]:
        values = next(self._left, None)
        if values is None:
            return {"type": "exit"}
        self.given.append(dict(zip(self.config["parameters"], values, strict=True)))
        arguments = {key: {"value": value} for key, value in self.given[-1].items()}
        return {"type": "run", "run_id": f"r{len(self.given)}", "program": "advgen", "args": arguments}


@contextmanager
def serving(server: SweepServer) -> Iterator[str]:
    """The server's address, for as long as it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            body = b"{}"  # what is not GraphQL is of no interest here
            if self.path == "/graphql":
                asked = json.loads(sent)
                body = json.dumps({"data": server.answer(asked["query"], asked.get("variables") or {})}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is told."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
