"""netem on an interface that is not ours: a veth in a namespace of its own plays it here.

The tests with netem in their name need it; test_link_uml.py runs them where the kernel has it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from link_helpers import T, in_lab, need_netem

from loadtests.errors import LinkError
from loadtests.link.backends import guardian
from loadtests.link.backends.guardian import Restoration, qdiscs_of
from loadtests.link.backends.interface import (
    DEVICES,
    device_commands,
    open_interface,
    redirect_commands,
    undo_commands,
)
from loadtests.link.backends.netem import kernel_has_netem
from loadtests.link.lab import open_lab
from loadtests.link.measure.handshakes import Handshakes, judge, shake_hands
from loadtests.link.model.profile import Direction, LinkProfile, Trace
from loadtests.link.sandbox.namespaces import run_tool

pytestmark = pytest.mark.realtime("links")

SLOW = LinkProfile(name="slow", up=Direction(delay_s=0.03), down=Direction(delay_s=0.02))
GUARDIAN = guardian.__name__.encode()
PORT, OTHER_PORT = 5000, 5001


def beside_a_server(function: Callable[[str], T]) -> T:
    """What `function`, told the server's address, returns on a machine whose interface `primary` leads to a server.

    The server accepts and closes connections on two ports.
    """

    def inside() -> T:
        with open_lab({"primary": SLOW}, "none") as lab, contextlib.ExitStack() as listeners:
            address = lab.addresses["primary"]
            for port in (PORT, OTHER_PORT):
                with lab.server.entered():
                    listener = listeners.enter_context(socket.create_server((address, port)))
                threading.Thread(target=accept_all, args=(listener,), daemon=True).start()
            with lab.client.entered():
                return function(address)

    return in_lab(inside)


def accept_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def run(command: str) -> str:
    return run_tool(command.split())


def fastest_ms(address: str, port: int) -> float:
    return 1e3 * min(shake_hands((address, port), 1.0).times_s)


def state() -> tuple[list[str], set[str]]:
    """All that a run could leave behind."""
    return qdiscs_of("primary"), guardian.interfaces()


def test_the_filters_hold_the_servers_address_and_port_and_nothing_else() -> None:
    match = "match ip6 dst 2001:db8::7/128 match ip6 dport 5000 0xffff match ip6 protocol 6 0xff"
    assert redirect_commands("eth0", [("192.0.2.7", 5000), ("2001:db8::7", 5000)])[:4] == [
        "tc qdisc add dev eth0 clsact",
        "tc filter add dev eth0 egress protocol ip u32 match ip dst 192.0.2.7/32 match ip dport 5000 0xffff"
        " match ip protocol 6 0xff action mirred egress redirect dev chatlab-up",
        "tc filter add dev eth0 ingress protocol ip u32 match ip src 192.0.2.7/32 match ip sport 5000 0xffff"
        " match ip protocol 6 0xff action mirred egress redirect dev chatlab-down",
        f"tc filter add dev eth0 egress protocol ipv6 u32 {match} action mirred egress redirect dev chatlab-up",
    ]


def test_what_cannot_be_done_is_refused_and_nothing_is_changed() -> None:
    trace = msgspec.structs.replace(SLOW, up=Direction(trace=Trace("lte.trace", 1e6), queue_packets=10))
    sentences = {
        "no-such": "no-such: no such interface; there are: lo, primary",
        "lo": "lo: the way to 10.77.1.2 is through primary, not through it",
        "trace": "primary: netem has a constant rate, it cannot follow a trace",
        "nobody": "10.77.1.2:4999: ECONNREFUSED: no server answers there",
        "clsact": "primary: somebody else filters its packets already (clsact ffff: ffff:fff1); "
        "if it is a leftover: tc qdisc delete dev primary clsact",
        "ifb": "primary: another run impairs an interface; if it is a leftover: ip link delete dev chatlab-up",
    }

    def refusals(address: str) -> dict[str, str]:
        def refused(interface: str, port: int = PORT, link: LinkProfile = SLOW) -> str:
            before = state()
            with pytest.raises(LinkError) as caught, open_interface(interface, address, port, link):
                pass
            assert state() == before
            return str(caught.value)

        found = {"no-such": refused("no-such"), "lo": refused("lo"), "trace": refused("primary", link=trace)}
        found["nobody"] = refused("primary", port=4999)
        run("tc qdisc add dev primary clsact")
        found["clsact"] = refused("primary")
        run("tc qdisc delete dev primary clsact")
        run("ip link add name chatlab-up type ifb")
        return found | {"ifb": refused("primary")}

    assert beside_a_server(refusals) == sentences


def test_a_missing_module_is_named_and_nothing_is_left() -> None:
    def outcome(address: str) -> tuple[str, bool]:
        before = state()
        try:
            with open_interface("primary", address, PORT, SLOW):
                said = "works"
        except LinkError as error:
            said = str(error)
        return said, state() == before

    refusal = "this kernel lacks what `netem` needs (CONFIG_NET_SCH_NETEM); as root: modprobe -a sch_netem"
    assert beside_a_server(outcome) == ("works" if in_lab(kernel_has_netem) else refusal, True)


@contextlib.contextmanager
def guarded() -> Iterator["subprocess.Popen[bytes]"]:
    """The guardian of `primary`, as it is now."""
    restoration = Restoration("primary", qdiscs_of("primary"), undo_commands("primary"), list(DEVICES.values()))
    with subprocess.Popen(
        [sys.executable, "-m", guardian.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as watching:
        assert watching.stdin is not None
        assert watching.stdout is not None
        watching.stdin.write(msgspec.json.encode(restoration) + b"\n")
        watching.stdin.flush()
        assert watching.stdout.readline() == b"ready\n"
        yield watching


def carried(device: str) -> int:
    (link,) = json.loads(run_tool(["ip", "-json", "-statistics", "link", "show", "dev", device]))
    return int(link["stats64"]["rx"]["packets"])


def test_only_the_servers_port_is_led_through_our_devices_until_the_guardian_restores() -> None:
    """The filters and the guardian alone, on any kernel: the guardian is told to end, and does not before the pipe."""

    def led(address: str) -> tuple[list[int], list[int], bytes, int, bool]:
        before = state()
        with guarded() as watching:
            for command in [*device_commands(1500), *redirect_commands("primary", [(address, PORT)])]:
                run(command)
            fastest_ms(address, OTHER_PORT)
            run_tool(["ping", "-c", "2", "-i", "0.2", address])
            other = [carried(device) for device in DEVICES.values()]
            fastest_ms(address, PORT)
            own = [carried(device) for device in DEVICES.values()]
            watching.send_signal(signal.SIGTERM)
            watching.send_signal(signal.SIGINT)
            said, _ = watching.communicate()
        return other, own, said, watching.returncode, state() == before

    other, own, said, code, restored = beside_a_server(led)
    assert other == [0, 0]
    assert min(own) >= 60, "a SYN of each handshake, and its answer"
    assert (said, code, restored) == (b"", 0, True)


def test_the_guardian_says_what_it_could_not_restore() -> None:
    def left(address: str) -> tuple[int, bytes]:
        with guarded() as watching:
            run("tc qdisc add dev primary root handle 7: tbf rate 1gbit burst 9000 limit 9000")
            said, _ = watching.communicate()
        return watching.returncode, said

    code, said = beside_a_server(left)
    assert (code, said[:39]) == (1, b"primary has the qdiscs ['tbf 7: root'] ")


def test_netem_delays_the_servers_port_and_nothing_else() -> None:
    need_netem()

    def delays(address: str) -> tuple[list[str], float, float, float, int, bool]:
        before = state()
        with open_interface("primary", address, PORT, SLOW) as links:
            off = [str(row) for row in links.calibrate() if not row.within]
            own_ms, other_ms = fastest_ms(address, PORT), fastest_ms(address, OTHER_PORT)
            pinged = run_tool(["ping", "-q", "-c", "5", "-i", "0.2", address])
            ping_ms = float(pinged.rpartition("= ")[2].split("/")[0])
            packets = min(stats.delivered_packets for stats in links.stats())
        return off, own_ms, other_ms, ping_ms, packets, state() == before

    off, own_ms, other_ms, ping_ms, packets, restored = beside_a_server(delays)
    assert off == []
    assert own_ms >= 50
    assert max(other_ms, ping_ms) < 20, "the fastest of many, and no delay of ours is that short"
    assert packets >= 60
    assert restored


def test_netem_is_gone_after_sigkill_and_a_dead_guardian_is_noticed() -> None:
    need_netem()

    def killed(address: str) -> tuple[str, bool, bool]:
        before = state()
        with open_interface("primary", address, PORT, SLOW) as links:
            (watching,) = (
                int(one.parent.name) for one in Path("/proc").glob("[0-9]*/cmdline") if GUARDIAN in one.read_bytes()
            )
            os.kill(watching, signal.SIGKILL)
            os.waitid(os.P_PID, watching, os.WEXITED | os.WNOWAIT)
            with pytest.raises(LinkError) as caught:
                links.check()
        restored = state() == before
        answer, question = os.pipe()
        child = os.fork()
        if child == 0:
            with open_interface("primary", address, PORT, SLOW):
                os.write(question, b"open")
                signal.pause()
        assert os.read(answer, 4) == b"open"
        assert state() != before
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        end_s = time.monotonic() + 30
        while state() != before and time.monotonic() < end_s:
            time.sleep(0.05)
        return str(caught.value), restored, state() == before

    sentence = "the guardian of primary died; nothing measured since can be believed"
    assert beside_a_server(killed) == (sentence, True, True)


def test_netem_puts_any_command_behind_an_interface(tmp_path: Path) -> None:
    need_netem()
    file = tmp_path / "slow.yaml"
    file.write_text("rtt: 50ms")

    def ran(address: str) -> tuple[int, str, bool]:
        before = state()
        options = ["--interface", "primary", "--to", f"{address}:{PORT}", "--calibrate"]
        command = [
            sys.executable,
            "-m",
            "loadtests",
            "link",
            str(file),
            *options,
            "--",
            "sh",
            "-c",
            "echo here; exit 7",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout, state() == before

    code, printed, restored = beside_a_server(ran)
    assert (code, printed.splitlines()[-1], restored) == (7, "here", True)
    assert "handshake_ms" in printed


def test_an_interface_without_its_server_is_refused() -> None:
    command = [sys.executable, "-m", "loadtests", "link", "lan", "--interface", "lo", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.partition(" and ")[0]) == (2, "chatlab: --interface NAME")


def handshakes(time_s: float, lost: int = 0) -> Handshakes:
    return Handshakes([time_s] * (60 - lost), 60)


@pytest.mark.parametrize(
    ("now", "off"),
    [
        (handshakes(0.061), []),
        (handshakes(0.05), ["handshake_ms"]),
        (handshakes(0.061, lost=20), ["handshake_loss_ratio"]),
        (handshakes(0.061, lost=60), ["handshake_ms", "handshake_loss_ratio"]),
    ],
)
def test_handshakes_are_judged_beside_those_without_the_link(now: Handshakes, off: list[str]) -> None:
    link = LinkProfile(name="test", up=Direction(delay_s=0.03, loss=0.01), down=Direction(delay_s=0.02))
    rows = judge(link, handshakes(0.01), now)
    assert [row.metric for row in rows if not row.within] == off
    assert (rows[0].requested, rows[0].expected) == (pytest.approx(50), pytest.approx(60))
