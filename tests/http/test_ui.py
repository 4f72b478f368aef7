"""The dashboard's files: complete, served with a strict policy, and telling nobody what a key protects."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from lungfish.http import ApiKey
from lungfish.runtime.http import dashboard
from lungfish.runtime.http.shapes import PREFIX
from tests.http.app import app
from tests.http.conftest import ServeApp

FOLDER = Path(dashboard.__file__).parent / "ui"


async def test_the_dashboard_is_served(serve_app: ServeApp) -> None:
    async with serve_app(app) as served, httpx.AsyncClient(base_url=served.origin, timeout=60) as http:
        page = await http.get("/ui", follow_redirects=True)
        assert page.status_code == 200
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in page.headers["content-security-policy"]
        for name in re.findall(r'(?:src|href)="([\w.]+)"', page.text):
            assert (await http.get(f"/ui/{name}")).status_code == 200, name
        config = (await http.get("/ui/config.json")).json()
        assert config["api"] == PREFIX
        assert config["entities"] == ["Counter", "Note"]
        assert (await http.get("/ui/nothing.js")).status_code == 404
        assert (await http.get("/ui/..%2Fhttp_ui.py")).status_code == 404


async def test_names_are_not_told_to_who_has_no_key(serve_app: ServeApp) -> None:
    keys = [ApiKey.of("k", "read", "0123456789abcdef")]
    async with (
        serve_app(app, keys=keys) as served,
        httpx.AsyncClient(base_url=served.origin, timeout=60) as http,
    ):
        assert (await http.get("/ui/config.json")).json()["entities"] == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.js")), ids=lambda path: path.name)
def test_modules_import_what_is_there_and_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    for name in re.findall(r'from "([^"]+)"', text):
        assert name.startswith("./"), name
        assert (FOLDER / name).is_file(), name
    assert not re.search(r"https?://", text)
    # Text from users must never be parsed as HTML.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
