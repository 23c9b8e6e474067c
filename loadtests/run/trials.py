"""A run: its trials in turn, each with links, server and load of its own; every step undone, whatever happens."""

import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Self

import msgspec
import pandas as pd

from loadtests.clocks import wall_ahead_ns
from loadtests.config.yamlfile import Document
from loadtests.errors import ExitCode, HarnessError
from loadtests.link.backends.interface import open_interface
from loadtests.link.backends.links import Links
from loadtests.link.lab import BackendName, Lab, open_lab
from loadtests.load.batches import cut_short
from loadtests.run import collect, linktable
from loadtests.run.capture import capturing
from loadtests.run.children import APART, ended, seconds_of, tail
from loadtests.run.loading import load as load_of_trial
from loadtests.run.machine import MachineSampler
from loadtests.run.progress import Progress
from loadtests.run.wire.watch import watching
from loadtests.samples import SCHEMA_VERSION, TABLES
from loadtests.scenario.matrix import Trial
from loadtests.scenario.scenario import label

_PORT = 5000
_START_TIMEOUT_S = 20.0


class Interrupt:
    """Ctrl-C that is not forgotten.

    Python drops a KeyboardInterrupt that happens to be raised in a destructor or a callback of the collector; so the
    signal is noted too, and raised again at the next :meth:`check`.
    """

    def __init__(self) -> None:
        self._pressed = False
        signal.signal(signal.SIGINT, self._press)

    def check(self) -> None:
        if self._pressed:
            raise KeyboardInterrupt

    def _press(self, _number: int, _frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt


class RunDirectory:
    """`results/<utc>-<scenario>/`: raw records while a trial runs, tables after it, `run.json` always up to date."""

    def __init__(self, path: Path, info: dict[str, Any], *, captures: bool) -> None:
        self.path = path
        self.info = info
        #: Whether a packet capture of each trial is kept.
        self.captures = captures
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
    ) -> Self:
        """A directory for a new run.

        Args:
            interface: leads to a server elsewhere, if a link is to be put on it.
            load_options: Locust's own, about its processes.
        """
        now = datetime.now(UTC)
        path = _unused(results / f"{now:%Y%m%dT%H%M%SZ}-{document.title}")
        path.mkdir(parents=True)
        labels: dict[str, list[str]] = {}
        for key, values in document.data.get("vary", {}).items():
            labels[key] = list(dict.fromkeys(map(label, values)))
        info: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "scenario_file": document.name,
            "scenario": document.data,
            "started_utc": now.isoformat(timespec="seconds"),
            "state": "running",
            "backend": backend,
            "load_options": load_options,
            "interface": interface,
            "versions": {name: version(name) for name in ("chatlab", "locust", "gevent", "msgspec")}
            | {"python": platform.python_version()},
            "kernel": platform.release(),
            "cores": os.cpu_count() or 1,
            "labels": labels,
            "trials": [],
        }
        return cls(path, info, captures=captures)

    @classmethod
    def reopen(cls, path: Path, *, captures: bool) -> Self:
        """The directory of a run that was cut short: its finished trials stay, what others left is removed.

        Raises HarnessError: there is no run that this version could go on with.
        """
        try:
            info = json.loads((path / "run.json").read_text())
        except FileNotFoundError:
            raise HarnessError(f"{path}: not a run directory: it has no run.json") from None
        if info["schema_version"] != SCHEMA_VERSION:
            raise HarnessError(
                f"{path}: its tables have schema version {info['schema_version']}, this chatlab writes {SCHEMA_VERSION}"
            )
        info["trials"] = [trial for trial in info["trials"] if trial["state"] == "finished"]
        finished = [trial["number"] for trial in info["trials"]]
        for file in path.glob("*.csv"):
            rows = pd.read_csv(file, dtype=str)  # as text, so that what stays is not rounded
            if "trial" in rows:
                rows[rows["trial"].astype(int).isin(finished)].to_csv(file, index=False)
        for leftover in [*path.glob("trial-*"), *(path / "locust").glob("trial-*")]:
            if int(leftover.name.removeprefix("trial-")) not in finished:
                shutil.rmtree(leftover)
        info["state"] = "running"
        return cls(path, info, captures=captures)

    @property
    def document(self) -> Document:
        """The scenario as it was run."""
        file = str(self.path / "run.json")
        return Document(file, self.info["scenario"], {(): file}, Path(self.info["scenario_file"]).stem)

    def unfinished(self, trials: list[Trial]) -> list[Trial]:
        """Those that have not been run to their end."""
        finished = {trial["number"] for trial in self.info["trials"]}
        return [trial for trial in trials if trial.number not in finished]

    def raw(self, trial: Trial) -> Path:
        """Where the processes of a trial write while it runs."""
        return self.path / f"trial-{trial.number:03}"

    def save(self) -> None:
        """Write `run.json` whole: a reader never sees half of it."""
        draft = self.path / "run.json.new"
        draft.write_text(json.dumps(self.info, indent=2))
        draft.rename(self.path / "run.json")

    def append(self, name: str, rows: pd.DataFrame) -> None:
        """Add rows to a table."""
        file = self.path / f"{name}.csv"
        rows[list(TABLES[name])].to_csv(file, mode="a", header=not file.exists(), index=False)

    def finish(self, trial: Trial, state: str, notes: dict[str, Any]) -> None:
        """Turn the raw records of a trial into rows, whatever became of the trial, and note what that was."""
        raw = self.raw(trial)
        addresses = {address: path for path, address in notes.get("addresses", {}).items()}
        for name, rows in collect.tables_of(raw, trial.number, trial.scenario.warmup, addresses).items():
            self.append(name, rows)
        notes["wire"] = msgspec.to_builtins(notes.get("wire"))
        entry = {"number": trial.number, "name": trial.name, "repetition": trial.repetition, "variant": trial.variant}
        entry |= {"seed": trial.seed, "state": state, "start": collect.started(raw)}
        links = {path: msgspec.to_builtins(profile) for path, profile in trial.links.items()}
        self.info["trials"].append(entry | {"links": links} | notes)
        self.save()
        # The binary records are all in the tables now; what Locust wrote is kept beside them.
        kept = self.path / "locust" / raw.name
        kept.mkdir(parents=True)
        for file in [*raw.glob("locust*"), *raw.glob("*.pcapng"), *raw.glob("server.log")]:
            shutil.move(file, kept)
        shutil.rmtree(raw)


