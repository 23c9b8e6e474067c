"""The walls of the laboratory: private PID, mount and network namespaces in which everything impaired runs.

Four processes, each the parent of the next::

    caller ── holder ── init (PID 1 inside) ── function
              makes     mounts /proc, /run     the work, and all that it starts

The kernel kills every process of a PID namespace when its PID 1 dies, and each process above dies with its parent
(PR_SET_PDEATHSIG). So whichever of them is killed, even with SIGKILL, everything inside dies, and with the last process
the namespaces, their interfaces and their mounts are gone. Nothing is ever made on the host, so nothing is left there.
"""

import contextlib
import errno
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from loadtests.errors import HarnessError, LinkError, complain
from loadtests.link.sandbox import syscalls
from loadtests.link.sandbox.namespaces import missing_tool

#: Where ordinary users' PATH does not look for `ip` and `tc`.
_ADMIN_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_ANY_CHILD = -1
_LONGEST_WAIT_S = 1.0
#: `si_code` of a signal that no process has sent, such as SIGINT from the terminal.
_FROM_KERNEL = 0x80


def run_in_lab(function: Callable[[], int]) -> int:
    """Call `function` inside a new laboratory and return its exit code (128 + N if signal N killed it).

    A HarnessError of `function` is said on standard error, and the exit code is that of an error.

    The calling process is left as it was; `function` runs in a fork of it, in the foreground of the same terminal.
    SIGTERM and SIGINT are passed on to it, unless it has them from the terminal already.

    Raises:
        LinkError: this machine does not let us build the laboratory; the sentence says why and what to do.
    """
    search_path = f"{os.environ.get('PATH', os.defpath)}:{_ADMIN_FOLDERS}"
    _check_tools(search_path)
    sys.stdout.flush()
    sys.stderr.flush()
    problem, report = os.pipe()
    caller = os.getpid()
    holder = os.fork()
    if holder == 0:
        os.close(problem)
        os.environ["PATH"] = search_path
        _exit_with(lambda: _hold(function, caller, report))
    os.close(report)
    with open(problem, encoding="utf-8") as pipe:
        try:
            code = _wait_for(holder)
            sentence = pipe.read()
        except BaseException:  # whatever interrupts the caller ends the laboratory too
            os.kill(holder, signal.SIGKILL)
            raise
    if sentence:
        raise LinkError(sentence)
    return code


def _check_tools(search_path: str) -> None:
    for tool in ("ip", "tc"):
        if shutil.which(tool, path=search_path) is None:
            raise LinkError(missing_tool(tool))


def _hold(function: Callable[[], int], caller: int, report: int) -> int:
    """The holder: makes the namespaces, and ties the life of PID 1 to that of the caller."""
    with _reporting_problems(report):
        _unshare()
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != caller:  # it died before the line above
            return 1
    armed_read, armed_write = os.pipe()
    alive_read, alive_write = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(armed_read)
        os.close(alive_write)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.write(armed_write, b"!")
        # A holder that died before it could see that "!" will never answer, and never send the signal either.
        _exit_with(lambda: _init(function, report) if os.read(alive_read, 1) else 1)
    os.close(report)
    os.close(armed_write)
    os.close(alive_read)
    os.read(armed_read, 1)
    os.write(alive_write, b"!")
    return _wait_for(init)


def _init(function: Callable[[], int], report: int) -> int:
    """PID 1: prepares the file systems, starts the work, and buries every orphan until the work is done."""
    with _reporting_problems(report):
        _mount_private_filesystems()
    main = os.fork()
    if main == 0:
        os.close(report)
        _exit_with(function)
    os.close(report)
    return _wait_for(main, burying=_ANY_CHILD)


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    private = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET
    try:
        syscalls.unshare(private if user == 0 else private | syscalls.CLONE_NEWUSER)
    except OSError as error:
        raise LinkError(_why_refused(error, is_root=user == 0)) from error
    if user != 0:
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except OSError as error:
            raise LinkError(_why_refused(error, is_root=False)) from error


def _why_refused(error: OSError, *, is_root: bool) -> str:
    """One sentence on why this machine refuses namespaces, and the remedy."""
    refused = f"impaired links need namespaces, which this machine refuses ({error.strerror})"
    if is_root:
        return f"{refused}; in a container, start it with --privileged"
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            f"{refused}: AppArmor restricts user namespaces; "
            "run as root, or: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return f"{refused}; run as root, or: sudo sysctl kernel.unprivileged_userns_clone=1"
    if error.errno in (errno.ENOSPC, errno.EUSERS) or _sysctl("user/max_user_namespaces") == "0":
        return f"{refused}: too few are allowed; run as root, or: sudo sysctl user.max_user_namespaces=10000"
    return f"{refused}; run as root, or, in a container, start it with --privileged"


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def _mount_private_filesystems() -> None:
    private = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    try:
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc", private)
        syscalls.mount("tmpfs", "/run", "tmpfs", private & ~syscalls.MS_NOEXEC, "mode=0755")
    except OSError as error:
        raise LinkError(
            f"{error.filename} is refused ({error.strerror}); in a container, start it with --privileged"
        ) from error


@contextlib.contextmanager
def _reporting_problems(report: int) -> Iterator[None]:
    """A LinkError raised inside ends this process, and its sentence is raised again in the caller."""
    try:
        yield
    except LinkError as error:
        os.write(report, str(error).encode())
        os._exit(1)


def _exit_with(function: Callable[[], int]) -> NoReturn:
    """End this forked process as a program would end: with the code, buffers written, no code of the parent run."""
    code = 1
    try:
        code = function()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except HarnessError as error:
        code = complain(str(error))
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait_for(child: int, burying: int | None = None) -> int:
    """Until it has ended; its exit code. Meanwhile it gets the signals that ask us to end.

    Of a Ctrl-C the terminal tells all of us; whoever sends SIGINT to us alone means the child, too.

    Args:
        burying: whose zombies are removed until then, as `waitpid` takes it; that of the child without.
    """
    ending = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*ending, signal.SIGCHLD})
    try:
        while True:
            ended, status = os.waitpid(burying or child, os.WNOHANG)
            if ended == child:
                return _exit_code(status)
            if ended:
                continue
            # In between, another thread may be given the SIGCHLD: so not for ever.
            told = signal.sigtimedwait({*ending, signal.SIGCHLD}, _LONGEST_WAIT_S)
            if told is not None and told.si_signo in ending and told.si_code != _FROM_KERNEL:
                with contextlib.suppress(ProcessLookupError):  # it has ended just now
                    os.kill(child, told.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
