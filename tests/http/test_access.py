"""Who may use the HTTP API."""

from __future__ import annotations

import pytest
from starlette.requests import HTTPConnection

from lungfish.runtime.errors import UsageError
from lungfish.runtime.http.access import Access, ApiKey, Scope, is_loopback, parse_keys
from lungfish.runtime.http.problems import Problem
from lungfish.runtime.http.server import check_address

SECRETS = {scope: f"{scope.name.lower()}-secret-0123456789" for scope in Scope}
KEYS = [ApiKey.of(scope.name.lower(), scope.name, secret) for scope, secret in SECRETS.items()]


def asked(
    *, peer: str = "127.0.0.1", query: str = "", host: str = "127.0.0.1:8080", **headers: str
) -> HTTPConnection:
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return HTTPConnection(
        {
            "type": "http",
            "client": (peer, 4711),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )


def status_of(access: Access, request: HTTPConnection, scope: Scope = Scope.READ) -> int:
    try:
        access.admit(request, scope)
    except Problem as problem:
        return int(problem.status)
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.8.7.6"])
def test_without_keys_this_machine_is_served(host: str) -> None:
    assert status_of(Access(), asked(host=host), Scope.ADMIN) == 200


@pytest.mark.parametrize(
    "request_",
    [
        asked(peer="192.0.2.1"),
        asked(peer="192.0.2.1", host="192.0.2.7"),
        # A name that the attacker's name server resolves to loopback.
        asked(host="evil.example"),
        asked(x_forwarded_for="192.0.2.1"),
        asked(forwarded="for=192.0.2.1"),
        asked(origin="http://evil.example"),
        asked(origin="http://localhost:9999"),
        asked(origin="null"),
        asked(host="["),
    ],
)
def test_without_keys_nobody_else_is(request_: HTTPConnection) -> None:
    assert status_of(Access(), request_) == 403


def test_a_page_of_our_own_is_served() -> None:
    assert status_of(Access(), asked(origin="http://127.0.0.1:8080")) == 200


@pytest.mark.parametrize("has", Scope)
@pytest.mark.parametrize("needs", Scope)
@pytest.mark.parametrize("way", ["bearer", "header", "query"])
def test_a_key_does_what_its_scope_includes_and_no_more(has: Scope, needs: Scope, way: str) -> None:
    secret = SECRETS[has]
    request = {
        "bearer": lambda: asked(peer="192.0.2.1", host="api.example", authorization=f"Bearer {secret}"),
        "header": lambda: asked(peer="192.0.2.1", host="api.example", x_functions_key=secret),
        "query": lambda: asked(peer="192.0.2.1", host="api.example", query=f"code={secret}"),
    }[way]()
    assert status_of(Access(KEYS), request, needs) == (200 if has >= needs else 403)


@pytest.mark.parametrize("secret", ["", "wrong", SECRETS[Scope.ADMIN][:-1], SECRETS[Scope.ADMIN] + "x"])
def test_with_keys_even_loopback_needs_one(secret: str) -> None:
    assert status_of(Access(KEYS), asked(authorization=f"Bearer {secret}")) == 401
    assert status_of(Access(KEYS), asked()) == 401


def test_no_secret_is_told() -> None:
    shown = repr(KEYS)
    assert not any(secret in shown for secret in SECRETS.values())
    with pytest.raises(Problem) as refused:
        Access(KEYS).admit(asked(authorization="Bearer something-else-entirely"), Scope.READ)
    assert "something-else" not in refused.value.detail


def test_the_rate_is_bounded_by_key() -> None:
    now = [0.0]
    access = Access(KEYS, rate_per_s=2, clock=lambda: now[0])
    fast = asked(x_functions_key=SECRETS[Scope.READ])
    assert [status_of(access, fast) for _ in range(5)] == [200] * 4 + [429]
    assert status_of(access, asked(x_functions_key=SECRETS[Scope.ADMIN])) == 200
    now[0] = 0.5
    assert [status_of(access, fast) for _ in range(2)] == [200, 429]


def test_keys_are_read() -> None:
    keys = parse_keys("ops:admin:0123456789abcdef, look:read:fedcba9876543210\n")
    assert [(key.name, key.scope) for key in keys] == [("ops", Scope.ADMIN), ("look", Scope.READ)]
    assert parse_keys("") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ops", "name:scope:secret"),
        ("ops:root:0123456789abcdef", "none of read, operate, admin"),
        ("ops:admin:short", "16 characters"),
    ],
)
def test_wrong_keys_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_keys(text)


def test_an_open_address_needs_keys() -> None:
    with pytest.raises(UsageError, match="without API keys"):
        check_address("0.0.0.0", ())
    check_address("0.0.0.0", KEYS)
    check_address("127.0.0.1", ())


@pytest.mark.parametrize(
    ("host", "own"), [("localhost", True), ("::1", True), ("10.0.0.1", False), ("", False), ("x", False)]
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own
