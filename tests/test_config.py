"""Configuration: every preset loads, every setting has a place, every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenloop.config import ConfigError, RunConfig, load, pairs, preset_folder, preset_names
from evenloop.loops import find
from evenloop.loops.relabel import Relabel
from evenloop.models import names as model_names
from evenloop.overrides import apply, merged, read_yaml, shaped
from evenloop.recipe import RECIPES, Recipe
from evenloop.study.sweep import load_sweep, sweep_names
from evenloop.worlds import WORLDS

FILE = """
world: {name: digits8}
track: "8"
test_size: 300
loop: [{relabel: {n0: 200, human: 20, machine: 80}}]
net: {name: logistic}
recipe: {base: logistic}
rounds: 2
"""


def raw_preset(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml((preset_folder() / f"{name}.yaml").read_text())
    return found


ALL = [
    variant
    for name in preset_names()
    for variant in ([name, f"{name}:small"] if "small" in raw_preset(name) else [name])
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return path


class TestPresets:
    """What is packaged loads without reading data."""

    @pytest.mark.parametrize("source", ALL)
    def test_every_preset_loads_and_names_what_exists(self, source: str) -> None:
        config = load(source)
        assert config.about.paper
        assert config.about.figure
        assert config.about.cost
        assert config.world["name"] in WORLDS
        assert config.net["name"] in model_names()
        assert config.recipe.get("base", "mlp") in RECIPES
        for entry in config.loop:
            for verb, values in entry.items():
                assert set(values) <= set(find(verb).__dataclass_fields__)
        if source.endswith(":small"):
            assert config.about.small_cost
            assert "GPU" not in config.about.small_cost

    @pytest.mark.parametrize("source", ALL)
    def test_every_preset_builds_its_loop_and_recipe_without_reading_data(
        self, source: str
    ) -> None:
        from evenloop.build import _loop, _recipe

        config = load(source)
        assert hasattr(_loop(config), "step")
        assert isinstance(_recipe(config), Recipe)

    @pytest.mark.parametrize("name", sweep_names())
    def test_every_sweep_loads_with_arms_that_differ(self, name: str) -> None:
        plan = load_sweep(name)
        assert len({config.digest() for config in plan.arms.values()}) == len(plan.arms) > 1
        assert len({config.seeds for config in plan.arms.values()}) == 1


# Every image experiment of Taori and Hashimoto (2023): first set, favoured class and factor, net
# and its recipe, rounds (last x + 1), rows trained on. Left panels take 1,000 + 4,000 rows a round.
FIGURES = {
    "fig3-top": (50_000, "dog", 9, "baidunet9", "baidunet9", 90, "all"),
    "fig3-bottom": (50_000, "dog", 9, "baidunet9", "baidunet9", 90, "subsample"),
    "fig7": (50_000, "dog", 9, "baidunet9", "baidunet9", 90, "all"),
    "fig9": (50_000, "dog", 9, "resnet18", "resnet18", 90, "all"),
    "fig10": (20_000, "dog", 2, "baidunet9", "baidunet9", 16, "all"),
    "fig11": (50_000, "dog", 2, "baidunet9", "baidunet9", 90, "all"),
    "fig12": (50_000, "ship", 9, "baidunet9", "baidunet9", 90, "all"),
    "fig13": (50_000, "dog", 9, "baidunet9", "baidunet9-underfit", 90, "all"),
    "fig14": (20_000, "dog", 9, "baidunet9", "baidunet9", 90, "all"),
}
PANELS = {"left": (1_000, 4_000), "right": (2_500, 2_500)}


class TestFigures:
    """The presets of the paper's figures, against its settings."""

    @pytest.mark.parametrize("figure", FIGURES)
    @pytest.mark.parametrize("panel", PANELS)
    def test_a_figure_of_the_paper_has_its_values(self, figure: str, panel: str) -> None:
        n0, track, factor, net, recipe, rounds, train_on = FIGURES[figure]
        config = load(f"{figure}-{panel}")
        loop = Relabel(**config.loop[0]["relabel"])
        assert (loop.n0, loop.human, loop.machine) == (n0, *PANELS[panel])
        assert (loop.label_rule, loop.train_on) == ("argmax", train_on)
        assert (config.track, config.imbalance, config.rounds) == (track, factor, rounds)
        assert (config.net, config.recipe) == ({"name": net}, {"base": recipe})
        assert config.world == {"name": "cinic10" if figure == "fig10" else "cifar5m"}
        assert (config.test_size, len(config.seeds)) == (50_000, 3)
        assert f"Figure {figure.split('-')[0][3:]}," in config.about.figure

    @pytest.mark.parametrize("figure", FIGURES)
    @pytest.mark.parametrize("panel", PANELS)
    def test_its_small_variant_keeps_what_the_figure_is_about(
        self, figure: str, panel: str
    ) -> None:
        whole, small = load(f"{figure}-{panel}"), load(f"{figure}-{panel}:small")
        wide, narrow = (Relabel(**config.loop[0]["relabel"]) for config in (whole, small))
        assert (small.track, small.imbalance) == (whole.track, whole.imbalance)
        assert narrow.train_on == wide.train_on
        assert narrow.human * wide.machine == narrow.machine * wide.human
        assert small.rounds >= 6
        others = load("fig3-top-left:small")
        assert (small.recipe != others.recipe) == (figure == "fig13")
        assert narrow.n0 == (1_000 if wide.n0 == 20_000 else 2_000)


