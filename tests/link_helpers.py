"""What the tests of the link laboratory share: running a function inside it, and a kernel that has netem."""

import contextlib
import functools
import os
import pickle
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from left_out import NO_NETEM, TAKES_MINUTES

from loadtests.clock.kernel import built
from loadtests.errors import HarnessError
from loadtests.link.backends.netem import kernel_has_netem
from loadtests.link.sandbox.laboratory import run_in_lab

T = TypeVar("T")
PROJECT = Path(__file__).parents[1]
UML = Path(__file__).parent / "uml"
#: What computes for minutes in virtual time, where it disturbs what is tested in real time.
needs_patience = pytest.mark.skipif("VIRTUAL" not in os.environ, reason=TAKES_MINUTES)


def in_lab(function: Callable[[], T]) -> T:
    """What `function` returns inside a laboratory; an exception it raises is raised here."""
    answer, question = os.pipe()

    def inside() -> int:
        result: Any
        try:
            result = (function(), None)
        except BaseException as error:
            result = (None, error)
        with open(question, "wb") as pipe:
            pickle.dump(result, pipe)
        return 0

    with open(answer, "rb") as pipe:
        try:
            code = run_in_lab(inside)
        finally:
            os.close(question)
        assert code == 0, "the laboratory was killed"
        value, error = pickle.load(pipe)
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


@functools.cache
def _has_netem() -> bool:
    return in_lab(kernel_has_netem)


def need_netem() -> None:
    """Skips the test where the kernel has no netem; user-mode Linux has it."""
    if not _has_netem():
        pytest.skip(NO_NETEM)


def run_in_uml(command: Sequence[str], folder: Path, timeout_s: float) -> tuple[int, str]:
    """Exit code and output of `command` under Debian's user-mode Linux, as root, in the project's folder.

    Skips the test if user-mode Linux is not installed.
    """
    if shutil.which("linux") is None:
        pytest.skip("user-mode Linux is not installed (apt-get install user-mode-linux)")
    return _run_in("linux", command, folder, timeout_s)


def run_in_virtual_time(command: Sequence[str], folder: Path, timeout_s: float) -> tuple[int, str]:
    """The same in a kernel whose clock stands still while anybody computes; skips the test if it is not built."""
    try:
        kernel = built()
    except HarnessError as error:
        pytest.skip(str(error))
    return _run_in(str(kernel), command, folder, timeout_s, "time-travel=inf-cpu")


def _run_in(kernel: str, command: Sequence[str], folder: Path, timeout_s: float, *options: str) -> tuple[int, str]:
    (folder / "command").write_text(f"cd {shlex.quote(str(PROJECT))}\nexec {shlex.join(command)}\n")
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"]
    machine = subprocess.Popen(
        [kernel, *root, "mem=512M", f"init={UML / 'init'}", f"FOLDER={folder}", "con=null", "con0=null,fd:1", *options],
        env=os.environ | _amx_workaround(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        console, _ = machine.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGKILL)  # its first process alone would leave the others
        machine.wait()
    output = folder / "output"
    assert output.exists(), f"user-mode Linux did not start:\n{console}"
    return int((folder / "exit-code").read_text()), output.read_text()


def _amx_workaround(folder: Path) -> dict[str, str]:
    if "amx_tile" not in Path("/proc/cpuinfo").read_text():
        return {}
    library = folder / "ptrace_xstate.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, UML / "ptrace_xstate.c"], check=True)
    return {"LD_PRELOAD": str(library)}
