"""Hub and ClientSessions over arbitrary deliveries: whatever the order and the copies, each message once, in order."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from sinks import Pipe

from chat.client.events import Echoed, PathName, Received
from chat.client.session import ClientSession
from chat.protocol.messages import Down, Up, Welcome
from chat.protocol.wire import UP, BadLine, LineReader
from chat.server.hub import Hub

PATHS: list[PathName] = ["primary", "secondary"]


class Wire:
    """One connection between a session and the hub: bytes in flight both ways, delivered piecemeal or lost."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.pipe = Pipe(hub.delivery)
        self.connection = self.pipe.connection
        self.up = b""
        self.up_reader: LineReader[Up] = LineReader(UP, 65_536)

    def carry_up(self, size: int) -> None:
        data, self.up = self.up[:size], self.up[size:]
        for message in self.up_reader.feed(data):
            assert not isinstance(message, BadLine), message
            self.hub.receive(self.connection, message)

    def carry_down(self, size: int) -> list[Down]:
        self.hub.delivery.flush()
        return self.pipe.messages(size)


class Member:
    """A redundant client, with the rule that a connection is given every pending message when it begins."""

    def __init__(self, hub: Hub, nick: str) -> None:
        self.hub = hub
        self.session = ClientSession(nick)
        self.echoed: list[tuple[str, int]] = []
        self.seen: list[int] = []
        self.wires: dict[PathName, Wire] = {"primary": Wire(hub)}
        self.wires["primary"].up += self.session.hello()
        self.catch_up()
        self.replace("secondary")
        self.catch_up()

    def say(self, text: str) -> None:
        line, _ = self.session.unanswered(self.session.say(text, 0, 0) - 1, 1)
        for wire in self.wires.values():
            wire.up += line

    def replace(self, path: PathName) -> None:
        """The connection breaks, with all that is in flight on it, and another one is opened."""
        wire = self.wires[path] = Wire(self.hub)
        wire.up += self.session.attach(True) + self.session.unanswered(0, 1 << 30)[0]

    def receive(self, path: PathName, size: int) -> None:
        for message in self.wires[path].carry_down(size):
            if isinstance(message, Welcome):
                self.session.welcome(message)
                for each in PATHS:
                    self.session.following.add(each)
            for event in self.session.receive(message, path, 0, 0, False):
                if isinstance(event, Echoed):
                    self.echoed.append((event.text, event.id))
                if isinstance(event, Echoed | Received):
                    self.seen.append(event.seq)

    def catch_up(self) -> None:
        for path, wire in self.wires.items():
            wire.carry_up(1 << 20)
            self.receive(path, 1 << 20)


steps = st.lists(
    st.tuples(
        st.sampled_from(["say", "up", "down", "break"]),
        st.integers(0, 1),
        st.sampled_from(PATHS),
        st.integers(1, 200),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_each_message_once_and_in_order(plan: list[tuple[str, int, PathName, int]]) -> None:
    tokens = itertools.count()
    hub = Hub(lambda: f"token{next(tokens)}")
    members = [Member(hub, "ana"), Member(hub, "ben")]
    said = {"ana": 0, "ben": 0}
    for action, who, path, size in plan:
        member = members[who]
        nick = member.session.nick
        if action == "say":
            said[nick] += 1
            member.say(f"{nick} {said[nick]}")
        elif action == "up":
            member.wires[path].carry_up(size)
        elif action == "down":
            member.receive(path, size)
        else:
            # The new connection is attached before the server sees the old one go; otherwise, with the other one
            # just broken too, the session would end.
            old = member.wires[path]
            member.replace(path)
            member.wires[path].carry_up(1 << 20)
            hub.disconnect(old.connection, "cut")
    for _ in range(3):
        for member in members:
            member.catch_up()
    for member in members:
        nick = member.session.nick
        assert sorted(member.echoed, key=lambda echo: echo[1]) == [(f"{nick} {i}", i) for i in range(1, said[nick] + 1)]
        assert member.seen == sorted(set(member.seen))
        assert len(member.seen) == sum(said.values()), "everybody sees every message once"
        assert member.session.pending == 0
