"""The page to paint on, asked as a browser asks it, with a painter that shows what it was given."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advgen.data.components import connected_parts
from advgen.errors import UserError
from advgen.game import Batch
from advgen.tools.maps import MapFile

paint = pytest.importorskip("advgen.tools.paint", reason="the extra `paint` is not installed")
testclient = pytest.importorskip("starlette.testclient")

EASEL = paint.Easel("a run", ("sky", "sea", "land"), 255, 8, 12, sees_instances=True, has_styles=True)
HOME = "http://127.0.0.1:8008"


class Painter:
    """Paints the ids, and remembers what it was handed."""

    def __init__(self) -> None:
        self.seen: list[tuple[Batch, int]] = []

    def __call__(self, like: Batch, seed: int) -> torch.Tensor:
        self.seen.append((like, seed))
        assert like.label_map is not None
        return (like.label_map[:, None].expand(-1, 3, -1, -1) * 10 + seed).byte()


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def client(painter: Painter) -> Any:
    return testclient.TestClient(paint.application(EASEL, painter), base_url=HOME)


def png(ids: Any, dtype: type = np.uint8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.asarray(ids).astype(dtype)).save(out, "PNG")
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


LABELS = np.random.default_rng(3).integers(0, 3, (8, 12))
INSTANCES = np.arange(96).reshape(8, 12) + 33_000


def setting_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="setting" type="application/json">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


# -- pictures -------------------------------------------------------------------------------------------------------
def test_a_map_is_painted(client: Any, painter: Painter) -> None:
    answer = client.post("/paint", files={"label_map": ("m.png", png(LABELS))}, data={"seed": "4"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert re.fullmatch(r"paint;dur=\d+", answer.headers["server-timing"])
    assert (pixels(answer.content) == LABELS[..., None] * 10 + 4).all()
    (like, seed), *_ = painter.seen
    assert seed == 4 and like.label_map is not None and (like.label_map[0].numpy() == LABELS).all()
    assert like.instance_map is not None
    assert (like.instance_map[0].numpy() == connected_parts(like.label_map[0].numpy())).all()


def test_instances_that_are_sent_are_taken(client: Any, painter: Painter) -> None:
    files = {"label_map": ("m.png", png(LABELS)), "instance_map": ("i.png", png(INSTANCES, np.uint16))}
    assert client.post("/paint", files=files).status_code == 200
    like, seed = painter.seen[0]
    assert seed == 0 and like.instance_map is not None and (like.instance_map[0].numpy() == INSTANCES).all()


def test_a_run_that_sees_no_instances_gets_none(painter: Painter) -> None:
    easel = paint.Easel("flat", ("a", "b", "c"), None, 8, 12, sees_instances=False, has_styles=False)
    client = testclient.TestClient(paint.application(easel, painter), base_url=HOME)
    label_map = ("m.png", png(LABELS))
    assert client.post("/paint", files={"label_map": label_map}).status_code == 200
    assert painter.seen[0][0].instance_map is None
    refused = client.post(
        "/paint", files={"label_map": label_map, "instance_map": ("i.png", png(INSTANCES, np.uint16))}
    )
    assert refused.status_code == 422 and "i.png: this run sees no instances" in refused.json()["refused"]
    assert "hidden>Load instances" in client.get("/").text


@pytest.mark.parametrize(
    ("files", "seed", "message"),
    [
        ({}, "0", "label_map: is missing"),
        ({"label_map": b"no picture"}, "0", "label_map.png: is no image of a known format"),
        ({"label_map": b""}, "0", "label_map.png: is empty"),
        ({"label_map": png(LABELS)[:40]}, "0", "label_map.png: "),
        ({"label_map": png(LABELS.T)}, "0", "label_map.png: has 8 x 12 pixels; this run paints 12 x 8."),
        ({"label_map": png(LABELS + 3)}, "0", "label_map.png: holds the ids [3, 4, 5]; this run knows 0 to 2."),
        ({"label_map": png(np.zeros((8, 12, 3)))}, "0", "label_map.png: has colours (RGB)"),
        ({"label_map": png(LABELS), "instance_map": b"?"}, "0", "instance_map.png: is no image"),
        (
            {"label_map": png(LABELS), "instance_map": png(LABELS.T)},
            "0",
            "instance_map.png: has 8 x 12 pixels, its label map 12 x 8",
        ),
        ({"label_map": png(LABELS)}, "-1", "seed: must be a number from 0 to"),
        ({"label_map": png(LABELS)}, "9999999999", "seed: must be"),
        ({"label_map": png(LABELS)}, "1e3", "seed: must be"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    client: Any, painter: Painter, files: dict[str, bytes], seed: str, message: str
) -> None:
    sent = {part: (f"{part}.png", data) for part, data in files.items()}
    answer = client.post("/paint", files=sent, data={"seed": seed})
    assert answer.status_code == 422 and message in answer.json()["refused"]
    assert not painter.seen


def test_one_picture_is_painted_at_a_time() -> None:
    import threading
    import time

    at_once, most, count = 0, 0, threading.Lock()

    def slow(like: Batch, seed: int) -> torch.Tensor:
        nonlocal at_once, most
        with count:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with count:
            at_once -= 1
        return torch.zeros(1, 3, 8, 12, dtype=torch.uint8)

    with testclient.TestClient(paint.application(EASEL, slow), base_url=HOME) as client:
        ask = partial(client.post, "/paint", files={"label_map": ("m.png", png(LABELS))})
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


# -- files that are loaded --------------------------------------------------------------------------------------------
def test_a_file_is_read_for_the_page(client: Any) -> None:
    for data in (png(LABELS), png(LABELS, np.uint16)):
        answer = client.post("/check", files={"label_map": ("m.png", data)})
        assert base64.b64decode(answer.json()["ids"]) == LABELS.astype(np.uint8).tobytes()
    none = np.where(LABELS == 1, 255, LABELS)
    answer = client.post("/check", files={"label_map": ("m.png", png(none))})
    assert base64.b64decode(answer.json()["ids"]) == none.astype(np.uint8).tobytes()


def test_a_bad_file_is_an_answer_and_no_error_of_the_browser(client: Any) -> None:
    answer = client.post("/check", files={"label_map": ("my photo.jpg", b"\xff\xd8 no")})
    assert answer.status_code == 200 and answer.json()["refused"].startswith("my photo.jpg: ")


# -- the page -------------------------------------------------------------------------------------------------------
def test_the_page_needs_nothing_else_and_says_so(client: Any) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]{20,})'", policy)
    assert nonce is not None and policy.startswith("default-src 'none'")
    assert answer.text.count(f'nonce="{nonce[1]}"') == 2
    assert nonce[1] not in client.get("/").text
    assert not re.search(r"""(src|href)=["'](?!data:,)|https?://|@import|url\(""", answer.text)
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    setting = setting_of(answer.text)
    assert [each["name"] for each in setting["classes"]] == ["sky", "sea", "land", "none"]
    assert [each["id"] for each in setting["classes"]] == [0, 1, 2, 255]
    assert (setting["width"], setting["height"]) == (12, 8) and "ids" not in setting


