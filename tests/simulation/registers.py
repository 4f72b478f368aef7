"""Registers that all clients use at once, and whether some order explains what they were told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import lungfish
from lungfish.runtime.client.client import Client
from tests.linearizability import NEVER, UNKNOWN, Operation, explains
from tests.simulation.app import app

REGISTERS: Final = ("r0", "r1")


@app.entity
class Register(lungfish.Entity):
    """One number."""

    value: int = 0

    def put(self, value: int) -> int:
        """Replace the number; return the old one."""
        old, self.value = self.value, value
        return old

    def swap(self, expected: int, value: int) -> bool:
        """Replace the number if it is the expected one."""
        if self.value != expected:
            return False
        self.value = value
        return True

    @lungfish.shared
    def get(self) -> int:
        """Return the number."""
        return self.value


@dataclass(slots=True)
class RegisterOp:
    """One operation, as its client saw it."""

    key: str
    kind: str
    args: tuple[int, ...]
    began_s: float
    ended_s: float = NEVER
    result: Any = UNKNOWN
    outcome: str = "unknown"


def begin(rng: random.Random, now_s: float) -> RegisterOp:
    """Return an operation to do."""
    kind = rng.choice(("put", "put", "swap", "get", "get"))
    args = tuple(rng.randrange(4) for _ in range({"put": 1, "swap": 2, "get": 0}[kind]))
    return RegisterOp(rng.choice(REGISTERS), kind, args, now_s)


async def call(client: Client, op: RegisterOp, timeout_s: float) -> Any:
    """Do it; return what the client was told."""
    return await client.entity(Register, op.key).options(timeout=timeout_s).call(op.kind, *op.args)


def check(ops: list[RegisterOp], stored: dict[str, Register]) -> Iterator[str]:
    """Yield registers whose history no order explains; the stored number counts as read at the end."""
    for key in REGISTERS:
        known = [op for op in ops if op.key == key and op.outcome != "fail"]
        history = [Operation(op.kind, _step(op), op.result, op.began_s, op.ended_s) for op in known]
        end = stored[key].value if key in stored else 0
        history.append(Operation("end", lambda state: (state, state), end, 1e12, 1e12))
        if not explains(history, 0):
            yield f"not linearizable: {key}, {len(history)} operations: {known[-5:]}"


def _step(op: RegisterOp) -> Any:
    match op.kind:
        case "put":
            return lambda state: (op.args[0], state)
        case "swap":
            return lambda state: (op.args[1], True) if state == op.args[0] else (state, False)
        case _:
            return lambda state: (state, state)
