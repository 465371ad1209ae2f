"""The life of a model, round by round, and what happens to every group.

The public names are loaded when they are first used: `import evenloop` imports nothing heavy. They
are listed once, in `__init__.pyi`; loops are found by file.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pkgutil import get_data
from typing import Any

from evenloop.public import homes

__version__ = version("evenloop")

_HOME = homes((get_data(__name__, "__init__.pyi") or b"").decode())

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'evenloop' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
