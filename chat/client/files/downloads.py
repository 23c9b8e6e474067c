"""Files on disk: one that is sent, and one that is being received. The only place that touches them.

A received file grows under a hidden temporary name in its folder, made of its checksum, so that a later offer of the
same file can go on with it; it gets its own name when it is complete, verified and on the disk, never that of another.
"""

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from chat.client.files.states import numbered, safe_name
from chat.protocol.errors import FileError
from chat.words import reason_of

#: How much is hashed in one go: a millisecond or two, in which nothing else happens.
SLICE_BYTES = 1 << 20

_SHA256 = re.compile("[0-9a-f]{64}")


class Source:
    """A file to be sent.

    Raises:
        FileError: it cannot be read, or is no plain file.
    """

    def __init__(self, path: Path) -> None:
        with _as_file_error(f"Cannot read {path}"):
            # Not to wait for somebody to write into a named pipe.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise FileError(f"Cannot send {path}: it is not a plain file.")
        self.name = safe_name(path.name)
        self.size = status.st_size
        self._hash = hashlib.sha256()
        self._hashed = 0

    @property
    def sha256(self) -> str:
        """The checksum of what was hashed so far."""
        return self._hash.hexdigest()

    def hash_some(self) -> bool:
        """Hash the next slice; whether that was the last one."""
        length = min(SLICE_BYTES, self.size - self._hashed)
        self._hash.update(self.read(self._hashed, length))
        self._hashed += length
        return self._hashed == self.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes.

        Raises:
            FileError: they are not there any more.
        """
        with _as_file_error(f"Cannot read {self.name}"):
            data = os.pread(self._fd, length, offset)
        if len(data) < length:
            raise FileError(f"{self.name} has become shorter while it was being sent.")
        return data

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._fd)


class Part:
    """A file that is being received, perhaps for the second time.

    Attributes:
        have: bytes that are there.

    Raises:
        FileError: nothing can be stored in this folder, or the same file is just being received.
    """

    def __init__(self, folder: Path, sha256: str, size: int) -> None:
        if not _SHA256.fullmatch(sha256):
            raise FileError("The offered checksum is not a SHA-256 in hexadecimal.")
        self._folder = folder
        self._sha256 = sha256
        self._part_name = f".{sha256}.part"
        self._hash = hashlib.sha256()
        with _as_file_error(f"Cannot store files in {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            # Every name below is looked up in this very folder, whatever becomes of the path to it.
            self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._fd = self._open(self._part_name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                os.close(self._folder_fd)
                raise
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise OSError(f"{self._part_name} is not a plain file")
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, min(os.fstat(self._fd).st_size, size))
            self.have = os.fstat(self._fd).st_size
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise FileError(f"The same file is being received in {folder} already.") from error
            raise FileError(f"Cannot store files in {folder}: {reason_of(error)}.") from error
        self._hashed = 0

    def hash_some(self) -> bool:
        """Hash the next slice of what is there; whether that was the last one."""
        with _as_file_error("Cannot read what was received before"):
            data = os.pread(self._fd, SLICE_BYTES, self._hashed)
        if not data and self._hashed < self.have:
            raise FileError("What was received before has become shorter.")
        self._hash.update(data)
        self._hashed += len(data)
        return self._hashed >= self.have

    def append(self, data: bytes) -> None:
        """Add these bytes.

        Raises:
            FileError: the disk is full, or something like it.
        """
        self._hash.update(data)
        with _as_file_error("Cannot store the file"):
            before = self.have
            while data:
                count = os.pwrite(self._fd, data, self.have)
                self.have += count
                data = data[count:]
            if before // SLICE_BYTES != self.have // SLICE_BYTES and hasattr(os, "posix_fadvise"):
                # Begins to write it out, without waiting, so that little is left for the end.
                os.posix_fadvise(self._fd, 0, self.have, os.POSIX_FADV_DONTNEED)

    def finish(self, name: str) -> Path:
        """Give the complete file its name, or that name with a number; return where it is.

        Raises:
            FileError: it is not what was offered, or cannot be stored.
        """
        if self._hash.hexdigest() != self._sha256:
            raise FileError("What was received is not what was offered: the checksums differ.")
        with _as_file_error("Cannot store the file"):
            os.fsync(self._fd)
            for number in itertools.count():
                target = numbered(safe_name(name), number)
                with contextlib.suppress(FileExistsError):
                    # The name is ours from here on: no other file is ever replaced.
                    os.close(self._open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                    break
            os.replace(self._part_name, target, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        self.close()
        return self._folder / target

    def discard(self) -> None:
        """Give up what was received."""
        with contextlib.suppress(OSError):
            os.unlink(self._part_name, dir_fd=self._folder_fd)
        self.close()

    def close(self) -> None:
        """Free the descriptors; what was received stays, for another time."""
        os.close(self._fd)
        os.close(self._folder_fd)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, 0o644, dir_fd=self._folder_fd)


@contextlib.contextmanager
def _as_file_error(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{what}: {reason_of(error)}.") from error
