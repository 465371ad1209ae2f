"""Pictures made by a mixing run's own generator, written where anyone can look at them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evenloop.build import assemble
from evenloop.config import RunConfig
from evenloop.inputs import ConfigError
from evenloop.loops.mix import Mix
from evenloop.rng import Rng
from evenloop.worlds.generated import write_generated

__all__ = ["make_generated"]


def make_generated(config: RunConfig, out: Path) -> Iterator[Path]:
    """Train the configured generator on each seed's train side and write its rows.

    The audit split of a seed is unseen by the generator of that seed, and of that seed only: give a
    run `generated.path=OUT/{seed}/manifest.csv`.

    Raises:
        ConfigError: the loop is not one `mix` with generator=vae, or a folder is not empty.
    """
    for seed in config.seeds:
        job = assemble(config, seed)
        if not isinstance(job.loop, Mix) or job.loop.generator != "vae":
            raise ConfigError("data make needs one mix loop with generator=vae; set generator=vae")
        made = job.loop.make(job.world, Rng.of(seed).at("make"))
        try:
            yield write_generated(out / str(seed), made, note=f"conv-vae seed {seed}")
        except FileExistsError as error:
            raise ConfigError(str(error)) from None
