"""Samples of many load processes → one folder: batches of binary records, each with its place in its worker's stream.

A worker sends a batch each second (an empty one too: it is a sign of life) and a final one when its users are gone. The
master appends what comes. Every batch says how many bytes of each record type were sent before it, so that a batch that
came twice is dropped, and one that is missing is counted.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.load.recorder import Recorder, SentCount
from loadtests.samples import DELIVERED, RECORDS, SENT, USERS_PER_WORKER

#: File in a trial's folder in which the master says who and what is missing, a sentence a line.
LOST = "lost.txt"
#: Who has said nothing for so long is dead: a worker that hangs longer could not be trusted either.
SILENCE_S = 10.0


class BatchSender:
    """The worker's side."""

    def __init__(self, recorder: Recorder, send: Callable[[dict[str, Any]], None]) -> None:
        self._recorder = recorder
        self._send = send
        self._offsets = {record.name: 0 for record in RECORDS}

    def ship(self, *, final: bool = False) -> None:
        """Send what was recorded since the last time. `final`: all users are gone."""
        data = self._recorder.flush()
        batch = {"start": self._recorder.start_facts, "count_file": self._recorder.count_file, "final": final}
        self._send(batch | {"offsets": dict(self._offsets), "data": data})
        for name, part in data.items():
            self._offsets[name] += len(part)


class _Worker:
    """What the master knows of one worker."""

    def __init__(self, index: int, heard_s: float) -> None:
        self.index = index
        self.heard_s = heard_s
        self.start: dict[str, Any] = {}
        self.count_file = ""
        self.has_finished = False
        self.left_early = False
        self.taken_bytes = {record.name: 0 for record in RECORDS}
        #: Lost on the way, of each record type.
        self.missing_bytes = {record.name: 0 for record in RECORDS}

    def __str__(self) -> str:
        process = f" (process {self.start['pid']} on {self.start['host']})" if self.start else ""
        return f"worker {self.index}{process}"


class Collector:
    """The master's side: appends every worker's records to files of its own, and knows who and what is missing."""

    def __init__(self, folder: Path | None, clock: str, now_s: Callable[[], float] = time.monotonic) -> None:
        """Without a `folder` records are counted and thrown away. `clock` is that of this process."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock
        self._now_s = now_s
        self._workers: dict[str, _Worker] = {}
        #: Whether workers may leave.
        self.is_ending = False

    def expect(self, indices: Mapping[str, int]) -> None:
        """A test begins with these workers: Locust's name for each → its index."""
        self.is_ending = False
        for name, index in indices.items():
            worker = self._workers.setdefault(name, _Worker(index, self._now_s()))
            worker.heard_s = self._now_s()
            worker.has_finished = worker.left_early = False

    def take(self, name: str, batch: dict[str, Any]) -> None:
        """A batch came from this worker."""
        start = batch["start"]
        worker = self._workers.setdefault(name, _Worker(start["worker"], 0.0))
        worker.heard_s = self._now_s()
        worker.count_file = batch["count_file"]
        if not worker.start:  # of several tests of one worker the first: their records are in the same files
            worker.start = start
            if self._folder:
                self._file(worker, "start").write_text(json.dumps(start))
        for record, offset in batch["offsets"].items():
            self._append(worker, record, offset, batch["data"].get(record, b""))
        if batch["final"]:
            worker.has_finished = True
            worker.left_early |= not self.is_ending

    @property
    def gone(self) -> list[str]:
        """Those who have not finished and have said nothing for too long, or have left when nobody told them to."""
        return [name for name, worker in self._workers.items() if self._is_silent(worker) or worker.left_early]

    @property
    def awaited(self) -> list[str]:
        """Those whose final batch is still to come."""
        return [
            name for name, worker in self._workers.items() if not worker.has_finished and not self._is_silent(worker)
        ]

    def losses(self) -> list[str]:
        """A sentence for each worker that did not see the test through, or of which something is missing."""
        sentences = []
        for worker in sorted(self._workers.values(), key=lambda worker: worker.index):
            fate = "left before the end" if worker.left_early else "finished" if worker.has_finished else "died"
            if fate != "finished" or any(worker.missing_bytes.values()):
                sentences.append(f"{worker} {fate}: {self._missing(worker)} missing")
        return sentences

    def _is_silent(self, worker: _Worker) -> bool:
        return not worker.has_finished and self._now_s() - worker.heard_s > SILENCE_S

    def _append(self, worker: _Worker, record: str, offset: int, data: bytes) -> None:
        expected = worker.taken_bytes[record]
        data = data[max(expected - offset, 0) :]  # without what came twice
        worker.missing_bytes[record] += max(offset - expected, 0)
        worker.taken_bytes[record] = max(expected, offset) + len(data)
        if data and self._folder:
            with self._file(worker, record).open("ab") as file:
                file.write(data)

    def _missing(self, worker: _Worker) -> str:
        lost = {record.name: worker.missing_bytes[record.name] // record.packer.size for record in RECORDS}
        messages = lost.pop(SENT.name)
        others = sum(lost.values())
        if worker.has_finished:
            count = str(messages)
        elif (total := self._counted(worker)) is not None:
            count = str(messages + total - worker.taken_bytes[SENT.name] // SENT.packer.size)
        else:
            count = f"at least {max(messages, self._heard_only(worker))}"
        return f"{count} of its messages" + (f" and {others} of its other records are" if others else " are")

    def _counted(self, worker: _Worker) -> int | None:
        """How many messages a dead worker sent; None if that cannot be known here."""
        if not worker.count_file or worker.start["clock"] != self._clock:
            return None
        try:
            return SentCount.read(Path(worker.count_file))
        except OSError:  # in a container with files of its own
            return None

    def _heard_only(self, worker: _Worker) -> int:
        """How many messages of a dead worker's users have reached users of others, and are not among its records."""
        if self._folder is None:
            return 0
        heard = {
            (sender, number)
            for file in self._folder.glob(f"*.{DELIVERED.name}")
            for _, sender, number, *_ in DELIVERED.packer.iter_unpack(file.read_bytes())
            if sender // USERS_PER_WORKER == worker.index
        }
        sent = self._file(worker, SENT.name)
        known = SENT.packer.iter_unpack(sent.read_bytes() if sent.exists() else b"")
        return len(heard - {(user, number) for user, number, *_ in known})

    def _file(self, worker: _Worker, suffix: str) -> Path:
        assert self._folder
        return self._folder / f"worker-{worker.index}.{suffix}"


def cut_short(folder: Path) -> str:
    """What became of a trial whose workers did not all see it through; empty if they did."""
    lost = folder / LOST
    return f"cut short: {'; '.join(lost.read_text().splitlines())}" if lost.exists() else ""
