"""Samples → fixed binary records on disk; one file per record type and process."""

import json
import os
import time
from pathlib import Path
from typing import Any

from loadtests.samples import RECORDS, Record


class Recorder:
    """Appends records to buffers in memory; :meth:`flush` writes them out.

    Packing into a bytearray costs 0.1 µs and makes no object for the garbage collector to find, so that
    recording does not disturb what is measured.
    """

    def __init__(self, folder: Path | None) -> None:
        """Without a `folder` everything is thrown away."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._stem = folder and folder / str(os.getpid())
        self._packers = {record.name: record.packer for record in RECORDS}
        self._buffers = {record.name: bytearray() for record in RECORDS}

    def start(self) -> None:
        """Note the moment from which the times in the tables count."""
        start = {"monotonic_ns": time.monotonic_ns(), "epoch_ns": time.time_ns()}
        if self._stem:
            self._stem.with_suffix(".start").write_text(json.dumps(start))

    def add(self, record: Record, *values: Any) -> None:
        if self._stem:
            self._buffers[record.name] += self._packers[record.name].pack(*values)

    def flush(self) -> None:
        for name, buffer in self._buffers.items():
            if buffer and self._stem:
                with self._stem.with_suffix(f".{name}").open("ab") as file:
                    file.write(buffer)
            buffer.clear()
