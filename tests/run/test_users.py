"""When a user's messages are due, and what becomes of those that are due while it waits to be let in.

Locust is not to be imported here; so all cases run in one process of its own, with a clock that is a number.
"""

import json
import subprocess
import sys

import pytest
from run_helpers import ROOT

#: When the load ends, and when Locust has come to this user to stop it.
END_S, STOP_S = 4.0, 4.15
#: 5 a second for 4 s, from half of a gap on; the next one would be due before users are stopped.
DUE_S = [0.1 + 0.2 * number for number in range(20)]

#: Name → when a user is let in, and whether it is: it may be refused, or killed as it waits.
OPEN = {
    "at once": (0.0, "let in"),
    "late": (3.08, "let in"),
    "never": (1.5, "refused"),
    "after the end": (5.0, "let in"),
    "never, which it learns after the end": (5.0, "refused"),
    "never, as it does not end": (5.0, "killed"),
}
CLOSED = {name: OPEN[name] for name in ("late", "never", "after the end")}

#: Runs users as Locust does; prints when the messages that each said were due, and when it said them.
SCRIPT = f"""
import json
from unittest.mock import Mock

from gevent import GreenletExit

from loadtests.load import users
from loadtests.scenario.scenario import Messages, PerSecond, Scenario, Seconds, Stage

S = 1_000_000_000
END_NS, STOP_NS = {END_S} * S, {STOP_S} * S


class Case:
    def __init__(self, kind, joined_s, how, think_time=None):
        self.now_ns, self.said, self.is_stopped = 0, [], False
        self.joined_ns, self.how = int(joined_s * S), how
        messages = Messages(rate=PerSecond(5), arrival="constant", think_time=think_time)
        scenario = Scenario(messages=messages, stages=[Stage(users=1, duration=Seconds({END_S}))])
        loop = Mock(now_ns=lambda: self.now_ns, sleep_until=self.sleep_until)
        users.LOAD.engine = Mock(scenario=scenario, loop=loop, recorder=Mock(start_ns=0), end_ns=END_NS)
        participant = Mock(join=self.join, say=self.say, schedule_rng=Mock(random=lambda: 0.5))
        users.Participant = lambda *_: participant
        self.user = getattr(users, kind)(Mock())
        self.user._group = Mock()
        try:
            self.user.run()
        except users.StopUser:
            pass
        participant.leave.assert_called_once_with()

    def pass_to(self, when_ns):
        if when_ns > STOP_NS and not self.is_stopped:  # meanwhile Locust stops all others
            self.now_ns, self.is_stopped = STOP_NS, True
            self.user.stop()
        self.now_ns = max(self.now_ns, when_ns)

    def sleep_until(self, when_ns):
        self.pass_to(when_ns)
        if when_ns > STOP_NS:
            raise GreenletExit

    def join(self):
        self.pass_to(self.joined_ns)
        if self.how == "killed":
            raise GreenletExit
        if self.how == "refused":
            raise ConnectionError("not let in")

    def say(self, text, due_ns):
        self.said.append((due_ns / S, self.now_ns / S))


found = [{{name: Case("BroadcastUser", *case).said for name, case in {OPEN}.items()}}]
found += [{{name: Case("BroadcastUser", *case, Seconds(0.5)).said for name, case in {CLOSED}.items()}}]
found += [Case("ListeningUser", *{OPEN["after the end"]}).said]
print(json.dumps(found))
"""

#: When each message was due, and when it was said.
Said = list[tuple[float, float]]


@pytest.fixture(scope="module")
def said() -> tuple[dict[str, Said], dict[str, Said], Said]:
    """By users of an open workload, of a closed one, and by a listener."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    of_open, of_closed, of_listening = json.loads(done.stdout)
    return of_open, of_closed, of_listening


@pytest.mark.parametrize("name", OPEN)
def test_no_wait_for_being_let_in_thins_the_load(said: tuple[dict[str, Said], ...], name: str) -> None:
    """What is due meanwhile is said at once afterwards; a client that was not let in does not take it: it is lost."""
    found, (joined_s, _) = said[0][name], OPEN[name]
    assert [due_s for due_s, _ in found] == pytest.approx(DUE_S)
    assert [said_s for _, said_s in found] == pytest.approx([max(due_s, joined_s) for due_s in DUE_S])


def test_who_waits_for_answers_begins_when_it_is_let_in(said: tuple[dict[str, Said], ...]) -> None:
    found = said[1]
    assert [due_s for due_s, _ in found["late"]] == pytest.approx([3.58])
    assert found["never"] == found["after the end"] == []


def test_a_listener_says_nothing_even_if_the_load_ends_before_it_is_let_in(said: tuple[Said, ...]) -> None:
    assert said[2] == []
