"""Large files that several processes use, such as the image of a virtual machine."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import BinaryIO

import pytest

from loadtests.clock.kept import kept
from loadtests.errors import HarnessError


def test_what_is_in_use_stays_and_the_rest_goes(tmp_path: Path) -> None:
    with kept(tmp_path, "first", lambda file: _write(file, b"1")) as (first, digest):
        assert (first.read_bytes(), digest) == (b"1", hashlib.sha256(b"1").hexdigest())
        with kept(tmp_path, "second", lambda file: _write(file, b"2")) as (second, _):
            assert first.exists()
    with kept(tmp_path, "third", lambda file: _write(file, b"3")) as (third, _):
        assert [third.name] == [path.name for path in tmp_path.glob("*.file")]
    assert not first.exists()
    assert not second.exists()


def test_what_two_need_at_once_is_made_once(tmp_path: Path) -> None:
    """The other one waits until it is complete."""
    begun, go_on, made = Event(), Event(), []

    def write(file: BinaryIO) -> None:
        made.append(file)
        begun.set()
        assert go_on.wait(10)
        _write(file, b"whole")

    def use() -> bytes:
        with kept(tmp_path, "one", write) as (path, _):
            return path.read_bytes()

    with ThreadPoolExecutor() as pool:
        users = [pool.submit(use) for _ in range(2)]
        assert begun.wait(10)
        go_on.set()
        assert [user.result() for user in users] == [b"whole", b"whole"]
    assert len(made) == 1


def test_what_was_made_halfway_is_made_anew(tmp_path: Path) -> None:
    """The maker was killed: between two steps, or with nothing but a draft."""
    (tmp_path / "draft").write_bytes(b"ha")
    (tmp_path / "one.file").write_bytes(b"without its checksum")
    with kept(tmp_path, "one", lambda file: _write(file, b"whole")) as (path, _):
        assert path.read_bytes() == b"whole"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with (
        pytest.raises(HarnessError, match=r"cache/images: Not a directory; XDG_CACHE_HOME names another folder"),
        kept(tmp_path / "cache" / "images", "one", lambda file: _write(file, b"1")),
    ):
        pass


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
