"""The rows that a configuration names, read once per process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from evenloop import worlds
from evenloop.config import RunConfig
from evenloop.data import GroupedData
from evenloop.inputs import ConfigError, construct, known
from evenloop.readings import HasStructure, Structured
from evenloop.worlds.dropped import Dropped, SaysDropped
from evenloop.worlds.features import EMBEDDINGS, Embedding
from evenloop.worlds.generated import apart, as_generated, with_weights

__all__ = ["dropped", "generated", "rows"]


def rows(
    config: RunConfig, world: Mapping[str, Any], seed: int
) -> tuple[GroupedData, Any, Structured | None]:
    """A world's rows, as features where the configuration asks for them; its moments; readings."""
    key = _world_key(world, seed)
    data, normalisation, structured = _source(key)
    if config.embed is None:
        return data, normalisation, structured
    fields = dict(config.embed)
    name = str(fields.pop("name", None))
    known(name, EMBEDDINGS, "embed")
    embedding = construct(EMBEDDINGS[name], fields, f"embed {name}")
    try:
        return _embedded(key, embedding), None, structured
    except ValueError as error:
        raise ConfigError(f"embed={name!r}: {error}; leave embed out") from None


def generated(
    config: RunConfig, data: GroupedData, seed: int
) -> tuple[GroupedData, GroupedData | None]:
    """Real rows, and generated ones to train on: the world's own, and those named as `generated`.

    None is a copy of a real row, audited or not; "{seed}" in a path is the seed.
    """
    try:
        data, made = apart(data)
    except ValueError as error:
        raise ConfigError(f"world: {error}") from None
    if config.generated is None:
        return data, made
    values = {
        k: v.replace("{seed}", str(seed)) if isinstance(v, str) else v
        for k, v in config.generated.items()
    }
    more, _, _ = rows(config, values, seed)
    try:
        data = with_weights(data, more)
        more = as_generated(more, data)
    except ValueError as error:
        raise ConfigError(f"generated: {error}") from None
    return data, more if made is None else as_generated(made, data).append(more)


def dropped(config: RunConfig, seed: int) -> Dropped | None:
    """Whom the world leaves out because a value is missing; None where it says nothing."""
    return _dropped(_world_key(config.world, seed))


def _world_key(world: Mapping[str, Any], seed: int) -> str:
    """A world's values as text, with the run's seed where they ask for it."""
    if world.get("seed") == "run":
        world = {**world, "seed": seed}
    return json.dumps(world, sort_keys=True, default=str)


@lru_cache(maxsize=4)
def _embedded(key: str, embedding: Embedding) -> GroupedData:
    return embedding(_source(key)[0])


@lru_cache(maxsize=4)
def _dropped(key: str) -> Dropped | None:
    source = _named(key)
    return source.left_out() if isinstance(source, SaysDropped) else None


def _named(key: str) -> Any:
    values = json.loads(key)
    name = values.pop("name", None)
    known(name, worlds.names(), "world")
    return construct(worlds.WORLDS[name], values, f"world {name}")


# Few: a world with `seed: run` differs from seed to seed, and whole sets would pile up.
@lru_cache(maxsize=4)
def _source(key: str) -> tuple[GroupedData, Any, Structured | None]:
    source = _named(key)
    data = source.load()
    structured = source.structured() if isinstance(source, HasStructure) else None
    return data, source.normalisation, structured