class TestSettings:
    """Where a key=value goes."""

    @pytest.mark.parametrize(
        ("setting", "place", "value"),
        [
            ("n0=70", "loop.0.relabel.n0", 70),
            ("human=0", "loop.0.relabel.human", 0),
            ("machine=9", "loop.0.relabel.machine", 9),
            ("relabel.machine=9", "loop.0.relabel.machine", 9),
            ("train_on=latest", "loop.0.relabel.train_on", "latest"),
            ("label_rule=sample", "loop.0.relabel.label_rule", "sample"),
            ("test_size=100", "test_size", 100),
            ("rounds=9", "rounds", 9),
            ("track='3'", "track", "3"),
            ("imbalance=2", "imbalance", 2),
            ("learner=mlp", "net", {"name": "mlp"}),
            ("model=mlp", "net.name", "mlp"),
            ("net={name: mlp, hidden: [8]}", "net.hidden", [8]),
            ("net.hidden=[8]", "net.hidden", [8]),
            ("data=mnist5k", "world", {"name": "mnist5k"}),
            ("form=pca", "world.form", "pca"),
            ("batch=32", "recipe.batch", 32),
            ("lr=0.5", "recipe.lr", 0.5),
            ("recipe=mlp", "recipe", {"base": "mlp"}),
            ("seed=4", "seeds", (4,)),
            ("seeds=3..5", "seeds", (3, 4, 5)),
            ("loop=[relabel]", "loop", [{"relabel": {}}]),
        ],
    )
    def test_a_setting_finds_its_place(
        self, file: Path, setting: str, place: str, value: object
    ) -> None:
        found: Any = load(str(file), [setting])
        for part in place.split("."):
            if isinstance(found, RunConfig):
                found = getattr(found, part)
            else:
                found = found[int(part)] if isinstance(found, list) else found[part]
        assert found == value

    def test_a_share_of_people_among_the_new_rows(self, file: Path) -> None:
        config = load(str(file), ["per_round=5000", "human_share=.2"])
        values = config.loop[0]["relabel"]
        assert (values["human"], values["machine"]) == (1_000, 4_000)

    def test_underfit_is_the_variant_of_the_recipe_at_hand(self) -> None:
        assert load("fig3-top-left", ["recipe=underfit"]).recipe == {"base": "baidunet9-underfit"}
        assert load("fig9-left", ["recipe=underfit"]).recipe == {"base": "resnet18-underfit"}

    def test_settings_write_into_no_preset(self) -> None:
        before = load("demo").loop
        load("demo", ["human=1"])
        assert load("demo").loop == before

    def test_a_field_of_tuning_is_named_and_a_bare_one_is_the_recipe_s(self) -> None:
        config = load("prune-cifar100-nft", ["tune.epochs=70", "lr=0.5"])
        tune = config.loop[0]["prune"]["tune"]
        assert (tune["epochs"], tune["lr"], config.recipe["lr"]) == (70, 0.01, 0.5)
        assert load("prune-cifar100-nft").loop[0]["prune"]["tune"]["epochs"] == 60
        with pytest.raises(ConfigError, match=r"unknown key 'tune\.epoch'; did you mean 'epochs'"):
            load("prune-cifar100-nft", ["tune.epoch=70"])

    def test_a_field_of_two_loops_must_be_named(self, file: Path) -> None:
        chain = "loop=[{relabel: {n0: 9}}, {relabel: {n0: 9}}]"
        with pytest.raises(ConfigError, match=r"'human' is ambiguous: write loop.0.relabel.human"):
            load(str(file), [chain, "human=3"])
        config = load(str(file), [chain, "loop.1.relabel.human=3"])
        assert config.loop == [{"relabel": {"n0": 9}}, {"relabel": {"n0": 9, "human": 3}}]

    @pytest.mark.parametrize("setting", ["rounds=3", "seeds=4"])
    def test_length_and_seeds_make_no_other_experiment(self, file: Path, setting: str) -> None:
        assert load(str(file), [setting]).digest() == load(str(file)).digest()
        assert load(str(file), ["human=3"]).digest() != load(str(file)).digest()


