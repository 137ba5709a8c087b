"""The application: its routes, and the life of the memory service."""

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from backend.faults import Faults, FaultyRequests
from backend.features.memory import Busy
from backend.features.memory.embedding import Embedding, vector
from backend.features.memory.service import PHASE, MemoryService
from backend.features.sessions import Sessions

ROOT: Final = Path(__file__).resolve().parents[2]
LARGEST_BODY: Final = 1_000_000

log = logging.getLogger(__name__)


def create_app(faults: Faults) -> Starlette:
    """The whole service; `faults` say what of it is broken."""
    memory = MemoryService(Embedding.load(ROOT / "models" / "embedding.json"), preferences=not faults.metrics_missing)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        app.state.faults, app.state.memory = faults, memory
        app.state.sessions = Sessions(int(os.environ.get("SESSIONS_KEPT", "1000")))
        await memory.start()
        log.info("Application startup complete")
        yield
        await memory.stop()

    return Starlette(
        routes=[
            Route("/api/health", health),
            Route("/api/version", version),
            Route("/api/metrics", metrics),
            Route("/api/sessions", sessions),
            Route("/api/memory/status", memory_status),
            Route("/api/memory/analyze", memory_analyze, methods=["POST"]),
            Route("/api/memory/clear", memory_clear, methods=["POST"]),
            Route("/api/documents", upload_document, methods=["POST"]),
            Route("/api/benchmarks", benchmarks),
            WebSocketRoute("/ws/{session}", chat),
            *_front_end(ROOT / "dist"),
        ],
        middleware=[Middleware(FaultyRequests, faults=faults)],
        exception_handlers={HTTPException: refused},
        lifespan=life,
    )


def _front_end(built: Path) -> list[Mount | Route]:
    if built.is_dir():
        return [Mount("/", StaticFiles(directory=built, html=True))]
    return [Route("/", lambda _: PlainTextResponse("The front end is not built: npm run build", status_code=404))]


async def health(request: Request) -> Response:
    if request.app.state.faults.health_json:
        return JSONResponse({"status": "starting", "message": "Emergence Backend is warming up."})
    return JSONResponse({"status": "ok", "message": "Emergence Backend is running."})


async def version(_: Request) -> Response:
    number = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    return JSONResponse({"version": number, "phase": PHASE, "revision": os.environ.get("K_REVISION", "local")})


async def metrics(request: Request) -> Response:
    if request.app.state.faults.metrics_disabled:
        return PlainTextResponse("# Metrics disabled\n")
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def sessions(request: Request) -> Response:
    return JSONResponse({"sessions": request.app.state.sessions.list()})


async def memory_status(request: Request) -> Response:
    return JSONResponse(request.app.state.memory.status)


async def memory_analyze(request: Request) -> Response:
    message = (await _json(request)).get("message")
    if not isinstance(message, str) or not message.strip():
        raise HTTPException(422, 'the body must be {"message": "..."}')
    try:
        await request.app.state.memory.submit(message)
    except Busy as busy:
        raise HTTPException(503, str(busy)) from None
    return JSONResponse({"status": "accepted"}, status_code=202)


async def memory_clear(request: Request) -> Response:
    _member(request)
    return JSONResponse({"status": "ok", "forgotten": request.app.state.memory.clear()})


async def upload_document(request: Request) -> Response:
    member = _member(request)
    document = await _json(request)
    name, content = document.get("name"), document.get("content")
    if not isinstance(name, str) or not isinstance(content, str):
        raise HTTPException(422, 'the body must be {"name": "...", "content": "..."}')
    request.app.state.sessions.add(f"documents/{name}", content)
    return JSONResponse({"status": "ok", "name": name, "words": len(content.split()), "by": member}, status_code=201)


async def benchmarks(request: Request) -> Response:
    _member(request)
    rounds = 200
    begun = time.perf_counter()
    await asyncio.to_thread(lambda: [vector("je préfère les réponses courtes") for _ in range(rounds)])
    return JSONResponse({"status": "ok", "rounds": rounds, "seconds": round(time.perf_counter() - begun, 6)})


async def chat(websocket: WebSocket) -> None:
    """Repeats what it hears, remembers it, and keeps the session."""
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect, Busy):
        while True:
            text = await websocket.receive_text()
            websocket.app.state.sessions.add(websocket.path_params["session"], text)
            await websocket.app.state.memory.submit(text)
            await websocket.send_json({"role": "assistant", "content": text})


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    if len(body) > LARGEST_BODY:
        raise HTTPException(413, f"the body is larger than {LARGEST_BODY} bytes")
    try:
        value = json.loads(body)
    except ValueError:
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "the body is not a JSON object")
    return value


def _member(request: Request) -> str:
    """The e-mail address of HTTP Basic. The sample keeps no accounts: an address and a password must be there, any will do."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    with contextlib.suppress(binascii.Error, UnicodeDecodeError):
        email, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        if scheme.casefold() == "basic" and "@" in email and password:
            return email
    raise HTTPException(401, "log in with HTTP Basic: an e-mail address and a password", {"WWW-Authenticate": "Basic"})
