"""The directory of a run: raw records while a trial runs, tables after it, `run.json` always up to date."""

import fcntl
import itertools
import os
import platform
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec
import pandas as pd

from loadtests.config.yamlfile import Document
from loadtests.errors import HarnessError
from loadtests.link.backends.backend import BackendName
from loadtests.run.manifest import Manifest, Stamps, TrialRecord
from loadtests.samples import TABLES
from loadtests.scenario.matrix import Trial
from loadtests.scenario.scenario import Clock, label

#: So much is kept free on the disk, so that a run can still be marked when nothing else is left.
_RESERVE_BYTES = 64 * 1024


class RunDirectory:
    """`results/<utc>-<scenario>/`."""

    def __init__(self, path: Path, manifest: Manifest, *, captures: bool) -> None:
        self.path = path
        self.manifest = manifest
        #: Whether a packet capture of each trial is kept.
        self.captures = captures
        self._reserve = path / "reserve"
        # Random, so that no file system compresses it away.
        self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))
        self.save()

    @classmethod
    def create(
        cls,
        results: Path,
        document: Document,
        backend: BackendName,
        interface: str | None,
        load_options: list[str],
        *,
        captures: bool,
        stamps: Stamps = "wire",
        clock: Clock = "real",
        options: Sequence[str] = (),
    ) -> Self:
        """A directory for a new run.

        Args:
            interface: leads to a server elsewhere, if a link is to be put on it.
            load_options: Locust's own, about its processes.
            options: of the command, as they would be given again.
        """
        now = datetime.now(UTC)
        path = _unused(results / f"{now:%Y%m%dT%H%M%SZ}-{document.title}")
        path.mkdir(parents=True)
        varied = document.data.get("vary", {})
        manifest = Manifest(
            scenario_file=document.name,
            scenario=document.data,
            options=list(options),
            started_utc=now.isoformat(timespec="seconds"),
            backend=backend,
            load_options=load_options,
            stamps=stamps,
            interface=interface,
            clock=clock,
            versions={name: version(name) for name in ("chatlab", "locust", "gevent", "msgspec")}
            | {"python": platform.python_version()},
            kernel=platform.release(),
            cores=os.cpu_count() or 1,
            labels={key: list(dict.fromkeys(map(label, values))) for key, values in varied.items()},
        )
        return cls(path, manifest, captures=captures)

    @classmethod
    def reopen(cls, path: Path, *, captures: bool) -> Self:
        """The directory of a run that was cut short: finished and rejected trials stay, what others left is removed.

        Raises HarnessError: there is no run that this version could go on with.
        """
        manifest = Manifest.read(path)
        manifest.trials = [trial for trial in manifest.trials if trial.state in ("finished", "rejected")]
        known = [trial.number for trial in manifest.trials]
        finished = [trial.number for trial in manifest.trials if trial.state == "finished"]
        for file in path.glob("*.csv"):
            _cut_to_lines(file)
            if not file.stat().st_size:  # not even its header was written
                file.unlink()
                continue
            rows = pd.read_csv(file, dtype=str)  # as text, so that what stays is not rounded
            if "trial" in rows:
                rows[rows["trial"].astype(int).isin(finished)].to_csv(file, index=False)
        for leftover in itertools.chain.from_iterable((path / of).glob("trial-*") for of in ("", "locust", "rejected")):
            if int(leftover.name.removeprefix("trial-")) not in known:
                shutil.rmtree(leftover)
        manifest.state = "running"
        return cls(path, manifest, captures=captures)

    @property
    def document(self) -> Document:
        """The scenario as it was run."""
        file = str(self.path / "run.json")
        return Document(file, self.manifest.scenario, {(): file}, Path(self.manifest.scenario_file).stem)

    def unfinished(self, trials: list[Trial]) -> list[Trial]:
        """Those that have not been run to their end; one whose attempts were rejected gets a new number."""
        finished = {(trial.repetition, trial.name) for trial in self.manifest.trials if trial.state == "finished"}
        taken = {trial.number for trial in self.manifest.trials}
        left = [trial for trial in trials if (trial.repetition, trial.name) not in finished]
        new = itertools.count(self.new_number(trials))
        return [msgspec.structs.replace(trial, number=next(new)) if trial.number in taken else trial for trial in left]

    def new_number(self, planned: Sequence[Trial]) -> int:
        """One that no trial has, neither those that have run nor those that are planned, in whatever order."""
        taken = [trial.number for trial in self.manifest.trials]
        return max([*taken, *(trial.number for trial in planned)], default=0) + 1

    def rejected(self, trial: Trial) -> list[TrialRecord]:
        """The attempts at it that the machine disturbed."""
        return [
            one
            for one in self.manifest.trials
            if (one.repetition, one.name, one.state) == (trial.repetition, trial.name, "rejected")
        ]

    def raw(self, trial: Trial) -> Path:
        """Where the processes of a trial write while it runs."""
        return self.path / _raw_name(trial.number)

    def save(self) -> None:
        """Write `run.json`."""
        self.manifest.write(self.path)

    def fail(self, reason: str) -> None:
        """Mark the run as cut short by this, though the disk be full."""
        self.close()
        self.manifest.state = f"failed: {reason}"
        self.save()

    def close(self) -> None:
        """Nothing more will be written."""
        self._reserve.unlink(missing_ok=True)

    def absorb(self, other: Path) -> None:
        """Take over the trials and rows of a run that was made for a part of this one."""
        manifest = Manifest.read(other)
        self._append(other)
        for kept in (other / "locust").iterdir():
            shutil.copytree(kept, self.path / "locust" / kept.name)
        self.manifest.trials += manifest.trials
        if manifest.state != "finished":
            self.manifest.state = manifest.state
        self.save()

    def accept(self, record: TrialRecord) -> None:
        """Let a rejected trial count after all: its rows go to the tables of the run."""
        folder = self._rejected(record)
        self._append(folder)
        record.state, record.reason = "finished", ""
        self.save()  # killed before it, the trial is still rejected, and its rows are dropped when the run goes on
        shutil.rmtree(folder)

    def _append(self, folder: Path) -> None:
        """The rows of these tables to those of the run."""
        for file in sorted(folder.glob("*.csv")):
            with file.open("rb") as rows, (self.path / file.name).open("ab") as table:
                head = rows.readline()
                if not table.tell():
                    table.write(head)
                shutil.copyfileobj(rows, table)

    def _rejected(self, record: TrialRecord) -> Path:
        return self.path / "rejected" / _raw_name(record.number)

    def finish(self, record: TrialRecord, tables: dict[str, pd.DataFrame]) -> None:
        """Keep the rows of a trial, in the tables of the run or, if it was rejected, beside them; note what it was."""
        raw = self.path / _raw_name(record.number)
        folder = self._rejected(record) if record.state == "rejected" else self.path
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            file = folder / f"{name}.csv"
            columns = list(TABLES[name])
            rows.assign(trial=record.number)[columns].to_csv(file, mode="a", header=not file.exists(), index=False)
        self.manifest.trials.append(record)
        self.save()
        # The binary records are all in the tables now; what Locust wrote is kept beside them.
        kept = self.path / "locust" / raw.name
        kept.mkdir(parents=True)
        for file in [*raw.glob("locust*"), *raw.glob("*.pcapng"), *raw.glob("server.log")]:
            shutil.move(file, kept)
        shutil.rmtree(raw)


@cache
def hold(path: Path) -> None:
    """Let no other process go on with this run, until this one ends.

    Raises HarnessError: another one has it.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # a lock on the folder itself leaves no file behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise HarnessError(f"{path}: the run still goes on, in another process") from None


def _cut_to_lines(file: Path) -> None:
    """Drop the end of a table that is half a line: whoever wrote it was killed."""
    with file.open("rb+") as table:
        table.truncate(table.read().rfind(b"\n") + 1)


def _raw_name(number: int) -> str:
    return f"trial-{number:03}"


def _unused(path: Path) -> Path:
    """The path itself, or the first of `path-2`, `path-3`, … that is free: two runs may start in the same second."""
    candidates = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())
