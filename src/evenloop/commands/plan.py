"""What a reparation budget can and cannot repair, as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["reparation_lines"]


def reparation_lines(
    share: Sequence[float],
    *,
    batch: int,
    budget: str,
    ideal: Sequence[float] = (),
    fill: str = "unfiltered",
    names: Sequence[str] = (),
) -> Iterator[str]:
    """A table by stratum of quota, chance to fill it and final share, then what is not repaired.

    Raises:
        ValueError: shares, budget, ideal or fill rule are not valid, or names of another number.

    >>> lines = list(reparation_lines([0.1, 0.9], batch=20, budget="25%"))
    >>> print(lines[0])
    stratum      share  ideal  quota     filled  final
    """
    from evenloop.samplers.quota_plan import plan_reparation

    if names and len(names) != len(share):
        raise ValueError(f"{len(names)} names for {len(share)} shares; give one for each")
    rows = int(budget) if budget.isdigit() else budget
    plan = plan_reparation(
        share,
        batch=batch,
        budget=rows,
        ideal=ideal or None,
        fill=fill,  # type: ignore[arg-type]
    )
    labels = list(names) or [str(k) for k in range(len(share))]
    width = max(8, *map(len, labels))
    yield f"{'stratum':<{width}}{'share':>10}  ideal  quota     filled  final"
    for k, name in enumerate(labels):
        yield (
            f"{name:<{width}}{plan.share[k]:>10.2%}{plan.ideal[k]:>7.1%}{int(plan.quota[k]):>7}"
            f"{plan.full[k]:>11.2%}{plan.final[k]:>7.1%}"
        )
    how = "" if plan.exact else " (final shares simulated)"
    yield f"expected rows that the rule {fill!r} supplies: {plan.missing:.2f} of {batch}{how}"
    yield from plan.warnings(labels)
