"""REPAIR over cells against the notebook's per-row form, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from evenloop.heuristics.repair import Repair, keep_rows, repair_weights


def table(counts: list[list[int]]) -> tuple[Tensor, Tensor]:
    flat = torch.tensor(counts).flatten()
    cell = torch.repeat_interleave(torch.arange(len(flat)), flat)
    g = len(counts[0])
    return cell // g, cell % g


def by_rows(y: Tensor, a: Tensor, epochs: int, lr: float, lr_w: float) -> Tensor:
    """One weight for every row, autograd and torch's own SGD."""
    k, g = int(y.max()) + 1, int(a.max()) + 1
    x = one_hot(a, g).double()
    weight = torch.zeros(k, g, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    v = torch.zeros(len(y), dtype=torch.float64, requires_grad=True)
    learner = torch.optim.SGD([weight, offset], lr=lr, momentum=0.9)
    weigher = torch.optim.SGD([v], lr=lr_w)
    for _ in range(epochs):
        w = torch.sigmoid(v)
        z = w / w.mean()
        surprise = -(x @ weight.T + offset).log_softmax(1)[torch.arange(len(y)), y]
        risk = (z * surprise).mean()
        q = torch.stack([w[y == c].sum() for c in range(k)]) / w.sum()
        bias = 1 - risk / -(z * q[y].log()).mean()
        grad_learner = torch.autograd.grad(risk, [weight, offset], retain_graph=True)
        (grad_v,) = torch.autograd.grad(bias, v)
        weight.grad, offset.grad, v.grad = *grad_learner, grad_v
        learner.step()
        weigher.step()
    return torch.sigmoid(v).detach()


def test_cells_are_what_rows_are() -> None:
    y, a = table([[9, 2, 4], [3, 8, 0]])
    found = repair_weights(y, a, epochs=25, lr=0.1, lr_weights=3.0, batch=26)
    torch.testing.assert_close(found.weights, by_rows(y, a, 25, 0.1, 3.0), rtol=0, atol=1e-10)


def test_an_attribute_that_tells_nothing_has_bias_near_zero() -> None:
    found = repair_weights(*table([[500, 500], [500, 500]]))
    assert abs(found.bias) < 1e-3
    assert found.cells.std() < 1e-6


def test_an_attribute_that_is_the_label_favours_the_mismatched_rows() -> None:
    y, a = table([[95, 5], [5, 95]])
    found = repair_weights(y, a, epochs=1000)
    resampled = torch.tensor([[95.0, 5.0], [5.0, 95.0]]) * found.cells
    torch.testing.assert_close(resampled, resampled.flip(1), rtol=0.02, atol=0)
    assert abs(found.bias) < 1e-3
    first = repair_weights(y, a, epochs=200, lr_weights=1e-6)
    assert 0.5 < first.bias <= 1


def test_the_size_of_the_data_does_not_change_the_weights() -> None:
    small, large = (repair_weights(*table([[90 * n, 10 * n], [10 * n, 90 * n]])) for n in (1, 50))
    torch.testing.assert_close(small.cells, large.cells)


def test_an_absent_cell_and_an_absent_group_keep_their_place() -> None:
    y, a = table([[9, 0, 4], [3, 0, 0]])
    found = repair_weights(y, a, groups=4, epochs=10, lr_weights=0.5)
    assert found.cells.shape == (2, 4)
    assert found.weights.isfinite().all()
    assert found.cells[0, 1] == 0.5


def test_rules_of_keeping() -> None:
    w = torch.tensor([0.9, 0.2, 0.6, 0.4, 0.8, 0.1])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    found = Repair(w, torch.ones(2, 1), torch.ones(2) / 2, 0.0)

    def gen() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    assert keep_rows(found, labels).tolist() == [0, 2, 4]
    assert keep_rows(found, labels, "top", generator=gen()).tolist() == [0, 2, 4]
    assert keep_rows(found, labels, "top_per_class", generator=gen()).tolist() == [0, 2, 4]
    assert keep_rows(found, labels, "top", share=1 / 3, generator=gen()).tolist() == [0, 4]
    assert len(keep_rows(found, labels, "random", generator=gen())) == 3
    many = Repair(torch.full((4000,), 0.3), torch.ones(1, 1), torch.ones(1), 0.0)
    kept = keep_rows(many, torch.zeros(4000).long(), "bernoulli", generator=gen())
    assert abs(len(kept) / 4000 - 0.3) < 4 * (0.21 / 4000) ** 0.5


def test_weights_that_run_away_to_one_class_are_told() -> None:
    y, a = table([[9, 0, 4], [3, 0, 0]])
    with pytest.raises(ValueError, match="ran away"):
        repair_weights(y, a, lr_weights=10.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: repair_weights(torch.tensor([0, 1]), torch.tensor([0])), "one length"),
        (lambda: repair_weights(torch.zeros(0).long(), torch.zeros(0).long()), "one length"),
        (lambda: repair_weights(torch.tensor([0, 0]), torch.tensor([0, 1])), "two classes"),
        (lambda: repair_weights(torch.ones(2), torch.tensor([0, 1])), "labels must hold codes as"),
        (lambda: repair_weights(torch.tensor([0, 1]), torch.ones(2)), "attribute must hold codes"),
        (lambda: repair_weights(torch.tensor([0, 1]), torch.tensor([0, -1])), "codes must lie in"),
        (lambda: repair_weights(torch.tensor([0, 1]), torch.tensor([0, 3]), groups=2), r"0\.\.1"),
        (lambda: repair_weights(torch.tensor([0, 1]), torch.tensor([0, 1]), epochs=0), "positive"),
        (
            lambda: repair_weights(
                torch.tensor([0, 1]),
                torch.tensor([0, 1]),
                start=(torch.zeros(3, 2), torch.zeros(2)),
            ),
            "start",
        ),
        (lambda: keep_rows(Repair(torch.ones(1), torch.ones(1, 1), torch.ones(1), 0.0),
                           torch.zeros(1).long(), share=0.0), "share"),
        (lambda: keep_rows(Repair(torch.ones(1), torch.ones(1, 1), torch.ones(1), 0.0),
                           torch.zeros(1).long(), "top"), "generator"),
        (lambda: keep_rows(Repair(torch.ones(1), torch.ones(1, 1), torch.ones(1), 0.0),
                           torch.zeros(1).long(), "best"), "unknown rule"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bad_input(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