def run_trials(directory: RunDirectory, trials: list[Trial], backend: BackendName) -> ExitCode:
    """All trials in order; partial results are kept and marked. Returns the verdict.

    Raises:
        HarnessError: the harness, the server or the link failed.
        KeyboardInterrupt: the user ended it.
    """
    interrupt = Interrupt()
    try:
        with Progress(trials) as progress:
            for trial in trials:
                _run_trial(directory, trial, backend, progress, interrupt)
                directory.info["state"] = directory.info["trials"][-1]["state"]
                if directory.info["state"] != "finished":
                    break
        return ExitCode.PASSED
    except KeyboardInterrupt:
        directory.info["state"] = "interrupted"
        raise
    except HarnessError as error:
        directory.info["state"] = f"failed: {error}"
        raise
    finally:
        directory.save()


def _run_trial(
    directory: RunDirectory, trial: Trial, backend: BackendName, progress: Progress, interrupt: Interrupt
) -> None:
    raw = directory.raw(trial)
    raw.mkdir(parents=True)
    notes: dict[str, Any] = {}
    state = "failed"
    clocks_ns = wall_ahead_ns()
    progress.begin(trial)
    try:
        interrupt.check()
        with ExitStack() as stack:
            interface = directory.info["interface"]
            links = stack.enter_context(_links(trial, backend, interface)) if trial.links else None
            lab = links if isinstance(links, Lab) else None
            if links:
                directory.append("link", linktable.measured(links, "before").assign(trial=trial.number))
                notes["backend"] = links.backend
            if lab:
                notes |= {"congestion_control": trial.scenario.congestion, "addresses": lab.addresses}
            running = stack.enter_context(ExitStack())
            if lab and directory.captures:
                running.enter_context(capturing(lab, raw, list(trial.links)))
            if lab:
                notes["wire"] = running.enter_context(watching(lab, raw, _PORT))
            server = running.enter_context(_server(lab, trial, raw)) if lab else None
            if links:
                links.start()  # the load meets fresh randomness, however long calibration took
            load = running.enter_context(load_of_trial(lab, trial, raw, _PORT, directory.info["load_options"]))
            if "--master" in directory.info["load_options"]:
                progress.say(trial, "waiting for workers")
            awaits_timeline = any(profile.timeline for profile in trial.links.values())
            pids = {"master": load.pid} if directory.info["load_options"] else {}
            if lab and server:
                pids |= {"server": server.pid} | ({"link": lab.link_pid} if lab.link_pid else {})
            sampler = MachineSampler(pids)
            try:
                for _ in seconds_of(load):
                    interrupt.check()
                    sampler.sample()
                    progress.follow(trial, raw)
                    if links:
                        links.check()
                    if links and awaits_timeline and (began := collect.started(raw)):
                        links.start(began["monotonic_ns"])
                        awaits_timeline = False
                    if server and server.poll() is not None:
                        raise HarnessError(f"the chat server ended by itself:\n{tail(raw / 'server.log')}")
            finally:
                start_ns = collect.started(raw).get("monotonic_ns", 0)
                directory.append("machine", sampler.rows(start_ns).assign(trial=trial.number))
            # 1: some messages failed, which the tables tell in full; 3: a worker is lost, as LOST tells.
            if load.returncode not in (0, 1, 3):
                raise HarnessError(f"Locust ended with exit code {load.returncode}:\n{tail(raw / 'locust.log')}")
            if links:
                notes["link_counters"] = [msgspec.to_builtins(row) for row in links.stats()]
                directory.append("link", linktable.changed(links, start_ns).assign(trial=trial.number))
                progress.say(trial, "measuring the link again")
                running.close()  # nobody else sends then
                links.stop()
                links.settle()
                directory.append("link", linktable.measured(links, "after").assign(trial=trial.number))
        state = cut_short(raw) or "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        notes["clock_step_ms"] = (wall_ahead_ns() - clocks_ns) / 1e6
        notes["processes"] = collect.processes(raw)
        # Server and load have ended here, so that all they wrote is there.
        progress.end(trial, raw)
        directory.finish(trial, state, notes)


def _links(trial: Trial, backend: BackendName, interface: str | None) -> AbstractContextManager[Links]:
    """The links of a trial: a laboratory of our own, or the way to a server elsewhere."""
    if interface is None:
        return open_lab(trial.links, backend=backend, seed=trial.seed)
    return open_interface(interface, *trial.scenario.server.address, trial.links["primary"])


@contextmanager
def _server(lab: Lab, trial: Trial, raw: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A chat server in the server's namespace, listening when this returns."""
    command = [sys.executable, "-m", "chat", "serve", "--host", "0.0.0.0", "--port", str(_PORT)]
    command += ["--congestion", trial.scenario.congestion]
    command += ["--tcp-info", str(raw / "server-tcp.csv")]
    log = raw / "server.log"
    with log.open("wb") as output:
        process = lab.server.popen(command, **APART, stdout=output, stderr=output)
    with ended(process):
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while b"listening" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise HarnessError(f"the chat server did not start:\n{tail(log)}")
            time.sleep(0.02)
        yield process


def _unused(path: Path) -> Path:
    """The path itself, or the first of `path-2`, `path-3`, … that is free: two runs may start in the same second."""
    candidates = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not candidate.exists())
