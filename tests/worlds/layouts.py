"""Small files in the official layouts of the data sets, for the tests."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(n: int, *shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """(n, *shape) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def encoded(image: NDArray[np.uint8], kind: str = "png") -> bytes:
    """An (H, W) or (H, W, 3) image as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_image(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, "jpeg" if path.suffix == ".jpg" else "png"))
    return path


def idx(array: NDArray[np.uint8]) -> bytes:
    """The bytes of an IDX file."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_mnist(root: Path, train: int = 6, test: int = 4, *, zipped: bool = True) -> Path:
    """Four IDX files; image i of a split is filled with i, its label is i modulo 10."""
    root.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 28, 28))
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            raw = idx(np.ascontiguousarray(array))
            file = f"{prefix}-{kind}-ubyte"
            if zipped:
                (root / f"{file}.gz").write_bytes(gzip.compress(raw))
            else:
                (root / file).write_bytes(raw)
    return root


def cifar_rows(n: int, classes: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(n, 3, 32, 32) noise and labels that run through the classes."""
    return pixels(n, 3, 32, 32, seed=seed), np.arange(seed, seed + n) % classes


def write_cifar10(root: Path, kind: str, rows: int = 3) -> tuple[Any, Any]:
    """Five train batches and one test batch; returns all images and labels in file order."""
    folder = root / {"binary": "cifar-10-batches-bin", "python": "cifar-10-batches-py"}[kind]
    folder.mkdir(parents=True)
    images, labels = [], []
    for i, name in enumerate([*(f"data_batch_{b}" for b in range(1, 6)), "test_batch"]):
        x, y = cifar_rows(rows, 10, seed=i)
        if kind == "binary":
            records = np.concatenate([y.astype(np.uint8)[:, None], x.reshape(rows, -1)], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            batch = {b"batch_label": b"batch", b"labels": y.tolist(), b"data": x.reshape(rows, -1)}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        images.append(x)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def write_cifar100(root: Path, kind: str, rows: int = 4) -> tuple[Any, Any, Any]:
    """Train and test files; returns images, coarse and fine labels in file order."""
    folder = root / {"binary": "cifar-100-binary", "python": "cifar-100-python"}[kind]
    folder.mkdir(parents=True)
    found = []
    for i, name in enumerate(("train", "test")):
        x, fine = cifar_rows(rows, 100, seed=90 * i)
        coarse = fine % 20
        if kind == "binary":
            heads = np.stack([coarse, fine], 1).astype(np.uint8)
            records = np.concatenate([heads, x.reshape(rows, -1)], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            batch = {
                b"fine_labels": fine.tolist(),
                b"coarse_labels": coarse.tolist(),
                b"data": x.reshape(rows, -1),
            }
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        found.append((x, coarse, fine))
    x, coarse, fine = (np.concatenate(column) for column in zip(*found, strict=True))
    return x, coarse, fine


CINIC_FOLDERS = (
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)


def write_cinic(root: Path) -> Path:
    """Three splits of ten class folders, one picture each."""
    for s, split in enumerate(("train", "valid", "test")):
        for c, name in enumerate(CINIC_FOLDERS):
            image = pixels(1, 32, 32, 3, seed=10 * s + c)[0]
            write_image(root / split / name / f"cifar10-{split}-{c}.png", image)
    return root


def write_cifar5m(root: Path, parts: int = 3, rows: int = 5, *, packed: bool = False) -> Any:
    """Archives part0.npz, ...; returns all images (N, 32, 32, 3) and labels."""
    root.mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    for i in range(parts):
        x, y = pixels(rows, 32, 32, 3, seed=i), (np.arange(rows) + i) % 10
        (np.savez_compressed if packed else np.savez)(root / f"part{i}.npz", X=x, Y=y)
        images.append(x)
        labels.append(y)
    return np.concatenate(images), np.concatenate(labels)


def write_utkface(root: Path, names: list[str], side: int = 8) -> Path:
    for i, name in enumerate(names):
        write_image(root / name, pixels(1, side, side, 3, seed=i)[0])
    return root


def write_fairface(root: Path) -> Path:
    """Three train and two val rows."""
    rows = {
        "train": ["3-9,Male,East Asian", "30-39,Female,White", "more than 70,Male,Black"],
        "val": ["0-2,Female,Latino_Hispanic", "20-29,Male,Indian"],
    }
    for split, lines in rows.items():
        table = ["file,age,gender,race,service_test"]
        for i, line in enumerate(lines, 1):
            write_image(root / split / f"{i}.jpg", pixels(1, 8, 8, 3, seed=i)[0])
            table.append(f"{split}/{i}.jpg,{line},True")
        (root / f"fairface_label_{split}.csv").write_text("\n".join(table) + "\n")
    return root


ADULT_TRAIN = """39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, \
White, Male, 2174, 0, 40, United-States, <=50K
50, ?, 83311, Bachelors, 13, Married-civ-spouse, ?, Husband, Black, Male, 0, 0, 13, ?, <=50K
38, Private, 215646, HS-grad, 9, Divorced, Sales, Not-in-family, White, Female, 0, 0, 40, \
United-States, >50K

"""
ADULT_TEST = """|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Sales, Own-child, Black, Male, 0, 0, 40, \
United-States, <=50K.
28, Local-gov, 336951, Assoc-acdm, 12, Married-civ-spouse, Sales, Wife, White, Female, 0, 0, \
40, United-States, >50K.

"""
COMPAS = """id,sex,age,race,juv_fel_count,juv_misd_count,juv_other_count,priors_count,\
days_b_screening_arrest,c_charge_degree,is_recid,score_text,two_year_recid
1,Male,69,Other,0,0,0,0,-1,F,0,Low,0
2,Female,34,African-American,0,0,0,3,5,M,1,High,1
3,Male,24,Caucasian,0,0,1,4,-31,F,1,Low,1
4,Male,23,Caucasian,0,1,0,1,0,O,0,Low,0
5,Male,43,Caucasian,0,0,0,2,0,F,-1,Low,0
6,Male,41,Caucasian,0,0,0,2,,F,0,Low,0
7,Male,41,Caucasian,0,0,0,2,1,F,0,N/A,0
"""
GERMAN = """A11 6 A34 A43 1169 A65 A75 4 A93 A101 4 A121 67 A143 A152 2 A173 1 A192 A201 1
A12 48 A32 A43 5951 A61 A73 2 A92 A101 2 A121 22 A143 A152 1 A173 1 A191 A201 2
A14 12 A34 A46 2096 A61 A74 2 A93 A101 3 A121 49 A143 A152 1 A172 2 A191 A201 1
"""
