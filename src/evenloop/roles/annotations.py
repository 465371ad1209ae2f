"""Annotated frames as imSitu's files hold them, and as rows of codes.

A situation is {"verb": ..., "frames": [{role: noun, ...}, ...]}, one frame for each annotator; the
noun "" is a blank an annotator left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evenloop.data import NOTHING
from evenloop.rng import Rng
from evenloop.roles.layout import Layout

__all__ = ["Frame", "Situation", "collapse", "decode", "encode", "sentence", "vocabulary"]

Frame = Mapping[str, str]
Situation = Mapping[str, Any]


def vocabulary(situations: Iterable[Situation]) -> Layout:
    """Every verb (sorted), its roles and each role's nouns (in order of appearance).

    >>> bake = {"verb": "baking", "frames": [{"agent": "woman"}, {"agent": "man"}]}
    >>> vocabulary([bake]).nouns
    ((('woman', 'man'),),)

    Raises:
        ValueError: there is no situation, or none with a role.
    """
    seen: dict[str, dict[str, dict[str, None]]] = {}
    for situation in situations:
        roles = seen.setdefault(situation["verb"], {})
        for frame in situation["frames"]:
            for role, noun in frame.items():
                roles.setdefault(role, {})[noun] = None
    verbs = tuple(sorted(seen))
    return Layout(
        verbs,
        tuple(tuple(seen[verb]) for verb in verbs),
        tuple(tuple(tuple(nouns) for nouns in seen[verb].values()) for verb in verbs),
    )


def encode(situations: Sequence[Situation], layout: Layout, *, references: int) -> Tensor:
    """(N, 1 + references * R) int64 codes: the verb, then the nouns of each annotator's frame.

    -1 stands where a verb has no such role, where a frame leaves a role out, and for references
    that a situation does not have.

    >>> bake = {"verb": "baking", "frames": [{"agent": "woman"}, {"agent": "man"}]}
    >>> encode([bake], vocabulary([bake]), references=3).tolist()
    [[0, 0, 1, -1]]

    Raises:
        ValueError: more frames than references, or a verb, role or noun the layout does not have.
    """
    verbs = {verb: v for v, verb in enumerate(layout.verbs)}
    roles = [{role: r for r, role in enumerate(of_verb)} for of_verb in layout.roles]
    nouns = [
        [{noun: u for u, noun in enumerate(listed)} for listed in of_verb]
        for of_verb in layout.nouns
    ]
    wide = layout.max_roles
    y = np.full((len(situations), 1 + references * wide), NOTHING, np.int64)
    for i, situation in enumerate(situations):
        verb, frames = situation["verb"], situation["frames"]
        if verb not in verbs:
            raise ValueError(f"situation {i}: the layout has no verb {verb!r}")
        if len(frames) > references:
            raise ValueError(
                f"situation {i} ({verb}) has {len(frames)} frames and references={references}; "
                "collapse it, or raise references"
            )
        y[i, 0] = v = verbs[verb]
        for place, frame in enumerate(frames):
            for role, noun in frame.items():
                r = roles[v].get(role)
                u = None if r is None else nouns[v][r].get(noun)
                if r is None or u is None:
                    raise ValueError(
                        f"situation {i}: the layout has no {role}={noun!r} for verb {verb!r}"
                    )
                y[i, 1 + place * wide + r] = u
    return torch.from_numpy(y)


def decode(y: Tensor, layout: Layout) -> list[dict[str, Any]]:
    """Situations of rows of codes (N, 1 + F * R); references without a noun are left out.

    >>> bake = {"verb": "baking", "frames": [{"agent": "woman"}]}
    >>> decode(encode([bake], vocabulary([bake]), references=2), vocabulary([bake])) == [bake]
    True
    """
    wide, found = layout.max_roles, []
    for verb, *codes in y.tolist():
        frames = []
        for start in range(0, len(codes), wide):
            of_frame = zip(layout.roles[verb], layout.nouns[verb], codes[start:], strict=False)
            frame = {role: nouns[u] for role, nouns, u in of_frame if u != NOTHING}
            if frame:
                frames.append(frame)
        found.append({"verb": layout.verbs[verb], "frames": frames})
    return found


def sentence(situation: Situation, words: Mapping[str, str] | None = None) -> str:
    """One line for people, the first frame's nouns after its verb.

    `words` names nouns (by WordNet id, say) as people would.

    >>> sentence({"verb": "baking", "frames": [{"agent": "n1", "item": ""}]}, {"n1": "woman"})
    'baking: agent=woman, item=?'
    """
    words = words or {}
    frames = situation["frames"]
    said = [f"{role}={words.get(noun, noun) or '?'}" for role, noun in (frames or [{}])[0].items()]
    return f"{situation['verb']}: {', '.join(said)}" if said else str(situation["verb"])


def collapse(frames: Sequence[Frame], rng: Rng) -> dict[str, str]:
    """One frame of several annotators' frames.

    For each role, blanks aside: the noun that most annotators gave, where two or more agree, else
    a random one of those given; blank if all are blank.

    >>> collapse([{"agent": "man"}, {"agent": ""}, {"agent": "man"}], Rng.of(0))
    {'agent': 'man'}
    """
    roles = dict.fromkeys(role for frame in frames for role in frame)
    merged = {}
    for role in roles:
        given = Counter(frame[role] for frame in frames if frame.get(role, "").strip())
        most = max(given.values(), default=0)
        leading = [noun for noun, count in given.items() if count == most]
        pick = int(rng.at(role).numpy().integers(len(leading))) if len(leading) > 1 else 0
        merged[role] = leading[pick] if leading else ""
    return merged
