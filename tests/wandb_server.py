"""As much of a W&B server, on loopback, as its client needs to send runs and reports: GraphQL, file streams, uploads.

It has one project, ``me/p``.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

KEY = "0" * 40


@dataclass
class Stored:
    """A run as the server holds it."""

    history: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    preempting: int = 0

    def rows(self) -> list[dict[str, Any]]:
        """The history, as objects."""
        return [json.loads(line) for line in self.history]


class WandbServer(ThreadingHTTPServer):
    """Holds what it is sent.

    Attributes:
        runs: by id.
        artifacts: what was committed, by name, type and digest, with the metadata.
        lineage: (run id, "made" or "used", artifact) in the order of coming.
        uploads: names of files.
        reports: by id, with the fields of W&B's views; ``spec`` is JSON.
        failing: whether file streams are answered with an error of the server.
        unknown: operations that it was asked and does not know.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, Stored] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.lineage: list[tuple[str, str, str]] = []
        self.uploads: list[str] = []
        self.reports: dict[str, dict[str, Any]] = {}
        self.failing = False
        self.unknown: list[str] = []
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone before its answer is no news."""

    @property
    def url(self) -> str:
        """Of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, operation: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """The data of an operation; None for one that is not known."""
        with self._lock:
            known = getattr(self, f"_{operation}", None)
            if known is None:
                self.unknown.append(operation)
                return None
            return known(values)

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """Take a chunk of a run's file stream; lines go where their offset says."""
        with self._lock:
            stored = self.runs[run]
            chunk = sent.get("files", {}).get("wandb-history.jsonl")
            if chunk is not None:
                start = chunk["offset"]
                stored.history[start : start + len(chunk["content"])] = chunk["content"]
            if sent.get("complete"):
                stored.exit_codes.append(sent["exitcode"])
            stored.preempting += bool(sent.get("preempting"))

    def _Viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _RunResumeStatus(self, values: dict[str, Any]) -> dict[str, Any]:
        stored = self.runs.get(values["name"])
        bucket = None
        if stored is not None:
            bucket = {
                "id": f"storage-{values['name']}",
                "name": values["name"],
                "displayName": values["name"],
                "summaryMetrics": "{}",
                "logLineCount": 0,
                "historyLineCount": len(stored.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps(stored.history[-1:]),
                "eventsTail": "[]",
                "config": json.dumps(stored.config),
                "tags": [],
                "notes": None,
                "wandbConfig": '{"t": 1}',
            }
        return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "me"}, "bucket": bucket}}

    def _UpsertBucket(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["name"]
        inserted = name not in self.runs
        stored = self.runs.setdefault(name, Stored())
        if values.get("config"):
            stored.config = json.loads(values["config"])
        kept = ("groupName", "displayName", "jobType", "tags", "notes", "project")
        stored.about.update({key: values[key] for key in kept if values.get(key) is not None})
        project = {"id": "pp", "name": values["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {"id": f"storage-{name}", "name": name, "displayName": name, "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _CreateRunFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in values["files"]]
        return {"createRunFiles": {"runID": values["run"], "uploadHeaders": [], "files": files}}

    def _NotifyScriptableRunAlert(self, values: dict[str, Any]) -> dict[str, Any]:
        self.runs[values["runName"]].alerts.append(values)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _CreateArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        given = values["input"]
        name = "|".join((given["artifactCollectionName"], given["artifactTypeName"], given["digest"]))
        known = name in self.artifacts
        if not known:
            self.artifacts[name] = json.loads(given["metadata"])
        if given.get("runName"):
            self.lineage.append((given["runName"], "made", name))
        artifact = {"id": name, "state": "COMMITTED" if known else "PENDING"}
        return {"createArtifact": {"artifact": {**artifact, "artifactSequence": {"latestArtifact": None}}}}

    def _CreateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def _UpdateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": self._CreateArtifactManifest(values)["createArtifactManifest"]}

    def _CommitArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": values["artifactID"], "digest": "d"}}}

    def _ArtifactByID(self, values: dict[str, Any]) -> dict[str, Any]:
        name, kind, digest = values["id"].split("|")
        project = {"id": "pp", "internalId": "pp", "name": "p", "entity": {"name": "me"}}
        artifact = {
            "__typename": "Artifact",
            "id": values["id"],
            "artifactSequence": {"__typename": "ArtifactSequence", "name": name, "project": project},
            "versionIndex": 0,
            "artifactType": {"name": kind},
            "description": None,
            "metadata": json.dumps(self.artifacts[values["id"]]),
            "ttlDurationSeconds": -1,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED",
            "size": 0,
            "digest": digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": "c",
            "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00Z",
            "updatedAt": None,
            "aliases": [],
        }
        return {"artifact": artifact}

    def _UseArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        given = values["input"]
        self.lineage.append((given["runName"], "used", given["artifactID"]))
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def _GetDefaultEntity(self, values: dict[str, Any]) -> dict[str, Any]:
        return self._Viewer(values)

    def _GetProjects(self, values: dict[str, Any]) -> dict[str, Any]:
        about = {"createdAt": "2026-01-01T00:00:00Z", "isBenchmark": False, "user": None}
        node = {"__typename": "Project", "id": "pp", "name": "p", "entityName": values["entity"], **about}
        return {"models": _page([node] if values["entity"] == "me" else [])}

    def _ProjectInternalId(self, values: dict[str, Any]) -> dict[str, Any]:
        return self._of_project(values["entityName"], values["projectName"], {"id": "pp", "internalId": "1"})

    def _Runs(self, values: dict[str, Any]) -> dict[str, Any]:
        wanted = json.loads(values["filters"])["name"]["$in"]
        nodes = [
            {"id": f"storage-{name}", "name": name, "displayName": name, "config": "{}", "summaryMetrics": "{}"}
            for name in self.runs
            if name in wanted
        ]
        about = {"internalId": "1", "runCount": len(nodes), "readOnly": False}
        return self._of_project(values["entity"], values["project"], {**about, "runs": _page(nodes)})

    def _ProjectViews(self, values: dict[str, Any]) -> dict[str, Any]:
        views = {"allViews": _page(list(self.reports.values()))}
        return self._of_project(values["entity"], values["project"], views)

    def _SpecificReport(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"view": self.reports.get(values["reportId"])}

    def _upsertView(self, values: dict[str, Any]) -> dict[str, Any]:
        inserted = values["id"] is None
        identity = b64encode(f"View:{len(self.reports)}".encode()).decode() if inserted else values["id"]
        if identity not in self.reports and not inserted:
            return {"upsertView": None}
        project = {"id": "pp", "name": values["projectName"], "entityName": values["entityName"]}
        given = {key: values[key] for key in ("type", "name", "displayName", "description", "spec")}
        dates = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
        self.reports[identity] = {"id": identity, **given, "project": project, "user": None, **dates}
        return {"upsertView": {"view": self.reports[identity], "inserted": inserted}}

    def _of_project(self, entity: str, project: str, found: dict[str, Any]) -> dict[str, Any]:
        return {"project": found if (entity, project) == ("me", "p") else None}


def _page(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """All of them as one page of a connection of GraphQL."""
    edges = [{"node": node, "cursor": str(index)} for index, node in enumerate(nodes)]
    return {"edges": edges, "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        self._body()
        self.server.uploads.append(self.path.removeprefix("/upload/"))
        self._send({})

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if (stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)) is not None:
            if self.server.failing:
                self._send({"error": "broken"}, 500)
                return
            self.server.stream(stream[1], json.loads(body))
        if self.path != "/graphql":
            self._send({})
            return
        asked = json.loads(body)
        named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
        operation = asked.get("operationName") or (named[1] if named else "")
        data = self.server.answer(operation, asked.get("variables") or {})
        self._send({"data": data} if data is not None else {"errors": [{"message": f"unknown: {operation}"}]})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, value: object, code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[WandbServer]:
    """A server that runs while entered."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_client(home: Path, patch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server to which W&B's client in this process speaks, with a key and a home of its own."""
    import wandb

    with serving() as found:
        patch.setenv("HOME", str(home))
        patch.setenv("WANDB_BASE_URL", found.url)
        patch.setenv("WANDB_API_KEY", KEY)
        wandb.teardown()  # it keeps the server that it spoke to
        yield found
    wandb.teardown()
