"""A callable's parameters as a contract: checked where the call is made, restored where it runs.

Rules:

* Arguments are checked against the signature at the call site, where a mistake has a
  traceback that points at it, and validated against the annotations where the code runs.
* The values of a signal are validated at the call site, too: nothing comes back from where it runs. What
  fits here by its Python type or by its stored form is sent; the receiver has the last word.
* The wire form is ``[positional, keyword]``: names survive, so that a parameter may be
  given by name and a default may be added without breaking stored calls.
"""

from __future__ import annotations

import datetime as dt
import inspect
import itertools
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lungfish.runtime import codec
from lungfish.runtime.errors import InvalidArguments, SerializationError, UsageError


class _Absent:
    """Stands for an argument that was left to its default."""


_ABSENT = _Absent()
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters and result of a callable, without its first ``skip`` parameters.

    Attributes:
        what: names the callable in errors, e.g. ``Counter.add``.
        annotations: one per positional parameter, in order.
        least, most: how many positional arguments it takes; ``most`` is -1 for ``*args``.
        by_name: annotation per parameter that may be given by name.
        result: the return annotation; ``Any`` where there is none.
        rest: annotation of ``*args``.
        needs_names: some parameter has no default and can be given by name only.
        exact: per positional parameter the class whose instances need no validation, or None.
    """

    what: str
    annotations: tuple[Any, ...]
    least: int
    most: int
    by_name: Mapping[str, Any]
    result: Any
    rest: Any = Any
    needs_names: bool = False
    exact: tuple[type | None, ...] = ()
    raw: inspect.Signature = field(default_factory=inspect.Signature, compare=False)

    @classmethod
    def of(cls, function: Callable[..., Any], what: str, skip: int = 0) -> Signature:
        """Read the signature of ``function``; unresolvable annotations count as ``Any``."""
        hints = _hints(function)
        raw = inspect.signature(function)
        parameters = list(raw.parameters.values())[skip:]
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        keyword_only = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
        named = [p for p in positional if p.kind is not inspect.Parameter.POSITIONAL_ONLY]
        return cls(
            what=what,
            annotations=tuple(hints.get(p.name, Any) for p in positional),
            least=sum(p.default is inspect.Parameter.empty for p in positional),
            most=-1 if rest else len(positional),
            by_name={p.name: hints.get(p.name, Any) for p in (*named, *keyword_only)},
            result=hints.get("return", Any),
            rest=hints.get(rest[0].name, Any) if rest else Any,
            needs_names=any(p.default is inspect.Parameter.empty for p in keyword_only),
            exact=tuple(codec.exact_class(hints.get(p.name, Any)) for p in positional),
            raw=raw.replace(parameters=parameters),
        )

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ``InvalidArguments`` if a call with these arguments cannot be made."""
        given = len(args)
        if not (kwargs or self.needs_names) and self.least <= given and (given <= self.most or self.most < 0):
            return
        try:
            self.raw.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self.what}{self.raw}: {error}") from None

    def take_timeout_ms(self, kwargs: dict[str, Any]) -> int:
        """Take the ``timeout`` of a call (timedelta or seconds) out of its arguments, unless it is one.

        Returns 0 if there is none; raises ``UsageError`` for what is no time to wait.
        """
        if "timeout" not in kwargs or "timeout" in self.by_name:
            return 0
        if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in self.raw.parameters.values()):
            return 0
        timeout = kwargs.pop("timeout")
        seconds = timeout.total_seconds() if isinstance(timeout, dt.timedelta) else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise UsageError(f"{self.what}: a timeout is a timedelta or a number of seconds, not {timeout!r}")
        return math.ceil(seconds * 1_000)

    def encode(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int = codec.PAYLOAD_BYTES_MAX
    ) -> bytes:
        """Check a call's arguments and return their wire form, of at most ``limit`` bytes."""
        self.check(args, kwargs)
        return encode_arguments(args, kwargs, self.what, limit)

    def encode_many(self, batch: Iterable[Sequence[Any]], first: int = 1) -> tuple[bytes, int]:
        """Check the arguments of many calls, counted from ``first``; return wire form and count."""
        calls = [list(args) for args in batch]
        lengths = set(map(len, calls))
        for length in lengths:
            self.check([None] * length, {})
        if not self._obviously_fit(calls):
            for number, args in enumerate(calls, first):
                self._check_values(args, {}, f"signal {number}: ")
        return codec.encode(calls, f"arguments of {self.what}"), len(calls)

    def encode_signal(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Check one signal's arguments and return their wire form: a batch of one."""
        self.check(args, kwargs)
        if kwargs or tuple(map(type, args)) != self.exact[: len(args)]:
            self._check_values(args, kwargs)
        return encode_signal_arguments(args, kwargs, self.what)

    def _obviously_fit(self, calls: Sequence[Sequence[Any]]) -> bool:
        """Tell, at the price of a type per value, whether all values of many calls need no validation."""
        known = len(self.annotations)
        for at, column in enumerate(itertools.zip_longest(*calls, fillvalue=_ABSENT)):
            annotation = self.annotations[at] if at < known else self.rest
            if annotation is Any:
                continue
            if at >= known or not set(map(type, column)) <= {self.exact[at], _Absent}:
                return False
        return True

    def _check_values(self, args: Sequence[Any], kwargs: Mapping[str, Any], where: str = "") -> None:
        try:
            self.restore(list(args), dict(kwargs))
        except InvalidArguments as error:
            # A dataclass may stand where a model is wanted: the receiver only sees what was stored.
            try:
                plain = codec.decode(codec.encode([list(args), dict(kwargs)], f"arguments of {self.what}"))
                self.restore(*plain)
            except InvalidArguments:
                raise InvalidArguments(f"{where}{error}") from error

    def decode(self, data: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Restore arguments, validated against the annotations."""
        found = codec.decode(data, f"arguments of {self.what}")
        if type(found) is list and len(found) == 2 and type(found[0]) is list and type(found[1]) is dict:
            return self.restore(*found)
        raise SerializationError(f"arguments of {self.what}: the stored bytes are not arguments")

    def restore(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Validate plain arguments against signature and annotations."""
        self.check(args, kwargs)
        if not kwargs and tuple(map(type, args)) == self.exact[: len(args)]:
            return args, kwargs
        known = len(self.annotations)
        restored = [
            codec.validate(
                value, self.annotations[at] if at < known else self.rest, f"{self.what}: argument {at + 1}"
            )
            for at, value in enumerate(args)
        ]
        if not kwargs:
            return restored, kwargs
        return restored, {
            name: codec.validate(value, self.by_name.get(name, Any), f"{self.what}: argument {name}")
            for name, value in kwargs.items()
        }

    def decode_result(self, data: bytes | None) -> Any:
        """Restore a result; raises ``SerializationError`` if it does not fit the return annotation."""
        if data is None:
            return None
        what = f"result of {self.what}"
        try:
            return codec.validate(codec.decode(data, what), self.result, what)
        except InvalidArguments as error:
            raise SerializationError(f"{error}: not what its annotation promises") from error


def check_batch(batch: Iterable[Any], what: str) -> None:
    """Raise ``InvalidArguments`` at what is no sequence of arguments, as a text, or a value given bare."""
    for number, args in enumerate(batch, 1):
        if isinstance(args, str | bytes) or not isinstance(args, Iterable):
            raise InvalidArguments(
                f"signal {number}: {what}: a batch has a sequence of arguments for each signal, "
                f"as in [(1,), (2,)], not {args!r:.80}"
            )


def encode_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], what: str, limit: int = codec.PAYLOAD_BYTES_MAX
) -> bytes:
    """Return the wire form of arguments whose signature is not known here."""
    return codec.encode([list(args), dict(kwargs)], f"arguments of {what}", limit)


def encode_signal_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], what: str) -> bytes:
    """Return the wire form of one signal's arguments, unchecked: a batch of one.

    An element of a batch is a list of positional arguments or, where some are given by
    name, a map ``{"args": [...], "kwargs": {...}}``.
    """
    call = {"args": list(args), "kwargs": dict(kwargs)} if kwargs else list(args)
    return codec.encode([call], f"arguments of {what}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations, resolved one by one: one that cannot be is left out."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # a forward reference to something that exists for type checkers only
        return _hints_one_by_one(function)


def _hints_one_by_one(function: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    target = inspect.unwrap(function)
    for name, annotation in getattr(target, "__annotations__", {}).items():
        probe = type("_Probe", (), {"__annotations__": {name: annotation}, "__module__": target.__module__})
        try:
            found.update(
                typing.get_type_hints(probe, vars(inspect.getmodule(target) or probe), include_extras=True)
            )
        except Exception:  # noqa: S112 - unresolvable here means "not validated", as if it were absent
            continue
    return found
