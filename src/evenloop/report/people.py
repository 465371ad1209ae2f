"""Whether a report may show single pictures: not where people may be recognised in them."""

from __future__ import annotations

from evenloop import worlds
from evenloop.config import RunConfig

__all__ = ["hidden"]


def hidden(config: RunConfig) -> str | None:
    """Why no single picture of this study's rows is shown, as a sentence, or None if they may be.

    The card of a world says whether people may be recognised; `pictures` of the configuration
    overrules it, for a folder of things or for faces that nobody should see.
    """
    if config.pictures is not None:
        return None if config.pictures else "No picture is shown, as asked (pictures=false)."
    for source in (config.world, config.generated or {}):
        name = source.get("name")
        if name in worlds.WORLDS and worlds.WORLDS[name].about.people:
            return (
                f"No single picture of {worlds.WORLDS[name].about.title} is shown: people may be "
                "recognised in them. Where they cannot, pictures=true shows some."
            )
    return None
