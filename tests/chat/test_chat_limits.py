"""Limits of a public server. chat/README.md, "Limits"."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chat_helpers import RawClient, ServerProcess, server_process
from hub_helpers import Hall

from chat.client.connection import OPEN_S
from chat.protocol.filemessages import FileAccept, FileChunk, FileCredit, FileOffer
from chat.protocol.limits import PUBLIC_LIMITS, Limits
from chat.protocol.messages import Attach, Hello, Join, ListRooms, Ping, Say, Tell, Up, Who
from chat.server.budget import OTHERS_S, Budget, Budgets
from chat.server.costs import cost_of, cost_of_catching_up
from chat.server.hub import Hub
from chat.server.members import Connection
from chat.server.server import REGISTRATION_S, _network

pytestmark = pytest.mark.realtime("chat")

SECOND_NS = 1_000_000_000


def test_a_budget_is_earned_at_a_constant_rate() -> None:
    budget = Budget(Limits(cost_per_s=10, cost_burst=5), 0)
    assert [budget.spend(1, 0) for _ in range(5)] == [0] * 5
    assert budget.spend(2, 0) == pytest.approx(0.2 * SECOND_NS, abs=1)
    assert budget.spend(0, SECOND_NS // 5) == 0, "it has made up for it"
    assert budget.spend(1, SECOND_NS // 5) > 0
    assert [budget.spend(1, 100 * SECOND_NS) for _ in range(6)][4:] == [0, SECOND_NS // 10 + 1], "no more is saved up"


def test_who_comes_again_has_saved_nothing_up() -> None:
    budgets = Budgets(Limits(cost_per_s=10, cost_burst=5))

    def begun(origin: str, now_s: float) -> Budget:
        budget = budgets.begin(origin, int(now_s * SECOND_NS))
        assert budget is not None
        return budget

    flooder, beside = begun("here", 0), begun("here", 0)
    assert flooder.spend(7, 0) > 0
    budgets.end("here", flooder, flooder, 0)
    assert beside.spend(5, 0) == begun("there", 0).spend(5, 0) == 0, "others pay nothing for it"
    again = begun("here", 0.1)
    assert again.spend(0, SECOND_NS // 10) == pytest.approx(0.1 * SECOND_NS, abs=1)
    assert begun("here", 0.1).spend(5, SECOND_NS // 10) == 0, "it is taken on once"
    budgets.end("here", again, again, SECOND_NS)
    assert len(budgets) == 0, "it has made up for everything"
    again.spend(6, SECOND_NS)
    budgets.end("here", again, again, SECOND_NS)
    assert len(budgets) == 1
    budgets.end("there", beside, beside, 20 * SECOND_NS)
    assert len(budgets) == 0, "what is full again is forgotten"


@pytest.mark.parametrize("spent", [(7, 1), (1, 7)])
def test_a_connection_leaves_what_it_or_its_session_has_less_of(spent: tuple[int, int]) -> None:
    limits = Limits(cost_per_s=10, cost_burst=5)
    budgets, own, session = Budgets(limits), Budget(limits, 0), Budget(limits, 0)
    own.spend(spent[0], 0)
    session.spend(spent[1], 0)
    budgets.end("here", own, session, 0)
    assert len(budgets) == 1
    next_one = budgets.begin("here", 0)
    assert next_one is not None
    assert next_one.spend(0, 0) == pytest.approx(0.2 * SECOND_NS, abs=1)


def test_nobody_waits_for_long_for_what_a_neighbour_has_spent() -> None:
    """It begins with nothing, as long as the address has fewer stores than it may have connections."""
    budgets = Budgets(Limits(cost_per_s=10, cost_burst=5, connections_per_address=3))

    def begun() -> Budget:
        budget = budgets.begin("here", 0)
        assert budget is not None
        return budget

    spender, another = begun(), begun()
    assert spender.spend(100_005, 0) > 9_999 * SECOND_NS
    budgets.end("here", spender, spender, 0)
    neighbour = begun()
    assert neighbour.balance == 0
    assert begun().balance < -99_999, "two are open, and what is left is the third store"
    assert min(REGISTRATION_S, OPEN_S) > OTHERS_S, "it can still come in"
    for budget in (another, neighbour):
        budgets.end("here", budget, budget, 0)
    assert begun().balance == 0, "not so little that another one is needed"
    assert len(budgets) == 0


def test_no_limits_no_budget() -> None:
    assert Budgets(Limits()).begin("here", 0) is None


def test_what_makes_work_costs() -> None:
    hub = Hub(str)
    assert (
        cost_of(Say("x"), hub) < cost_of(Say("x" * 8_192), hub) < cost_of(Hello("ana"), hub) <= cost_of(Attach(""), hub)
    )
    assert cost_of(Who("nowhere"), hub) == cost_of(Ping(), hub) == 1
    assert cost_of(Tell("ben", "x" * 8_192), hub) == 1 + 8
    assert cost_of(Who("ا١" * 16), hub) == 9, "PRECIS takes 0.1 ms over it"
    assert cost_of(Who("ا١" * 65), hub) == 1, "it is too long to be looked at"
    hub.rooms.open("чай")
    assert cost_of(Who("чай"), hub) == 1, "it is found as it is"
    assert cost_of(Who("Чай"), hub) > 1
    few = cost_of(ListRooms(), hub)
    for number in range(100):
        hub.rooms.open(f"room{number}")
    assert cost_of(ListRooms(), hub) == few + 10


def test_pieces_of_files_cost_what_is_done_with_them() -> None:
    """Next to nothing while they are passed on; as much as anything else when they are not."""
    hall = Hall()
    ana, ben = hall.join("ana"), hall.join("ben")

    def cost(connection: Connection, message: Up) -> float:
        hall.hub.receive(connection, message)
        return cost_of(message, hall.hub)

    assert cost(ana, FileChunk(1, 0, b"no such transfer")) == 1
    hall.hub.receive(ana, FileOffer("ben", "name", 100, "0" * 64))
    hall.hub.receive(ben, FileAccept(1))
    assert cost(ben, FileCredit(1, 0, again=True)) < 0.01
    assert cost(ana, FileChunk(1, 0, b"four")) < 0.01
    assert cost(ana, FileChunk(1, 0, b"four")) == 1, "it was passed on already"
    assert cost(ben, FileCredit(1, 4)) < 0.01
    assert cost(ben, FileCredit(1, 4)) == 1, "it is known"


def test_a_flood_waits_while_others_are_served() -> None:
    """What a flooder says beyond its store comes at the rate of its budget: the witness is heard before its end."""
    with server_process(limits=True) as server, RawClient(server.address, "witness") as witness:
        assert witness.welcome["limits"]["cost_burst"] == PUBLIC_LIMITS.cost_burst
        flooder = RawClient(server.address, "flooder")
        flood = b"".join(b'{"type":"say","text":"%d","id":%d}\n' % (each, each) for each in range(1, 2_001))
        flooder.sock.sendall(flood)
        witness.until("said", text="900")
        answers = [witness.ask("pong", type="ping", n=each)["n"] for each in range(1, 21)]
        assert answers == list(range(1, 21))
        witness.send(type="say", text="heard", id=1)
        heard_before = 900
        while (line := witness.until("said"))["text"] != "heard":
            heard_before = int(line["text"])
        assert heard_before < 2_000, "the flood is not over when the witness is heard"
        flooder.close()


def test_a_copy_of_nothing_is_paid_for() -> None:
    budget = Budget(Limits(cost_per_s=1, cost_burst=3), 0)
    has_to_wait = [budget.pay(1, 0, is_copy=is_copy) > 0 for is_copy in (False, True, True, True, True)]
    assert has_to_wait == [False, False, False, False, True]


def test_what_is_cheap_pays_for_no_copy_of_what_is_dear() -> None:
    budget = Budget(Limits(cost_per_s=1, cost_burst=100), 0)
    for _ in range(99):
        budget.pay(0.01, 0, is_copy=False)
    assert budget.pay(101, 0, is_copy=True) > 0


def test_who_comes_back_to_a_room_pays_for_its_lines_alone() -> None:
    hall = Hall()
    ana = hall.join("ana")
    for room in ("tea", "wine"):
        hall.hub.receive(ana, Join(room))
        for _ in range(100):
            hall.hub.receive(ana, Say("x" * 1_000, room=room))
    ben = hall.join("ben")
    prices = []
    for room in ("tea", "wine"):
        message = Join(room, 1, 0)
        hall.hub.receive(ben, message)
        prices.append(cost_of_catching_up(message, ben, hall.hub))
    assert prices == [pytest.approx(26, abs=1)] * 2
    assert cost_of_catching_up(Join("tea", 2, 1_000), ben, hall.hub) == 0
    assert cost_of_catching_up(Join("nowhere", 3, 0), ben, hall.hub) == 0


def test_a_flood_is_not_lost() -> None:
    """It waits in its own connection: everything that fits the store and a second's income comes, in order."""
    with server_process(limits=True) as server, RawClient(server.address, "ana") as ana:
        number = PUBLIC_LIMITS.cost_burst + PUBLIC_LIMITS.cost_per_s // 2
        ana.sock.sendall(b"".join(b'{"type":"say","text":"%d"}\n' % each for each in range(number)))
        assert [ana.until("said")["text"] for _ in range(number)] == [str(each) for each in range(number)]


