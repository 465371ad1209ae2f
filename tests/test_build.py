"""From a configuration to a run's values: what is refused before work, what is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evenloop import models
from evenloop.build import assemble, check
from evenloop.config import ConfigError, RunConfig, load
from evenloop.sources import _source as source_of

FILE = """
world: {name: digits8, form: pca}
track: "8"
test_size: 300
loop: [{relabel: {n0: 200, human: 20, machine: 80}}]
net: {name: logistic}
recipe: {base: logistic}
rounds: 2
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return str(path)


def config(file: str, *settings: str) -> RunConfig:
    return load(file, list(settings))


def test_a_good_configuration_passes_without_a_note(file: str) -> None:
    assert check(config(file)) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["n0=0"], "n0 must be a whole number from 1 on, got 0"),
        (["human=-5"], "human must be a whole number from 0 on, got -5"),
        (["human=0", "machine=0"], "add nothing"),
        (["n0=5000"], "n0=5000 and one round of 20 + 80 rows need more than the 1497 rows"),
        (["human=900", "machine=900"], "one round of 900 + 900 rows need more than the 1497"),
        (["test_size=1797"], "test_size=1797 must leave rows to train on; the data has 1797"),
        (["track=dog"], "track: "),
        (["track=8", "imbalance=1000"], "imbalance=1000: class '8' has"),
        (["track=null", "imbalance=3"], "imbalance=3 needs track="),
        (["by=[sex]"], "by='sex' is not known"),
        (["audit=test"], "audit=test needs data with a test split; use audit=random"),
        (["net=mpl"], "unknown model 'mpl'; did you mean 'mlp'?"),
        (["net.hiden=[3]"], "has no option 'hiden'"),
        (["net=baidunet9"], "baidunet9"),
        (["recipe=mpl"], "recipe='mpl' is not known; did you mean 'mlp'?"),
        (["lr=-1"], "lr must be"),
        (["batch=0"], "batch must be"),
        (["batch=500", "drop_last=true"], "batch=500 is larger than the first training set of 200"),
        (["device=foo"], "device='foo' cannot be used here"),
        (["train_on=lates"], "train_on"),
        (["label_rule=5"], "label_rule"),
        (["components=99"], "components must be in 1..61, got 99"),
        (["form=pcaa"], "form"),
    ],
)
def test_what_the_data_or_the_model_contradicts_is_refused(
    file: str, settings: list[str], message: str
) -> None:
    with pytest.raises((ConfigError, ValueError)) as error:
        check(config(file, *settings))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_net_of_another_width_is_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(extra: int) -> Callable[..., torch.nn.Module]:
        return lambda *, features, classes: torch.nn.Linear(features, classes + extra)

    monkeypatch.setitem(models._FACTORIES, "own", wide(0))
    assert check(config(file, "net=own")) == ()
    monkeypatch.setitem(models._FACTORIES, "own", wide(2))
    with pytest.raises(ConfigError, match=r"net='own' gives shape \(2, 12\) .* is \(2, 10\)"):
        check(config(file, "net=own"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_refused(file: str) -> None:
    with pytest.raises(ConfigError, match="device='cuda' cannot be used here"):
        check(config(file, "device=cuda"))


def test_a_class_with_too_few_rows_is_told(tmp_path: Path) -> None:
    rows = ["x,label", *(f"{i},a" for i in range(60)), *(f"{i},b" for i in range(12))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"{{world: {{name: table, path: {tmp_path / 't.csv'}, target: label}}, track: a, "
        "test_size: 5, loop: [{relabel: {n0: 5, human: 1, machine: 2}}], net: logistic, "
        "recipe: logistic, rounds: 2}"
    )
    assert check(load(str(path), ["imbalance=5"])) == ()
    assert check(load(str(path), ["imbalance=3"])) == ("imbalance=3: too few rows: b has 12 of 20",)
    with pytest.raises(ConfigError, match=r"net='baidunet9'|images"):
        check(load(str(path), ["net=baidunet9"]))


def test_a_recipe_keeps_what_is_not_changed(file: str) -> None:
    recipe = assemble(config(file, "recipe=mlp", "nesterov=true"), 0).world.recipe
    assert (recipe.momentum, recipe.nesterov, recipe.epochs) == (0.9, True, 20)


def test_a_world_is_read_once_and_few_are_kept(file: str) -> None:
    first = assemble(config(file), 0)
    before = source_of.cache_info().hits
    second = assemble(config(file), 1)
    assert source_of.cache_info().hits == before + 1
    assert len(first.world.data) == len(second.world.data)
    assert source_of.cache_info().maxsize == 4


def test_rows_of_a_run_are_in_an_order_of_its_seed(file: str) -> None:
    rows = [assemble(config(file), seed).world.data.row.tolist() for seed in (0, 1, 0)]
    assert rows[0] == rows[2] != rows[1]
    assert rows[0] != sorted(rows[0])


def test_a_heuristic_that_no_draw_of_the_net_can_answer_is_refused(file: str) -> None:
    asks = "loop=[{acquire: {initial: 50, query: 20}}]"
    with pytest.raises(ConfigError, match="'bald' with posterior='dropout' needs a net with drop"):
        check(config(file, "track=null", asks))
    assert check(config(file, "track=null", asks, "net={name: dropout-mlp}")) == ()
    assert check(config(file, "track=null", asks, "posterior=ensemble")) == ()


@pytest.mark.parametrize(
    ("labels", "message"), [("ab", ""), ("aa", "all 60 rows are of one class, 'a', so a model")]
)
def test_rows_of_one_class_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    rows = ["x,label", *(f"{i},{labels[i % 2]}" for i in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"{{world: {{name: table, path: {tmp_path / 't.csv'}}}, test_size: 20, rounds: 1, "
        "loop: [{relabel: {n0: 5, human: 1, machine: 2}}], net: logistic, recipe: logistic}"
    )
    if message:
        with pytest.raises(ConfigError, match=f"world: {message}"):
            check(load(str(path)))
    else:
        assert check(load(str(path))) == ()
