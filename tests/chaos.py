"""Chaos: many clients, a killer of connections, and a count of what was lost, doubled, or out of order: `python FILE`.

The server is a process of its own. All clients share one loop and reach the server over two relays, the two paths. The
killer resets a random connection again and again, and now and then cuts a whole path for a while: nothing passes, and
nobody is told. With `--host` the server is one that already runs, behind a link of your choice.
"""

import argparse
import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from chat_helpers import Relay, ServerProcess

from chat.client.client import ChatClient, Mode
from chat.client.events import Closed, Echoed, Event, Gap, Received, Reconnecting, StartedAnew
from chat.net.loop import Loop
from chat.net.transport import Address

#: How long all may take to see what was sent: a narrow link carries on for minutes after.
DRAIN_S = 300.0


@dataclass
class Plan:
    """What is done to whom."""

    mode: Mode
    clients: int = 50
    #: Messages per second of all clients together.
    rate: float = 200.0
    duration_s: float = 60.0
    reset_every_s: float = 0.1
    #: A whole path is cut so often, and for so long.
    outage_every_s: float = 10.0
    outage_s: float = 3.0
    seed: int = 1


@dataclass
class Verdict:
    """What became of the messages: of each client, in how far it saw what was sent."""

    sent: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    gaps: int = 0
    resets: int = 0
    outages: int = 0
    reconnections: int = 0
    begun_anew: int = 0
    #: Reasons of clients that ended before we said so.
    ended: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.out_of_order or self.gaps or self.begun_anew or self.ended)


class Chaos:
    """One run on one loop."""

    def __init__(self, plan: Plan, *ways: Address) -> None:
        self.plan = plan
        self.verdict = Verdict()
        self._rng = random.Random(plan.seed)
        self._loop = Loop()
        self._relays = [Relay(self._loop, way) for way in ways]
        self._sent: list[str] = []
        self._seen: dict[ChatClient, list[tuple[int, str]]] = {}
        self._stopping = False

    def run(self) -> Verdict:
        plan = self.plan
        for number in range(plan.clients):
            self._add(f"chaos{number}")
        self._until(lambda: all(client.registered for client in self._seen), 30)
        # Those who come later have not seen what was said before: it begins when all are there.
        for period_s, action in (
            (1 / plan.rate, self._say),
            (plan.reset_every_s, self._reset),
            (plan.outage_every_s, self._outage),
        ):
            self._every(period_s, action)
        end_ns = self._loop.now_ns() + int(plan.duration_s * 1e9)
        self._until(lambda: self._loop.now_ns() >= end_ns, plan.duration_s + 5)
        self._stopping = True
        self._until(self._complete, DRAIN_S)
        self._judge()
        for client in self._seen:
            client.close()
        for relay in self._relays:
            relay.close()
        self._loop.close()
        return self.verdict

    def _add(self, nick: str) -> None:
        seen: list[tuple[int, str]] = []

        def on_event(event: Event) -> None:
            match event:
                case Echoed() | Received():
                    seen.append((event.seq, event.text))
                case Gap():
                    self.verdict.gaps += 1
                case Reconnecting():
                    self.verdict.reconnections += 1
                case StartedAnew():
                    self.verdict.begun_anew += 1
                case Closed(reason) if reason != "closed":
                    self.verdict.ended.append(reason)

        primary, secondary = (relay.address for relay in self._relays)
        client = ChatClient(self._loop, nick, primary, secondary, mode=self.plan.mode, on_event=on_event)
        self._seen[client] = seen
        client.connect()

    def _every(self, period_s: float, action: Callable[[], None]) -> None:
        """On a schedule of its own, however late the loop is: a slow receiver must not thin the load."""
        when_ns = self._loop.now_ns()

        def again() -> None:
            nonlocal when_ns
            if not self._stopping:
                action()
                when_ns += int(period_s * 1e9)
                self._loop.call_at(when_ns, again)

        self._loop.call_later(period_s, again)

    def _say(self) -> None:
        client = self._rng.choice([*self._seen])
        if client.registered:
            text = f"message {len(self._sent)}"
            client.say(text)
            self._sent.append(text)

    def _reset(self) -> None:
        relay = self._rng.choice(self._relays)
        if relay.connections:
            relay.reset(self._rng.randrange(relay.connections))
            self.verdict.resets += 1

    def _outage(self) -> None:
        relay = self._rng.choice(self._relays)
        relay.hold(True)
        self.verdict.outages += 1
        self._loop.call_later(self.plan.outage_s, lambda: relay.hold(False))

    def _complete(self) -> bool:
        return all(not client.pending and len(seen) >= len(self._sent) for client, seen in self._seen.items())

    def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline_ns = self._loop.now_ns() + int(seconds * 1e9)
        while not condition() and self._loop.now_ns() < deadline_ns:
            self._loop.run_once(0.05)

    def _judge(self) -> None:
        verdict, sent = self.verdict, set(self._sent)
        verdict.sent = len(self._sent)
        for seen in self._seen.values():
            texts = [text for _, text in seen]
            verdict.lost += len(sent - set(texts))
            verdict.doubled += len(texts) - len(set(texts))
            verdict.out_of_order += sum(later[0] <= earlier[0] for earlier, later in itertools.pairwise(seen))


def main() -> int:
    """Exit code 0 if nothing was lost, doubled or out of order in any mode."""
    parser = argparse.ArgumentParser(description="Break connections and count what becomes of the messages.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0, help="messages per second, of all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", help="a server that already runs; one is started otherwise")
    parser.add_argument("--secondary", help="its address on the other path, if that is not the same")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--mode", choices=("single", "standby", "redundant"), action="append")
    options = parser.parse_args()
    good = True
    modes: list[Mode] = options.mode or ["single", "standby", "redundant"]
    for mode in modes:
        server = None if options.host else ServerProcess()
        host, port = (options.host, options.port) if server is None else server.address
        plan = Plan(mode, options.clients, options.rate, options.seconds, seed=options.seed)
        verdict = Chaos(plan, (host, port), (options.secondary or host, port)).run()
        print(mode, verdict, flush=True)
        good &= verdict.good
        if server is not None:
            server.stop()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
