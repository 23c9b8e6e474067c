"""The Locust user classes. One of your own is a subclass of :class:`ChatUser` with one-line tasks that never wait."""

import sys
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from locust import User, constant, task
from locust.exception import StopUser
from locust.user.task import DefaultTaskSet

from loadtests.load.engine import Engine
from loadtests.load.participant import Participant
from loadtests.load.process import LOAD
from loadtests.scenario.schedule import Ramp, intended_times

#: When what is never due is due.
_NEVER_NS = sys.maxsize


class ChatUser(User):
    """A participant whose tasks run at the intended times of its schedule: an open workload.

    Locust asks `wait_time` how long to wait after a task. Here it waits itself, until the next intended time on an
    absolute schedule; a user that is late goes on at once and skips nothing. The schedule begins when Locust starts the
    user, so that what is due before it is let in waits for that. With `think_time` the workload is closed.
    """

    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.engine: Engine = LOAD.users_engine()
        self.participant: Participant
        #: When what comes next is due, as far as that is known.
        self.intended_ns = _NEVER_NS
        self._stopped_ns = 0

    def on_start(self) -> None:
        self.participant = Participant(self.engine, self.engine.next_number())
        # Locust stops all users a little after the end: what is due between is no part of the load.
        self._due = takewhile(self.engine.end_ns.__ge__, self.schedule())
        try:
            self.participant.join()
        except OSError as error:
            self.engine.report("join", 0.0, 0, error)
            if self.engine.scenario.messages.think_time is not None:
                raise StopUser from error  # it would wait for answers
        self.wait()

    def schedule(self) -> Iterator[int]:
        """When this user does something."""
        scenario = self.engine.scenario
        messages = scenario.messages
        if messages.think_time is not None:
            return self._after_answers(messages.think_time)
        ramp = Ramp(messages.rate, messages.ramp_to or messages.rate, scenario.duration_s)
        now_ns = self.engine.loop.now_ns()
        ramp = ramp.left_after((now_ns - self.engine.recorder.start_ns) / 1e9)
        return intended_times(messages.arrival, ramp, messages.burst, now_ns, self.participant.schedule_rng)

    def stop(self, force: bool = False) -> bool:
        self._stopped_ns = self._stopped_ns or self.engine.loop.now_ns()
        return bool(super().stop(force))

    def on_stop(self) -> None:
        """Send what was due before Locust stopped this user, if it has come to none of that yet, and leave."""
        if self.intended_ns == _NEVER_NS:
            self.intended_ns = next(self._due, _NEVER_NS)
        tasks = DefaultTaskSet(self)
        while self.intended_ns <= self._stopped_ns:
            tasks.execute_task(tasks.get_next_task())
            self.intended_ns = next(self._due, _NEVER_NS)
        self.participant.leave()

    def _after_answers(self, think_time_s: float) -> Iterator[int]:
        while True:
            self.participant.await_answers()
            yield self.engine.loop.now_ns() + int(think_time_s * 1e9)

    def wait_time(self) -> float:
        self.intended_ns = _NEVER_NS  # until an answer has come, in a closed workload
        self.intended_ns = next(self._due, _NEVER_NS)
        self.engine.loop.sleep_until(self.intended_ns)
        return 0.0

    def text(self) -> str:
        """A text of the scenario's message size."""
        return "x" * int(self.engine.scenario.messages.size)

    def say(self, text: str) -> None:
        """To everyone."""
        self.participant.say(text, self.intended_ns)

    def tell(self, nick: str, text: str) -> None:
        """To one."""
        self.participant.tell(nick, text, self.intended_ns)

    def peer(self) -> str:
        """The nickname of a random other user."""
        return self.engine.peer_of(self.participant.number, self.participant.rng)


class BroadcastUser(ChatUser):
    """Talks to everyone."""

    @task
    def broadcast(self) -> None:
        self.say(self.text())


class PrivateUser(ChatUser):
    """Talks to one random user at a time."""

    @task
    def whisper(self) -> None:
        self.tell(self.peer(), self.text())


class FileUser(ChatUser):
    """Sends a file to a random user now and then; says nothing."""

    def schedule(self) -> Iterator[int]:
        """That of the files alone: what is said of messages is nothing to this user.

        It begins (as a generator does) when the user is in: a file's goodput is none of waiting for that.
        """
        scenario = self.engine.scenario
        rate = 1 / scenario.files.every
        now_ns = self.engine.loop.now_ns()
        yield from intended_times(
            "constant", Ramp(rate, rate, scenario.duration_s), 1, now_ns, self.participant.schedule_rng
        )

    @task
    def send_file(self) -> None:
        self.participant.send_file(self.peer(), self.intended_ns)


class ListeningUser(ChatUser):
    """Only listens; being there makes every broadcast one delivery dearer."""

    wait_time = constant(1)

    def schedule(self) -> Iterator[int]:
        """Nothing is ever due."""
        return iter(())

    @task
    def listen(self) -> None:
        """Nothing to do: deliveries are recorded as they come."""
