"""Hugging Face datasets: an object the user has, a saved folder, or a name on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from evenloop.data import GroupedData
from evenloop.words import nearest
from evenloop.worlds.base import Card, Normalisation, check_size
from evenloop.worlds.columns import need_columns
from evenloop.worlds.frames import images_from_frame, table_from_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HuggingFace", "from_hugging_face"]


class ArrowDataset(Protocol):
    """The part of `datasets.Dataset` that is used here."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Column name -> feature; a `ClassLabel` has `names`."""

    def with_format(self, type: str) -> Any:
        """A view whose slices are Arrow tables for type "arrow"."""


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """A Hugging Face dataset with a label column, and pictures or feature columns.

    Attributes:
        path: folder written by `save_to_disk`, or with `download` a name on the hub.
        split: which split of a dataset that has several.
        target: the label column.
        image: the picture column, or None for a table of features.
        groups: group columns; "age:25,45" puts a number in bins.
        features: feature columns of a table; by default every column but the target.
        classes: class names in the order of their codes; by default the column's own.
        resize: side of the square every picture is stretched to; needed if sizes differ.
        gray: one channel instead of three.
        download: fetch `path` from the hub.
    """

    name: ClassVar[str] = "huggingface"
    about: ClassVar[Card] = Card(
        "Hugging Face dataset",
        "any dataset of the library `datasets` with a label column",
        "see the dataset's own card",
        "the columns you name; see the dataset's own card for how they were obtained",
        "the Hugging Face hub",
        people=True,
    )

    path: Path | str
    split: str = ""
    target: str = "label"
    image: str | None = "image"
    groups: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    resize: int | None = None
    gray: bool = False
    download: bool = False

    def __post_init__(self) -> None:
        check_size("resize", self.resize)

    @property
    def normalisation(self) -> Normalisation | None:
        """None: measure it on the rows you train on with `images.pixel_moments`."""
        return None

    def load(self) -> GroupedData:
        """Rows in the dataset's order.

        Raises:
            FileNotFoundError: the folder does not exist and `download` is off.
            ValueError: the split is missing, or what `from_hugging_face` raises.
            ModuleNotFoundError: the library `datasets` is not installed.
        """
        return from_hugging_face(
            _open(str(self.path), self.split, self.download),
            target=self.target,
            image=self.image,
            groups=self.groups,
            features=self.features,
            classes=self.classes,
            resize=self.resize,
            gray=self.gray,
        )


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ModuleNotFoundError(
            "the world 'huggingface' needs the library datasets: pip install 'evenloop[text]'",
            name="datasets",
        ) from error
    return datasets


def _open(path: str, split: str, download: bool) -> ArrowDataset:
    folder = Path(path).expanduser()
    if not download and not folder.is_dir():
        raise FileNotFoundError(
            f"huggingface: {path} is no folder written by save_to_disk. Give the path of one, or "
            "download=true to fetch that name from the hub"
        )
    datasets = _library()
    found = datasets.load_dataset(path) if download else datasets.load_from_disk(str(folder))
    if not isinstance(found, Mapping):
        dataset: ArrowDataset = found
        return dataset
    if split not in found:
        raise ValueError(f"split is {split!r}; {nearest(split, map(str, found))}")
    part: ArrowDataset = found[split]
    return part


def from_hugging_face(
    dataset: ArrowDataset,
    *,
    target: str = "label",
    image: str | None = "image",
    groups: Sequence[str] = (),
    features: Sequence[str] = (),
    classes: Sequence[str] = (),
    resize: int | None = None,
    gray: bool = False,
) -> GroupedData:
    """Data from a `datasets.Dataset` the user has, selection and shuffling included.

    Args:
        dataset: one split. Its pictures are decoded here, once.
        target: the label column; a `ClassLabel` gives the class names.
        image: the picture column, or None for a table of features.
        groups: group columns; "age:25,45" puts a number in bins.
        features: feature columns of a table; by default every column but the target.
        classes: class names in the order of their codes.
        resize: side of the square every picture is stretched to; needed if sizes differ.
        gray: one channel instead of three.

    Raises:
        ValueError: a column is missing, or a value cannot be used.
    """
    frame: pd.DataFrame = dataset.with_format("arrow")[:].to_pandas()
    where = "the dataset"
    need_columns(frame, [target, *([image] if image else [])], where)
    classes = classes or _names(dataset, target)
    for column in map(str, frame.columns):
        named = _names(dataset, column)
        if named and column != target:
            frame[column] = frame[column].map(dict(enumerate(named)))
    if image is not None:
        return images_from_frame(
            frame, target=target, image=image, groups=groups, classes=classes,
            resize=resize, gray=gray, where=where,
        )  # fmt: skip
    return table_from_frame(
        frame, target=target, groups=groups, features=features, classes=classes, where=where
    )


def _names(dataset: ArrowDataset, column: str) -> tuple[str, ...]:
    """The names a `ClassLabel` column gives to its codes; none for any other column."""
    return tuple(getattr(dataset.features[column], "names", None) or ())
