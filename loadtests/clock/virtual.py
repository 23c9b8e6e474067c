"""A run in virtual time: each trial in a machine of its own, several side by side, their rows in the trials' order.

A machine has one processor, so trials side by side use several. Whatever ends this process, even SIGKILL, ends them.
"""

import hashlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from loadtests.clock import machine
from loadtests.clock.image import CAPTURE, image
from loadtests.clock.kernel import built, cache
from loadtests.clock.trial import RUN, TASK, Task
from loadtests.errors import ExitCode, HarnessError
from loadtests.link.backends.backend import BackendName
from loadtests.run.children import APART, tail
from loadtests.run.directory import RunDirectory
from loadtests.run.interrupt import Interrupt
from loadtests.scenario.matrix import Trial

_PROJECT = Path(__file__).parents[2]
#: A machine that has said nothing for so long of real time waits for something that will never come.
_SILENCE_S = 120.0
_POLL_S = 0.2


def run_virtually(directory: RunDirectory, trials: list[Trial], backend: BackendName, jobs: int) -> ExitCode:
    """All trials, at most `jobs` at once; partial results are kept and marked. Returns PASSED when all have run.

    Raises:
        HarnessError: the kernel is missing, or a trial failed.
        KeyboardInterrupt: the user ended it.
    """
    kernel = built()
    manifest = directory.manifest
    began_s, virtual_s = time.monotonic(), 0.0
    try:
        with (
            image(cache(), _PROJECT) as (archive, digest),
            tempfile.TemporaryDirectory(prefix="chatlab-clock-") as folder,
        ):
            manifest.fingerprint = {
                "programs": digest,
                "kernel": hashlib.sha256(kernel.read_bytes()).hexdigest(),
                "scenario": hashlib.sha256(msgspec.json.encode(manifest.scenario)).hexdigest(),
            }
            interrupt = Interrupt()
            for done in _Machines(directory, Path(folder), kernel, archive).run(trials, backend, jobs):
                virtual_s += _absorb(directory, done)
                interrupt.check()
        if manifest.state == "running":
            manifest.state = "finished"
        return ExitCode.PASSED
    except KeyboardInterrupt:
        manifest.state = "interrupted"
        raise
    except HarnessError as error:
        manifest.state = f"failed: {error}"
        raise
    finally:
        manifest.digests = digests(directory.path)
        directory.save()
        print(f"{virtual_s:.0f} s of virtual time in {time.monotonic() - began_s:.0f} s")


def digests(run: Path) -> dict[str, str]:
    """Table → SHA-256 of its rows."""
    tables = sorted(file for file in run.glob("*.csv") if file.stem != "summary")
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in tables}


class _Machines:
    """The machines of a run, one for each trial, `jobs` at a time."""

    def __init__(self, directory: RunDirectory, folder: Path, kernel: Path, archive: Path) -> None:
        self._directory = directory
        self._folder = folder
        self._kernel = kernel
        self._archive = archive
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, trials: list[Trial], backend: BackendName, jobs: int) -> Iterator[Path]:
        """Yields the folder of each trial's machine in the trials' order, as soon as it and those before it are done.

        Raises HarnessError: a machine ended without a result, or makes no progress.
        """
        manifest = msgspec.structs.replace(self._directory.manifest, trials=[])
        # A capture moves what happens by nanoseconds, and netem may then lose another packet. So that one can be asked
        # for afterwards, and show what happened, every trial has one, where the tool for it is installed.
        captures = shutil.which(CAPTURE) is not None
        tasks = [Task(trial, manifest, backend, captures, _traces(trial)) for trial in trials]
        pool = ThreadPoolExecutor(jobs)
        try:
            yield from pool.map(self._run_one, tasks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in self._processes:
                process.kill()

    def _run_one(self, task: Task) -> Path:
        head = f"trial {task.trial.number}, {task.trial.name}"
        folder = self._folder / f"trial-{task.trial.number:03}"
        folder.mkdir()
        (folder / TASK).write_bytes(pickle.dumps(task))
        command = [sys.executable, "-m", machine.__name__, str(folder), str(self._kernel), str(self._archive)]
        process = subprocess.Popen([*command, str(task.trial.seed)], **APART)
        self._processes.append(process)
        said, said_s = "", time.monotonic()
        while process.poll() is None:
            time.sleep(_POLL_S)
            line = _last_line(folder)
            if line != said:
                said, said_s = line, time.monotonic()
                print(f"{head}: {line.partition(': ')[2]}", flush=True)
            if time.monotonic() - said_s > _SILENCE_S:
                raise HarnessError(f"{head}: no progress for {_SILENCE_S:.0f} s; it last said: {said or 'nothing'}")
        if not (folder / "exit-code").exists():
            raise HarnessError(f"{head}: the machine ended without a result:\n{tail(folder / 'kernel.log')}")
        if (folder / "exit-code").read_text() != "0":
            raise HarnessError(f"{head}: {tail(folder / 'output')}")
        return folder


def _traces(trial: Trial) -> dict[str, str]:
    """Path → content of the recorded links that a trial needs."""
    ways = [way for link in trial.links.values() for name in ("up", "down") for way in link.moments(name)]
    return {way.trace.path: Path(way.trace.path).read_text() for way in ways if way.trace}


def _last_line(folder: Path) -> str:
    output = folder / "output"
    return tail(output, 1) if output.exists() else ""


def _absorb(directory: RunDirectory, folder: Path) -> float:
    """Add the run of one trial to the whole run; returns for how many seconds of its own its machine ran."""
    run = folder / "work" / RUN
    if not directory.captures:
        for capture in run.rglob("*.pcapng"):
            capture.unlink()
    directory.absorb(run)
    virtual_s = float((folder / "seconds").read_text())
    shutil.rmtree(folder)
    return virtual_s
