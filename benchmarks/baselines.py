"""The same work in plain Ray: without durability, and with durability written by hand.

Actors are synchronous ones: on the reference machine Ray calls them faster than async ones. References in
flight are fetched oldest first: faster there than ``ray.wait``, and than awaiting them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import ray
import redis

from .common import Pass


@ray.remote(num_cpus=0)
class PlainCounters:
    """Counters in the memory of one process."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, key: str, n: int) -> int:
        """Add and return the sum."""
        value = self._values[key] = self._values.get(key, 0) + n
        return value

    def add_many(self, key: str, numbers: list[int]) -> None:
        """Add one by one; what somebody would write who batches by hand."""
        for n in numbers:
            self.add(key, n)

    def get(self, key: str) -> int:
        """Return the sum."""
        return self._values.get(key, 0)


@ray.remote(num_cpus=0)
class RedisCounters:
    """Counters in Redis: each addition is written before it is answered."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

    def add(self, key: str, n: int) -> int:
        """Add and return the sum."""
        return int(self._redis.incrby(f"by-hand:{key}", n))

    def get(self, key: str) -> int:
        """Return the sum."""
        return int(self._redis.get(f"by-hand:{key}") or 0)


@ray.remote(num_cpus=0)
class PlainSteps:
    """Steps of a chain of calls."""

    def greet(self, so_far: str, city: str, _: str) -> str:
        """Do one step."""
        return f"{so_far} Hello {city}!".lstrip()


@ray.remote(num_cpus=0)
class RedisSteps:
    """Steps of a chain of calls that keeps each result in Redis before the next step can see it."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

    def greet(self, so_far: str, city: str, key: str) -> str:
        """Do one step."""
        result = f"{so_far} Hello {city}!".lstrip()
        self._redis.set(f"by-hand:{key}:{city}", result)
        return result


@ray.remote
def greet(so_far: str, city: str, _: str) -> str:
    """Do one step, as a task."""
    return f"{so_far} Hello {city}!".lstrip()


@ray.remote
def square(number: int) -> int:
    """Return a square."""
    return number * number


_connections: dict[str, Any] = {}


@ray.remote
def square_kept(number: int, key: str, url: str) -> int:
    """Return a square, after writing it to Redis."""
    connection = _connections.get(url)
    if connection is None:
        connection = _connections[url] = redis.Redis.from_url(url)
    connection.set(f"by-hand:{key}:{number}", number * number)
    return number * number


@ray.remote(num_cpus=0)
class PlainBank:
    """Accounts in the memory of one process."""

    def __init__(self) -> None:
        self._balances: dict[tuple[str, int], int] = {}

    def transfer(self, run: str, source: int, target: int, amount: int) -> None:
        """Move money."""
        self._balances[run, source] = self._balances.get((run, source), 0) - amount
        self._balances[run, target] = self._balances.get((run, target), 0) + amount

    def balances(self, run: str, count: int) -> list[int]:
        """Return what the accounts hold."""
        return [self._balances.get((run, number), 0) for number in range(count)]


@ray.remote(num_cpus=0)
class RedisBank:
    """Accounts in Redis, with a lock each that is written and removed by hand; no crash is handled."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

    def transfer(self, run: str, source: int, target: int, amount: int) -> None:
        """Hold both accounts, in order, and move money."""
        locks = [f"by-hand:lock:{run}:{number}" for number in sorted((source, target))]
        for lock in locks:
            while not self._redis.set(lock, "1", nx=True, px=10_000):
                time.sleep(0.001)
        self._redis.incrby(f"by-hand:{run}:{source}", -amount)
        self._redis.incrby(f"by-hand:{run}:{target}", amount)
        self._redis.delete(*locks)

    def balances(self, run: str, count: int) -> list[int]:
        """Return what the accounts hold."""
        found: Any = self._redis.mget([f"by-hand:{run}:{number}" for number in range(count)])
        return [int(value or 0) for value in found]


def in_flight(calls: Iterable[Callable[[], Any]], most: int) -> tuple[list[Any], Pass]:
    """Make calls that return references, ``most`` unanswered at a time; return the results in order."""
    results: list[Any] = []
    latencies: list[float] = []
    waiting: deque[tuple[float, Any]] = deque()

    def fetch() -> None:
        called, reference = waiting.popleft()
        results.append(ray.get(reference))
        latencies.append(time.perf_counter() - called)

    began = time.perf_counter()
    for call in calls:
        if len(waiting) >= most:
            fetch()
        waiting.append((time.perf_counter(), call()))
    while waiting:
        fetch()
    return results, Pass(len(results), time.perf_counter() - began, latencies)


def one_by_one(calls: Iterable[Callable[[], Any]]) -> tuple[list[Any], Pass]:
    """Make calls, each after the answer to the one before."""
    return in_flight(calls, 1)
