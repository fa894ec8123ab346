"""The application: addresses, statuses and the OpenAPI document. Needs FastAPI, of the extra ``cluster``.

Only ``server`` imports this module, when a service starts.
"""

import asyncio
import hmac
import time
from collections.abc import Callable
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cornernet_runtime.errors import FrameError, ServeError
from cornernet_runtime.serve.messages import Answer, ModelInfo, Question
from cornernet_runtime.serve.metrics import Metrics
from cornernet_runtime.serve.options import Limits
from cornernet_runtime.serve.page import page_and_policy
from cornernet_runtime.serve.picture_header import FORMATS, MOST_SCANS, has_too_many_scans, header_size
from cornernet_runtime.serve.schemas import REASONS, Problem, Result, State
from cornernet_runtime.serve.uploads import RefusalError, Uploads
from cornernet_runtime.version import __version__


class Detecting(Protocol):
    """What the application asks of the replicas."""

    info: ModelInfo | None

    async def ask(self, question: Question) -> Answer:
        """Return the answer to a question."""

    async def running(self) -> int:
        """Return how many replicas are up."""


class _Service:
    """What the addresses share."""

    def __init__(self, replicas: Detecting, limits: Limits, token: bytes | None, metrics: Metrics) -> None:
        self.replicas, self.limits, self.metrics = replicas, limits, metrics
        self._token, self.uploads = token, Uploads(limits)

    def check_token(self, request: Request) -> None:
        """Refuse a request without the token, which is compared in a time that tells nothing about it."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are decoded as Latin-1, so this gives back the bytes that came.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            detail = "this service asks for its token: send the header 'Authorization: Bearer TOKEN'"
            raise RefusalError(401, detail, {"WWW-Authenticate": 'Bearer realm="cornernet-serve"'})

    async def detect(self, request: Request, score: float, *, draw: bool) -> bytes:
        """Return the body of the response to a picture.

        Raises:
            RefusalError: There is none.
        """
        self.check_token(request)
        if self.replicas.info is None:
            raise RefusalError(503, "the model is being loaded; try again in a second", {"Retry-After": "1"})
        waits = request.headers.get("expect", "").lower() == "100-continue"
        declared = request.headers.get("content-length")
        async with self.uploads.receive(request.stream(), declared, waits=waits) as body:
            return await self._answer(body, score, draw=draw)

    async def _answer(self, body: bytearray, score: float, *, draw: bool) -> bytes:
        self._check_picture(body)
        try:
            async with asyncio.timeout(self.limits.answer_s):
                answer = await self.replicas.ask(Question(body, score, draw))
        except TimeoutError:
            detail = f"no detections within {self.limits.answer_s:g} seconds; the service is too busy"
            raise RefusalError(504, detail) from None
        except ServeError as error:
            raise RefusalError(503, str(error), {"Retry-After": "1"}) from error
        self.metrics.count_answer(answer)
        if answer.fault:
            raise RefusalError(503, answer.problem, {"Retry-After": "1"})
        if answer.content is None:
            raise RefusalError(422, answer.problem)
        return answer.content

    def _check_picture(self, body: bytes | bytearray) -> None:
        try:
            size = header_size(body)
        except FrameError as error:
            raise RefusalError(422, str(error)) from error
        if size is None:
            detail = f"the body is no {FORMATS}; send the bytes of one, no form: curl --data-binary @picture.jpg"
            raise RefusalError(415, detail)
        if size[0] * size[1] > self.limits.pixels:
            width, height = size
            detail = f"the picture has {width}x{height} pixels, more than {self.limits.pixels}; send a smaller one"
            raise RefusalError(413, detail)
        if has_too_many_scans(body):
            raise RefusalError(422, f"the JPEG has more than {MOST_SCANS} scans; save it anew, as a baseline JPEG")


def create_app(
    replicas: Detecting,
    limits: Limits,
    token: bytes | None,
    metrics: Metrics,
    ends: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Return the application.

    Args:
        replicas: That detect.
        limits: What is refused.
        token: That requests for detections and metrics have to bring; None asks for none.
        metrics: What counts.
        ends: Says whether the service is about to end, and so every connection after its response.
    """
    service = _Service(replicas, limits, token, metrics)
    app = FastAPI(
        title="cornernet-serve",
        version=__version__,
        description="Objects in pictures, found by a CornerNet.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(_Counted, metrics=metrics, ends=ends)
    _add_detection(app, service)
    _add_state(app, service)
    _add_handlers(app)
    _add_document(app, with_token=token is not None)
    return app


def _add_detection(app: FastAPI, service: _Service) -> None:
    picture = {"schema": {"type": "string", "format": "binary"}}
    kinds = ("application/octet-stream", "image/jpeg", "image/png", "image/webp", "image/bmp")
    body = {"requestBody": {"required": True, "content": dict.fromkeys(kinds, picture)}}
    refusals = _refusals(400, 401, 408, 413, 415, 422, 503, 504)
    Score = Annotated[float, Query(ge=0, le=1, description="Least score of an object")]  # noqa: N806 - a type

    @app.post("/detect", openapi_extra=body, responses={200: {"model": Result}, **refusals})
    async def detect(request: Request, score: Score = 0.3) -> Response:
        """Return the objects of the picture in the body."""
        content = await service.detect(request, score, draw=False)
        return Response(content, media_type="application/json")

    jpeg = {"content": {"image/jpeg": picture}, "description": "The picture with its objects drawn"}

    @app.post("/detect/picture", openapi_extra=body, responses={200: jpeg, **refusals}, response_class=_Jpeg)
    async def detect_and_draw(request: Request, score: Score = 0.3) -> Response:
        """Return the picture in the body with its objects drawn, a JPEG."""
        return _Jpeg(await service.detect(request, score, draw=True))


class _Jpeg(Response):
    media_type = "image/jpeg"


def _add_state(app: FastAPI, service: _Service) -> None:
    page, policy = page_and_policy()
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

    @app.get("/", response_class=HTMLResponse)
    async def index() -> HTMLResponse:
        """Return a page to drop a picture on."""
        return HTMLResponse(page, headers=headers)

    @app.get("/health")
    async def health() -> State:
        """Say that the process answers."""
        return State(status="alive")

    @app.get("/ready", responses=_refusals(503))
    async def ready() -> State:
        """Say whether pictures can be detected in now."""
        info = service.replicas.info
        if info is None:
            raise RefusalError(503, "the model is being loaded", {"Retry-After": "1"})
        replicas = await service.replicas.running()
        if not replicas:
            raise RefusalError(503, "no replica is up; one is being started", {"Retry-After": "1"})
        return State(status="ready", model=info.name, replicas=replicas)

    text: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "For Prometheus"}
    }

    @app.get("/metrics", responses={**text, **_refusals(401)}, response_class=Response)
    async def metrics(request: Request) -> Response:
        """Return counters and histograms in Prometheus' text format."""
        service.check_token(request)
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


