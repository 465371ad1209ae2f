"""scikit-learn classifiers as modules: absent classes, seeds, state without pickle."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safe
from safetensors.torch import save as save_safe
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from evenloop.build import assemble, check
from evenloop.config import load
from evenloop.fit import predict
from evenloop.models import Estimator, build
from evenloop.models.sklearn import FLOOR
from evenloop.rng import Rng


def rows(n: int = 40) -> tuple[Tensor, Tensor]:
    """Four features; labels 0, 1 and 3 of four classes, decided by the first and widest."""
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(n, 4))).float()
    x[:, 0] *= 3
    return x, torch.tensor([0, 1, 3])[(x[:, 0] > -1.2).long() + (x[:, 0] > 1.2).long()]


KINDS = [
    DecisionTreeClassifier(),
    KNeighborsClassifier(1),
    KNeighborsClassifier(3, algorithm="ball_tree"),
    LogisticRegression(max_iter=1000),
    RandomForestClassifier(5),
    GradientBoostingClassifier(n_estimators=3),
    HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2),
    GaussianNB(),
    make_pipeline(PCA(2), LogisticRegression()),
    LinearSVC(),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_state_round_trip(kind: Any) -> None:
    x, y = rows()
    model = Estimator(kind)
    model.train_on(x, y, classes=4, seed=1)
    out = model(x)
    assert out.shape == (40, 4)
    assert out.dtype == torch.float32
    assert bool((out[:, 2] == FLOOR).all())
    torch.testing.assert_close(out.exp().sum(1), torch.ones(40))
    assert (out.argmax(1) == y).float().mean() > 0.7
    fresh = Estimator(kind)
    fresh.load_state_dict(load_safe(save_safe(model.state_dict())))
    assert torch.equal(fresh(x), out)


def test_the_template_is_never_fitted() -> None:
    tree = DecisionTreeClassifier()
    model = Estimator(tree)
    model.train_on(*rows(), classes=4, seed=0)
    assert not hasattr(tree, "tree_")
    assert not hasattr(model.template, "tree_")


@pytest.mark.parametrize("kind", [LogisticRegression(), KNeighborsClassifier(), LinearSVC()])
def test_one_class_is_a_constant(kind: Any) -> None:
    model = Estimator(kind)
    model.train_on(torch.zeros(1, 2), torch.tensor([2]), classes=3, seed=0)
    want = torch.tensor([[FLOOR, FLOOR, 0.0]])
    assert torch.equal(model(torch.ones(1, 2)), want)
    fresh = Estimator(kind)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(torch.ones(1, 2)), want)


def test_training_again_forgets() -> None:
    x, y = rows()
    model = Estimator(DecisionTreeClassifier())
    model.train_on(torch.zeros(1, 4), torch.tensor([2]), classes=3, seed=0)
    model.train_on(x, y, classes=4, seed=0)
    assert model(x).shape == (40, 4)
    assert torch.equal(model(x).argmax(1), y)


def test_no_row_gives_no_row() -> None:
    model = Estimator(DecisionTreeClassifier())
    model.train_on(*rows(), classes=4, seed=0)
    assert model(torch.zeros(0, 4)).shape == (0, 4)


def test_the_floor_is_finite_and_never_sampled() -> None:
    model = Estimator(KNeighborsClassifier(1))
    model.train_on(*rows(), classes=4, seed=0)
    out = model(rows()[0])
    assert bool(out.isfinite().all())
    assert bool(out.half().isfinite().all())
    assert float(out.softmax(1)[:, 2].max()) == 0


def test_bytes_are_scaled_and_images_flattened() -> None:
    x = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    seen, floats = Estimator(LogisticRegression()), Estimator(LogisticRegression())
    seen.train_on(x, y, classes=2, seed=0)
    floats.train_on(x.flatten(1).float() / 255, y, classes=2, seed=0)
    assert torch.equal(seen(x), floats(x.float() / 255))
    counts = Estimator(LogisticRegression())
    counts.train_on(x.long(), y, classes=2, seed=0)
    assert not torch.equal(counts(x.long()), seen(x))


def test_the_seed_decides_everywhere_inside() -> None:
    x, y = rows()
    kind = make_pipeline(PCA(3, svd_solver="randomized", random_state=9), RandomForestClassifier(3))
    first, again, other = Estimator(kind), Estimator(kind), Estimator(kind)
    for model, seed in ((first, 1), (again, 1), (other, 2**62)):
        model.train_on(x, y, classes=4, seed=seed)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    states = [step.random_state for _, step in first.fitted.steps]
    assert len({*states, 9}) == 3


def test_what_is_no_classifier_object_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must be an object: write DecisionTreeClassifier\(\)"):
        Estimator(DecisionTreeClassifier)
    with pytest.raises(TypeError, match="must be a scikit-learn classifier, got LinearRegression"):
        Estimator(LinearRegression())


def test_labels_and_rows_are_checked() -> None:
    model = Estimator(GaussianNB())
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        model.train_on(x[:0], torch.tensor([], dtype=torch.long), classes=2, seed=0)
    with pytest.raises(ValueError, match="same rows, at least one, got 2 and 1"):
        model.train_on(x, torch.tensor([0]), classes=2, seed=0)
    with pytest.raises(ValueError, match=r"y must lie in \[0, 2\), got 0 to 2"):
        model.train_on(x, torch.tensor([0, 2]), classes=2, seed=0)
    with pytest.raises(ValueError, match=r"y must lie in \[0, 2\), got -1 to 0"):
        model.train_on(x, torch.tensor([0, -1]), classes=2, seed=0)
    with pytest.raises(ValueError, match="classes must be an integer of at least 1, got 0"):
        model.train_on(x, torch.tensor([0, 0]), classes=0, seed=0)
    model.train_on(x, torch.tensor([0, 1]), classes=2, seed=0)


def test_an_untrained_model_says_so_and_keeps_saying_so_after_a_load() -> None:
    model = Estimator(GaussianNB())
    with pytest.raises(RuntimeError, match="call train_on or load a state first"):
        model(torch.zeros(1, 1))
    fresh = Estimator(GaussianNB())
    fresh.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="not trained"):
        fresh(torch.zeros(1, 1))


def test_a_state_of_another_classifier_is_refused() -> None:
    model = Estimator(DecisionTreeClassifier())
    model.train_on(*rows(), classes=4, seed=0)
    with pytest.raises(
        ValueError, match="holds a DecisionTreeClassifier and this model is a Gauss"
    ):
        Estimator(GaussianNB()).load_state_dict(model.state_dict())


def test_bytes_that_are_no_state_are_refused() -> None:
    model = Estimator(DecisionTreeClassifier())
    with pytest.raises(ValueError, match="must be a uint8 tensor of skops bytes"):
        model.set_extra_state({"fitted": 1})
    with pytest.raises(ValueError, match="got 3 bytes of something else"):
        model.set_extra_state(torch.tensor([1, 2, 3], dtype=torch.uint8))
    pickled = pickle.dumps(DecisionTreeClassifier())
    with pytest.raises(ValueError, match="bytes of something else"):
        model.set_extra_state(torch.frombuffer(bytearray(pickled), dtype=torch.uint8))


def test_types_outside_the_list_are_refused_when_saving_and_when_loading() -> None:
    import skops.io as sio

    x, y = rows()
    net = Estimator(MLPClassifier((2,), solver="sgd", max_iter=2000, tol=0.1))
    net.train_on(x, y, classes=4, seed=0)
    with pytest.raises(ValueError, match=r"may not hold sklearn.*SGDOptimizer"):
        net.state_dict()
    kept = {"fitted": net.fitted, "classes": 4, "only": -1}
    raw = torch.frombuffer(bytearray(sio.dumps(kept)), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"may not hold sklearn.*SGDOptimizer"):
        net.set_extra_state(raw)
    hidden = Estimator(make_pipeline(FunctionTransformer(rows), GaussianNB()))
    hidden.fitted = hidden.template
    with pytest.raises(ValueError, match=r"may not hold .*rows"):
        hidden.get_extra_state()


def test_a_missing_skops_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Estimator(GaussianNB())
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="needs skops: pip install skops"):
        model.state_dict()


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("sklearn-logistic", {"C": 0.3}, LogisticRegression),
        ("sklearn-knn", {"n_neighbors": 9}, KNeighborsClassifier),
        ("sklearn-tree", {"max_depth": 3}, DecisionTreeClassifier),
        ("sklearn-forest", {"n_estimators": 7}, RandomForestClassifier),
    ],
)
def test_four_by_name_with_their_own_options(name: str, options: dict[str, Any], kind: Any) -> None:
    model = build(name, features=4, classes=4, **options)
    assert isinstance(model, Estimator)
    assert isinstance(model.template, kind)
    assert model.template.get_params().items() >= options.items()
    with pytest.raises(ValueError, match="Invalid parameter 'depht'"):
        build(name, features=4, classes=4, depht=2)


@pytest.mark.parametrize("preset", ["demo", "digits"])
def test_a_run_on_images_or_rows_takes_a_scikit_learn_model(preset: str) -> None:
    config = load(preset, ["net=sklearn-tree", "seeds=1"])
    check(config)
    job = assemble(config, 0)
    fitted = job.world.fit(
        job.world.net(Rng.of(0)), job.world.data.take(torch.arange(60)), rng=Rng.of(0)
    )
    assert isinstance(fitted.model, Estimator)
    x, y = job.world.data.x[:60], job.world.data.y[:60]
    assert torch.equal(predict(fitted.model, x).argmax(1), y)
