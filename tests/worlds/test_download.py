"""Downloads from a server on this machine, and archives that must not be trusted."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evenloop.worlds import download
from evenloop.worlds.download import REMOTE, Remote, data_folder, fetch, get, unpack

BODY = bytes(range(256)) * 5000


@dataclass
class Site:
    """What the server holds, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    etag: str | None = '"v1"'
    cut: list[int] = field(default_factory=list)  # close the connection after so many bytes
    ranges: bool = True
    length: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            here.asked.append(asked)
            name = self.path.lstrip("/")
            if name not in here.files:
                self.send_error(404)
                return
            body, start = here.files[name], 0
            if asked and here.ranges and self.headers.get("If-Range") == here.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            if here.length:
                self.send_header("Content-Length", str(len(body) - start))
            if here.etag:
                self.send_header("ETag", here.etag)
            self.end_headers()
            end = here.cut.pop(0) if here.cut else len(body)
            self.wfile.write(body[start:end])

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    here.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def md5(body: bytes) -> str:
    return "md5:" + hashlib.md5(body, usedforsecurity=False).hexdigest()


def test_a_file_arrives_whole_and_nothing_else_is_left(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    seen: list[tuple[int, int | None]] = []
    path = fetch(
        Remote(f"{site.url}/a.bin", md5(BODY)), tmp_path, progress=lambda *s: seen.append(s)
    )
    assert path == tmp_path / "a.bin"
    assert path.read_bytes() == BODY
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_broken_connection_is_taken_up_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    site.cut = [400_000, 900_000]
    assert fetch(Remote(f"{site.url}/a.bin", md5(BODY)), tmp_path).read_bytes() == BODY
    assert site.asked == [None, "bytes=400000-", "bytes=900000-"]


def test_giving_up_keeps_what_arrived_for_the_next_run(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    site.cut = [100_000]
    remote = Remote(f"{site.url}/a.bin", md5(BODY))
    with pytest.raises(OSError, match=r"a\.bin failed after 100000 bytes .* run again to continue"):
        fetch(remote, tmp_path, attempts=1)
    assert (tmp_path / "a.bin.part").stat().st_size == 100_000
    assert not (tmp_path / "a.bin").exists()
    assert fetch(remote, tmp_path).read_bytes() == BODY
    assert site.asked == [None, "bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    site.cut = [100_000]
    with pytest.raises(OSError, match="run again"):
        fetch(Remote(f"{site.url}/a.bin"), tmp_path, attempts=1)
    site.files["a.bin"], site.etag = BODY[::-1], '"v2"'
    assert fetch(Remote(f"{site.url}/a.bin"), tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}])
def test_a_server_that_cannot_continue_starts_anew(
    site: Site, tmp_path: Path, change: dict[str, Any]
) -> None:
    site.files["a.bin"] = BODY
    for name, value in change.items():
        setattr(site, name, value)
    site.cut = [100_000]
    assert fetch(Remote(f"{site.url}/a.bin", md5(BODY)), tmp_path).read_bytes() == BODY


def test_a_part_longer_than_the_file_starts_anew(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(BODY + b"more")
    (tmp_path / "a.bin.part.etag").write_text('"v1"')
    assert fetch(Remote(f"{site.url}/a.bin", md5(BODY)), tmp_path).read_bytes() == BODY


def test_a_server_that_gives_no_length(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"], site.length = BODY, False
    seen: list[tuple[int, int | None]] = []
    fetch(Remote(f"{site.url}/a.bin"), tmp_path, progress=lambda *s: seen.append(s))
    assert seen[-1] == (len(BODY), None)


def test_a_wrong_checksum_deletes_the_file(site: Site, tmp_path: Path) -> None:
    site.files["a.bin"] = BODY
    with pytest.raises(ValueError, match=r"has md5 \w{32}, but 0000 is published.*root="):
        fetch(Remote(f"{site.url}/a.bin", "md5:0000"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_refusal(site: Site, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no\.bin answers 404"):
        fetch(Remote(f"{site.url}/no.bin"), tmp_path)
    assert site.asked == [None]  # asking again would not help


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="failed after 0 bytes"):
        fetch(Remote("http://127.0.0.1:9/a.bin"), tmp_path, attempts=2)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/a", "a.bin"])
def test_only_http_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only http and https"):
        fetch(Remote(url), tmp_path)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes | str]) -> bytes:
    """A .tar.gz; a text instead of bytes makes a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in members:
            info = tarfile.TarInfo(name)
            if isinstance(body, str):
                info.type, info.linkname = tarfile.SYMTYPE, body
                archive.addfile(info)
            else:
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def test_get_unpacks_and_is_done_once(site: Site, tmp_path: Path) -> None:
    site.files["d.tar.gz"] = tarred(("d/x/a.txt", b"A"), ("./d/b.txt", b"B"))
    site.files["c.csv"] = b"c"
    remote = (Remote(f"{site.url}/d.tar.gz", archive=True), Remote(f"{site.url}/c.csv"))
    folder = get("toy", tmp_path / "data", remote=remote)
    assert (folder / "d" / "x" / "a.txt").read_bytes() == b"A"
    assert (folder / "d" / "b.txt").read_bytes() == b"B"
    assert (folder / "c.csv").read_bytes() == b"c"
    assert not (folder / "d.tar.gz").exists()
    asked = len(site.asked)
    get("toy", tmp_path / "data", remote=remote)
    assert len(site.asked) == asked
    (folder / "d" / "b.txt").unlink()
    (folder / "d" / "x" / "a.txt").unlink()
    (folder / "d" / "x").rmdir()
    (folder / "d").rmdir()
    get("toy", tmp_path / "data", remote=remote)  # what was unpacked is gone: fetched again
    assert (folder / "d" / "b.txt").exists()


def test_get_uses_the_common_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    site.files["c.csv"] = b"c"
    assert get("toy", remote=(Remote(f"{site.url}/c.csv"),)) == tmp_path / "toy"
    assert (data_folder("toy") / "c.csv").exists()


def test_a_set_without_public_download(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'utkface' has no public download here.*root=.*mnist"):
        get("utkface", tmp_path)


def test_the_list_of_downloads_is_sound() -> None:
    for name, remotes in REMOTE.items():
        assert remotes, name
        for remote in remotes:
            assert remote.url.startswith("https://")
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", remote.digest)
            assert re.fullmatch(r"[\w.+-]+", remote.file)
            assert remote.archive == remote.file.endswith((".zip", ".tar.gz"))


@pytest.mark.parametrize(
    "archive",
    [zipped(**{"d/a.txt": b"A", "b.txt": b"B"}), tarred(("d/a.txt", b"A"), ("b.txt", b"B"))],
)
def test_plain_files_are_unpacked_over_older_ones(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    assert unpack(tmp_path / "a", tmp_path) == ["b.txt", "d"]
    assert (tmp_path / "d" / "a.txt").read_bytes() == b"A"
    assert not (tmp_path / "d" / "old").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b.txt", "d"]


def linked_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (zipped(**{"good": b"", "../evil": b"!"}), r"'\.\./evil', which leaves its folder"),
        (zipped(**{"d/../../evil": b"!"}), "leaves its folder"),
        (zipped(**{"/evil": b"!"}), "leaves its folder"),
        (zipped(**{"C:/evil": b"!"}), "leaves its folder"),
        (zipped(**{"..\\evil": b"!"}), "leaves its folder"),
        (tarred(("good", b""), ("../evil", b"!")), "leaves its folder"),
        (tarred(("/evil", b"!")), "leaves its folder"),
        (tarred(("link", "/etc/passwd")), "'link', which is no plain file"),
        (tarred(("link", ".."), ("link/evil", b"!")), "no plain file"),
        (linked_zip(), "'link', which is no plain file"),
        (zipped(big=b"x" * 2000), "more than the 1000 bytes allowed"),
        (tarred(("a", b"x" * 600), ("b", b"x" * 600)), "more than the 1000 bytes allowed"),
        (zipped(a=b"x" * 500)[:60], "is damaged"),
        (tarred(("a", BODY[:900]))[:200], "is damaged"),
        (b"neither", "is damaged"),
    ],
    ids=range(15),  # an archive's bytes hold the time it was made
)
def test_an_archive_that_must_not_be_unpacked(archive: bytes, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "a").write_bytes(archive)
    with pytest.raises(ValueError, match=message):
        unpack(tmp_path / "a", folder, largest=1000)
    assert list(folder.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "in"]


def test_as_many_bytes_as_allowed_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(zipped(big=b"x" * 1000))
    assert unpack(tmp_path / "a", tmp_path, largest=1000) == ["big"]


def test_a_full_disk_is_not_tried_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["a.bin"] = b"short"

    def full(self: Path, *_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(Remote(f"{site.url}/a.bin"), tmp_path)
    assert len(site.asked) == 1
