"""Generated rows of the user beside real ones: matched by name, marked, and written for inspection.

Not a source of its own: the files are read by any source (a manifest, folders of generated faces),
and become generated rows of a run here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from evenloop.data import Attribute, GroupedData, Origin, Schema
from evenloop.digest import row_digest
from evenloop.samplers.cells import SPLIT, WEIGHT
from evenloop.words import nearest

__all__ = ["apart", "as_generated", "with_weights", "write_generated"]

DEFAULTS: Mapping[str, str] = {SPLIT: "train", WEIGHT: "1"}
"""What rows are that do not say it."""


def apart(data: GroupedData) -> tuple[GroupedData, GroupedData | None]:
    """The real rows and the generated ones of a list that holds both; None where there are none.

    Generated rows of a split "test" are left out: only real rows are audited.

    Raises:
        ValueError: all rows are generated, or a generated row repeats a real one.
    """
    made = data.origin == int(Origin.GENERATED)
    if not bool(made.any()):
        return data, None
    if bool(made.all()):
        raise ValueError(
            "all rows of the world are generated; give real ones, and these as generated="
        )
    real = data.take(~made)
    values = {a.name: a.values for a in data.schema.attributes}.get(SPLIT, ())
    if "test" in values:
        made &= data.attribute(SPLIT) != values.index("test")
    rows = data.take(made)
    _no_repeats(rows.x, real.x)
    return real, rows if len(rows) else None


def with_weights(real: GroupedData, made: GroupedData) -> GroupedData:
    """`real` under a schema that has all weights of `made`; unchanged where neither has any.

    Rows without weights have weight 1.
    """
    have = {a.name: a.values for a in real.schema.attributes}
    new = {a.name: a.values for a in made.schema.attributes}
    if WEIGHT not in have and WEIGHT not in new:
        return real
    names = (*have.get(WEIGHT, ()), DEFAULTS[WEIGHT], *new.get(WEIGHT, ()))
    weights = Attribute(WEIGHT, tuple(dict.fromkeys(names)))
    columns, others = real.columns(), real.schema.attributes
    if WEIGHT in have:
        attributes = tuple(weights if a.name == WEIGHT else a for a in others)
    else:
        attributes = (*others, weights)
        blank = columns["attributes"].new_zeros(len(real), 1)
        columns["attributes"] = torch.cat([columns["attributes"], blank], 1)
    schema = Schema(real.schema.classes, attributes, real.schema.structure)
    return GroupedData.from_columns(schema, columns)


def as_generated(made: GroupedData, like: GroupedData) -> GroupedData:
    """The rows of `made` under the schema of `like`, matched by names, with origin "generated".

    Rows that do not say their split or weight are of "train" and of weight 1.

    Raises:
        ValueError: inputs of another shape or type, a class, attribute or value that `like` does
            not have (named, with the nearest), rows marked as real among generated ones, or a row
            that repeats a row of `like`.

    >>> from evenloop.data import Attribute, Schema
    >>> schema = Schema(("no", "yes"), (Attribute("sex", ("f", "m")),))
    >>> real = GroupedData.of(torch.eye(2), [0, 1], {"sex": [0, 1]}, schema)
    >>> other = Schema(("yes",), (Attribute("sex", ("m",)),))
    >>> made = as_generated(GroupedData.of(torch.ones(1, 2), [0], {"sex": [0]}, other), real)
    >>> made.y.tolist(), made.attribute("sex").tolist(), made.row.tolist()
    ([1], [1], [-1])
    """
    if made.x.shape[1:] != like.x.shape[1:] or made.x.dtype != like.x.dtype:
        raise ValueError(
            f"generated rows are {made.x.dtype} of shape {tuple(made.x.shape[1:])}, real ones "
            f"{like.x.dtype} of {tuple(like.x.shape[1:])}; give resize= or the same features"
        )
    real = made.origin != int(Origin.GENERATED)
    if bool(real.any()) and not bool(real.all()):
        raise ValueError(
            f"{int(real.sum())} of {len(made)} generated rows are marked as real, first row "
            f"{int(real.nonzero()[0])}; take them out, or give the whole list as the world"
        )
    _no_repeats(made.x, like.x)
    have = {a.name: a for a in made.schema.attributes}
    codes = {}
    for attribute in like.schema.attributes:
        if attribute.name not in have and attribute.name in DEFAULTS:
            code = _codes(attribute.name, (DEFAULTS[attribute.name],), attribute.values)
            codes[attribute.name] = code.expand(len(made))
            continue
        if attribute.name not in have:
            raise ValueError(
                f"generated rows lack the attribute {attribute.name!r}; name its column in groups="
            )
        table = _codes(attribute.name, have[attribute.name].values, attribute.values)
        codes[attribute.name] = table[made.attribute(attribute.name)]
    label = _codes("label", made.schema.classes, like.schema.classes)[made.truth]
    return GroupedData.of(made.x, label, codes, like.schema, origin=Origin.GENERATED)


def _codes(what: str, names: tuple[str, ...], known: tuple[str, ...]) -> Tensor:
    """(len(names),) the code in `known` of each name."""
    at: Mapping[str, int] = {name: code for code, name in enumerate(known)}
    for name in names:
        if name not in at:
            raise ValueError(f"generated rows hold the {what} {name!r}; {nearest(name, known)}")
    return torch.tensor([at[name] for name in names])


def _no_repeats(made: Tensor, real: Tensor) -> None:
    """Refuse a generated row that is, to the last bit, a real one."""
    seen = {row_digest(row) for row in real.cpu().numpy()}
    copies = [i for i, row in enumerate(made.cpu().numpy()) if row_digest(row) in seen]
    if copies:
        raise ValueError(
            f"{len(copies)} generated rows are copies of real rows, first row {copies[0]}; a real "
            "picture must not appear on both sides: remove it from the generated files"
        )


def write_generated(folder: Path, data: GroupedData, *, note: str = "") -> Path:
    """Write image rows as PNG files and a manifest.csv that names label and attributes of each.

    Args:
        folder: made if needed; must not hold a manifest yet.
        data: uint8 images (N, 1 or 3, H, W).
        note: kept in the manifest's column "generator".

    Raises:
        ValueError: rows that are no images.
        FileExistsError: the folder holds a manifest.
    """
    from PIL import Image

    if data.x.ndim != 4 or data.x.dtype != torch.uint8:
        raise ValueError(f"only uint8 images can be written as pictures, x is {data.x.dtype}")
    path = folder / "manifest.csv"
    if path.exists():
        raise FileExistsError(f"{path} exists; give another folder or remove it")
    attributes = data.schema.attributes
    codes, rows = data.attributes.tolist(), []
    for i, pixels in enumerate(data.x.permute(0, 2, 3, 1).cpu().numpy()):
        values = [a.values[code] for a, code in zip(attributes, codes[i], strict=True)]
        label = data.schema.classes[int(data.y[i])]
        name = f"{_safe(label)}/{i:06}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze()).save(folder / name)
        rows.append([name, label, *values, note])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", *(a.name for a in attributes), "generator"])
        writer.writerows(rows)
    return path


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
