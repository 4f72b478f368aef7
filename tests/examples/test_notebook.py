"""The notebook: its cells run from the first to the last, and one of them twice."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


async def run_cell(source: str, names: dict[str, Any]) -> None:
    """Run a cell as a notebook does: with ``await`` outside of functions."""
    code = compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    ended = eval(code, names)
    if inspect.isawaitable(ended):
        await ended


async def test_the_cells_run() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), (
        "no outputs in git"
    )
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        source = "".join(cell["source"])
        await run_cell(source, names)
        if ".sink(" in source:
            assert names["done"].accepted == 4
            await run_cell(source, names)
            assert (names["done"].accepted, names["done"].repeated) == (0, 4)
    assert names["averages"] == {"UA": 6.0, "AA": 3.0, "DL": 45.0}
