"""A large file that is made once, used by several processes, and removed when the next one is made."""

import contextlib
import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def kept(folder: Path, name: str, write: Callable[[BinaryIO], None]) -> Iterator[tuple[Path, str]]:
    """The file of this name in the folder, and the SHA-256 of its content; nobody removes it meanwhile.

    If it is not there, `write` makes it, in one process at a time. Others of the folder that nobody uses are removed
    first.
    """
    path, stamp = folder / f"{name}.file", folder / f"{name}.sha256"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as use:
        with open(folder / "lock", "w") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            if not (path.exists() and stamp.exists()):
                _remove_unused(folder)
                draft = folder / "draft"
                with draft.open("wb") as file:
                    write(file)
                digest = hashlib.sha256(draft.read_bytes()).hexdigest()
                draft.rename(path)
                stamp.write_text(digest)
            fcntl.flock(use.enter_context(path.open("rb")), fcntl.LOCK_SH)
        yield path, stamp.read_text()


def _remove_unused(folder: Path) -> None:
    for path in folder.glob("*.file"):
        with path.open("rb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink()