class _Counted:
    """Counts requests around the application, as plain ASGI: FastAPI's middleware would copy each body."""

    def __init__(self, app: ASGIApp, metrics: Metrics, ends: Callable[[], bool]) -> None:
        self._app, self._metrics, self._ends = app, metrics, ends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and count it by its route: paths that nobody serves share one name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # for a client that went away
        # A client that waits for leave to send its body, and does not get it, sends the body or its next request:
        # nobody knows which, so the connection ends.
        asks = any(name == b"expect" for name, _ in scope["headers"])

        async def read() -> Message:
            nonlocal asks
            asks = False
            return await receive()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if asks or self._ends():  # or a client would send its next request into a closed connection
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        self._metrics.begin()
        try:
            await self._app(scope, read, watch)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.end(path, status, time.perf_counter() - start)


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(RefusalError)
    async def refuse(_request: Request, error: RefusalError) -> JSONResponse:
        return JSONResponse({"detail": error.detail}, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> JSONResponse:
        detail = f"{request.method} {request.url.path}: {error.detail}; /openapi.json says what there is"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def explain_query(_request: Request, error: RequestValidationError) -> JSONResponse:
        parts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"detail": "; ".join(parts)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def let_go(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"detail": "the connection ended within the body"}, 400)  # nobody reads it

    @app.exception_handler(Exception)
    async def admit(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "a defect of this service; its log says which"}, 500)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the document says of refusals: JSON, whatever the address gives otherwise."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"content": content, "description": REASONS[status]} for status in statuses}


def _add_document(app: FastAPI, *, with_token: bool) -> None:
    """Add to the OpenAPI document what refusals look like, and where the token is asked for."""
    make = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            content = make()
            schemas = content.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            if with_token:
                schemes = content["components"].setdefault("securitySchemes", {})
                schemes["token"] = {"type": "http", "scheme": "bearer"}
                for path in ("/detect", "/detect/picture", "/metrics"):
                    for operation in content["paths"][path].values():
                        operation["security"] = [{"token": []}]
            app.openapi_schema = content
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to extend it
