"""Small layouts, potentials of them, and every frame by enumeration."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from evenloop.roles import Layout, Potentials, Slots

SMALL = Layout(
    ("baking", "running", "waiting"),
    (("agent", "item"), ("agent",), ("agent", "place", "item")),
    (
        (("man", "woman", ""), ("bread", "cake")),
        (("man", "woman"),),
        (("woman",), ("street", "home", "", "hall"), ("bag", "book", "phone")),
    ),
)


def random_layout(verbs: int, seed: int, most: int = 4) -> Layout:
    """Up to three roles a verb with up to `most` nouns each."""
    rng = torch.Generator().manual_seed(seed)

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=rng))

    counts = [[1 + below(most) for _ in range(1 + below(3))] for _ in range(verbs)]
    return Layout(
        tuple(f"v{v}" for v in range(verbs)),
        tuple(tuple(f"r{r}" for r in range(len(each))) for each in counts),
        tuple(tuple(tuple(f"n{u}" for u in range(n)) for n in each) for each in counts),
    )


def potentials(layout: Layout, batch: int, seed: int = 0, spread: float = 1.0) -> Potentials:
    """Random potentials in double precision."""
    rng = torch.Generator().manual_seed(seed)
    slots = Slots.of(layout)
    verb = spread * torch.randn(batch, len(layout.verbs), generator=rng, dtype=torch.float64)
    noun = spread * torch.randn(batch, len(slots.empty), generator=rng, dtype=torch.float64)
    return Potentials(verb, noun.masked_fill(slots.empty, -torch.inf))


def every_frame(layout: Layout) -> Tensor:
    """(F, 1 + R) all frames of a layout, -1 where a verb has no such role."""
    rows = []
    for v, nouns in enumerate(layout.nouns):
        for chosen in product(*(range(len(listed)) for listed in nouns)):
            rows.append([v, *chosen, *[-1] * (layout.max_roles - len(chosen))])
    return torch.tensor(rows)


def score(given: Potentials, frame: list[int], layout: Layout) -> Tensor:
    """(B,) a_v + sum_r b_{v,r,u_r} of one frame, by looking up each term."""
    slots = Slots.of(layout)
    verb, *nouns = frame
    total = given.verb[:, verb].clone()
    for r, u in enumerate(nouns):
        if u >= 0:
            total += given.noun[:, int(slots.start[verb, r]) + u]
    return total
