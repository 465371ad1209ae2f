"""Fetching public data sets: resumable, checked, unpacked without trusting the archive.

A download is written to NAME.part and renamed when its length and checksum are right, so a file of
the right name is a whole file. A checksum is listed only where its authors, or several independent
users, publish it.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

__all__ = ["REMOTE", "Remote", "data_folder", "fetch", "get", "unpack"]

Progress = Callable[[int, int | None], None]

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_BROKEN = (ConnectionError, TimeoutError, urllib.error.URLError)
_LARGEST = 64 << 30  # bytes; far above any data set here, far below a full disk's surprise


@dataclass(frozen=True, slots=True)
class Remote:
    """One file of a data set.

    Attributes:
        url: http or https address.
        digest: "md5:..." or "sha256:..." of the file, or "" where none is published.
        archive: whether it is unpacked after the download.
    """

    url: str
    digest: str = ""
    archive: bool = False

    @property
    def file(self) -> str:
        """The name the file is kept under."""
        return PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(self.url).path)).name


def _idx(base: str, **md5: str) -> tuple[Remote, ...]:
    names = {
        "x": "train-images-idx3", "y": "train-labels-idx1",
        "xt": "t10k-images-idx3", "yt": "t10k-labels-idx1",
    }  # fmt: skip
    return tuple(Remote(f"{base}/{names[k]}-ubyte.gz", f"md5:{v}") for k, v in md5.items())


REMOTE: dict[str, tuple[Remote, ...]] = {
    "mnist": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        x="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        y="d53e105ee54ea40749a09fcbcd1e9432",
        xt="9fb629c4189551a2d022fa330f9573f3",
        yt="ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion": _idx(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        x="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        y="25c81989df183df01b3e8a0aad5dffbe",
        xt="bef4ecab320f06d8554ea6380940ec79",
        yt="bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "cifar10": (
        Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
            archive=True,
        ),
    ),
    "cifar100": (
        Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
            archive=True,
        ),
    ),
    "cifar5m": tuple(
        Remote(f"https://storage.googleapis.com/gresearch/cifar5m/part{i}.npz") for i in range(3)
    ),
    "cinic10": (
        Remote(
            "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
            "md5:6ee4d0c996905fe93221de577967a372",
            archive=True,
        ),
    ),
    "adult": (
        Remote(
            "https://archive.ics.uci.edu/static/public/2/adult.zip",
            "sha256:7537312dd56c2b98035880805ce99e68183a30ee468aa5329d6df0fbb3cc21bb",
            archive=True,
        ),
    ),
    "compas": (
        Remote(
            "https://raw.githubusercontent.com/propublica/compas-analysis/master/"
            "compas-scores-two-years.csv"
        ),
    ),
    "german": (
        Remote(
            "https://archive.ics.uci.edu/static/public/144/statlog+german+credit+data.zip",
            "sha256:e12d9d5def6845c0622634a1cd2ab87fa470668c4298f1ec52a4e403376a435b",
            archive=True,
        ),
    ),
}
"""What `get` can fetch, by the name of the world."""


def data_folder(name: str) -> Path:
    """Where the files of a data set are kept: EVENLOOP_DATA/NAME, or ~/.cache/evenloop/NAME."""
    base = os.environ.get("EVENLOOP_DATA")
    return (Path(base) if base else Path.home() / ".cache" / "evenloop").expanduser() / name


def get(
    name: str,
    root: Path | str | None = None,
    *,
    remote: tuple[Remote, ...] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch a data set, unpack its archives, and return its folder. What is there is not repeated.

    Args:
        name: a key of `REMOTE`.
        root: folder to fill, or None for `data_folder(name)`.
        remote: other files to fetch, for a mirror.
        progress: called with bytes so far and in total (None if the server does not say).

    Raises:
        ValueError: no public download is known, a checksum differs, or an archive is unsafe.
        OSError: the network or the disk failed; what arrived is kept and continued next time.
    """
    if remote is None:
        if name not in REMOTE:
            raise ValueError(
                f"{name!r} has no public download here; `evenloop data list` says where it may be "
                f"found and root= takes your own copy. To be had: {', '.join(REMOTE)}"
            )
        remote = REMOTE[name]
    folder = Path(root).expanduser() if root is not None else data_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    for one in remote:
        stamp = folder / f".{one.file}.unpacked"
        if _still_there(stamp) if one.archive else (folder / one.file).exists():
            continue
        path = fetch(one, folder, progress=progress)
        if one.archive:
            stamp.write_text("\n".join(unpack(path, folder)), encoding="utf-8")
            path.unlink()
    return folder


def _still_there(stamp: Path) -> bool:
    """Whether an archive was unpacked and what came out of it still exists."""
    if not stamp.exists():
        return False
    return all((stamp.parent / n).exists() for n in stamp.read_text(encoding="utf-8").split("\n"))


