"""The load of a trial: Locust in one process, in several, or as the master of workers on other machines."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from loadtests.data import CODE, LOCUSTFILE
from loadtests.errors import HarnessError
from loadtests.link.lab import Lab
from loadtests.link.sandbox.syscalls import PR_SET_PDEATHSIG, prctl
from loadtests.run.children import APART, ended
from loadtests.run.live import LiveView
from loadtests.scenario.matrix import Trial

_LOCUST = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
#: How a Locust worker ends that has found no master for five minutes.
_NO_MASTER = 255


@contextmanager
def load(
    lab: Lab | None,
    trial: Trial,
    raw: Path,
    server_port: int,
    options: list[str],
    authority: Path | None = None,
    view: LiveView | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Locust, in the client's namespace if there is a lab.

    Args:
        options: Locust's own, about processes.
        authority: who vouches for the server, if not those whom the system trusts.
        view: where its web UI is seen, if it is.
    """
    scenario = raw / "scenario.json"  # JSON is YAML
    scenario.write_text(json.dumps(trial.load))
    hosts = (
        {path: f"{address}:{server_port}" for path, address in lab.addresses.items()}
        if lab
        else {"primary": str(trial.scenario.server)}
    )
    command = [*_LOCUST, "--only-summary", "--scenario", str(scenario)]
    command += ["--record", str(raw), "--csv", str(raw / "locust"), "--host", hosts["primary"]]
    if "secondary" in hosts:
        command += ["--secondary", hosts["secondary"]]
    if authority:
        command += ["--ca", str(authority)]
    command += options + _local_port(options)
    inherited: tuple[int, ...] = ()
    if view:
        command += ["--web-socket", str(view.descriptor), "--live", str(view.folder)]
        inherited = (view.descriptor,)
    popen = lab.client.popen if lab else _popen
    with (raw / "locust.log").open("wb") as output:
        process = popen(command, **APART, pass_fds=inherited, stdout=output, stderr=output, cwd=raw, env=_environment())
    with ended(process):
        yield process


def work(options: list[str], processes: int, results: Path) -> NoReturn:
    """Be Locust workers of one test after the other; what the master has got is not kept here.

    Raises HarnessError: there is no master any more, or a worker died; then their own records are kept in `results`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    folder = results / f"workers-{os.getpid()}"
    command = [*_LOCUST, "--worker", "--record", str(folder), *options]
    while True:
        with ExitStack() as stack:
            workers = [_popen(command, **APART, env=_environment()) for _ in range(processes)]
            for worker in workers:
                stack.enter_context(ended(worker))
            codes = {worker.wait() for worker in workers} - {0, 1}  # 1: some messages failed
        if _NO_MASTER in codes:
            said = dict(zip(options[::2], options[1::2], strict=True))
            place = f"{said.get('--master-host', '127.0.0.1')}:{said.get('--master-port', '5557')}"
            raise HarnessError(
                f"run --worker: no master came at {place} for five minutes: start `chatlab run SCENARIO --master`, "
                "or say where it is by --master-host and --master-port"
            )
        if codes:
            kept = f"; the workers' records are in {folder}" if folder.exists() else ""
            raise HarnessError(f"a worker ended with exit code {min(codes)}{kept}")
        shutil.rmtree(folder, ignore_errors=True)


def _popen(argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """Start a program that no laboratory ends: it is asked to when we are gone, by SIGKILL too."""
    return subprocess.Popen(argv, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM), **options)


def _local_port(options: list[str]) -> list[str]:
    """Options that keep the talk of processes on one machine to itself, on a port that nobody else uses."""
    if "--processes" not in options:
        return []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]


def _environment() -> dict[str, str]:
    """Locust options that the user keeps for other projects must not change this run, nor another copy of our code."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (str(CODE), kept.get("PYTHONPATH"))))}
