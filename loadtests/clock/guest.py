"""PID 1 of a virtual machine: mounts what programs expect, runs one trial, and switches the machine off.

The host's folder of the job is at /host: `task` goes in; `output`, `exit-code`, `seconds` (what the machine's own clock
showed at the end) and `work`, the trial's current folder, come out.
"""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

from loadtests.link.sandbox.syscalls import mount

JOB, WORK = Path("/host"), Path("/tmp/work")
_MOUNTS = {"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"}
_OPEN_FILES = 1 << 16
_POWER_OFF = 0x4321FEDC


def main() -> None:
    """Run the trial; never returns, since the machine ends."""
    for kind, target in _MOUNTS.items():
        mount(kind, target, kind, 0)
    for folder in ("/dev/shm", "/dev/pts"):
        Path(folder).mkdir(exist_ok=True)
    mount("devpts", "/dev/pts", "devpts", 0)
    for target in ("/dev/shm", "/tmp", "/run"):
        mount("tmpfs", target, "tmpfs", 0)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        Path("/dev", name).symlink_to(f"/proc/self/fd/{number}")
    Path("/dev/fd").symlink_to("/proc/self/fd")
    mount("none", str(JOB), "hostfs", 0, "run/job")
    WORK.mkdir()
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    try:
        code = _run()
    except BaseException:
        with (JOB / "output").open("a") as output:
            traceback.print_exc(file=output)
        code = 1
    (JOB / "seconds").write_text(str(time.monotonic()))
    (JOB / "exit-code").write_text(str(code))
    os.sync()
    ctypes.CDLL(None).reboot(_POWER_OFF)


def _run() -> int:
    command = [sys.executable, "-m", "loadtests.clock.trial"]
    environment = os.environ | {"HOME": "/root", "PATH": "/python/bin:/bin", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
    with (JOB / "output").open("wb", buffering=0) as output, open(os.devnull, "rb") as nothing:
        done = subprocess.run(command, cwd=WORK, env=environment, stdin=nothing, stdout=output, stderr=output)
    shutil.copytree(WORK, JOB / "work")
    return done.returncode


if __name__ == "__main__":
    main()
