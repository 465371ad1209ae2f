"""The command that makes a study again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from evenloop.config import RunConfig, load, preset_names
from evenloop.inputs import ConfigError

__all__ = ["command_of"]

PARTS = ("world", "generated", "net", "recipe", "sampler", "objective", "embed")
APART = ("about", "name", "loop", "seeds")


def command_of(config: RunConfig) -> str:
    """`evenloop run PRESET key=value ...`, "" where no such command makes the same study.

    >>> command_of(load("acquire-cpu:small", ["net.width=4", "seeds=[3, 4]"]))
    "evenloop run acquire-cpu:small net.width=4 seeds='[3, 4]'"
    """
    name, small = config.name.removesuffix("-small"), config.name.endswith("-small")
    if name not in preset_names():
        return ""
    source = f"{name}:small" if small else name
    preset = load(source)
    settings = [f"{key}={_text(value)}" for key, value in _changes(preset, config)]
    try:
        same = load(source, settings).model_copy(update={"about": config.about})
    except ConfigError:
        return ""
    if same != config:
        return ""
    shown = (
        f"{key}={shlex.quote(value)}" for key, _, value in (s.partition("=") for s in settings)
    )
    return " ".join(["evenloop run", source, *shown])


def _text(value: Any) -> str:
    """YAML on one line, as `key=value` is read."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1 << 16)
    return text.removesuffix("\n...\n").strip()


def _changes(preset: RunConfig, config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Settings that turn the preset into the configuration, as far as settings can."""
    before, after = preset.model_dump(mode="json"), config.model_dump(mode="json")
    for part in PARTS:
        yield from _of_mapping(part, before.pop(part) or {}, after.pop(part) or {})
    for place, (old, new) in enumerate(zip(before["loop"], after["loop"], strict=False)):
        for verb, fields in new.items():
            yield from _fields(f"loop.{place}.{verb}", old.get(verb) or {}, fields or {})
    for key, value in after.items():
        if key not in APART and value != before[key]:
            yield key, value
    if after["seeds"] != before["seeds"]:
        yield "seeds", after["seeds"]


def _of_mapping(
    part: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The fields that differ, or the whole part where another one stands there."""
    other = any(before.get(key) != after.get(key) for key in ("name", "base"))
    if after and (other or before.keys() - after.keys()):
        yield part, dict(after)
    elif after:
        yield from _fields(part, before, after)


def _fields(
    part: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for key, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(key), dict):
            yield from _fields(f"{part}.{key}", before[key], value)
        elif key not in before or before[key] != value:
            yield f"{part}.{key}", value
