"""The repository as these tests read it: files, and the imports in them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The product's real folders. lungfish/ holds links to them, which rglob does not follow.
FOLDERS = ("runtime", "entities", "orchestrations")
#: Python that is not product.
OTHER_FOLDERS = ("benchmarks", "examples", "tests")


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute name where the import is absolute.

    ``level`` counts the dots of a relative import.
    """

    file: Path
    line: int
    module: str
    level: int

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {'.' * self.level}{self.module}"


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def product_files() -> list[Path]:
    return python_files("lungfish", *FOLDERS)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name, 0)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield Import(path, node.lineno, base, node.level)
            if base in {"lungfish", "lungfish.runtime"} or (
                not base and node.level
            ):  # the names may be modules themselves
                prefix = f"{base}." if base else ""
                for alias in node.names:
                    yield Import(path, node.lineno, f"{prefix}{alias.name}", node.level)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from (Import(path, node.lineno, name, 0) for name in names)


def text_files() -> list[Path]:
    """Return every file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8_000]]