def test_a_listener_on_both_kinds_of_addresses_tells_those_of_ipv4_apart() -> None:
    assert _network("::ffff:192.0.2.7") == _network("192.0.2.7") == "192.0.2.7"
    assert _network("2001:db8::1") == _network("2001:db8::2%eth0") == "2001:db8::/64"


def test_connections_from_one_address_are_counted() -> None:
    with server_process(limits=True) as server:
        several = [RawClient(server.address) for _ in range(PUBLIC_LIMITS.connections_per_address)]
        for each in several:
            each.ask("pong", type="ping")
        one_more = RawClient(server.address)
        assert one_more.until("error")["code"] == "too_many_connections"
        assert one_more.receive() is None
        several.pop().close()
        several[0].ask("pong", type="ping")
        while True:  # until the server has seen that one is gone
            with RawClient(server.address) as again:
                again.send(type="ping")
                answer = again.receive()
                if answer is not None and answer["type"] == "pong":
                    break
        for each in (*several, one_more):
            each.close()


def test_keys_are_not_guessed(server: ServerProcess) -> None:
    key = "0123456789abcdef"
    with RawClient(server.address) as short:
        assert short.ask("refused", type="hello", nick="key", key="short")["code"] == "bad_key"
        assert short.ask("refused", type="hello", nick="key", key="x" * 129)["code"] == "bad_key"
        assert short.ask("welcome", type="hello", nick="keeper", key=key)["nick"] == "keeper"
        tried, code = 0, ""
        while code != "too_many_tries":
            with RawClient(server.address) as thief:
                for _ in range(3):
                    tried += 1
                    code = thief.ask("refused", type="hello", nick="keeper", key=f"{tried:016}")["code"]
                    if code == "too_many_tries":
                        break
                else:
                    assert thief.receive() is None, "three tries, and the connection is closed"
        assert tried == 101
        with RawClient(server.address) as thief:
            assert thief.ask("refused", type="hello", nick="keeper", key=key)["code"] == "too_many_tries"
            assert thief.ask("refused", type="attach", token="x")["code"] == "too_many_tries"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, to have a small disk of its own")
