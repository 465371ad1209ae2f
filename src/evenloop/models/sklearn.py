"""Any scikit-learn classifier as a module: trained in one call, labelling by log-probabilities.

State is kept as skops bytes, never as a pickle: loading builds only types of scikit-learn, NumPy
and SciPy that skops trusts, and the few search and decision trees named in `TRUSTED`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evenloop.models.shape import Size, positive

__all__ = ["FACTORIES", "TRUSTED", "Estimator"]

TRUSTED = frozenset(
    {
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.metrics._dist_metrics.EuclideanDistance32",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
    }
)
"""Types beyond skops's own list that a state may hold: trees, and the distance a tree searches by.

Their content is read as raw node tables, so a state from a stranger can still crash the process.
"""

FLOOR = -1e4  # log-probability of the impossible: finite also in half precision, and exp gives 0


class Estimator(nn.Module):
    """A scikit-learn classifier; x (N, ...) -> log-probabilities (N, classes) float32.

    Items are flattened; uint8 is divided by 255. A class that was absent from the training labels
    keeps its column, at `FLOOR` (-10,000), as does a class of probability 0; training labels of one
    class alone make a constant. A classifier without `predict_proba` answers with certainty. There
    is no gradient and no `head`: features cannot be captured.

    Args:
        estimator: a classifier object; it is cloned, and never itself fitted.

    Raises:
        TypeError: `estimator` is a class, or not a classifier.

    >>> from sklearn.tree import DecisionTreeClassifier
    >>> model = Estimator(DecisionTreeClassifier())
    >>> x, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 0, 2])
    >>> model.train_on(x, y, classes=3, seed=0)
    >>> model(x).exp()
    tensor([[1., 0., 0.],
            [1., 0., 0.],
            [0., 0., 1.]])
    """

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        from sklearn.base import clone, is_classifier

        if isinstance(estimator, type):
            raise TypeError(f"estimator must be an object: write {estimator.__name__}()")
        if not is_classifier(estimator):
            raise TypeError(
                f"estimator must be a scikit-learn classifier, got {type(estimator).__name__}"
            )
        self.template = clone(estimator)
        self.fitted: Any = None
        self.classes = 0
        self.only = -1  # the one class of the training labels, or -1

    def train_on(self, x: Tensor, y: Tensor, *, classes: int, seed: int) -> None:
        """Fit a fresh clone to x (N, ...) and labels y (N,) in [0, classes).

        Every `random_state` inside (a pipeline may hold several) is derived from `seed`; no global
        generator is used.

        Raises:
            ValueError: no row, lengths differ, or a label is out of range.

        >>> from sklearn.linear_model import LogisticRegression
        >>> model = Estimator(LogisticRegression())
        >>> model.train_on(torch.zeros(2, 1), torch.tensor([1, 1]), classes=2, seed=0)
        >>> model(torch.zeros(1, 1)).exp()
        tensor([[0., 1.]])
        """
        from sklearn.base import clone

        positive("estimator", classes=classes)
        labels = y.detach().cpu().numpy()
        if len(labels) == 0 or len(labels) != len(x):
            raise ValueError(
                f"x and y must hold the same rows, at least one, got {len(x)} and {len(labels)}"
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"y must lie in [0, {classes}), got {labels.min()} to {labels.max()}; "
                "raise classes or recode the labels"
            )
        self.classes, self.fitted, self.only = classes, None, -1
        if (labels == labels[0]).all():  # many classifiers refuse a single class
            self.only = int(labels[0])
            return
        fresh = clone(self.template)
        noisy = [n for n in sorted(fresh.get_params()) if n.split("__")[-1] == "random_state"]
        states = np.random.SeedSequence(seed).generate_state(len(noisy))
        fresh.set_params(**{name: int(state) for name, state in zip(noisy, states, strict=True)})
        self.fitted = fresh.fit(_rows(x), labels)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, classes) float32 on the device of `x`.

        Raises:
            RuntimeError: before `train_on`, or before a state was loaded.
        """
        if self.classes == 0:
            raise RuntimeError("the estimator is not trained; call train_on or load a state first")
        probs = np.zeros((len(x), self.classes))
        if self.fitted is None:
            probs[:, self.only] = 1
        elif len(x):
            columns, rows = self.fitted.classes_, _rows(x)
            if hasattr(self.fitted, "predict_proba"):
                probs[:, columns] = self.fitted.predict_proba(rows)
            else:
                probs[np.arange(len(x)), self.fitted.predict(rows)] = 1
        logits = torch.from_numpy(probs).log().clamp_min(FLOOR)
        return logits.to(device=x.device, dtype=torch.float32)

    def get_extra_state(self) -> Tensor:
        """The trained state as bytes (B,) uint8, for `state_dict`.

        Equal models may give different bytes: skops notes clock times and object numbers.

        Raises:
            ImportError: skops is not installed.
            ValueError: the classifier holds a type that could not be loaded again.
        """
        sio = _skops()
        kept = {"fitted": self.fitted, "classes": self.classes, "only": self.only}
        raw = sio.dumps(kept, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
        _refuse_untrusted(sio, raw)
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """Continue from `get_extra_state()`.

        Raises:
            ImportError: skops is not installed.
            ValueError: not such bytes, a refused type, or the state of another classifier.
        """
        if not isinstance(state, Tensor) or state.dtype != torch.uint8:
            raise ValueError(f"state must be a uint8 tensor of skops bytes, got {type(state)}")
        sio = _skops()
        raw = state.cpu().numpy().tobytes()
        if not zipfile.is_zipfile(_file(raw)):
            raise ValueError(f"state must be skops bytes, got {len(raw)} bytes of something else")
        _refuse_untrusted(sio, raw)
        kept = sio.loads(raw, trusted=sorted(TRUSTED))
        fitted = kept["fitted"]
        if fitted is not None and type(fitted) is not type(self.template):
            raise ValueError(
                f"state holds a {type(fitted).__name__} and this model is a "
                f"{type(self.template).__name__}; build the model the state was saved from"
            )
        self.fitted, self.classes, self.only = fitted, kept["classes"], kept["only"]


def _rows(x: Tensor) -> np.ndarray[Any, Any]:
    flat = x.detach().flatten(1).cpu()
    if flat.dtype == torch.uint8:
        flat = flat.float() / 255
    rows: np.ndarray[Any, Any] = (flat if flat.is_floating_point() else flat.double()).numpy()
    return rows


def _file(raw: bytes) -> Any:
    from io import BytesIO

    return BytesIO(raw)


def _skops() -> Any:
    try:
        import skops.io as sio
    except ImportError as error:
        raise ImportError("keeping a scikit-learn model needs skops: pip install skops") from error
    return sio


def _refuse_untrusted(sio: Any, raw: bytes) -> None:
    refused = sorted(set(sio.get_untrusted_types(data=raw)) - TRUSTED)
    if refused:
        raise ValueError(
            f"a scikit-learn state may not hold {', '.join(refused)}: such types are not trusted "
            "to load; use another classifier or setting"
        )


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _knn() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier()


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier()


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier()


def _factory(make: Callable[[], Any]) -> Callable[..., nn.Module]:
    def factory(
        *,
        channels: int | None,
        size: Size | None,
        classes: int,
        features: int | None,
        **options: Any,
    ) -> nn.Module:
        return Estimator(make().set_params(**options))

    return factory


FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "sklearn-logistic": _factory(_logistic),
    "sklearn-knn": _factory(_knn),
    "sklearn-tree": _factory(_tree),
    "sklearn-forest": _factory(_forest),
}
"""Four classifiers by name; their options are scikit-learn's (`n_neighbors`, `C`, ...)."""
