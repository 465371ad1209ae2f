"""Configuration: files hold values, the loops' and worlds' own fields are the schema.

A preset or a file plus `key=value` pairs becomes a checked `RunConfig`; nothing in it is program
flow. Every mistake is one `ConfigError` that names the key, the value and the fix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evenloop.inputs import ConfigError, first_error
from evenloop.notation import written_alike
from evenloop.overrides import apply, merged, pairs, read_file, shaped
from evenloop.words import nearest

__all__ = [
    "About",
    "ConfigError",
    "RunConfig",
    "buys_selected",
    "load",
    "pairs",
    "preset_folder",
    "preset_names",
]

# A folder's name: it may not lead out of the folder it is made in.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MOST_SEED = 2**63 - 1


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, each once: two runs of one seed would write the same files."""
    seen: set[int] = set()
    for seed in seeds:
        if seed in seen:
            raise ValueError(f"seed {seed} is named twice")
        seen.add(seed)
    return seeds


Seed = Annotated[int, Field(strict=True, ge=0, le=MOST_SEED)]


class About(BaseModel):
    """Where an experiment comes from and what it costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    paper: str = ""
    figure: str = ""
    cost: str = ""
    small_cost: str = ""


class RunConfig(BaseModel):
    """One experiment: a world, what is done to it each round, and how models are trained.

    Attributes:
        name: of the preset or file; names the run folder.
        about: paper, figure and expected cost.
        world: {"name": ..., and the fields of that world}; `seed: run` gives a world that has a
            seed the seed of each run.
        generated: {"name": ..., and the fields of that world} of generated rows that join the train
            side; "{seed}" in a path is the run's seed. None for none.
        loop: one or more {verb: {fields}} entries; several are run as a chain.
        net: classifier by name, or {"name": ..., options}.
        recipe: named recipe, or {"base": ..., fields}.
        sampler: what is in a batch, by name or as {"name": ..., its fields}, wherever a loop does
            not decide it; `evenloop.parts` lists them.
        objective: what a batch costs, likewise.
        embed: frozen net whose features of an image stand for it, by name or as {"name": ..., its
            fields}; computed once. None: rows are used as they are.
        track: class whose share is the bias statistic.
        imbalance: factor by which `track` outnumbers every other class; 0 leaves the data as is.
        test_size: rows of the audit split.
        audit: "random" rows of the data, or rows of its own "test" split ("val" where its authors
            publish no test split); with "test" the other splits are trained on.
        audit_draws: dropout masks whose mean probabilities are audited; 0 for the plain net.
        pictures: whether the report may show single pictures; None leaves it to the world's card.
        by: columns whose product defines the groups.
        rounds: most rounds to run.
        seeds: one run each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(default="run", pattern=NAME, max_length=100)
    about: About = About()
    world: dict[str, Any]
    generated: dict[str, Any] | None = None
    loop: list[dict[str, dict[str, Any]]]
    net: dict[str, Any]
    recipe: dict[str, Any]
    sampler: dict[str, Any] | None = None
    objective: dict[str, Any] | None = None
    embed: dict[str, Any] | None = None
    track: str | int | None = None
    imbalance: int = Field(default=0, ge=0)
    test_size: int = Field(ge=1)
    audit: Literal["random", "test"] = "random"
    audit_draws: int = Field(default=0, ge=0)
    pictures: bool | None = None
    by: tuple[str, ...] = ("truth",)
    rounds: int = Field(ge=1)
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_distinct)] = Field(
        default=(0,), min_length=1
    )

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same experiment: all but its words, its seeds and its length.

        A run with more seeds or more rounds continues the one that has fewer.
        """
        left_out = {"about", "pictures", "seeds", "rounds"}
        # As in studies that were made before there were such keys.
        later = ("audit_draws", "sampler", "objective", "embed")
        left_out |= {key for key in later if not getattr(self, key)}
        return self.model_dump(mode="json", exclude=left_out)

    def digest(self) -> str:
        """Eight hex digits of the identity."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def buys_selected(config: RunConfig) -> bool:
    """Whether a loop has people label rows that it chose, not rows drawn at random."""
    bought = [entry["acquire"] or {} for entry in config.loop if "acquire" in entry]
    kinds = [(b.get("heuristic", "bald"), b.get("balance", "none")) for b in bought]
    return any(kind != ("random", "none") for kind in kinds)


def preset_folder() -> Path:
    """Where the packaged presets lie."""
    return Path(str(resources.files("evenloop"))) / "presets"


def preset_names() -> list[str]:
    """Names of the packaged presets, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def load(source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a preset (`name` or `name:small`) or a YAML file, with `key=value`s.

    Args:
        source: a preset's name, with ":small" for its laptop variant, or a path ending in .yaml.
        overrides: `key=value`; keys are dotted paths or the last part of one if that is unique.

    Raises:
        ConfigError: unknown preset, file, key or value.
    """
    raw, small = _raw(source)
    variant = raw.pop("small", None)
    if small:
        if variant is None:
            raise ConfigError(f"preset {source.split(':')[0]!r} has no small variant")
        raw = merged(raw, variant)
    _no_unknown(raw)
    raw = shaped(raw)
    before = {} if _is_file(source) else deepcopy(raw)
    apply(raw, overrides, RunConfig.model_fields)
    raw = written_alike(raw, before)
    raw["seeds"] = _seeds(raw.get("seeds", 1))
    return _checked(raw)


def _is_file(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def _raw(source: str) -> tuple[dict[str, Any], bool]:
    name, _, variant = source.partition(":")
    if _is_file(source):
        path, small, name = Path(source), False, Path(source).stem
        if not path.exists():
            raise ConfigError(f"no file {source!r}; give a preset's name or an existing .yaml file")
    else:
        if variant not in ("", "small"):
            raise ConfigError(f"unknown variant {variant!r} of {name!r}; the only one is :small")
        path, small = preset_folder() / f"{name}.yaml", variant == "small"
        if name not in preset_names():
            raise ConfigError(f"no preset {name!r}; {nearest(name, preset_names())}")
    raw = read_file(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(raw).__name__}")
    raw.setdefault("name", f"{name}-small" if small else name)
    return raw, small


def _seeds(value: Any) -> tuple[int, ...]:
    """`3` is seeds 0, 1, 2; `[4, 7]` those; `0..9` the range, both ends in."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return tuple(range(value))
    if isinstance(value, str) and ".." in value:
        first, _, last = value.partition("..")
        if first.isdigit() and last.isdigit() and int(first) <= int(last):
            return tuple(range(int(first), int(last) + 1))
    if isinstance(value, (list, tuple)) and all(
        type(s) is int and 0 <= s <= MOST_SEED for s in value
    ):
        try:
            return _distinct(tuple(value))
        except ValueError as error:
            raise ConfigError(f"seeds={value!r}: {error}; name each once") from None
    raise ConfigError(
        f"seeds={value!r}: give a count, a list such as [0, 1], or a range 0..9; whole numbers "
        "from 0 to 2**63 - 1"
    )


def _no_unknown(raw: Mapping[str, Any]) -> None:
    for key in raw:
        if key not in RunConfig.model_fields:
            known = set(RunConfig.model_fields) | {"small"}
            raise ConfigError(f"unknown key {key!r}; {nearest(str(key), known)}")


def _checked(raw: dict[str, Any]) -> RunConfig:
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(first_error(error, "")) from None
