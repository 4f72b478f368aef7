"""Where code depends on the order of a set.

Rules:

* A set of tasks is in order: their hashes are numbers of the execution (see ``tasks``). So are whole numbers.
* A name is a set if everything that a function assigns to it is one.
* What does not depend on the order (``sorted``, ``len``, another set) is no finding.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from .check_rules import ORDERED, ORDERLESS, Rule

_SET_CALLS: Final = frozenset({"set", "frozenset"})
_SET_OPERATORS: Final = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
#: What makes tasks: a set of these has a deterministic order.
_TASK_MAKERS: Final = frozenset(
    [
        "create_task",
        "ensure_future",
        "call_activity",
        "call_orchestration",
        "create_timer",
        "sleep",
        "wait_for_external_event",
        "call",
        "range",
    ]
)


class SetOrder:
    """The places of one function that depend on a set's order."""

    def __init__(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._function = function
        self._values: dict[str, list[ast.expr]] = {}
        self._unknown: set[str] = set()
        for node in ast.walk(function):
            self._note(node)
        self._harmless = {id(node) for node in self._inside_orderless()}

    def findings(self) -> Iterator[tuple[ast.AST, Rule, str]]:
        """Give node, rule and words of each finding."""
        for statement in self._function.body:
            for node in ast.walk(statement):
                for used in _ordered_uses(node):
                    if id(node) not in self._harmless and self._is_set(used):
                        yield used, Rule.SET_ORDER, f"the order of the set {ast.unparse(used)[:60]}"

    def _note(self, node: ast.AST) -> None:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                self._values.setdefault(name, []).append(value)
            case ast.AugAssign():
                pass  # a set stays one
            case ast.arg(arg=name):
                self._unknown.add(name)
            case ast.Assign(targets=targets):
                self._unknown.update(_names(targets))
            case ast.For(target=target) | ast.AsyncFor(target=target) | ast.comprehension(target=target):
                self._unknown.update(_names([target]))
            case ast.NamedExpr(target=ast.Name(id=name)):
                self._unknown.add(name)
            case _:
                pass

    def _inside_orderless(self) -> Iterator[ast.AST]:
        """Give the nodes whose order nobody sees: ``sorted(x for x in some_set)``, a set made of a set."""
        for node in ast.walk(self._function):
            match node:
                case ast.Call(func=ast.Name(id=name), args=args) if name in ORDERLESS:
                    for argument in args:
                        yield argument
                        if isinstance(argument, ast.GeneratorExp | ast.ListComp):
                            yield from argument.generators
                case ast.SetComp(generators=generators):
                    yield from generators
                case _:
                    pass

    def _is_set(self, node: ast.expr, depth: int = 0) -> bool:
        if depth > 8:
            return False
        match node:
            case ast.Set(elts=elements):
                return not all(_ordered_element(element) for element in elements)
            case ast.SetComp(elt=element):
                return not _ordered_element(element)
            case ast.Call(func=ast.Name(id=name), args=args) if name in _SET_CALLS:
                return bool(args) and not _ordered_element(args[0])
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _SET_OPERATORS):
                return self._is_set(left, depth + 1) or self._is_set(right, depth + 1)
            case ast.Name(id=name) if name not in self._unknown and name in self._values:
                values = self._values[name]
                return all(_makes_set(value) for value in values) and any(
                    self._is_set(value, depth + 1) for value in values
                )
            case _:
                return False


def _makes_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp() | ast.BinOp():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in _SET_CALLS
        case _:
            return False


def _ordered_element(node: ast.expr) -> bool:
    """Tell whether a set of such elements has the same order in every process."""
    match node:
        case ast.Constant(value=int()):
            return True
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in _TASK_MAKERS
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return _ordered_element(element)
        case _:
            return False


def _ordered_uses(node: ast.AST) -> Iterator[ast.expr]:
    """Give the expressions whose order a node passes on."""
    match node:
        case ast.For(iter=used) | ast.comprehension(iter=used):
            yield used
        case ast.Starred(value=used):
            yield used
        case ast.Call(func=ast.Name(id=name), args=args) if name in ORDERED:
            yield from args
        case ast.Call(func=ast.Attribute(attr="join"), args=[used]):
            yield used
        case ast.Call(func=ast.Attribute(value=used, attr="pop"), args=[]):
            yield used
        case ast.Call(func=ast.Attribute(attr="fromkeys"), args=[used, *_]):
            yield used
        case _:
            pass


def _names(targets: list[ast.expr]) -> set[str]:
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
