"""One way to write a number, so that two configurations that mean the same are the same.

`lr=1e-3` is a text to YAML, `n0=200.0` is not the integer that the field takes, and 1 is not 1.0 in
a digest. What the field's own type makes of such a value is written back: whole numbers without a
point. A number that a preset already holds stays as the preset writes it, so that the digests in
the names of folders are those they always were.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

__all__ = ["written_alike"]

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# A net's options are its factory's own: to some, 1 is another thing than 1.0.
PARTS = ("world", "generated", "recipe", "sampler", "objective", "embed")
NAMES = ("name", "base")
EXACT = 2**53
Hints = Callable[[], Mapping[str, Any]]


def written_alike(raw: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """A shaped configuration with its parts' numbers written one way.

    Args:
        raw: with everything that a person set.
        preset: the same before they set it; {} where there was none.

    >>> asked = {"recipe": {"lr": "1e-3", "momentum": 0}, "loop": [{"relabel": {"n0": 200.0}}]}
    >>> written_alike(asked, {"recipe": {"momentum": 0.0}})
    {'recipe': {'lr': 0.001, 'momentum': 0.0}, 'loop': [{'relabel': {'n0': 200}}]}
    """
    out = dict(raw)
    for part in PARTS:
        if isinstance(values := raw.get(part), dict):
            out[part] = _section(values, preset.get(part), _of_part(part, values))
    loops, before = raw.get("loop") or [], preset.get("loop") or []
    out["loop"] = [
        {
            verb: _section(values, _at(_at(before, place), verb), _of_loop(verb))
            for verb, values in entry.items()
        }
        for place, entry in enumerate(loops)
    ]
    return out


def _section(values: Mapping[str, Any], before: Any, hints: Hints) -> dict[str, Any]:
    """The fields of one part; what their types are is looked up only where a number is odd."""
    odd = [k for k, v in values.items() if k not in NAMES and _odd(v, _at(before, k))]
    known, alike = hints() if odd else {}, {}
    for key in odd:
        value, earlier = values[key], _at(before, key)
        if key == "tune" and isinstance(value, dict):
            alike[key] = _section(value, earlier, _of_recipe)
        elif key in known and not _says_nothing(known[key]):
            alike[key] = _written(value, _read(known[key], value), earlier)
    return {**values, **alike}


def _odd(value: Any, before: Any) -> bool:
    """Whether anything in a value may be a number written another way than it need be."""
    if isinstance(value, dict):
        return any(_odd(inner, _at(before, key)) for key, inner in value.items())
    if isinstance(value, list):
        return any(_odd(inner, _at(before, place)) for place, inner in enumerate(value))
    if isinstance(value, str):
        return NUMBER.fullmatch(value) is not None
    if not _number(value) or (type(value) is type(before) and value == before):
        return False
    return float(value).is_integer() and (isinstance(value, float) or value == before)


def _says_nothing(hint: Any) -> bool:
    """Whether a type tells no whole number from another: 1 and 1.0 may mean two things to it."""
    inner = get_args(hint)
    return hint is Any or {int, float} <= {*inner} or any(map(_says_nothing, inner))


def _read(hint: Any, value: Any) -> Any:
    """What a field of this type makes of a value; the value itself where it is refused."""
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError:
        return value


def _written(value: Any, read: Any, before: Any) -> Any:
    """`value` with the numbers that were `read` from it, as the preset or else as YAML has them."""
    if isinstance(value, dict):
        return {k: _written(v, _at(read, k), _at(before, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_written(v, _at(read, i), _at(before, i)) for i, v in enumerate(value)]
    if not _number(read) or not (_number(value) or isinstance(value, str)):
        return value
    if _number(before) and before == read:
        return before
    return int(read) if float(read).is_integer() and abs(read) < EXACT else read


def _at(values: Any, place: str | int) -> Any:
    """What stands at a key or place; None where nothing does."""
    if isinstance(values, Mapping):
        return values.get(place)
    if isinstance(values, list | tuple) and isinstance(place, int) and place < len(values):
        return values[place]
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_recipe() -> Mapping[str, Any]:
    from evenloop.recipe import Recipe

    return get_type_hints(Recipe)


def _of_loop(verb: str) -> Hints:
    def hints() -> Mapping[str, Any]:
        from evenloop.loops import find

        return get_type_hints(find(verb))

    return hints


def _of_part(part: str, values: Mapping[str, Any]) -> Hints:
    """Types of a part's fields by name; none where its name is not known."""

    def hints() -> Mapping[str, Any]:
        from evenloop.parts import OBJECTIVES, SAMPLERS
        from evenloop.worlds import WORLDS
        from evenloop.worlds.features import EMBEDDINGS

        kinds: dict[str, Mapping[str, Any]] = {
            "world": WORLDS,
            "generated": WORLDS,
            "sampler": SAMPLERS,
            "objective": OBJECTIVES,
            "embed": EMBEDDINGS,
        }
        kind = kinds.get(part, {}).get(str(values.get("name")))
        return {} if kind is None else get_type_hints(kind)

    return _of_recipe if part == "recipe" else hints
