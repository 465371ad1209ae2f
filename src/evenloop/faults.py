"""What ends a training, in the same words for the plain loop and for the one that stacks seeds."""

from __future__ import annotations

__all__ = ["not_finite", "too_few_rows"]


def too_few_rows(batch: int, rows: int) -> ValueError:
    """No batch is whole and short ones are dropped.

    >>> print(too_few_rows(8, 5))
    batch=8 is larger than the 5 training rows and short batches are dropped; set batch to at most 5
    or drop_last=false
    """
    return ValueError(
        f"batch={batch} is larger than the {rows} training rows and short batches are dropped; set "
        f"batch to at most {rows} or drop_last=false"
    )


def not_finite(loss: float, name: str, epoch: int, step: int) -> FloatingPointError:
    """The loss of a step of the fit `name` is no number to go on with.

    >>> print(not_finite(float("nan"), "fit", 2, 7))
    loss is nan in fit, epoch 2, step 7 of that epoch; lower lr, set clip_norm, or look at the rows
    of that batch
    """
    return FloatingPointError(
        f"loss is {loss} in {name}, epoch {epoch}, step {step} of that epoch; lower lr, set "
        "clip_norm, or look at the rows of that batch"
    )
