"""From ``module:app`` on a command line to the app."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from lungfish.runtime.declared.app import App
from lungfish.runtime.errors import UsageError


class AppNotFound(UsageError):
    """The module does not exist, cannot be imported, or has no such app."""


def load_app(target: str) -> App:
    """Return the app that ``target`` names: ``module:app``, or ``module`` if it has only one.

    The working directory is searched first, as with ``python -m``.

    Raises:
        AppNotFound: what is missing, where it was looked for, and what there is instead.
    """
    module_name, _, app_name = target.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(f"{target!r}: name the module, not the file: {dotted}:{app_name or 'app'}")
    module = _import(module_name)
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if app_name:
        if app_name not in apps:
            raise AppNotFound(f"module {module_name} has no lungfish.App named {app_name!r}; {_listed(apps)}")
        return apps[app_name]
    if len({id(app) for app in apps.values()}) != 1:
        raise AppNotFound(f"{target!r} does not say which app: write {module_name}:NAME; {_listed(apps)}")
    return next(iter(apps.values()))


def _listed(apps: dict[str, App]) -> str:
    return (
        f"it has: {', '.join(sorted(apps))}" if apps else "it has none. Make one: app = lungfish.App('name')"
    )


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise AppNotFound(
                f"there is no module {error.name!r} in {here} or among the installed packages. "
                "Run this where the module is, or install it"
            ) from error
        raise AppNotFound(_failed(name, error)) from error
    except Exception as error:
        raise AppNotFound(_failed(name, error)) from error


def _failed(name: str, error: Exception) -> str:
    """Say what a user's module raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"importing {name} failed: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
