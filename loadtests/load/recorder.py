"""Samples → fixed binary records on disk; one file per record type and process."""

import contextlib
import json
import mmap
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from loadtests.clocks import wall_ahead_ns
from loadtests.samples import RECORDS, SENT, Record


class Recorder:
    """Appends records to buffers in memory; :meth:`flush` writes them out.

    Packing into a bytearray costs 0.1 µs and makes no object for the garbage collector to find, so that
    recording does not disturb what is measured.
    """

    def __init__(self, folder: Path | None, worker: int | None = None) -> None:
        """
        Args:
            folder: where to write; without one nothing is written.
            worker: which one of a load on many processes; None if there is but one.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._stem = folder and folder / str(os.getpid())
        self._packers = {record.name: record.packer for record in RECORDS}
        self._buffers = {record.name: bytearray() for record in RECORDS}
        self._sent = SentCount(self._stem and self._stem.with_suffix(".count"))
        #: Whether records are kept at all, be it to be sent elsewhere.
        self.is_on = folder is not None
        #: Who this process is, and when its load began.
        self.start_facts: dict[str, Any] = {
            "worker": worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "clock": clock(),
        }

    @property
    def count_file(self) -> str:
        """Where the number of messages sent is kept, for whoever runs in another folder too; empty if nowhere."""
        return str(self._stem.with_suffix(".count").absolute()) if self._stem else ""

    @property
    def start_ns(self) -> int:
        """When the load of this process began."""
        return int(self.start_facts["monotonic_ns"])

    def start(self) -> None:
        """Note the moment from which the load counts; the times in the tables count from the first one.

        Whoever starts a test again in Locust's web UI has the records of all in one folder.
        """
        is_first = "monotonic_ns" not in self.start_facts
        now_ns = time.monotonic_ns()
        self.start_facts = self.start_facts | {"monotonic_ns": now_ns, "epoch_ns": now_ns + wall_ahead_ns()}
        if self._stem and is_first:
            self._stem.with_suffix(".start").write_text(json.dumps(self.start_facts))

    def add(self, record: Record, *values: Any) -> None:
        if self.is_on:
            self._buffers[record.name] += self._packers[record.name].pack(*values)

    def add_sent(self, *values: Any) -> None:
        """Add a `SENT`, counted so that the number outlives a kill."""
        self.add(SENT, *values)
        self._sent.increase()

    def flush(self) -> dict[str, bytes]:
        """Write everything out; returns it too."""
        flushed = {name: bytes(buffer) for name, buffer in self._buffers.items() if buffer}
        for name, data in flushed.items():
            if self._stem:
                with self._stem.with_suffix(f".{name}").open("ab") as file:
                    file.write(data)
            self._buffers[name].clear()
        return flushed


class SentCount:
    """A number in a file that is memory too: what was counted stays there when the process is killed."""

    _NUMBER = struct.Struct("<Q")

    def __init__(self, file: Path | None) -> None:
        self._count = 0
        self._page: mmap.mmap | bytearray = bytearray(self._NUMBER.size)
        if file is not None:
            file.write_bytes(self._page)
            with file.open("r+b") as opened:
                self._page = mmap.mmap(opened.fileno(), self._NUMBER.size)

    def increase(self) -> None:
        self._count += 1
        self._NUMBER.pack_into(self._page, 0, self._count)

    @classmethod
    def read(cls, file: Path) -> int:
        """Raises OSError: there is no such file here."""
        return int(cls._NUMBER.unpack(file.read_bytes())[0])


def clock() -> str:
    """Names the CLOCK_MONOTONIC of this process: times of two processes may be compared if this is the same.

    The kernel's boot id tells machines apart, the time namespace what a container may have shifted.
    """
    parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    with contextlib.suppress(OSError):  # kernels before 5.6
        parts.append(os.readlink("/proc/self/ns/time"))
    return " ".join(parts)
