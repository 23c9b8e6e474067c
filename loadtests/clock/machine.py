"""A virtual machine for one job: user-mode Linux in time-travel mode, whose clock jumps while nobody computes.

With `time-travel=inf-cpu` computing takes no time at all; when everything waits, the clock goes to the next timer. The
kernel's command line is the same for each job but for the seed, since the kernel mixes it into its random numbers.
"""

import os
import signal
import sys
from pathlib import Path

from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.link.sandbox.syscalls import MS_BIND, PR_SET_PDEATHSIG, mount, prctl

#: Where the wall clock of every machine begins: 2024-01-01, 00:00 UTC.
_START_NS = 1_704_067_200_000_000_000
_MEMORY = "2G"


def run(job: Path, kernel: Path, image: Path, seed: int) -> None:
    """Run the trial of a job in a machine of its own (see :mod:`loadtests.clock.guest`).

    Args:
        job: a folder for the machine alone.
        seed: decides every random number that the kernel hands out.
    """
    arguments = [
        "linux",
        f"mem={_MEMORY}",
        "time-travel=inf-cpu",
        f"time-travel-start={_START_NS}",
        "initrd=/run/image",
        "rdinit=/python/bin/python3",
        "con=null",
        "con0=null,fd:1",
        f"seed={seed}",
        "PYTHONPATH=/project:/packages",
        "PYTHONHASHSEED=0",
        "LD_LIBRARY_PATH=/python/lib",
        "--",
        "-m",
        "loadtests.clock.guest",
    ]

    def boot() -> int:
        Path("/run/job").mkdir()
        mount(str(job), "/run/job", "", MS_BIND)
        Path("/run/image").symlink_to(image)
        environment = {"HOME": "/run", "TMPDIR": "/dev/shm", "PATH": os.environ["PATH"]}
        os.chdir("/run")
        with (job / "kernel.log").open("wb") as log, open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.execve("/usr/bin/setarch", ["setarch", "-R", str(kernel), *arguments[1:]], environment)

    run_in_lab(boot)


if __name__ == "__main__":
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # whoever started this needs its result
    run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
