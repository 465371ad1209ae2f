"""The life of a model, round by round, and what happens to every group.

The public names are loaded when they are first used: `import evenloop` imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("evenloop")

_HOME = {
    "Attribute": "data",
    "Audit": "audit",
    "Counts": "counts",
    "FeedbackClaim": "claims",
    "GroupIndex": "groups",
    "GroupedData": "data",
    "Loop": "loop",
    "Moments": "counts",
    "Notes": "loop",
    "Origin": "data",
    "Recipe": "recipe",
    "Record": "record",
    "Relabel": "loops.relabel",
    "Rng": "rng",
    "Schema": "data",
    "State": "loop",
    "World": "loop",
    "chain": "loop",
    "feedback_bound": "bound",
    "predict": "fit",
    "run": "loop",
}

__all__ = [
    "Attribute",
    "Audit",
    "Counts",
    "FeedbackClaim",
    "GroupIndex",
    "GroupedData",
    "Loop",
    "Moments",
    "Notes",
    "Origin",
    "Recipe",
    "Record",
    "Relabel",
    "Rng",
    "Schema",
    "State",
    "World",
    "__version__",
    "chain",
    "feedback_bound",
    "predict",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'evenloop' has no attribute {name!r}")
    value = getattr(import_module(f"evenloop.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from evenloop.audit import Audit
    from evenloop.bound import feedback_bound
    from evenloop.claims import FeedbackClaim
    from evenloop.counts import Counts, Moments
    from evenloop.data import Attribute, GroupedData, Origin, Schema
    from evenloop.fit import predict
    from evenloop.groups import GroupIndex
    from evenloop.loop import Loop, Notes, State, World, chain, run
    from evenloop.loops.relabel import Relabel
    from evenloop.recipe import Recipe
    from evenloop.record import Record
    from evenloop.rng import Rng