def test_a_run_s_name_is_text(painter: Painter) -> None:
    easel = paint.Easel("</script><b>", ("<i>",), None, 8, 8, sees_instances=False, has_styles=False)
    text = testclient.TestClient(paint.application(easel, painter), base_url=HOME).get("/").text
    assert "<b>" not in text and "<i>" not in text
    assert setting_of(text)["run"] == "</script><b>"


def test_the_page_begins_with_a_map(painter: Painter) -> None:
    instances = png(INSTANCES, np.uint16)
    app = paint.application(EASEL, painter, (MapFile("m.png", png(LABELS)), MapFile("i.png", instances)))
    setting = setting_of(testclient.TestClient(app, base_url=HOME).get("/").text)
    assert base64.b64decode(setting["ids"]) == LABELS.astype(np.uint8).tobytes()
    assert base64.b64decode(setting["instances"]["file"]) == instances and setting["instances"]["name"] == "i.png"
    with pytest.raises(UserError, match="wide.png: has 8 x 12 pixels"):
        paint.application(EASEL, painter, (MapFile("wide.png", png(LABELS.T)), None))


# -- who may ask ------------------------------------------------------------------------------------------------------
def test_foreign_names_of_this_machine_are_refused(client: Any, painter: Painter) -> None:
    for host in ("evil.example", "evil.example:8008", "127.0.0.1.evil.example"):
        assert client.get("/", headers={"Host": host}).status_code == 400
        sent = client.post("/paint", files={"label_map": ("m.png", png(LABELS))}, headers={"Host": host})
        assert sent.status_code == 400
    assert client.get("/", headers={"Host": "localhost:8008"}).status_code == 200
    assert not painter.seen


def test_foreign_pages_are_refused(client: Any, painter: Painter) -> None:
    files = {"label_map": ("m.png", png(LABELS))}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8008"):
        assert client.post("/paint", files=files, headers={"Origin": origin}).status_code == 403
    assert not painter.seen
    assert client.post("/paint", files=files, headers={"Origin": HOME}).status_code == 200
    assert "access-control-allow-origin" not in client.get("/").headers


def test_bodies_have_a_bound(client: Any, painter: Painter) -> None:
    large = client.post("/paint", content=b"", headers={"Content-Length": str(paint.MOST_BYTES + 1)})
    assert large.status_code == 413 and "32 MiB" in large.json()["refused"]
    assert client.post("/paint", content=iter([b"a"])).status_code == 411
    parts = [("label_map", ("m.png", png(LABELS)))] * 3
    assert client.post("/paint", files=parts).status_code == 400
    assert client.post("/paint", data={"label_map": "text"}).status_code == 422
    assert client.get("/paint").status_code == 405 and client.get("/elsewhere").json() == {"refused": "Not Found"}
    assert not painter.seen


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot be had .*Address already in use"):
            paint.listen(port)
    with pytest.raises(UserError, match="--port 70000: must be 0 to 65535"):
        paint.listen(70000)
    with paint.listen(0) as own:
        assert own.getsockname()[0] == "127.0.0.1"
