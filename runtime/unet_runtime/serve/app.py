"""The application: addresses, and what answers each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from unet_runtime.core.errors import UnetRuntimeError
from unet_runtime.io import web_access
from unet_runtime.io.jobs import PixelBudget
from unet_runtime.io.kind import Checkpoint
from unet_runtime.serve import inference
from unet_runtime.serve.body import Bodies
from unet_runtime.serve.browser_page import BrowserPage
from unet_runtime.serve.front import ROUTE, Front
from unet_runtime.serve.limits import Limits
from unet_runtime.serve.metrics import CONTENT_TYPE, Metrics
from unet_runtime.serve.models import Model, Models
from unet_runtime.serve.multipart import read_form
from unet_runtime.serve.overview import Report
from unet_runtime.serve.peers import Peers
from unet_runtime.serve.photos import Photographer, wanted
from unet_runtime.serve.refusals import (
    FAILED,
    GONE,
    NOT_FOUND,
    UNAVAILABLE,
    UNSUPPORTED,
    GoneError,
    RefusalError,
    refusal_of,
)
from unet_runtime.serve.security import Guard
from unet_runtime.serve.tensors import HEADER, read_request
from unet_runtime.serve.work import Work

Endpoint = Callable[[Request], Awaitable[Response]]

_FORM = "multipart/form-data"
_EXPOSED = ("X-Model", "X-Size", "X-Found", "X-Classes", HEADER, "Retry-After")
_PAGE = Path(__file__).with_name("page.html")


class Parts(NamedTuple):
    """What the addresses share."""

    models: Models
    limits: Limits
    metrics: Metrics
    work: Work
    bodies: Bodies
    photographer: Photographer
    guard: Guard
    peers: Peers


class Service:
    """Models behind HTTP; ``app`` is the ASGI application.

    Args:
        models: loaded.
        limits: what clients may take.
        guard: which clients there are.
        threads: photos in work at a time.
        peers: the other processes of the service.
    """

    def __init__(self, models: Models, limits: Limits, guard: Guard, threads: int, peers: Peers) -> None:
        metrics = Metrics()
        work = Work(threads, limits.waiting, limits.seconds, metrics)
        photographer = Photographer(limits.pixels, metrics, PixelBudget(limits.pixels_in_work))
        bodies = Bodies(limits, metrics)
        self._parts = Parts(models, limits, metrics, work, bodies, photographer, guard, peers)
        metrics.watch(models, lambda: work.waiting, lambda: work.running, limits.waiting)
        self.app = Front(self._application(), guard, metrics, bodies)
        peers.watch(self._report)

    def end(self) -> None:
        """Say that the service is no longer ready; what comes all the same is answered, on its last connection."""
        self.app.is_draining = True

    def close(self) -> None:
        """Wait for the worker threads."""
        self._parts.work.close()

    def _application(self) -> Starlette:
        middleware = []
        if self._parts.guard.origins:
            middleware.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=self._parts.guard.origins,
                    allow_methods=("GET", "POST"),
                    allow_headers=("Authorization", "Content-Type", HEADER),
                    expose_headers=_EXPOSED,
                )
            )
        # The classes are called as they come: Starlette looks their handlers up by the class of the error.
        handlers: dict[Any, Any] = {
            HTTPException: _http_error,
            RefusalError: _refused,
            GoneError: _gone,
            UnetRuntimeError: _runtime_error,
            Exception: _unexpected,
        }
        application = Starlette(routes=self._routes(), middleware=middleware, exception_handlers=handlers)
        application.router.redirect_slashes = False  # it reads the Host header, which may hold anything
        return application

    def _routes(self) -> list[Route]:
        model = "/v2/models/{name}"
        version = model + "/versions/{version}"
        routes = [
            _get("/", self._page),
            _get("/health", self._health),
            _get("/models", self._models),
            _get("/metrics", self._metrics),
            _get("/browser/{name}/{version}.zip", self._browser_archive),
            _get("/browser/{name}/{version}/{file:path}", self._browser_file),
            _post("/segment", self._segment),
            _get("/v2", self._server_metadata),
            _get("/v2/health/live", self._live),
            _get("/v2/health/ready", self._ready),
        ]
        for path in (model, version):
            routes += [
                _get(path, self._model_metadata),
                _get(path + "/ready", self._model_ready),
                _get(path + "/config", self._model_config),
                _post(path + "/infer", self._infer),
            ]
        return routes

    # For people, watchdogs and Prometheus

    async def _page(self, request: Request) -> Response:
        response = HTMLResponse(web_access.read_page(_PAGE))
        if self._parts.guard.token:
            response.set_cookie(
                self._parts.guard.cookie, self._parts.guard.token, httponly=True, samesite="strict", path="/"
            )
        return response

    def _report(self) -> Report:
        parts = self._parts
        return Report(
            parts.peers.number,
            parts.metrics.families(),
            parts.work.waiting,
            parts.work.running,
            parts.limits.waiting,
            self.app.is_draining,
            [model.state() for model in parts.models],
        )

    async def _health(self, request: Request) -> Response:
        overview = await self._parts.peers.overview()
        return JSONResponse(overview.health(), 200 if overview.is_ready else UNAVAILABLE)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"models": [model.description() for model in self._parts.models]})

    async def _metrics(self, request: Request) -> Response:
        overview = await self._parts.peers.overview()
        return Response(overview.metrics(), media_type=CONTENT_TYPE)

    async def _browser_file(self, request: Request) -> Response:
        return self._browser_page(request).answer(request.path_params["file"])

    async def _browser_archive(self, request: Request) -> Response:
        return await asyncio.to_thread(self._browser_page(request).archive)

    def _browser_page(self, request: Request) -> BrowserPage:
        model = self._asked_model(request)
        if model.page is None:
            raise RefusalError(
                NOT_FOUND,
                f"no page for browsers beside the file of {model.name}: unet-export --formats web writes one",
            )
        return model.page

    # Photos

    async def _segment(self, request: Request) -> Response:
        parts = self._parts
        parts.work.check_room()
        query = dict(request.query_params)
        accept = request.headers.get("accept", "*/*")
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            raise RefusalError(UNSUPPORTED, f"a body of {kind}, expected a photo's bytes, or a form with one file")
        async with parts.bodies.receive(request) as body:

            def job(checkpoint: Checkpoint) -> Response:
                photo, name, given = body, "", query
                if kind == _FORM:
                    form = read_form(body, content_type)
                    photo, name, given = form.photo, form.file_name, {**form.fields, **query}
                asked = wanted(given, accept)
                model = parts.models.find(asked.model, asked.version)
                content, headers = parts.photographer.answer(photo, name, asked, model, checkpoint)
                return Response(content, media_type=asked.media_type, headers=headers)

            return await parts.work.run(job, lambda: _until_gone(request))

    # Open Inference Protocol v2

    async def _server_metadata(self, request: Request) -> Response:
        return JSONResponse(inference.server_metadata())

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        is_ready = (await self._parts.peers.overview()).is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else UNAVAILABLE)

    async def _model_metadata(self, request: Request) -> Response:
        model = self._asked_model(request)
        return JSONResponse(inference.model_metadata(model, self._parts.models.versions(model.name)))

    async def _model_ready(self, request: Request) -> Response:
        model = self._asked_model(request)
        is_ready = (await self._parts.peers.overview()).is_model_ready(model.name, model.version)
        return JSONResponse({"name": model.name, "ready": is_ready}, 200 if is_ready else UNAVAILABLE)

    async def _model_config(self, request: Request) -> Response:
        model = self._asked_model(request)
        versions = self._parts.models.versions(model.name)
        return JSONResponse(inference.model_config(model, versions, self._parts.limits.photos))

    async def _infer(self, request: Request) -> Response:
        parts = self._parts
        parts.work.check_room()
        model = self._asked_model(request)
        size = (model.spec.input.height, model.spec.input.width)
        async with parts.bodies.receive(request) as body:

            def job(checkpoint: Checkpoint) -> Response:
                read = read_request(body, request.headers.get(HEADER), size, parts.limits.photos)
                checkpoint()
                content, kind, headers = inference.infer(read, model, parts.photographer, checkpoint)
                return Response(content, media_type=kind, headers=headers)

            return await parts.work.run(job, lambda: _until_gone(request))

    def _asked_model(self, request: Request) -> Model:
        return self._parts.models.find(request.path_params["name"], request.path_params.get("version", ""))


def _get(path: str, endpoint: Endpoint) -> Route:
    return Route(path, _noted(path, endpoint), methods=["GET"])


def _post(path: str, endpoint: Endpoint) -> Route:
    return Route(path, _noted(path, endpoint), methods=["POST"])


def _noted(path: str, endpoint: Endpoint) -> Endpoint:
    """An endpoint that tells the metrics which it is."""

    async def answer(request: Request) -> Response:
        request.scope[ROUTE] = path
        return await endpoint(request)

    return answer


async def _until_gone(request: Request) -> None:
    """Return when the client has hung up; its body has been received before."""
    while (await request.receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


async def _refused(request: Request, error: RefusalError) -> Response:
    return error.response()


async def _gone(request: Request, error: GoneError) -> Response:
    return Response(status_code=GONE)


async def _unexpected(request: Request, error: Exception) -> Response:
    return RefusalError(FAILED, "an error that nobody expected: see the service's log").response()


async def _runtime_error(request: Request, error: UnetRuntimeError) -> Response:
    return refusal_of(error).response()


async def _http_error(request: Request, error: HTTPException) -> Response:
    messages = {404: f"no such address: {request.scope['path'][:100]}", 405: f"{request.method} is not taken here"}
    text = messages.get(error.status_code, error.detail)
    return JSONResponse({"error": text}, error.status_code, error.headers)
