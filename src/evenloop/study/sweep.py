"""A sweep: one base experiment and named arms that each change some of its values.

As a file::

    base: fig3-top-left:small
    seeds: 0..19
    arms:
      argmax: {}
      sample: {label_rule: sample}

Every arm runs on every seed. The first arm is what the others are compared with. `curves` may name
arms that differ in one setting, in order; the report joins them::

    curves:
      "by human labels": [few, some, many]

`metrics` may name what is compared; it is of the audit split or a number of the loop's notes, and
`accuracy@deployed` is the accuracy in counts that the loop made itself under the name `deployed`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evenloop.config import RunConfig, load, preset_folder
from evenloop.inputs import ConfigError
from evenloop.overrides import read_file
from evenloop.words import nearest

__all__ = ["Sweep", "load_sweep", "sweep_names"]

DOCUMENT_END = "...\n"
KEYS = {"about", "base", "arms", "seeds", "set", "metrics", "curves"}


@dataclass(frozen=True, slots=True)
class Sweep:
    """A name, the checked configuration of every arm, metrics to compare, and curves of arms."""

    name: str
    arms: Mapping[str, RunConfig]
    metrics: tuple[str, ...]
    curves: Mapping[str, tuple[str, ...]]

    def digest(self) -> str:
        """Eight hexadecimal digits that tell sweeps of other arms, settings or seeds apart."""
        parts = [(name, config.digest(), [*config.seeds]) for name, config in self.arms.items()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def sweep_names() -> list[str]:
    """Names of the packaged sweeps."""
    return sorted(path.stem for path in (preset_folder() / "sweeps").glob("*.yaml"))


def load_sweep(source: str, overrides: tuple[str, ...] = ()) -> Sweep:
    """The sweep of a packaged name or a YAML file; `overrides` apply to every arm.

    Raises:
        ConfigError: unknown name or key, or an arm whose values are wrong (it is named).
    """
    path = Path(source)
    if not source.endswith((".yaml", ".yml")):
        path = preset_folder() / "sweeps" / f"{source}.yaml"
        if source not in sweep_names():
            raise ConfigError(f"no sweep {source!r}; {nearest(source, sweep_names())}")
    elif not path.exists():
        raise ConfigError(f"no file {source!r}; give a sweep's name or an existing .yaml file")
    raw = _read(path)
    for key in raw:
        if key not in KEYS:
            raise ConfigError(f"unknown key {key!r} in {path}; {nearest(key, KEYS)}")
    shared = _pairs(raw.get("set") or {})
    if "seeds" in raw:
        shared.append(f"seeds={raw['seeds']}")
    arms = {}
    for name, values in raw["arms"].items():
        try:
            arms[str(name)] = load(str(raw["base"]), [*shared, *_pairs(values or {}), *overrides])
        except ConfigError as error:
            raise ConfigError(f"arm {name!r}: {error}") from None
    return Sweep(path.stem, arms, tuple(raw.get("metrics") or ()), _curves(raw.get("curves"), arms))


def _curves(raw: Any, arms: Mapping[str, RunConfig]) -> dict[str, tuple[str, ...]]:
    if not isinstance(raw, dict | None):
        raise ConfigError(f"curves={raw!r} must be a mapping of names to lists of arms")
    curves = {}
    for name, members in (raw or {}).items():
        if not isinstance(members, list) or not members:
            raise ConfigError(f"curve {name!r}={members!r} must be a list of arms")
        for member in members:
            if str(member) not in arms:
                raise ConfigError(
                    f"curve {name!r} names no arm {member!r}; {nearest(str(member), arms)}"
                )
        curves[str(name)] = tuple(map(str, members))
    return curves


def _read(path: Path) -> dict[str, Any]:
    raw = read_file(path)
    if not isinstance(raw, dict) or not {"base", "arms"} <= set(raw):
        raise ConfigError(f"{path} must hold the keys base and arms")
    arms, shared = raw["arms"], raw.get("set") or {}
    if not isinstance(arms, dict) or not arms:
        raise ConfigError(f"arms={arms!r} must name at least one arm, such as sampled: {{...}}")
    for name, values in {**arms, "set": shared}.items():
        if not isinstance(values, dict | None):
            raise ConfigError(f"{name}={values!r} must be a mapping of settings, such as human: 5")
    return raw


def _pairs(values: Mapping[str, Any]) -> list[str]:
    """The values as the `key=value` texts that `load` takes."""
    texts = {key: yaml.safe_dump(value, default_flow_style=True) for key, value in values.items()}
    return [f"{key}={text.removesuffix(DOCUMENT_END).strip()}" for key, text in texts.items()]
