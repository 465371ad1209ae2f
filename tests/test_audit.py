"""The audit by posterior draws: the mean of probabilities, with masks that all models share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenloop.audit import Audit
from evenloop.config import load
from evenloop.data import GroupedData, Schema
from evenloop.heuristics.posterior import MCDropout, draw_pool
from evenloop.models import build
from evenloop.rng import Rng


def data(n: int = 60) -> GroupedData:
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=gen)
    return GroupedData.of(x, (x[:, 0] > 0).long(), {}, Schema(("a", "b")))


def net(seed: int = 0) -> nn.Module:
    return build("dropout-mlp", features=4, classes=2, hidden=(8,), seed=seed)


def classes(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(1)


def test_draws_are_averaged_as_probabilities() -> None:
    rows = data()
    counts, moments = Audit(rows, draws=7).tables(net(), classes)
    logits = draw_pool(MCDropout(net(), 7), rows.x, rng=Rng.of(0).at("audit"))
    mean = logits.double().softmax(1).mean(2)
    loss = -mean.gather(1, rows.truth[:, None]).log().sum()
    assert moments["audit.loss"].table[0, 1] == pytest.approx(float(loss))
    assert counts["audit"].table.trace(axis1=1, axis2=2) == (mean.argmax(1) == rows.truth).sum()
    confidence = moments["audit.confidence"].table[:, 1].sum()
    assert confidence == pytest.approx(float(mean.amax(1).sum()))
    of_mean_logits = nn.functional.cross_entropy(logits.mean(2), rows.truth, reduction="sum")
    assert abs(float(loss - of_mean_logits)) > 1e-3


def test_the_plain_net_is_audited_by_default() -> None:
    _, plain = Audit(data()).tables(net(), classes)
    logits = net().eval()(data().x).detach()
    loss = nn.functional.cross_entropy(logits, data().truth, reduction="sum")
    assert plain["audit.loss"].table[0, 1] == pytest.approx(float(loss), rel=1e-5)


def test_the_masks_are_the_same_every_time() -> None:
    audit = Audit(data(), draws=5)
    a, b = (audit.tables(net(), classes)[1]["audit.loss"].table for _ in range(2))
    assert (a == b).all()


def test_draws_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="draws must be at least 0"):
        Audit(data(), draws=-1)
    assert Audit(data(), draws=1).draws == 1


def test_the_configuration_takes_it_and_old_studies_keep_their_name() -> None:
    plain, drawn = load("acquire-cpu"), load("acquire-cpu", ["audit_draws=20"])
    assert "audit_draws" not in plain.identity()
    assert drawn.identity()["audit_draws"] == 20
    assert plain.digest() != drawn.digest()