class TestNumbersWrittenInSeveralWays:
    """What means the same is the same experiment; presets keep the digests they always had."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("recipe.lr=1e-3", "recipe.lr=0.001"),
            ("recipe.lr=1", "recipe.lr=1.0"),
            ("relabel.human=3", "relabel.human=3.0"),
            ("recipe.milestones=[1]", "recipe.milestones=[1.0]"),
            ("tune.lr=1e-2", "tune.lr=0.01"),
        ],
    )
    def test_they_are_one_experiment(self, file: Path, one: str, other: str) -> None:
        source = "prune-cifar100-nft" if one.startswith("tune") else str(file)
        first, second = load(source, [one]), load(source, [other])
        assert first.digest() == second.digest()
        assert first == second

    def test_a_number_that_a_preset_holds_stays_as_it_writes_it(self) -> None:
        name = "prune-cifar100-nft:small"
        whole = load(name)
        assert repr(whole.recipe["momentum"]) == "0.0"
        for setting in ("recipe.momentum=0", "recipe.momentum=0.0"):
            assert load(name, [setting]).digest() == whole.digest()
        assert load(name, ["recipe.momentum=0.5"]).digest() != whole.digest()

    @pytest.mark.parametrize(
        ("name", "digest"),
        [
            ("demo", "751b15a4"),
            ("acquire-cpu:small", "7fa29557"),
            ("prune-cifar100-nft:small", "27c0f74c"),
            ("mix-adult", "f40c684f"),
        ],
    )
    def test_a_preset_keeps_the_digest_that_its_folders_have(self, name: str, digest: str) -> None:
        assert load(name).digest() == digest

    def test_a_text_that_looks_like_a_number_stays_a_text(self) -> None:
        config = load("digits", ["track='7'"])
        assert config.track == "7"

    def test_what_a_field_refuses_is_left_for_its_own_error(self, file: Path) -> None:
        assert load(str(file), ["relabel.human=2.5"]).loop[0]["relabel"]["human"] == 2.5
        assert load(str(file), ["relabel.human='2.5'"]).loop[0]["relabel"]["human"] == "2.5"
        assert load(str(file), ["human=true"]).loop[0]["relabel"]["human"] is True

    def test_options_of_a_net_are_handed_on_as_they_are(self, file: Path) -> None:
        given = load(str(file), ["net={name: mlp, hidden: [8.0]}"]).net
        assert repr(given["hidden"]) == "[8.0]"

    def test_a_file_of_one_s_own_is_written_alike_too(self, tmp_path: Path) -> None:
        digests = set()
        for number in ("1e-2", "0.01", "1.0e-2"):
            path = tmp_path / "own.yaml"
            path.write_text(
                "{world: digits8, loop: [{relabel: {n0: 40.0}}], net: mlp, "
                f"recipe: {{lr: {number}}}, test_size: 9, rounds: 1}}"
            )
            config = load(str(path))
            assert config.loop == [{"relabel": {"n0": 40}}]
            digests.add(config.digest())
        assert len(digests) == 1


class TestShapes:
    """Parts of a file, before anything is laid on them."""

    def test_bare_names_stand_for_parts_without_fields(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.yaml"
        path.write_text(
            "{world: digits8, loop: [relabel], net: mlp, recipe: mlp, test_size: 9, rounds: 1}"
        )
        config = load(str(path), ["human=3"])
        assert (config.world, config.net) == ({"name": "digits8"}, {"name": "mlp"})
        assert config.loop == [{"relabel": {"human": 3}}]
        assert config.name == "bare"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"world": None}, "world is missing; write world: NAME"),
            ({"world": 3}, "world=3 must be a name or a mapping"),
            ({"world": {"form": "pca"}}, "has no name; write world: {name: NAME"),
            ({"net": None}, "net is missing; write net: NAME"),
            ({"recipe": None}, "recipe is missing"),
            ({"recipe": [1]}, "recipe=[1] must be a name or a mapping"),
            ({"loop": None}, "must be a list with an entry for each verb"),
            ({"loop": {"relabel": {}}}, "must be a list with an entry for each verb"),
            ({"loop": [3]}, "loop entry 3 must be a verb"),
            ({"loop": ["relable"]}, "unknown loop 'relable'; did you mean 'relabel'?"),
            ({"loop": [{"relabel": 5}]}, "relabel=5 must be a mapping of its fields"),
        ],
    )
    def test_a_part_of_another_shape_is_refused(self, change: dict[str, Any], message: str) -> None:
        good = read_yaml(FILE)
        assert shaped(good)["loop"] == good["loop"]
        with pytest.raises(ConfigError) as error:
            shaped(good | change)
        assert message in str(error.value)

    def test_a_variant_changes_its_values_only(self) -> None:
        base = {"loop": [{"relabel": {"n0": 9, "human": 2}}], "net": {"name": "a", "w": 1}}
        over = {"loop": [{"relabel": {"n0": 3}}], "net": {"name": "b"}}
        assert merged(base, over) == {
            "loop": [{"relabel": {"n0": 3, "human": 2}}],
            "net": {"name": "b"},
        }
        with pytest.raises(ConfigError, match="must have 1 entries"):
            merged(base, {"loop": []})


class TestMistakes:
    """One sentence each, naming key, value and fix."""

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("rounds", "'rounds' is not key=value"),
            ("=3", "'=3' is not key=value"),
            ("hidden=[1", "not readable as YAML"),
            ("humann=3", "unknown key 'humann'; did you mean 'human'?"),
            ("relabel.humann=3", "unknown key 'relabel.humann'; did you mean 'human'?"),
            ("human.f=3", "human is one value, given as a whole, such as human='{f: ...}'"),
            ("out=there", "the folder is the option --out"),
            ("world=digits", "no world 'digits'"),
            ("rounds=0", "rounds = 0"),
            ("rounds=many", "rounds = 'many'"),
            ("test_size=-1", "test_size = -1"),
            ("imbalance=-2", "imbalance = -2"),
            ("seeds=0", "seeds=0"),
            ("seeds=[0, 0]", "seed 0 is named twice"),
            ("seeds=[true]", "seeds=[True]"),
            ("seeds=9..3", "seeds='9..3'"),
            ("human_share=.2", "give both"),
            ("audit=none", "audit = 'none'"),
        ],
    )
    def test_a_wrong_setting_is_named(self, file: Path, setting: str, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            load(str(file), [setting] if "world=" not in setting else [setting, "form=pca"])
        assert message in str(error.value)

    @pytest.mark.parametrize("share", ["abc", "2", "-.1", "true"])
    def test_a_share_that_is_none_is_named(self, file: Path, share: str) -> None:
        with pytest.raises(ConfigError, match="a share in"):
            load(str(file), ["per_round=100", f"human_share={share}"])

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("dem", "no preset 'dem'; did you mean 'demo'?"),
            ("demo:tiny", "unknown variant 'tiny' of 'demo'; the only one is :small"),
            ("demo:small", "preset 'demo' has no small variant"),
            ("nowhere.yaml", "no file 'nowhere.yaml'"),
        ],
    )
    def test_an_unknown_source_is_named(self, source: str, message: str) -> None:
        with pytest.raises(ConfigError) as error:
            load(source)
        assert message in str(error.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: [1", "is not YAML"),
            (b"\xff\xfe\x00", "cannot be read"),
            (b"- 1", "must hold keys and values, got list"),
            (FILE.encode() + b"trak: 1\n", "unknown key 'trak'; did you mean 'track'?"),
            (FILE.encode() + b"name: ../../escaped\n", "name = '../../escaped'"),
        ],
    )
    def test_an_unreadable_file_is_named(
        self, tmp_path: Path, content: bytes, message: str
    ) -> None:
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            load(str(path))
        assert message in str(error.value)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "dir.yaml").mkdir()
        with pytest.raises(ConfigError, match="cannot be read"):
            load(str(tmp_path / "dir.yaml"))


def test_a_name_at_the_top_wins_over_a_part_of_the_same_name() -> None:
    raw = shaped(read_yaml(FILE))
    apply(raw, ["track=3"], RunConfig.model_fields)
    assert raw["track"] == 3
    assert "track" not in raw["loop"][0]["relabel"]
    apply(raw, ["relabel.track=4"], RunConfig.model_fields)
    assert raw["loop"][0]["relabel"]["track"] == 4


def test_a_ratio_is_not_a_number_of_base_60() -> None:
    config = load("prune-utkface-race-ceag:small", ["structure=2:4", "sparsity=0.5"])
    fields = config.loop[0]["prune"]
    assert (fields["structure"], fields["sparsity"]) == ("2:4", 0.5)
    for text, value in (("12", 12), ("-1.5", -1.5), ("0x10", 16), ("1_000", 1000), (".5", 0.5)):
        assert pairs([f"a={text}"]) == {"a": value}
    assert pairs(["a=yes", "b=2:4.5"]) == {"a": True, "b": "2:4.5"}
