"""The vocabulary of role frames, and where the potentials of its entries lie.

A frame is a verb and one noun for each of the verb's roles. Nouns are local to their verb and
role: code u of (verb, role) is the u-th noun in that role's own list, as in imSitu (Yatskar,
Zettlemoyer and Farhadi, Situation Recognition, CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BLOCKS", "Layout", "Slots"]

BLOCKS = 32  # widths of lists; more would save less padding than their kernel launches cost


@dataclass(frozen=True, slots=True)
class Layout:
    """Verbs, the roles of each, and the nouns of each (verb, role).

    Attributes:
        verbs: V names.
        roles: for every verb its roles, none or more.
        nouns: for every verb and role its nouns, at least one; "" is a blank that annotators left.

    Raises:
        ValueError: lengths differ, a name occurs twice, or a role has no nouns.

    >>> layout = Layout(("baking",), (("agent", "item"),), ((("man", "woman"), ("bread",)),))
    >>> layout.max_roles, layout.codes, layout.entries
    (2, 2, 3)
    """

    verbs: tuple[str, ...]
    roles: tuple[tuple[str, ...], ...]
    nouns: tuple[tuple[tuple[str, ...], ...], ...]

    def __post_init__(self) -> None:
        if not self.verbs:
            raise ValueError("verbs is empty; a layout needs at least one verb")
        if not any(self.roles):
            raise ValueError("roles is empty for every verb; a layout needs at least one role")
        if not len(self.verbs) == len(self.roles) == len(self.nouns):
            raise ValueError(
                f"layout has {len(self.verbs)} verbs, roles for {len(self.roles)} and nouns for "
                f"{len(self.nouns)}; give one entry of each for every verb"
            )
        _unique("verb", self.verbs, "the layout")
        for verb, roles, nouns in zip(self.verbs, self.roles, self.nouns, strict=True):
            _unique("role", roles, f"verb {verb!r}")
            if len(roles) != len(nouns):
                raise ValueError(
                    f"verb {verb!r} has {len(roles)} roles and nouns for {len(nouns)}; give every "
                    "role its list of nouns"
                )
            for role, listed in zip(roles, nouns, strict=True):
                if not listed:
                    raise ValueError(
                        f"role {role!r} of verb {verb!r} has no nouns; give it at least one, or "
                        "take the role away"
                    )
                _unique("noun", listed, f"role {role!r} of verb {verb!r}")

    @property
    def max_roles(self) -> int:
        """R, roles of the verb that has most."""
        return max(map(len, self.roles))

    @property
    def codes(self) -> int:
        """Codes in 0..codes-1 hold every verb and every local noun."""
        return max(len(self.verbs), *(len(n) for nouns in self.nouns for n in nouns))

    @property
    def entries(self) -> int:
        """(verb, role, noun) triples in all."""
        return sum(len(n) for nouns in self.nouns for n in nouns)

    def position(self, verb: int, role: str) -> int:
        """Place of a role among its verb's roles, -1 if the verb has no such role."""
        roles = self.roles[verb]
        return roles.index(role) if role in roles else -1

    def widths(self) -> NDArray[np.int64]:
        """(V, R) number of nouns of each role, 0 where the verb has no such role."""
        table = np.zeros((len(self.verbs), self.max_roles), np.int64)
        for v, nouns in enumerate(self.nouns):
            table[v, : len(nouns)] = [len(listed) for listed in nouns]
        return table


def _unique(what: str, names: Sequence[str], where: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{what} {twice!r} occurs twice in {where}")


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Where each potential lies in the flat vectors of a layout.

    Roles with about as many nouns lie side by side, so that every sum over nouns is a sum over the
    last axis of a view; a list shorter than its block's width is followed by empty slots, whose
    potential is minus infinity.

    Attributes:
        blocks: (roles, width) of each block, in order.
        start: (V, R) int64 first slot of the role's list, 0 where the verb has no such role.
        role: (V, R) int64 the role's place among all P roles, P where there is none.
        width: (V, R) int64 its number of nouns, 0 where there is none.
        empty: (S,) bool slots that hold no noun.
    """

    blocks: tuple[tuple[int, int], ...]
    start: Tensor
    role: Tensor
    width: Tensor
    empty: Tensor

    @staticmethod
    def of(layout: Layout) -> Slots:
        """The slots of `layout` on the CPU; made once for equal layouts."""
        return _slots(layout)

    @property
    def widest(self) -> int:
        """Nouns of the longest list."""
        return self.blocks[-1][1]

    @property
    def roles(self) -> int:
        """P, (verb, role) pairs in all."""
        return sum(roles for roles, _ in self.blocks)

    def to(self, device: torch.device | str) -> Slots:
        """The same tables on another device."""
        tables = (self.start, self.role, self.width, self.empty)
        return Slots(self.blocks, *(table.to(device) for table in tables))

    def pack(self, nouns: Sequence[Sequence[Sequence[float]]]) -> Tensor:
        """Potentials given for every verb, role and noun, as one flat vector (S,) float64."""
        flat = torch.full((len(self.empty),), -torch.inf, dtype=torch.float64)
        for v, of_verb in enumerate(nouns):
            for r, of_role in enumerate(of_verb):
                first = int(self.start[v, r])
                flat[first : first + len(of_role)] = torch.tensor(of_role, dtype=torch.float64)
        return flat


@lru_cache(maxsize=8)
def _slots(layout: Layout) -> Slots:
    width = layout.widths()
    roles = np.flatnonzero(width)  # in order of verb and role
    order = roles[np.argsort(width.flat[roles], kind="stable")]
    blocks = _blocks(width.flat[order])
    start = np.zeros(width.size, np.int64)
    place = np.full(width.size, len(order))
    place[order] = np.arange(len(order))
    wide = np.repeat([w for _, w in blocks], [n for n, _ in blocks]).astype(np.int64)
    start[order] = np.cumsum(wide) - wide
    empty = np.ones(int(wide.sum()), bool)
    for first, nouns in zip(start[order], width.flat[order], strict=True):
        empty[first : first + nouns] = False
    first, placed = (torch.from_numpy(a.reshape(width.shape)) for a in (start, place))
    return Slots(blocks, first, placed, torch.from_numpy(width), torch.from_numpy(empty))


def _blocks(width: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """(roles, width) of at most `BLOCKS` blocks over ascending widths with the fewest slots."""
    sizes, counts = np.unique(width, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])
    n = len(sizes)
    cost = np.full((BLOCKS + 1, n + 1), np.inf)
    cost[0, 0] = 0
    came = np.zeros((BLOCKS + 1, n + 1), int)
    for used in range(1, BLOCKS + 1):
        for upto in range(1, n + 1):
            total = cost[used - 1, :upto] + sizes[upto - 1] * (below[upto] - below[:upto])
            came[used, upto] = total.argmin()
            cost[used, upto] = total.min()
    found, upto, used = [], n, int(cost[:, n].argmin())
    while upto:
        start = came[used, upto]
        found.append((int(below[upto] - below[start]), int(sizes[upto - 1])))
        upto, used = int(start), used - 1
    return tuple(reversed(found))
