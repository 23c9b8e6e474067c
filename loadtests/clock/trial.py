"""What a virtual machine runs: one trial, into a run directory of its own (`python -m loadtests.clock.trial`)."""

import pickle
import sys
from pathlib import Path
from typing import NamedTuple

from loadtests.clock.guest import JOB
from loadtests.link.backends.backend import BackendName
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.run.directory import RunDirectory
from loadtests.run.manifest import Manifest
from loadtests.run.trials import Watch, run_trials
from loadtests.scenario.matrix import Trial
from loadtests.stalls.host import Host
from loadtests.stalls.meter import StallMeter

#: In the folder of the job: what is to be run. In the machine's current folder: what came of it.
TASK, RUN = "task", "run"


class Task(NamedTuple):
    """A trial, and the run that it belongs to."""

    trial: Trial
    manifest: Manifest
    backend: BackendName
    captures: bool
    #: Path → content of the recorded links that it names.
    traces: dict[str, str]


def main() -> int:
    """Run the task of this machine; returns the exit code."""
    task: Task = pickle.loads((JOB / TASK).read_bytes())
    for path, content in task.traces.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(content)
    folder = Path(RUN).absolute()
    folder.mkdir()
    directory = RunDirectory(folder, task.manifest, captures=task.captures)
    with StallMeter(cores=()) as meter:  # nothing can stall here
        watch = Watch(meter, Host())
        return run_in_lab(lambda: run_trials(directory, [task.trial], task.backend, watch, repeat=0))


if __name__ == "__main__":
    sys.exit(main())
