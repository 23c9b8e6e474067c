"""The load engine: everything that the users of one Locust process share."""

import itertools
import random
import ssl
import sys
import time
from collections.abc import Callable
from typing import Protocol

import psutil
from gevent.event import Event

from chat.net.transport import Address
from loadtests.load.fileload import FileStore
from loadtests.load.hubloop import HubLoop
from loadtests.load.recorder import Recorder
from loadtests.samples import PROCESS, USERS_PER_WORKER
from loadtests.scenario.scenario import Scenario
from loadtests.stalls.host import run_delay_ns

#: How long a leaving user waits for messages that are still on their way: at the end of the load, and when somebody
#: ends it early. Whoever does so waits for 10 s before they kill.
DRAIN_S = 10.0
_HURRIED_DRAIN_S = 3.0
#: How often TCP_INFO and the process's CPU time and memory are sampled.
_SAMPLE_S = 1.0

#: Called for each answered message: kind, response time in ms, size in bytes, and the error of a refused one.
Report = Callable[[str, float, int, Exception | None], None]


class Member(Protocol):
    """What the others, and the engine, need of a participant."""

    def expect(self, change: int) -> None:
        """So many more messages or files for it alone are on their way, or fewer."""

    def sample_tcp(self) -> None:
        """Record what the kernel knows about its connections."""


class Engine:
    """Everything the users of one Locust process share."""

    def __init__(
        self,
        scenario: Scenario,
        addresses: Callable[[], tuple[Address, Address | None]],
        recorder: Recorder,
        report: Report,
        *,
        tls: ssl.SSLContext | None,
        nick_prefix: str,
        worker: int = 0,
        workers: int = 1,
        flush: Callable[[], object] | None = None,
        is_endless: bool = False,
    ) -> None:
        """
        Args:
            addresses: of the primary and the secondary connections.
            tls: makes their connections private.
            nick_prefix: of all users of this load, whichever of its processes they are in.
            worker: which of these `workers` processes this is.
            flush: called each second to save what was recorded; the recorder's own by default.
            is_endless: whether somebody stops this load, rather than its stages.
        """
        self.scenario = scenario
        self.addresses = addresses
        self.tls = tls
        self.recorder = recorder
        self.report = report
        self.loop = HubLoop()
        #: Set when the loop has ended by a fault: nobody is answered any more.
        self.failed = Event()
        #: Those who have come and not begun to leave.
        self.members: dict[int, Member] = {}
        #: Those who have connections, from before they have come until they are gone.
        self.connected: dict[int, Member] = {}
        self.drain_s = DRAIN_S
        self.workers = workers
        self._numbers = itertools.count(worker * USERS_PER_WORKER)
        self._nick_prefix = nick_prefix
        self._flush = flush or recorder.flush
        self._is_endless = is_endless
        self._sampled_below = int(scenario.messages.delivery_sample * 2**32)
        self._process = psutil.Process()
        self._sampler = self.loop.call_later(_SAMPLE_S, self._sample)
        self.files = FileStore(int(scenario.files.size))

    def hurry(self) -> None:
        """The load is ended early: leave without waiting for long."""
        self.drain_s = _HURRIED_DRAIN_S

    @property
    def end_ns(self) -> int:
        """What is due later is no part of the load."""
        return sys.maxsize if self._is_endless else self.recorder.start_ns + int(self.scenario.duration_s * 1e9)

    def next_number(self) -> int:
        """The number of the next participant."""
        return next(self._numbers)

    def nick(self, number: int) -> str:
        """What the participant with this number is called."""
        return f"{self._nick_prefix}-{number}"

    def number(self, nick: str) -> int | None:
        """The number of a participant of this load, in whichever process; None for anybody else in the room."""
        prefix, _, number = nick.partition("-")
        return int(number) if prefix == self._nick_prefix and number.isdecimal() else None

    def is_sampled(self, sender: int, message_id: int) -> bool:
        """Whether the deliveries of this message are recorded: all of them, or none, at every receiver alike."""
        # Multiplication by the golden ratio spreads neighbours evenly over the 32 bits (Knuth, TAOCP vol. 3, 6.4).
        return (sender * 40_503 + message_id) * 2_654_435_769 % 2**32 < self._sampled_below

    def member(self, nick: str) -> "Member | None":
        """The one of ours with this nickname who has come and not begun to leave."""
        number = self.number(nick)
        return None if number is None else self.members.get(number)

    def peer_of(self, number: int, rng: random.Random) -> str:
        """Somebody to talk to in private: any other participant, or oneself when alone."""
        others = [other for other in self.members if other != number]
        return self.nick(rng.choice(others) if others else number)

    def _sample(self) -> None:
        for member in self.connected.values():
            member.sample_tcp()
        rss_bytes = self._process.memory_info().rss
        self.recorder.add(PROCESS, self.loop.now_ns(), time.process_time_ns(), run_delay_ns(), rss_bytes)
        self._flush()
        self._sampler = self.loop.call_later(_SAMPLE_S, self._sample)
