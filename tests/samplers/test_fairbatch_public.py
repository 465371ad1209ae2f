"""FairBatch on the synthetic set its authors publish, against the ten runs printed beside it.

The set is not part of the project: EVENLOOP_TEST_DATA/fairbatch must hold the six arrays
`xz_train.npy` ... `z_test.npy` of the public repository.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evenloop import measures
from evenloop.counts import Counts
from evenloop.groups import GroupIndex
from evenloop.rng import Rng
from evenloop.samplers.cells import CellIndex
from evenloop.samplers.fairbatch import FairBatchSampler
from evenloop.samplers.outer import row_losses

# epochs, then the smallest and largest accuracy and disparity among the ten published runs
PUBLISHED = {
    "eqopp": (300, (0.855, 0.857), (0.0121, 0.0141)),
    "eqodds": (400, (0.852, 0.858), (0.0354, 0.0428)),
    "dp": (450, (0.790, 0.796), (0.0357, 0.0431)),
}
ROW = 0.001  # one test row


def public(folder: Path, part: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, 3), labels and groups (n,) of "train" or "test"."""
    x, y, z = (np.load(folder / f"{name}_{part}.npy") for name in ("xz", "y", "z"))
    return (
        torch.from_numpy(x).float(),
        torch.from_numpy(y > 0).long(),
        torch.from_numpy(z > 0).long(),
    )


class Scores(torch.nn.Module):
    """A linear score whose probability is sigmoid(2 score), as published."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.score = torch.nn.utils.skip_init(torch.nn.Linear, 3, 1)
        torch.nn.init.normal_(self.score.weight, 0.0, 0.2, generator=generator)
        torch.nn.init.zeros_(self.score.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = 2 * self.score(x)
        return out


def trained(folder: Path, measure: str, seed: int) -> Counts:
    """Test counts (groups, labels, predictions) after the published number of epochs."""
    x, y, z = public(folder, "train")
    rng = Rng.of(seed)
    model = Scores(rng.at("net").gen())
    sampler = FairBatchSampler(
        CellIndex(y, z),
        100,
        generator=rng.at("rows").gen(),
        measure=measure,
        rounding="independent",
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005)
    for _ in range(PUBLISHED[measure][0]):
        sampler.update(sampler.losses(model, x))
        for rows in sampler:
            loss = row_losses(model(x[rows]), y[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    x, y, z = public(folder, "test")
    said = (model(x)[:, 0] > 0).long()
    return Counts.of(said, y, GroupIndex(z, ("0", "1")), classes=2)


def pooled_disparity(counts: Counts, measure: str) -> float:
    """Largest deviation of a group's rate from that of all rows, which is what was published."""
    table = torch.from_numpy(counts.table).double()  # (group, label, prediction)
    if measure == "dp":
        table = table.sum(1, keepdim=True)
    if measure == "eqopp":
        table = table[:, 1:]
    rate = table[..., 1] / table.sum(-1)
    pooled = table.sum(0)[..., 1] / table.sum(0).sum(-1)
    return float((rate - pooled).abs().max())


@pytest.mark.parametrize("measure", list(PUBLISHED))
def test_the_published_runs_are_met(real_data: Callable[[str], Path], measure: str) -> None:
    folder = real_data("fairbatch")
    runs = [trained(folder, measure, seed) for seed in range(3)]
    accuracy = np.mean([measures.accuracy(counts.pooled()).value[0] for counts in runs])
    disparity = np.mean([pooled_disparity(counts, measure) for counts in runs])
    _, (low, high), (least, most) = PUBLISHED[measure]
    assert low - ROW <= accuracy <= high + ROW
    assert least - 2 * ROW <= disparity <= most + 2 * ROW
