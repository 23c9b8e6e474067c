"""`chatlab doctor`: what works on this machine, and the one command that mends what does not."""

import argparse
import os
import platform
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from chat.arguments import revision
from chat.words import count
from loadtests.errors import ExitCode, LinkError
from loadtests.link.backends.netem import kernel_has_netem
from loadtests.link.lab import open_lab
from loadtests.link.linkfile import load_profile
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.stalls.meter import StallMeter

_WATCHED_S = 2.0
#: Clocks whose reading is a few dozen nanoseconds, without a call into the kernel.
_GOOD_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")


class Finding(NamedTuple):
    """One line."""

    subject: str
    #: None: worse than it could be, but no obstacle.
    is_good: bool | None
    says: str

    def show(self) -> bool:
        """Print it; whether it is no obstacle."""
        mark = {True: "ok", None: "--", False: "NO"}[self.is_good]
        print(f"{mark}  {self.subject:12} {self.says}", flush=True)
        return self.is_good is not False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab doctor`: none."""
    parser.description = (
        "Say what works on this machine: ok, -- where something is missing that is not needed, NO where links cannot "
        "be made. Takes some seconds. Exit code 2 if anything is NO."
    )


def main(_arguments: argparse.Namespace) -> int:
    """Print the findings; the exit code says whether links can be made."""
    commit = revision()
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    good = [Finding("chatlab", True, f"{system}{f', commit {commit}' if commit else ''}").show()]
    try:
        good.append(run_in_lab(_inside) == 0)
    except LinkError as error:
        good.append(Finding("namespaces", False, str(error)).show())
    good += [look().show() for look in (_capture, _realtime, _clock, _cores, _stalls, _congestion)]
    return ExitCode.PASSED if all(good) else ExitCode.ERROR


def _inside() -> int:
    """In the laboratory: namespaces work, or we would not be here."""
    Finding("namespaces", True, "private networks can be made").show()
    try:
        with open_lab({"primary": load_profile("lan")}, "emulator"):
            emulator = Finding("emulator", True, "links can be made with TUN devices")
    except LinkError as error:
        emulator = Finding("emulator", False, str(error))
    netem = Finding("netem", True, "this kernel has tc netem, which makes the links where it can")
    if not kernel_has_netem():
        netem = Finding("netem", None, "not in this kernel: the emulator makes the links; as root: modprobe sch_netem")
    if emulator.is_good is False and netem.is_good:
        emulator = emulator._replace(is_good=None)
    return 0 if all([emulator.show(), netem.show()]) else 1


def _capture() -> Finding:
    if shutil.which("dumpcap"):
        return Finding("tshark", True, "`chatlab run --capture` can keep packets")
    return Finding("tshark", None, "`chatlab run --capture` needs it; on Debian or Ubuntu: apt-get install tshark")


def _realtime() -> Finding:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return Finding(
            "real time",
            None,
            "not allowed: the emulator is late when others are busy; as root: "
            f"setcap cap_sys_nice+ep {os.path.realpath('/proc/self/exe')}",
        )
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return Finding("real time", True, "the emulator runs before whatever else is busy")


def _clock() -> Finding:
    try:
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return Finding("clock", None, "its source is unknown")
    resolution_ns = time.get_clock_info("monotonic").resolution * 1e9
    if source in _GOOD_CLOCKS:
        return Finding("clock", True, f"{source}, resolution {resolution_ns:.0f} ns")
    return Finding("clock", None, f"{source} is slow to read: each time stamp costs about a microsecond")


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0))
    said = f"{count(cores, 'core')}, load average {os.getloadavg()[0]:.1f}"
    if cores < 2:
        return Finding("cores", None, f"{said}: load, link and server share it; give the machine a second one")
    if os.getloadavg()[0] > cores / 2:
        return Finding("cores", None, f"{said}: others are busy, which shows in results; end them")
    return Finding("cores", True, said)


def _stalls() -> Finding:
    before = _stolen_s()
    with StallMeter() as meter:
        time.sleep(_WATCHED_S)
    stolen = _stolen_s() - before
    longest_ms = max((stall.length_ns for stall in meter.stalls()), default=0) / 1e6
    said = f"in {_WATCHED_S:g} s the host took {stolen * 1e3:.0f} ms, the longest stall was {longest_ms:.1f} ms"
    return Finding("steal", None if longest_ms > 5 or stolen > 0.01 * _WATCHED_S else True, said)


def _stolen_s() -> float:
    """Time that the host of a virtual machine gave to others, of all cores together (proc(5))."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


def _congestion() -> Finding:
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if "bbr" in available:
        return Finding("congestion", True, f"scenarios may use {', '.join(available)}")
    return Finding("congestion", None, f"scenarios may use {', '.join(available)}; for bbr, as root: modprobe tcp_bbr")
