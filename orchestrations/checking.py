"""A check of orchestrations by their source: nothing is imported, nothing is run.

Rules:

* What is checked is the code of orchestrations (``@....orchestration``) and of the functions of the same
  module that they use, as far as they are called; activities and entities may do what they like.
* A name counts as a module's only if the file imported it and the function does not shadow it.
* ``# lungfish: ignore[rule]`` on the line silences a finding; without a rule, all of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from lungfish.runtime.errors import UsageError

from .check_rules import (
    ADVICE,
    AWAITABLES,
    METHODS,
    MODULES,
    MUTATORS,
    NAMES,
    TASK_METHODS,
    WITHOUT_ARGUMENTS,
    Rule,
)
from .check_sets import SetOrder

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_IGNORE: Final = re.compile(r"#\s*lungfish:\s*ignore(?:\[([\w\s,-]*)\])?")
_MUTABLE: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MUTABLE_CALLS: Final = frozenset({"list", "dict", "set", "deque", "defaultdict", "Counter", "OrderedDict"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place that breaks a rule.

    Attributes:
        path, line, column: where; lines and columns count from 1.
        rule: which one.
        what: the offending code, in words.
        orchestration: by which orchestration it is reached.
    """

    path: str
    line: int
    column: int
    rule: Rule
    what: str
    orchestration: str

    def __str__(self) -> str:
        return (
            f"{self.path}:{self.line}:{self.column}: {self.rule.value}: {self.what} in orchestration "
            f"{self.orchestration!r}: {ADVICE[self.rule]}"
        )


