"""The HTTP API: a router for your FastAPI app, or a server. docs/http.md; needs the extra ``lungfish[http]``.

::

    api = FastAPI()
    api.include_router(lungfish.http.router(app, keys=[lungfish.http.ApiKey.of("ops", "admin", secret)]))
"""

from lungfish.runtime.http.access import ApiKey, Scope, parse_keys
from lungfish.runtime.http.serve import deployment
from lungfish.runtime.http.server import make_router, make_server, router

__all__ = ["ApiKey", "Scope", "deployment", "make_router", "make_server", "parse_keys", "router"]
