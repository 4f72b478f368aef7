"""The dashboard: static files, and what they must know to find the API.

It is plain ES modules without a build step or anything from elsewhere: it works offline, and a strict content
security policy holds. The files are public; everything they show comes from the API, which asks for a key.
"""

# No "from __future__ import annotations": FastAPI must see the annotations of functions within functions.

from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from .problems import Problem, ProblemRoute
from .service import Service, answer

#: Where the dashboard stands.
UI_PREFIX: Final = "/ui"
_FOLDER: Final = Path(__file__).parent / "ui"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def ui_routes(service: Service) -> APIRouter:
    """Return the routes of the dashboard, to be mounted under ``UI_PREFIX``."""
    router = APIRouter(prefix=UI_PREFIX, route_class=ProblemRoute, include_in_schema=False)
    files = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    @router.get("")
    def without_slash(request: Request) -> Response:
        url = f"{request.scope.get('root_path', '')}{UI_PREFIX}/"
        return RedirectResponse(url, HTTPStatus.PERMANENT_REDIRECT)

    @router.get("/")
    def index() -> Response:
        return _file(files["index.html"])

    @router.get("/config.json")
    def config(request: Request) -> Response:
        app = service.client.app
        tables = ("orchestrations", "entities", "activities")
        # The names of a hub that asks for keys are not for everybody; the page works without them.
        known = app is not None and not service.access.keys
        told: dict[str, Any] = {table: sorted(getattr(app, table)) if known else [] for table in tables}
        api = f"{request.scope.get('root_path', '')}{service.prefix}"
        return answer({"api": api, "hub": service.hub, **told})

    @router.get("/{name}")
    def static(name: str) -> Response:
        if name not in files:
            raise Problem(HTTPStatus.NOT_FOUND, f"the dashboard has no file {name!r}")
        return _file(files[name])

    return router


def _file(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix], headers=_HEADERS)