def test_a_full_disk_refuses_new_lines_and_the_server_goes_on(tmp_path: Path) -> None:
    """On a disk of 24 MiB, in a mount namespace of its own."""
    disk, script = tmp_path / "disk", 'mount -t tmpfs -o size=24m none "$0" && exec "$@"'
    disk.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk)]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this system lets us mount nothing")
    command += [sys.executable, "-m", "chat", "serve", "--port", "0", "--no-limits", "--journal", str(disk / "journal")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = ("127.0.0.1", int(process.stderr.readline().rsplit(":", 1)[1]))
        inside = Path(f"/proc/{process.pid}/root{disk}")
        with RawClient(address, "ana") as ana:
            ana.send(type="say", text="x", id=1)
            ana.until("said", id=1)
            filler = inside / "filler"
            with filler.open("wb") as file:
                free = os.statvfs(inside)
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
            number, last = 2, {"type": ""}
            while last["type"] != "refused":
                ana.send(type="say", text="x" * 8_000, id=number)
                last = ana.until_any("said", "refused", id=number)
                number += 1
            assert last["code"] == "no_space"
            assert ana.ask("pong", type="ping", n=7)["n"] == 7
            with RawClient(address) as ben:
                assert ben.ask("refused", type="hello", nick="ben")["code"] == "no_space"
            filler.unlink()
            while last["type"] != "said":
                ana.send(type="say", text="again", id=number)
                last = ana.until_any("said", "refused", id=number)
                number += 1
        process.terminate()
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert "the disk is full: nothing new is accepted until" in rest
    assert "has room again" in rest
