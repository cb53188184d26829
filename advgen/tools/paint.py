"""A page on which a person draws a label map and sees the picture that a run paints of it, served on this machine only.

It is one page without other files. The server keeps no state: each request brings its map, which is checked like a file
that a person names.
"""

from __future__ import annotations

import base64
import io
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import jinja2
import python_multipart  # noqa: F401 - starlette reads forms with it, and misses it only when one comes
import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from advgen.data.components import connected_parts
from advgen.errors import UserError
from advgen.game import Batch
from advgen.images import grid
from advgen.tools.maps import MapFile, check_maps
from advgen.tools.palette import colours

HOST = "127.0.0.1"
MOST_CLASSES = 256
"""The page holds a byte a pixel."""
MOST_BYTES = 32 << 20
"""Of a request: two maps, in the largest of formats."""
MOST_SEED = (1 << 31) - 1

Painter = Callable[[Batch, int], Tensor]
"""Maps and a seed to the picture uint8 [1, c, h, w]."""

_NONE_COLOUR = (0, 0, 0)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# The page's own script and style, recognised by a number drawn for each answer.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Easel:
    """What a run paints from.

    Attributes:
        run: its name.
        names: of the classes, in the order of their ids; at most :data:`MOST_CLASSES`.
        ignore: an id below that which stands for no class, or None.
        height: of maps and pictures, in pixels.
        width: the same.
        sees_instances: whether pictures depend on instances.
        has_styles: whether they depend on the seed.
    """

    run: str
    names: tuple[str, ...]
    ignore: int | None
    height: int
    width: int
    sees_instances: bool
    has_styles: bool

    def maps(self, label_map: MapFile, instances: MapFile | None) -> Batch:
        """Checked maps; without an instance map each connected part of a class is an instance.

        Raises:
            UserError: a map does not fit the run.
        """
        if instances is not None and not self.sees_instances:
            raise UserError(f"{instances.name}: this run sees no instances. Leave the instance map out.")
        like = check_maps(
            label_map, instances, classes=len(self.names), ignore=self.ignore, size=(self.height, self.width)
        )
        if like.instance_map is None and self.sees_instances:
            assert like.label_map is not None
            parts = connected_parts(like.label_map[0].numpy())
            return replace(like, instance_map=torch.from_numpy(parts).long()[None])
        return like


def application(easel: Easel, paint: Painter, first: tuple[MapFile, MapFile | None] | None = None) -> Starlette:
    """The page at /, and what it asks: POST /check of a file to load, POST /paint for a picture.

    Args:
        easel: what the run paints from.
        paint: is called by one thread at a time.
        first: label map and instance map that the page begins with; else all is class 0.

    Raises:
        UserError: the first maps do not fit the run.
    """
    setting = _setting(easel) | ({} if first is None else _stored(easel, *first))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    here = Path(__file__).parent
    template = environment.from_string((here / "paint.html.j2").read_text(encoding="utf-8"))
    script = (here / "paint.js").read_text(encoding="utf-8")
    turn = anyio.Lock()

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = template.render(easel=easel, setting=setting, script=script, nonce=nonce)
        return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY.format(nonce=nonce)})

    async def check(request: Request) -> Response:
        # Answered with 200 either way: "no" is an answer to a person's file, and browsers log other codes as errors.
        label_map, instances, _ = await _asked(request)
        try:
            return JSONResponse(await anyio.to_thread.run_sync(_stored, easel, label_map, instances))
        except UserError as error:
            return JSONResponse({"refused": str(error)})

    async def picture(request: Request) -> Response:
        label_map, instances, seed = await _asked(request)

        def work() -> tuple[bytes, float]:
            began = time.perf_counter()
            return _png(paint(easel.maps(label_map, instances), seed)), 1000 * (time.perf_counter() - began)

        async with turn:
            data, milliseconds = await anyio.to_thread.run_sync(work)
        return Response(data, media_type="image/png", headers={"Server-Timing": f"paint;dur={milliseconds:.0f}"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/check", check, methods=["POST"]),
            Route("/paint", picture, methods=["POST"]),
        ],
        # A foreign page may have a name of its own for this machine (DNS rebinding), and send forms here.
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=_guarded),
        ],
        exception_handlers={
            UserError: lambda request, error: _refusal(422, str(error)),
            HTTPException: lambda request, error: _refusal(error.status_code, error.detail),  # pyright: ignore[reportAttributeAccessIssue]
        },
    )


def listen(port: int) -> socket.socket:
    """A socket on this machine only; port 0 takes any that is free.

    Raises:
        UserError: the port cannot be had.
    """
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port {port}: must be 0 to 65535; 0 takes any that is free.")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"--port {port}: cannot be had ({reason}). Name another; 0 takes any that is free.") from None


def serve(app: Starlette, place: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn takes the signals while it runs, and afterwards raises them once more for whoever had them before.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[place])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _guarded(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
    response = _forbidden(request) or await following(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _forbidden(request: Request) -> Response | None:
    if request.method != "POST":
        return None
    if request.headers.get("origin") not in (None, f"http://{request.headers['host']}"):
        return _refusal(403, "Only the page itself may ask.")
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return _refusal(411, "The request must say its length.")
    if int(length) > MOST_BYTES:
        return _refusal(413, f"Maps of more than {MOST_BYTES >> 20} MiB are refused.")
    return None


def _refusal(code: int, reason: str) -> Response:
    return JSONResponse({"refused": reason}, code)


async def _asked(request: Request) -> tuple[MapFile, MapFile | None, int]:
    """Label map, instance map and seed of a form."""
    async with request.form(max_files=2, max_fields=1) as form:
        files: dict[str, MapFile | None] = {}
        for part in ("label_map", "instance_map"):
            value = form.get(part)
            if isinstance(value, str):
                raise UserError(f"{part}: must be a file.")
            given = isinstance(value, UploadFile)
            files[part] = MapFile(value.filename or part, await value.read()) if given else None
        seed = form.get("seed", "0")
    if not isinstance(seed, str) or not re.fullmatch("[0-9]{1,10}", seed) or int(seed) > MOST_SEED:
        raise UserError(f"seed: must be a number from 0 to {MOST_SEED}.")
    if files["label_map"] is None:
        raise UserError("label_map: is missing. Send a map of ids as a PNG file.")
    return files["label_map"], files["instance_map"], int(seed)


def _setting(easel: Easel) -> dict[str, object]:
    """What the page's script must know."""
    classes = [
        {"id": number, "name": name, "colour": colour}
        for number, (name, colour) in enumerate(zip(easel.names, colours(len(easel.names)), strict=True))
    ]
    if easel.ignore is not None and easel.ignore >= len(easel.names):
        classes.append({"id": easel.ignore, "name": "none", "colour": _NONE_COLOUR})
    size = {"width": easel.width, "height": easel.height}
    return {"run": easel.run, **size, "classes": classes, "mostBytes": MOST_BYTES, "mostSeed": MOST_SEED}


def _stored(easel: Easel, label_map: MapFile, instances: MapFile | None) -> dict[str, object]:
    """Checked maps as the page keeps them: a byte a pixel, and the file of the instance map as it came."""
    like = easel.maps(label_map, instances)
    assert like.label_map is not None
    ids = like.label_map.byte().numpy().tobytes()
    own = {} if instances is None else {"instances": {"name": instances.name, "file": _text(instances.data)}}
    return {"ids": _text(ids), **own}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _png(picture: Tensor) -> bytes:
    out = io.BytesIO()
    Image.fromarray(grid(picture, 1).contiguous().numpy()).save(out, "PNG")
    return out.getvalue()