def check_file(path: Path) -> list[Finding]:
    """Check a Python file; raises ``UsageError`` if it cannot be read or is not Python."""
    try:
        return check_source(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def check_source(source: str, path: str = "<source>") -> list[Finding]:
    """Check the text of a module; return the findings in the order of their places.

    Raises:
        UsageError: it is not Python.
    """
    try:
        tree = ast.parse(source, path)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is not Python: {error}") from error
    module = _Module(tree)
    found: dict[tuple[int, int, Rule], Finding] = {}
    for orchestration in module.orchestrations:
        for function in module.reached_from(orchestration):
            for node, rule, what in _Check(module, function, main=function is orchestration).findings():
                line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", 0) + 1
                finding = Finding(path, line, column, rule, what, orchestration.name)
                found.setdefault((line, column, rule), finding)
    lines = source.splitlines()
    return sorted(finding for finding in found.values() if not _ignored(lines, finding))


def _ignored(lines: list[str], finding: Finding) -> bool:
    match = _IGNORE.search(lines[finding.line - 1]) if finding.line <= len(lines) else None
    if match is None:
        return False
    rules = match.group(1)
    return rules is None or finding.rule.value in (rule.strip() for rule in rules.split(","))


class _Module:
    """What a module declares: imports, functions, and its own mutable state."""

    def __init__(self, tree: ast.Module) -> None:
        self.imports = _imports(ast.walk(tree))
        found = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
        top = [node for node in tree.body if isinstance(node, _FUNCTIONS)]
        self.orchestrations = [function for function in found if "orchestration" in _decorators(function)]
        self.activities = {function.name for function in top if "activity" in _decorators(function)}
        self.functions = {function.name: function for function in top if not _registered(function)}
        self.mutable = {name for statement in tree.body for name in _mutables(statement)}
        self._own = {name for statement in tree.body for name in _bound_by(statement)}
        #: Module-level names that some function of the module changes.
        self.changing = {name for function in found for name in self.changed_by(function)}

    def reached_from(self, start: Function) -> list[Function]:
        """Return an orchestration and the module's functions that it uses, directly or not."""
        reached = [start]
        for function in reached:
            local = _locals(function)
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in local:
                    used = self.functions.get(node.id)
                    if used is not None and used not in reached:
                        reached.append(used)
        return reached

    def changed_by(self, function: Function) -> Iterator[str]:
        """Give the names of the module that a function changes."""
        local = _locals(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield from node.names
            name = _changed_name(node)
            if name in self.mutable and name not in local:
                yield name

    def name_of(self, node: ast.expr, local: set[str]) -> str | None:
        """Return the full name of what an expression names: ``datetime.datetime.now``.

        A name of the module's own has a dot in front, a built-in one has none.
        """
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in local:
            return None
        root = self.imports.get(node.id) or (f".{node.id}" if node.id in self._own else node.id)
        return ".".join([root, *reversed(parts)])


class _Check:
    """The findings of one function."""

    def __init__(self, module: _Module, function: Function, *, main: bool) -> None:
        self._module = module
        self._function = function
        self._local = _locals(function)
        self._contexts = _contexts(function, main=main)
        self._skipped = {id(part) for node in _annotations(function) for part in ast.walk(node)}

    def findings(self) -> Iterator[tuple[ast.AST, Rule, str]]:
        """Give node, rule and words of each finding."""
        yield from SetOrder(self._function).findings()
        for node in _body(self._function):
            if id(node) in self._skipped:
                continue
            match node:
                case ast.Call():
                    yield from self._call(node)
                case ast.Attribute(ctx=ast.Load()) | ast.Name(ctx=ast.Load()):
                    yield from self._name(node)
                case ast.Expr(value=ast.Call() as call):
                    yield from self._statement(call)
                case ast.ExceptHandler():
                    yield from self._handler(node)
                case _:
                    pass
            yield from self._state(node)

    def _name(self, node: ast.Attribute | ast.Name) -> Iterator[tuple[ast.AST, Rule, str]]:
        name = self._module.name_of(node, self._local)
        if name is not None and name in NAMES:
            yield node, NAMES[name], name

    def _call(self, node: ast.Call) -> Iterator[tuple[ast.AST, Rule, str]]:
        name = self._module.name_of(node.func, self._local)
        if name is None or name in NAMES:
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name is None and method in METHODS and not self._on_context(node.func):
                yield node.func, METHODS[method], f".{method}()"
        elif name in WITHOUT_ARGUMENTS:
            rule, harmless = WITHOUT_ARGUMENTS[name]
            if len(node.args) + len(node.keywords) < harmless:
                yield node.func, rule, f"{name}()"
        elif name.removeprefix(".") in self._module.activities:
            yield node.func, Rule.DIRECT, f"{name.removeprefix('.')}()"
        elif (rule_of_module := _module_rule(name)) is not None:
            yield node.func, rule_of_module, f"{name}()"

    def _statement(self, node: ast.Call) -> Iterator[tuple[ast.AST, Rule, str]]:
        """A call whose value is thrown away."""
        name = self._module.name_of(node.func, self._local)
        called = self._module.functions.get((name or "").removeprefix("."))
        if isinstance(called, ast.AsyncFunctionDef) or name in AWAITABLES:
            yield node, Rule.UNAWAITED, f"{ast.unparse(node.func)}()"
        elif isinstance(node.func, ast.Attribute) and self._on_context(node.func):
            on_entity = isinstance(node.func.value, ast.Call)
            if (node.func.attr == "call") if on_entity else (node.func.attr in TASK_METHODS):
                yield node, Rule.UNAWAITED, f"{ast.unparse(node.func)}()"

    def _on_context(self, node: ast.expr) -> bool:
        """Tell whether an expression starts from the context: ``ctx.x``, ``ctx.entity(...).x``."""
        while isinstance(node, ast.Attribute | ast.Call):
            node = node.value if isinstance(node, ast.Attribute) else node.func
        return isinstance(node, ast.Name) and node.id in self._contexts

    def _handler(self, node: ast.ExceptHandler) -> Iterator[tuple[ast.AST, Rule, str]]:
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        named = [None if kind is None else self._module.name_of(kind, self._local) for kind in kinds]
        broad = node.type is None or "BaseException" in named or "builtins.BaseException" in named
        if broad and not any(isinstance(part, ast.Raise) for part in ast.walk(node)):
            yield node, Rule.SWALLOWS, "except BaseException" if node.type is not None else "bare except"

    def _state(self, node: ast.AST) -> Iterator[tuple[ast.AST, Rule, str]]:
        changed = _changed_name(node)
        if isinstance(node, ast.Global):
            yield node, Rule.GLOBAL, f"global {', '.join(node.names)}"
        elif changed in self._module.mutable and changed not in self._local:
            yield node, Rule.GLOBAL, f"a change of the module's {changed}"
        elif (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and node.id in self._module.changing
            and node.id not in self._local
        ):
            yield node, Rule.GLOBAL, f"the module's {node.id}, which functions change,"


def _body(function: Function) -> Iterator[ast.AST]:
    """Give what runs when the function is called: not its decorators."""
    for statement in function.body:
        yield from ast.walk(statement)


def _imports(nodes: Iterable[ast.AST]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    # ``import a.b`` binds ``a``; ``import a.b as c`` binds the module itself.
                    bound = alias.asname or alias.name.partition(".")[0]
                    found[bound] = alias.name if alias.asname else bound
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found.update({alias.asname or alias.name: f"{module}.{alias.name}" for alias in names})
            case _:
                pass
    return found


def _decorators(function: Function) -> set[str]:
    """Return the last words of a function's decorators: ``@app.activity(...)`` gives ``activity``."""
    called = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return {node.attr for node in called if isinstance(node, ast.Attribute)}


def _registered(function: Function) -> bool:
    return not _decorators(function).isdisjoint({"orchestration", "activity"})


def _locals(function: Function) -> set[str]:
    """Return the names that are bound in a function or in one inside it; imports are not among them."""
    bound: set[str] = set()
    of_module: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.Global(names=names):
                of_module.update(names)
            case _:
                pass
    return bound - {function.name} - of_module


def _contexts(function: Function, *, main: bool) -> set[str]:
    """Return the names of parameters that are an ``OrchestrationContext``."""
    parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    named = {
        parameter.arg
        for parameter in parameters
        if parameter.arg == "ctx"
        or (parameter.annotation is not None and "OrchestrationContext" in ast.unparse(parameter.annotation))
    }
    return named | {parameters[0].arg} if main and parameters else named


def _annotations(function: Function) -> Iterator[ast.AST]:
    for node in ast.walk(function):
        match node:
            case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
                if annotation is not None:
                    yield annotation
            case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns):
                if returns is not None:
                    yield returns
            case _:
                pass


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """Give the names that a statement of the module binds; imports are not among them."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _mutables(statement: ast.stmt) -> Iterator[str]:
    """Give the module-level names to which a statement binds something mutable."""
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    called = value.func if isinstance(value, ast.Call) else None
    while isinstance(called, ast.Subscript):
        called = called.value
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if isinstance(value, _MUTABLE) or name in _MUTABLE_CALLS:
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _changed_name(node: ast.AST) -> str:
    """Return the name whose value a node changes in place (``x.append(...)``, ``x[0] = ...``), or nothing."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if attribute in MUTATORS:
            return name
        case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
            return name
        case _:
            return ""


def _module_rule(name: str) -> Rule | None:
    if name.endswith(("Error", "Exception", "Timeout")):
        return None
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1))
    return next((MODULES[prefix] for prefix in prefixes if prefix in MODULES), None)
