"""Where the public names of `evenloop` live, without importing any of them."""

from __future__ import annotations

import ast

from evenloop import loops

__all__ = ["homes"]


def homes(stub: str) -> dict[str, str]:
    """Module by public name: what a stub imports, and every loop, which is found by its file.

    >>> homes("from evenloop.rng import Rng as Rng")["Rng"]
    'evenloop.rng'
    >>> homes("")["Relabel"]
    'evenloop.loops.relabel'
    """
    found = {loops.class_name(verb): f"evenloop.loops.{verb}" for verb in loops.names()}
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.name: node.module for alias in node.names}
    return found
