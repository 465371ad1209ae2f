"""Nets of other packages, found by the entry points of what is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evenloop.build import assemble, check
from evenloop.config import load
from evenloop.inputs import ConfigError
from evenloop.models import build, names
from evenloop.models.mlp import MLP
from evenloop.rng import Rng
from evenloop.study.folder import folder_of, read_config
from evenloop.study.seeds import run_seeds

MODULE = """
import torch

def wide(*, classes, features=None, channels=None, size=None, width=3):
    entries = features or channels * size[0] * size[1]
    first, last = torch.nn.Linear(entries, width), torch.nn.Linear(width, classes)
    return torch.nn.Sequential(torch.nn.Flatten(), first, last)

NUMBER = 5
"""
POINTS = """[evenloop.models]
my-wide = my_own_nets:wide
my-gone = my_own_nets:gone
my-lost = my_lost_nets:wide
my-number = my_own_nets:NUMBER
logistic = my_own_nets:wide
"""


EXPERIMENT = """
world: {name: digits8}
test_size: 300
loop: [{relabel: {n0: 50, human: 5, machine: 5}}]
net: logistic
recipe: {epochs: 1}
rounds: 2
"""


def own(folder: Path) -> str:
    """The path of a small experiment."""
    path = folder / "own.yaml"
    path.write_text(EXPERIMENT)
    return str(path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a net of its own, as if it were installed."""
    site = tmp_path / "site"
    info = site / "my_own_nets-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_own_nets.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-own-nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("installed")
class TestInstalled:
    """A name that another package brings."""

    def test_it_is_built_by_its_name(self) -> None:
        assert "my-wide" in names()
        net = build("my-wide", features=4, classes=2, width=5, seed=0)
        assert net(torch.zeros(1, 4)).shape == (1, 2)
        assert net[1].out_features == 5  # type: ignore[index]

    def test_its_options_are_checked(self) -> None:
        with pytest.raises(ValueError, match="no option 'widht'; did you mean 'width'"):
            build("my-wide", features=4, classes=2, widht=5)

    def test_a_name_of_evenloop_s_own_stays_its_own(self) -> None:
        found = build("logistic", features=4, classes=2, seed=0)
        assert type(found) is MLP

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("my-gone", "'my-gone' is 'my_own_nets:gone' of an installed package, which cannot"),
            ("my-lost", "No module named 'my_lost_nets'"),
            ("my-number", "is 'my_own_nets:NUMBER', which is no callable but a int"),
        ],
    )
    def test_what_is_not_there_is_named(self, name: str, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            build(name, features=4, classes=2)

    def test_a_configuration_names_it_and_a_manifest_keeps_the_name(self, tmp_path: Path) -> None:
        config = load(own(tmp_path), ["net={name: my-wide, width: 4}"])
        shapes = [tuple(p.shape) for p in assemble(config, 0).world.net(Rng.of(0)).parameters()]
        assert shapes == [(4, 64), (4,), (10, 4), (10,)]
        folder = folder_of(config, tmp_path)
        run_seeds(config, folder, processes=1)
        kept = json.loads((folder / "manifest.json").read_text())["config"]["net"]
        assert kept == {"name": "my-wide", "width": 4}
        run_seeds(read_config(folder).model_copy(update={"rounds": 3}), folder, processes=1)
        assert len((folder / "seed-0" / "rows.jsonl").read_text().splitlines()) == 3


def test_a_net_that_is_not_installed_is_named_with_the_way_to_install_it(tmp_path: Path) -> None:
    config = load(own(tmp_path), ["net=my-wide"])
    with pytest.raises(ConfigError, match=r"unknown model 'my-wide'.*entry points"):
        check(config)


def test_a_path_to_code_is_no_name() -> None:
    with pytest.raises(ValueError, match="unknown model 'my_own_nets:wide'"):
        build("my_own_nets:wide", features=4, classes=2)
