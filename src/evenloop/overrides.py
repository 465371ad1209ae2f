"""Settings of the user laid on a raw configuration: shapes first, then `key=value`.

Nothing here knows what a value means; the configuration's own checks come afterwards. What is
refused is what they could no longer name: a part of another shape, a key that two parts have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from evenloop.inputs import ConfigError
from evenloop.words import nearest

__all__ = ["apply", "merged", "pairs", "read_file", "read_yaml", "shaped"]

ALIASES = {
    "data": "world.name",
    "learner": "net",
    "model": "net",
    "data_dir": "world.root",
}
PARTS = ("sampler", "objective", "embed")
NAMED = {"world": "name", "net": "name", "recipe": "base"}
ELSEWHERE = {
    "out": "the folder is the option --out",
    "processes": "the number of processes is the option --processes",
    "quiet": "plain lines are the option --quiet",
}


class _Loader(yaml.SafeLoader):
    """YAML without numbers of base 60, so that `structure: 2:4` is what it says."""


_BASE_60 = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _BASE_60]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$"),
    [*"-+0123456789"],
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    [*"-+0123456789."],
)


def read_yaml(text: str) -> Any:
    """What a YAML text says; nothing in it is run.

    >>> read_yaml("[2:4, 12, 0.5, .inf]")
    ['2:4', 12, 0.5, inf]

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader


