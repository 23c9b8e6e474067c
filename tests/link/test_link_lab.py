"""The laboratory's walls: nothing gets out, nothing is left, and who may not build it is told why."""

import contextlib
import errno
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pandas as pd
import pytest
from link_helpers import PROJECT, in_lab
from run_helpers import assert_finished

from loadtests.errors import LinkError
from loadtests.link.command import table
from loadtests.link.lab import open_lab
from loadtests.link.linkfile import known_links, load_profile
from loadtests.link.measure.calibrate import LinkRow
from loadtests.link.sandbox import laboratory, namespaces
from loadtests.link.sandbox.laboratory import run_in_lab

pytestmark = pytest.mark.realtime("links")

CHATLAB = [sys.executable, "-m", "loadtests", "link"]
LAN = {"primary": load_profile("lan")}


def host_network() -> str:
    """What the host shows of namespaces and interfaces, without counters that change by themselves."""
    shown = [
        subprocess.run(["ip", *what], capture_output=True, text=True).stdout for what in (["netns"], ["-br", "link"])
    ]
    return "\n".join(shown)


def descendants(pid: int) -> dict[int, str]:
    """Every process below `pid` with its command line, the nearest first."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(status.parent.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(0), []):
            with contextlib.suppress(OSError):  # it ended meanwhile
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            waiting.append(child)
    return found


def alive(pids: list[int]) -> list[int]:
    """Those that still run; zombies whose parent is about to notice do not."""
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            running.append(pid)
    return running


def wait_until_gone(pids: list[int], within_s: float = 30) -> list[int]:
    end_s = time.monotonic() + within_s
    while (left := alive(pids)) and time.monotonic() < end_s:
        time.sleep(0.02)
    return left


#: A server that only listens: its side of the link is ready at once.
LISTEN = "import signal, socket; listener = socket.create_server(('', 7)); signal.pause()"


@pytest.fixture
def sleeping() -> Iterator["subprocess.Popen[str]"]:
    """`chatlab link lan` with a server and a command that would run for long, started completely."""
    sleeper = ["--serve", shlex.join([sys.executable, "-c", LISTEN]), "--", "sh", "-c", "echo started; exec sleep 1002"]
    with subprocess.Popen(
        [*CHATLAB, "lan", "--backend", "emulator", *sleeper],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chatlab:
        assert chatlab.stdout is not None
        assert chatlab.stdout.readline() == "started\n"
        yield chatlab
        chatlab.kill()


#: Which of the processes of `sleeping`, as they are found below the test, nearest first.
VICTIMS = {"caller": 0, "holder": 1, "init": 2, "function": 3, "ferry": "loadtests.link.backends.ferry"}


@pytest.mark.parametrize("victim", VICTIMS)
def test_whoever_is_killed_nothing_is_left(victim: str, sleeping: "subprocess.Popen[str]") -> None:
    """After SIGKILL of any of our processes, the host's processes, interfaces and namespaces are as before."""
    family = {sleeping.pid: "caller", **descendants(sleeping.pid)}
    which = VICTIMS[victim]
    pids = [pid for pid, said in family.items() if which in said] if isinstance(which, str) else [list(family)[which]]
    assert len(family) == 7, family
    os.kill(pids[0], signal.SIGKILL)
    assert wait_until_gone(list(family)) == []
    code = sleeping.wait()
    assert code == (-signal.SIGKILL if victim == "caller" else 2 if victim == "ferry" else 128 + signal.SIGKILL)
    assert "primary" not in host_network()
    assert in_lab(lambda: 1) == 1


