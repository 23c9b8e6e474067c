"""Sender, relay and receiver of a file together, without a network, while connections break."""

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from office import Office

from chat.client.files.states import CHUNK_BYTES, Incoming, Outgoing
from chat.protocol.filemessages import FileChunk, FileCredit
from chat.protocol.limits import Limits
from chat.protocol.message import Message
from chat.protocol.wire import DOWN
from chat.server.members import Connection

MS = 1_000_000


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40 * CHUNK_BYTES),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), max_size=8),
    st.integers(0, 10**6),
)
def test_whatever_breaks_the_file_arrives(size: int, breaks: list[tuple[int, str]], seed: int) -> None:
    """Connections of either side break at any time with all that is on them; copies come late, in any interleaving."""
    content = bytes(index * 7 % 251 for index in range(size))
    office = Office()
    office.relay._limits = Limits()
    number = office.accepted(size)
    outgoing, incoming = Outgoing(size, 10**6), Incoming(number, size, 0)
    received = bytearray()
    to_ana: deque[Message] = deque([FileCredit(number, 0, again=True)])
    to_ben: deque[Message] = deque()
    old: list[FileChunk] = []
    rng = random.Random(seed)
    now_ns = 0

    def pull(connection: Connection, queue: "deque[Message]") -> None:
        queue.extend(courier_lines(office, connection))

    def pump() -> None:
        while piece := outgoing.next_piece(now_ns):
            office.relay.chunk(office.ana, office.up, FileChunk(number, piece[0], content[piece[0] : sum(piece)]))

    for step in range(2_000):
        now_ns += MS
        for _, side in [each for each in breaks if each[0] == step]:
            if side == "a":
                to_ana.clear()
                del office.ana.connections[office.up]
                office.up = office.attach(office.ana)
                outgoing.rewind()
            else:
                old += [each for each in to_ben if isinstance(each, FileChunk)][:3]
                to_ben.clear()
                del office.ben.connections[office.down]
                office.down = office.attach(office.ben)
                office.relay.credit(office.ben, office.down, incoming.begin())
        pump()
        pull(office.up, to_ana)
        pull(office.down, to_ben)
        for _ in range(rng.randint(1, 4)):
            chunk = old.pop() if old and rng.random() < 0.3 else to_ben.popleft() if to_ben else None
            if isinstance(chunk, FileChunk):
                new, credit = incoming.chunk(chunk)
                received += new
                if credit is not None:
                    office.relay.credit(office.ben, office.down, credit)
            if to_ana:
                credit_up = to_ana.popleft()
                assert isinstance(credit_up, FileCredit)
                outgoing.credit(credit_up, now_ns)
        if incoming.complete and step > 60:
            break
    assert received == content


def courier_lines(office: Office, connection: Connection) -> list[Message]:
    return [DOWN.decode(line) for line in office.taken(connection)]
