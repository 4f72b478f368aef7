"""The cart: watched, migrated, and deleted when nobody comes back."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

import lungfish
from examples import cart
from examples.cart import Cart
from lungfish.entities.state import FORMAT
from lungfish.runtime import codec
from lungfish.testing import environment
from tests.local import RunApp


async def test_on_a_real_store(run_app: RunApp) -> None:
    async with run_app(cart.app) as runtime:
        assert await cart.main(runtime.client) == [None, 1, 2, None]


async def test_it_goes_after_thirty_days() -> None:
    async with environment(cart.app) as env:
        ref = env.client.entity(Cart, "ada")
        await ref.call(Cart.put, "tea", Decimal(4))
        with pytest.raises(lungfish.EntityOperationFailed, match="at least one"):
            await ref.call(Cart.put, "tea", Decimal(4), count=0)
        await env.advance(timedelta(days=29))
        assert await ref.call(Cart.total) == 4
        await env.advance(timedelta(days=29))
        assert await ref.state() is not None
        await env.advance(timedelta(days=4))
        assert await ref.state() is None


def test_a_cart_of_the_first_release_is_read() -> None:
    lines = [{"item": "tea", "price": Decimal("4.5")}] * 2 + [{"item": "milk", "price": Decimal(1)}]
    found = Cart.lungfish_state(codec.encode([FORMAT, 1, {"lines": lines}]), "ada")
    assert found.total() == 10
    assert found.lines["tea"].count == 2