def read_file(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        ConfigError: it cannot be read, or is not YAML.
    """
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def pairs(settings: Sequence[str]) -> dict[str, Any]:
    """Values by key of `key=value` texts; a later one replaces an earlier one.

    >>> pairs(["rounds=5", "track=dog", "hidden=[8, 8]"])
    {'rounds': 5, 'track': 'dog', 'hidden': [8, 8]}

    Raises:
        ConfigError: a text without a key or a sign, or a value that is not YAML.
    """
    found = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"{text!r} is not key=value; write for example rounds=5")
        try:
            found[key] = read_yaml(value)
        except yaml.YAMLError:
            raise ConfigError(f"{key}={value!r}: the value is not readable as YAML") from None
    return found


def shaped(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A raw configuration whose parts have the shapes that settings are laid on.

    A bare name stands for a mapping with nothing else in it: `world: digits8`, `net: mlp`,
    `recipe: mlp`, and `- relabel` for a loop with its defaults.

    >>> shaped({"world": "digits8", "net": "mlp", "recipe": "mlp", "loop": ["relabel"]})["loop"]
    [{'relabel': {}}]

    Raises:
        ConfigError: a part is missing or of another shape; says what to write.
    """
    out = dict(raw)
    for part, key in NAMED.items():
        value = out.get(part)
        if value is None:
            raise ConfigError(f"{part} is missing; write {part}: NAME or {part}: {{{key}: NAME}}")
        out[part] = {key: value} if isinstance(value, str) else value
        if not isinstance(out[part], dict):
            raise ConfigError(
                f"{part}={value!r} must be a name or a mapping such as {{{key}: NAME}}"
            )
        if key == "name" and key not in out[part]:
            raise ConfigError(f"{part}={value!r} has no name; write {part}: {{name: NAME, ...}}")
    for part in PARTS:
        if isinstance(out.get(part), str):
            out[part] = {"name": out[part]}
    if not isinstance(out.get("loop"), list) or not out["loop"]:
        raise ConfigError(
            f"loop={out.get('loop')!r} must be a list with an entry for each verb, such as "
            "[{relabel: {n0: 50}}]"
        )
    out["loop"] = [_entry(entry) for entry in out["loop"]]
    return out


def _entry(entry: Any) -> dict[str, dict[str, Any]]:
    from evenloop.loops import names

    found = {entry: {}} if isinstance(entry, str) else entry
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"loop entry {entry!r} must be a verb or {{verb: {{field: value}}}}")
    for verb, values in found.items():
        if verb not in names():
            raise ConfigError(f"unknown loop {verb!r}; {nearest(str(verb), names())}")
        if not isinstance(values, dict | None):
            raise ConfigError(f"{verb}={values!r} must be a mapping of its fields, such as n0: 50")
    return {verb: dict(values or {}) for verb, values in found.items()}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`; mappings and the loop list are merged, anything else replaced.

    >>> merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 5}})
    {'a': {'x': 5, 'y': 2}, 'b': 3}

    Raises:
        ConfigError: the two loops have another number of entries.
    """
    out = dict(base)
    for key, value in over.items():
        there = out.get(key)
        replaces = isinstance(value, dict) and ({"name", "base"} & set(value))
        if isinstance(there, dict) and isinstance(value, dict) and not replaces:
            out[key] = merged(there, value)
        elif key == "loop" and isinstance(there, list):
            if not isinstance(value, list) or len(value) != len(there):
                raise ConfigError(f"loop of the variant must have {len(there)} entries, one each")
            out[key] = [merged(a, b) for a, b in zip(there, value, strict=True)]
        else:
            out[key] = value
    return out


def apply(raw: dict[str, Any], settings: Sequence[str], top: Iterable[str]) -> None:
    """Lay `key=value` texts on a `shaped` configuration, in place.

    Args:
        raw: from `shaped`.
        settings: keys are dotted paths, or a field's name that only one part has; a name of `top`
            means the top.
        top: names of the fields that are no part of their own.

    Raises:
        ConfigError: an unknown or ambiguous key, or a value that cannot be what the key says.
    """
    for key, value in pairs(settings).items():
        _set(raw, key, value, frozenset(top) - {*NAMED, "loop", "about", "name"})
    _shares(raw, frozenset(top))


def _set(raw: dict[str, Any], key: str, value: Any, top: frozenset[str]) -> None:
    key = ALIASES.get(key, key)
    if key == "seed":
        raw["seeds"] = [value]
    elif key == "loop":
        raw["loop"] = shaped({**raw, "loop": value})["loop"]
    elif key == "recipe" and isinstance(value, str):
        raw["recipe"] = _recipe(raw["recipe"], value)
    elif key in ("world.name", *NAMED, *PARTS):
        part = key.partition(".")[0]
        raw[part] = shaped({**raw, part: value})[part]
    else:
        place, leaf = _place(raw, key, top)
        place[leaf] = value


def _recipe(current: Mapping[str, Any], value: str) -> dict[str, str]:
    """`recipe=underfit` means the underfit variant of the recipe at hand."""
    from evenloop.recipe import RECIPES

    variant = f"{current.get('base', '')}-{value}"
    return {"base": variant if variant in RECIPES else value}


def _place(raw: dict[str, Any], key: str, top: frozenset[str]) -> tuple[dict[str, Any], str]:
    """The mapping and leaf a key means: a dotted path, or a field name that only one part has."""
    sections = _sections(raw, top)
    head, _, leaf = key.rpartition(".")
    if head:
        matches = [s for s in sections if s == head or s.split(".")[-1] == head]
    else:
        # A bare lr is that of the recipe: a nested section must be named.
        matches = [s for s, known in sections.items() if leaf in known and s.count(".") < 3]
        matches = [""] if "" in matches else matches
    if len(matches) > 1:
        choices = " or ".join(f"{s}.{leaf}" for s in matches)
        raise ConfigError(f"{key!r} is ambiguous: write {choices}")
    if not matches or (leaf not in sections[matches[0]] and matches[0] != "net"):
        known = sections[matches[0]] if matches else set().union(*sections.values(), ALIASES)
        whole = "" if matches else _as_a_whole(head, leaf, sections)
        hint = ELSEWHERE.get(key) or whole or nearest(leaf, known)
        raise ConfigError(f"unknown key {key!r}; {hint}")
    return _section(raw, matches[0]), leaf


def _as_a_whole(head: str, leaf: str, sections: Mapping[str, set[str]]) -> str:
    """How the field that `head` names is given, where it is one: a value has no dots inside."""
    field = head.rpartition(".")[2]
    if not any(field in known for known in sections.values()):
        return ""
    return f"{field} is one value, given as a whole, such as {head}='{{{leaf}: ...}}'"


def _sections(raw: Mapping[str, Any], top: frozenset[str]) -> dict[str, set[str]]:
    """Field names by section: "" the top, world, recipe, net, loop.<place>.<verb>[.tune]."""
    from evenloop.loops import find as find_loop
    from evenloop.recipe import Recipe
    from evenloop.worlds import WORLDS

    sections = {"": {*top, "human_share", "per_round"}}
    world = raw["world"]["name"]
    if world not in WORLDS:
        raise ConfigError(f"no world {world!r}; {nearest(str(world), WORLDS)}")
    sections["world"] = {f.name for f in fields(WORLDS[world])}  # type: ignore[arg-type]
    made = (raw.get("generated") or {}).get("name")
    if made in WORLDS:
        sections["generated"] = {f.name for f in fields(WORLDS[made])}  # type: ignore[arg-type]
    sections["recipe"] = {f.name for f in fields(Recipe)}
    sections["net"] = set(raw["net"]) - {"name"}
    sections |= _parts(raw)
    for place, entry in enumerate(raw["loop"]):
        for verb in entry:
            known = {f.name for f in fields(find_loop(verb))}
            sections[f"loop.{place}.{verb}"] = known
            if "tune" in known:
                sections[f"loop.{place}.{verb}.tune"] = sections["recipe"]
    return sections


def _parts(raw: Mapping[str, Any]) -> dict[str, set[str]]:
    """Field names of the sampler, the objective and the embedding, where they are given."""
    from evenloop.parts import OBJECTIVES, SAMPLERS
    from evenloop.worlds.features import EMBEDDINGS

    found = {}
    for part, known in zip(PARTS, (SAMPLERS, OBJECTIVES, EMBEDDINGS), strict=True):
        kind: Any = known.get(str((raw.get(part) or {}).get("name")))
        if kind is not None:
            found[part] = {f.name for f in fields(kind)}
    return found


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping of a section of `_sections`, a copy of its own so that no preset is written."""
    if name == "":
        return raw
    holder, key = raw, name
    if name.startswith("loop."):
        _, place, *inner, key = name.split(".")
        holder = raw["loop"][int(place)]
        for step in inner:
            holder[step] = dict(holder[step])
            holder = holder[step]
    holder[key] = dict(holder.get(key) or {})
    return dict.__getitem__(holder, key)


def _shares(raw: dict[str, Any], top: frozenset[str]) -> None:
    """`per_round=5000 human_share=.2` is human=1000 machine=4000."""
    share, total = raw.pop("human_share", None), raw.pop("per_round", None)
    if share is None and total is None:
        return
    if not _number(share) or not 0 <= share <= 1 or type(total) is not int or total < 1:
        raise ConfigError(
            f"human_share={share!r} and per_round={total!r}: give both, a share in [0, 1] and a "
            "whole number of rows from 1 on"
        )
    place, _ = _place(raw, "human", top)
    place["human"] = round(share * total)
    place["machine"] = total - place["human"]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
