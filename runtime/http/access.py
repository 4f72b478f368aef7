"""Who may use the HTTP API: keys with scopes, the loopback rule, sizes and rates.

Rules:

* Without a key only this machine is served: the peer is a loopback address, the ``Host`` names this machine
  (else a page that was loaded from elsewhere could reach it by a name that resolves to loopback), nothing was
  forwarded by a proxy, and a browser's page of another origin is refused.
* With keys every request shows one, from wherever it comes. A key has one scope; ``admin`` includes
  ``operate``, which includes ``read``.
* Secrets are compared by digest in constant time, and appear in no log and no answer.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request

from lungfish.runtime.errors import UsageError

from .problems import Problem

#: Largest body of a request (bytes).
BODY_BYTES_MAX: Final = 8 * 1024 * 1024
#: Requests per second and key (or peer) that go on for long; twice as many at once.
RATE_PER_S: Final = 1_000.0
SECRET_LENGTH_MIN: Final = 16
#: Peers whose rate is remembered; the longest silent are forgotten first.
PEERS_MAX: Final = 10_000


class Scope(IntEnum):
    """What a key may do. A greater one includes the smaller ones."""

    #: Look at everything.
    READ = 1
    #: Start, signal, call, raise events, suspend, resume, terminate.
    OPERATE = 2
    #: Purge, rewind, edit states, act on many by a filter.
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's name (for logs), what it may do, and the digest of its secret."""

    name: str
    scope: Scope
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, scope: str, secret: str) -> ApiKey:
        """Make a key; raises ``UsageError`` for an unknown scope or a secret that is easily guessed."""
        try:
            chosen = Scope[scope.upper()]
        except KeyError:
            raise UsageError(f"key {name!r}: scope {scope!r} is none of read, operate, admin") from None
        if len(secret) < SECRET_LENGTH_MIN:
            raise UsageError(f"key {name!r}: its secret must have {SECRET_LENGTH_MIN} characters or more")
        return cls(name, chosen, _digest(secret))


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read ``name:scope:secret`` separated by commas or white space; raises ``UsageError``."""
    keys = []
    for number, part in enumerate(text.replace(",", " ").split(), 1):
        name, first, rest = part.partition(":")
        scope, second, secret = rest.partition(":")
        if not (first and second):
            raise UsageError(f"API key {number} is not of the form name:scope:secret")
        keys.append(ApiKey.of(name, scope, secret))
    return tuple(keys)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class _Rates:
    """A token bucket per caller."""

    def __init__(self, rate_per_s: float, clock: Callable[[], float]) -> None:
        self._rate = rate_per_s
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, caller: str) -> float:
        """Take a token; 0, or after how long there will be one."""
        now, most = self._clock(), max(1.0, 2 * self._rate)
        tokens, since = self._buckets.pop(caller, (most, now))
        tokens = min(most, tokens + (now - since) * self._rate)
        granted = tokens >= 1
        self._buckets[caller] = (tokens - 1 if granted else tokens, now)
        if len(self._buckets) > PEERS_MAX:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if granted else (1 - tokens) / self._rate


class Access:
    """Decides about each request."""

    def __init__(
        self,
        keys: Iterable[ApiKey] = (),
        *,
        body_bytes_max: int = BODY_BYTES_MAX,
        rate_per_s: float = RATE_PER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the rules.

        Args:
            keys: none serves this machine only.
            body_bytes_max: larger bodies are refused with 413 (bytes).
            rate_per_s: requests per second and key, or peer; over it 429.
            clock: seconds that only grow.
        """
        self.keys = tuple(keys)
        self.body_bytes_max = body_bytes_max
        self._rates = _Rates(rate_per_s, clock)

    def admit(self, request: HTTPConnection, scope: Scope) -> str:
        """Return the caller's name; raises ``Problem`` (401, 403, 429) if it may not do this."""
        caller = self._key_of(request, scope) if self.keys else self._local(request)
        wait_s = self._rates.wait_s(caller)
        if wait_s:
            headers = {"Retry-After": str(max(1, round(wait_s)))}
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too many requests; slow down", headers=headers)
        return caller

    def _key_of(self, request: HTTPConnection, scope: Scope) -> str:
        secret = secret_of(request.headers, request.query_params)
        if secret is None:
            headers = {"WWW-Authenticate": "Bearer"}
            text = "an API key is needed: header 'Authorization: Bearer …' or 'x-functions-key: …'"
            raise Problem(HTTPStatus.UNAUTHORIZED, text, headers=headers)
        given, found = _digest(secret), None
        for key in self.keys:  # all of them: how long this takes must not tell which one is near
            if hmac.compare_digest(given, key.digest):
                found = key
        if found is None:
            text = "the API key is not known"
            raise Problem(HTTPStatus.UNAUTHORIZED, text, headers={"WWW-Authenticate": "Bearer"})
        if found.scope < scope:
            needed, has = scope.name.lower(), found.scope.name.lower()
            text = f"this needs a key of scope {needed}; {found.name!r} has {has}"
            raise Problem(HTTPStatus.FORBIDDEN, text)
        return f"key {found.name}"

    def _local(self, request: HTTPConnection) -> str:
        peer = request.client.host if request.client is not None else ""
        forwarded = "forwarded" in request.headers or "x-forwarded-for" in request.headers
        own = is_loopback(_hostname(request.headers.get("host", "")))
        if not is_loopback(peer) or forwarded or not own:
            text = "without API keys only this machine is served; start the server with --keys"
            raise Problem(HTTPStatus.FORBIDDEN, text)
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise Problem(HTTPStatus.FORBIDDEN, "pages of another origin are not served")
        return f"peer {peer}"

    async def body(self, request: Request) -> bytes:
        """Return the body; raises ``Problem`` (413) as soon as it is too large."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.body_bytes_max:
                text = f"the body is larger than {self.body_bytes_max:,} bytes"
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
            parts.append(part)
        return b"".join(parts)


def secret_of(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """Return the secret that a request shows: a bearer token, or as in Azure Functions."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return headers.get("x-functions-key") or query.get("code") or None


def is_loopback(host: str) -> bool:
    """True for an address, or the name, of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
