"""A large file that is made once, used by several processes, and removed when the next one is made."""

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from loadtests.errors import HarnessError


@contextlib.contextmanager
def kept(folder: Path, name: str, write: Callable[[BinaryIO], None]) -> Iterator[tuple[Path, str]]:
    """The file of this name in the folder, and the SHA-256 of its content; nobody removes it meanwhile.

    If it is not there, `write` makes it, in one process at a time. Others of the folder that nobody uses are removed
    first.

    Raises HarnessError: the folder cannot be written, or the disk is full.
    """
    path, stamp = folder / f"{name}.file", folder / f"{name}.sha256"
    with contextlib.ExitStack() as use:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / "lock", "w") as alone:
                fcntl.flock(alone, fcntl.LOCK_EX)
                if not (path.exists() and stamp.exists()):
                    _remove_unused(folder)
                    _make(path, stamp, folder / "draft", write)
                fcntl.flock(use.enter_context(path.open("rb")), fcntl.LOCK_SH)
        except OSError as error:
            raise HarnessError(
                f"{error.filename or folder}: {error.strerror}; XDG_CACHE_HOME names another folder"
            ) from error
        yield path, stamp.read_text()


def _make(path: Path, stamp: Path, draft: Path, write: Callable[[BinaryIO], None]) -> None:
    with draft.open("wb+") as file:
        write(file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    draft.rename(path)
    stamp.write_text(digest)


def _remove_unused(folder: Path) -> None:
    for path in folder.glob("*.file"):
        with path.open("rb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink()