def fetch(
    remote: Remote, folder: Path, *, attempts: int = 3, progress: Progress | None = None
) -> Path:
    """Download one file into `folder`, continuing an interrupted download.

    Args:
        remote: what to fetch.
        folder: an existing folder.
        attempts: how often a broken connection is taken up again before giving up.
        progress: called with bytes so far and in total (None if the server does not say).

    Raises:
        ValueError: the address is not http(s), or the checksum differs (the file is deleted).
        OSError: the server refuses, or the connection ends early `attempts` times.
    """
    if not remote.url.startswith(("http://", "https://")):
        raise ValueError(f"only http and https addresses are fetched, got {remote.url}")
    path = folder / remote.file
    part = folder / f"{remote.file}.part"
    for attempt in range(1, attempts + 1):
        try:
            _continue(remote.url, part, progress)
            break
        except urllib.error.HTTPError as error:
            with error:  # it holds the answer's connection
                raise OSError(f"{remote.url} answers {error.code} {error.reason}") from error
        except (http.client.HTTPException, *_BROKEN) as error:  # not a full disk: it stays full
            if attempt == attempts:
                size = part.stat().st_size if part.exists() else 0
                raise OSError(
                    f"{remote.url} failed after {size} bytes ({error}); run again to continue"
                ) from error
            _log.warning("%s: %s; trying again", remote.url, error)
    _check_digest(part, remote)
    os.replace(part, path)
    _validator(part).unlink(missing_ok=True)
    return path


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _continue(url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing to `part`; start anew unless the server still has the same file."""
    etag = _validator(part)
    have = part.stat().st_size if part.exists() and etag.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "evenloop"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        part.unlink()  # longer than the server's file: it cannot be the same
        raise ConnectionError("the part on disk does not fit the server's file") from error
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if have == 0:
            etag.unlink(missing_ok=True)
        if tag and not tag.startswith("W/"):
            etag.write_text(tag, encoding="utf-8")
        with part.open("ab" if have else "wb") as out:
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(have, total)
        if total is not None and have != total:
            raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _check_digest(part: Path, remote: Remote) -> None:
    if not remote.digest:
        _log.warning("%s: no checksum is published; only its length was checked", remote.file)
        return
    kind, _, wanted = remote.digest.partition(":")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
    if found.hexdigest() != wanted:
        part.unlink()
        _validator(part).unlink(missing_ok=True)
        raise ValueError(
            f"{remote.url} has {kind} {found.hexdigest()}, but {wanted} is published; the file was "
            "deleted. Try again, or pass root= with a copy you trust"
        )


def unpack(archive: Path, folder: Path, *, largest: int = _LARGEST) -> list[str]:
    """Unpack a .zip or .tar(.gz) of plain files into `folder`; returns the new top-level names.

    Nothing is put in place before all of it is unpacked and found safe.

    Args:
        archive: the file.
        folder: an existing folder.
        largest: bytes the unpacked files may have together.

    Raises:
        ValueError: a member leaves the folder, is a link or a device, the whole is too large, or
            the archive is damaged.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as staged:
        room = largest
        try:
            with _members(archive) as members:
                for name, stream in members:
                    if room < 0:
                        break
                    target = Path(staged) / _inside(name, archive)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with stream, target.open("wb") as out:
                        room -= _copy(stream, out, room)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{archive} is damaged: {error}") from error
        if room < 0:
            raise ValueError(f"{archive} unpacks to more than the {largest} bytes allowed")
        entries = sorted(Path(staged).iterdir())
        for entry in entries:
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)
    return [entry.name for entry in entries]


def _copy(stream: IO[bytes], out: IO[bytes], room: int) -> int:
    """Bytes copied; stops as soon as they are more than `room`."""
    written = 0
    while written <= room and (chunk := stream.read(_CHUNK)):
        written += len(chunk)
        out.write(chunk)
    return written


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise ValueError(f"{archive} holds {name!r}, which leaves its folder; nothing was unpacked")
    return path


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Name and content of every plain file; links and devices are refused, folders implied."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_members(packed, archive)
    else:
        with tarfile.open(archive) as bundle:
            yield _tar_members(bundle, archive)


def _zip_members(packed: zipfile.ZipFile, archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for info in packed.infolist():
        if info.is_dir():
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"{archive} holds {info.filename!r}, which is no plain file")
        yield info.filename, packed.open(info)


def _tar_members(bundle: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for info in bundle:
        if info.isdir():
            continue
        stream = bundle.extractfile(info) if info.isfile() else None
        if stream is None:
            raise ValueError(f"{archive} holds {info.name!r}, which is no plain file")
        yield info.name, stream