def test_twenty_killed_at_random_leave_nothing() -> None:
    """The orchestrator, the holder or the emulator, while the laboratory is being built, used or left."""
    chance = random.Random(20)
    for _ in range(20):
        with subprocess.Popen(
            [*CHATLAB, "lan", "--backend", "emulator", "--", "ping", "-c", "3", "-i", "0.1", "{server}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as chatlab:
            with contextlib.suppress(subprocess.TimeoutExpired):
                chatlab.wait(chance.uniform(0.1, 0.9))  # the random moment
            family = {chatlab.pid: "", **descendants(chatlab.pid)}
            victims = [*list(family)[:2], *(pid for pid, said in family.items() if "ferry" in said)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(victims), signal.SIGKILL)
            family |= descendants(chatlab.pid)
            chatlab.wait(timeout=10)
            assert wait_until_gone(list(family)) == []
    assert "primary" not in host_network()
    assert subprocess.run([*CHATLAB, "lan", "--", "ping", "-c", "1", "{server}"], capture_output=True).returncode == 0


def test_a_dead_emulator_is_reported(sleeping: "subprocess.Popen[str]") -> None:
    (ferry,) = [pid for pid, said in descendants(sleeping.pid).items() if "ferry" in said]
    os.kill(ferry, signal.SIGKILL)
    assert sleeping.stderr is not None
    assert "chatlab: the link emulator died (exit code -9)" in sleeping.stderr.read()


def test_sigterm_ends_all_of_it(sleeping: "subprocess.Popen[str]") -> None:
    family = [sleeping.pid, *descendants(sleeping.pid)]
    sleeping.terminate()
    assert sleeping.wait(timeout=30) == 128 + signal.SIGTERM
    assert wait_until_gone(family) == []


def test_the_host_sees_nothing() -> None:
    before = host_network()
    with subprocess.Popen([*CHATLAB, "lan", "--", "sleep", "1"]) as chatlab:
        time.sleep(0.5)
        assert host_network() == before
        assert chatlab.wait() == 0


def test_the_exit_code_and_the_output_are_the_commands_own() -> None:
    script = "echo {server} {secondary} {other}; exit 7"
    done = subprocess.run([*CHATLAB, "lan", "--", "sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "10.77.1.2 10.77.2.2 {other}\n")
    assert done.stderr.startswith("link: lan (each way: delay 0.5 ms), by ")


def test_ping_through_a_satellite() -> None:
    done = subprocess.run(
        [*CHATLAB, "satellite", "--", "ping", "-q", "-c", "3", "-i", "0.2", "{server}"], capture_output=True, text=True
    )
    fastest_ms = float(done.stdout.rpartition("= ")[2].split("/")[0])
    assert 600 < fastest_ms < 700


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["losy-wifi", "--", "true"], "chatlab: unknown link 'losy-wifi'; did you mean 'lossy-wifi'? known: 2g, "),
        (["lan"], "chatlab: nothing to run behind the link: give -- COMMAND, or --calibrate"),
        (["lan", "--", "no-such-command"], "chatlab: no-such-command: No such file or directory"),
        (["lan", "--serve", "no-such-server", "--", "true"], "chatlab: no-such-server: No such file or directory"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(arguments: list[str], sentence: str) -> None:
    done = subprocess.run([*CHATLAB, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(sentence)


def test_calibration_alone_prints_the_table() -> None:
    done = subprocess.run([*CHATLAB, "lan", "--calibrate"], capture_output=True, text=True)
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()[:2]] == [
        ["path", "direction", "figure"],
        ["primary", "up", "delay_ms"],
    ]
    assert re.search(r"^measuring it takes about \d+ s$", done.stderr, flags=re.MULTILINE)


def test_a_figure_that_is_off_while_the_machine_stalled_says_so() -> None:
    row = LinkRow(
        path="primary",
        direction="up",
        metric="delay_ms",
        requested=5,
        expected=5,
        measured=9,
        low=4,
        high=6,
        within=False,
        probes=50,
    )
    said = table([row, msgspec.structs.replace(row, disturbed=True), msgspec.structs.replace(row, within=True)])
    assert [line.partition("4 to 6")[2] for line in said.splitlines()[1:]] == [
        "  off",
        "  off, while the machine stalled",
        "",
    ]


#: Becomes `nobody` in a mount namespace of its own, where /dev/net/tun is open to all, as udev makes it, and root's
#: home does not hide the Python and the project that may live in it ($1 and $2).
AS_NOBODY = """
set -e
mknod -m 0666 "$0/tun" c 10 200
mkdir "$0/python" "$0/project"
mount --bind "$0/tun" /dev/net/tun
mount --bind "$1" "$0/python"
mount --bind "$2" "$0/project"
mount -t tmpfs -o mode=0755 none /root
mkdir -p "$1" "$2"
mount --bind "$0/python" "$1"
mount --bind "$0/project" "$2"
cd "$2"
shift 2
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$@"
"""


def test_an_ordinary_user_gets_the_same_laboratory(tmp_path: Path) -> None:
    command = [*CHATLAB, "lan", "--calibrate", "--", "id", "-u"]
    if os.geteuid() == 0:
        folders = [str(tmp_path), sys.base_prefix, str(PROJECT)]
        command = ["unshare", "--mount", "sh", "-c", AS_NOBODY, *folders, *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0", "inside, the user is root of its own namespace"


SHORT_SCENARIO = """
link: {rtt: 20ms, loss: 1%, timeline: [{at: 1s, rtt: 40ms}]}
users: {BroadcastUser: 3}
messages: {rate: 2/s}
warmup: 500ms
stages: [{users: 3, spawn_rate: 10/s, duration: 2s}]
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may use; pytest closes its own to all others, whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_an_ordinary_user_gets_a_trustworthy_run(open_folder: Path, tmp_path: Path) -> None:
    results, scenario = open_folder, open_folder / "short.yaml"
    scenario.write_text(SHORT_SCENARIO)
    command = [sys.executable, "-m", "loadtests", "run", str(scenario), "--no-report", "--results", str(results)]
    command += ["--repeat", "0"]
    if os.geteuid() == 0:
        folders = [str(tmp_path), sys.base_prefix, str(PROJECT)]
        command = ["unshare", "--mount", "sh", "-c", AS_NOBODY, *folders, *command]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HOME": str(results)})
    assert_finished(done.returncode, done.stdout + done.stderr)
    (run,) = results.glob("*-short/run.json")
    (trial,) = json.loads(run.read_text())["trials"]
    assert trial["state"] == "finished"
    link = pd.read_csv(run.with_name("link.csv"))
    changes = link[link["when"] == "change"]
    assert changes["direction"].tolist() == ["up", "down"]
    assert (changes["time_s"] >= 1).all()
    assert changes["change"].str.startswith("delay 20 ms, loss 1 %").all()
    assert set(link["when"]) == {"before", "after", "change"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_root_without_privileges_is_told_about_its_container() -> None:
    """As in a container: user 0, but the capability to make namespaces is not there."""
    command = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *CHATLAB, "lan", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "chatlab: impaired links need namespaces, which this machine refuses (Operation not permitted); "
        "in a container, start it with --privileged\n"
    )


@pytest.mark.parametrize(
    ("sysctls", "number", "remedy"),
    [
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, errno.EPERM, "apparmor_restrict_unprivileged_userns=0"),
        ({"kernel/unprivileged_userns_clone": "0"}, errno.EPERM, "unprivileged_userns_clone=1"),
        ({"user/max_user_namespaces": "0"}, errno.EPERM, "user.max_user_namespaces=10000"),
        ({}, errno.ENOSPC, "user.max_user_namespaces=10000"),
        ({}, errno.EPERM, "--privileged"),
    ],
)
def test_an_ordinary_user_is_told_why_and_what_to_do(
    sysctls: dict[str, str], number: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(laboratory, "_sysctl", sysctls.get)
    monkeypatch.setattr(laboratory.syscalls, "unshare", refuse)
    monkeypatch.setattr(laboratory.os, "geteuid", lambda: 1000)
    with pytest.raises(LinkError) as caught:
        run_in_lab(lambda: 0)
    assert remedy in str(caught.value)
    assert "run as root" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(laboratory, "_ADMIN_FOLDERS", str(tmp_path))
    with pytest.raises(LinkError, match="'ip' is missing; on Debian or Ubuntu: apt-get install iproute2"):
        run_in_lab(lambda: 0)


def test_what_a_tool_complains_about_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(returncode=2, stdout="", stderr="Error: no.\n  Really.\n")
    monkeypatch.setattr(namespaces.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(LinkError, match=r"^tc qdisc show: Error: no\. Really\.$"):
        namespaces.run_tool(["tc", "qdisc", "show"])


def test_a_missing_tun_device_is_named(tmp_path: Path) -> None:
    """A laboratory whose /dev/net is empty."""

    def without_tun() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/net"], check=True)
        with open_lab(LAN, "emulator"):
            pass

    with pytest.raises(LinkError, match=r"/dev/net/tun: No such file or directory; as root: modprobe tun"):
        in_lab(without_tun)


def test_the_function_runs_in_the_laboratory_alone() -> None:
    """A PID namespace with its own /proc, and nothing of the caller's changed by it."""
    name = os.readlink("/proc/self/ns/net")
    pids, inside = in_lab(
        lambda: (sorted(int(p.name) for p in Path("/proc").glob("[0-9]*")), os.readlink("/proc/self/ns/net"))
    )
    assert pids == [1, 2]
    assert inside != name == os.readlink("/proc/self/ns/net")


def test_orphans_are_buried() -> None:
    def leave_an_orphan() -> list[str]:
        subprocess.run(["sh", "-c", "true & sleep 0.1 &"], check=True)
        end_s = time.monotonic() + 30
        while len(left := sorted(path.name for path in Path("/proc").glob("[0-9]*"))) > 2 and time.monotonic() < end_s:
            time.sleep(0.02)
        return left

    assert in_lab(leave_an_orphan) == ["1", "2"]


def test_profiles_are_listed() -> None:
    done = subprocess.run([sys.executable, "-m", "loadtests", "profiles"], capture_output=True, text=True)
    assert [line.split()[0] for line in done.stdout.splitlines()][1:] == known_links()


def test_trying_a_link_is_a_chat_with_robots() -> None:
    """The client in the pipe hears a robot, whose words crossed the link, and ends when it is told to."""
    command = [sys.executable, "-m", "loadtests", "try", "lan", "--mode", "redundant"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as chatlab:
        assert chatlab.stdin is not None
        assert chatlab.stdout is not None
        family = descendants(chatlab.pid)
        for line in chatlab.stdout:
            if any(robot in line for robot in ("ada", "bob", "cyd")):
                break
        else:
            pytest.fail(f"no robot was heard: {chatlab.stderr and chatlab.stderr.read()}")
        family |= descendants(chatlab.pid)
        chatlab.stdin.write("/exit\n")
        chatlab.stdin.flush()
        chatlab.communicate(timeout=20)
        assert chatlab.returncode == 0
    assert wait_until_gone(list(family)) == []
