"""An app whose code is in ``__main__`` travels to Ray actors by value, and works there."""

from __future__ import annotations

import subprocess
import sys

from lungfish.runtime.declared.signatures import encode_arguments
from lungfish.runtime.on_ray.actors import unpack_app
from tests.packaging.tree import ROOT

SCRIPT = """
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

import pydantic

import lungfish
from lungfish.runtime.on_ray.actors import pack_app

app = lungfish.App("script")

@dataclass
class Order:
    id: str
    amount: float = 1.5
    tags: list[str] = field(default_factory=list)
    priority: int = field(default=0, kw_only=True)

class Line(NamedTuple):
    item: str
    count: int = 1

class Payment(pydantic.BaseModel):
    order: Order
    lines: list[Line] = []

@app.entity
class Counter(lungfish.Entity):
    value: int = 0
    orders: list[Order] = []

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

@app.activity
def charge(order: Order, payment: Payment | None = None) -> Payment:
    return payment or Payment(order=order)

sys.stdout.buffer.write(b"".join(pack_app(app)))
"""


def test_code_of_main_travels_by_value() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, check=True, capture_output=True)
    app = unpack_app((done.stdout,))
    charge = app.find_activity("charge")
    data = encode_arguments([{"id": "o1"}], {"payment": {"order": {"id": "o2", "tags": ["x"]}}}, "charge")
    (order,), kwargs = charge.signature.decode(data)
    assert (order.id, order.amount, order.tags, order.priority) == ("o1", 1.5, [], 0)
    payment = charge(order, **kwargs)
    assert payment.order.tags == ["x"]
    assert payment.lines == []
    counter = app.find_entity("Counter")
    assert counter.cls().add(2) == 2
    assert set(counter.operations) == {"add", "delete"}
