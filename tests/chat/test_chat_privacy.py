"""Nobody receives what is not theirs: every byte that each client gets is searched for what belongs to others."""

import base64
import hashlib
import random
import secrets
from collections.abc import Callable

import pytest
from chat_helpers import RawClient, server_process
from hub_helpers import KEY, Hall

from chat.protocol.filemessages import FileEnd, FileOffer
from chat.protocol.messages import Attach, Hello, Join, Leave, ListRooms, Recall, Say, Settle, Tell, Up, Who
from chat.server.members import Connection

PEOPLE = ("ana", "ben", "cem", "dia", "eli")
ROOMS = ("tea", "tin")
#: Whether this life, a nickname's session, may see something.
May = Callable[[str], bool]


class Town(Hall):
    """People with sessions that come, go and speak at random; whatever is said is marked, and only some may see it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.inside: dict[str, Connection] = {}
        #: All bytes that each life was sent.
        self.got: dict[str, bytes] = {}
        self.marks: list[tuple[str, May]] = []
        self.visited: dict[str, set[str]] = {room: set() for room in ROOMS}

    def mark(self, may: May) -> str:
        text = f"<{len(self.marks)}>"
        self.marks.append((text, may))
        return text

    def come(self, nick: str) -> None:
        life = f"{nick} {len(self.got)}"
        key = f"{KEY} {life}"
        self.inside[life] = self.connect(Hello(nick, key))
        self.got[life] = b""
        self.marks += [(key, lambda _: False), (f'"token{len(self.got)}"', lambda other: other == life)]

    def flush(self) -> None:
        for life, connection in self.inside.items():
            self.got[life] += self.pipes[connection].flush()

    def step(self) -> None:
        """Somebody does something."""
        free = [nick for nick in PEOPLE if all(life.split()[0] != nick for life in self.inside)]
        if len(self.inside) < 3 or (free and self.rng.random() < 0.05):
            self.come(self.rng.choice(free))
            return
        life, other = self.rng.choice([*self.inside]), self.rng.choice([*self.inside])
        connection = self.inside[life]
        if self.rng.random() < 0.03:
            self.flush()
            self.hub.disconnect(connection, "went")
            del self.inside[life]
        elif self.rng.random() < 0.05:
            self.connect(Attach("token1000", {}), Hello(other.split()[0], "not the key at all"))
        else:
            self.hub.receive(connection, self.something(life, other))

    def something(self, life: str, other: str) -> Up:
        room = self.rng.choice(ROOMS)
        may: May = {life, other}.__contains__
        match self.rng.randrange(10):
            case 0:
                self.visited[room].add(life)
                return Join(room, cursor=self.rng.choice([None, 0]))
            case 1:
                return Leave(room)
            case 2 | 3:
                return Tell(other.split()[0], self.mark(may))
            case 4:
                name = self.mark(may)
                return FileOffer(other.split()[0], name, 5, hashlib.sha256(name.encode()).hexdigest())
            case 5 | 6:
                # Who comes in later may ask for what was said before.
                return Say(self.mark(self.visited[room].__contains__), room=room)
            case 7:
                return Who(self.rng.choice([*ROOMS, "lobby"]))
            case 8:
                return self.rng.choice([ListRooms(), Settle(), FileEnd(self.rng.randrange(1, 9), "cancelled")])
        return Recall(1_000, self.rng.choice([*ROOMS, "lobby"]))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_nobody_is_sent_what_is_private_to_others(seed: int) -> None:
    town = Town(seed)
    for _ in range(500):
        town.step()
        if town.rng.random() < 0.5:
            town.flush()
    town.flush()
    seen = 0
    for life, got in town.got.items():
        text = got.decode()
        for mark, may in town.marks:
            if mark in text:
                assert may(life), f"{life} was sent {mark}"
                seen += 1
    assert seen > 100


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("journal", [False, True])
def test_of_a_server_nobody_learns_tokens_keys_addresses_or_private_words(journal: bool, tmp_path: object) -> None:
    """Over real sockets: all that a third person, and one who comes later under the same name, can provoke."""
    key, words, room_words, content = (secrets.token_urlsafe(16) for _ in range(4))
    options = ("--journal", f"{tmp_path}/journal") if journal else ()
    with server_process("127.0.0.1", *options) as server:
        ana = RawClient(server.address)
        token = ana.ask("welcome", type="hello", nick="ana", key=key)["token"]
        ben, eve = RawClient(server.address, "ben"), RawClient(server.address, "eve")
        for each in (ana, ben):
            each.ask("member", type="join", room="tea", id=1)
        ana.send(type="tell", to="ben", text=words, id=2)
        ana.send(type="say", text=room_words, room="tea", id=3)
        digest = hashlib.sha256(content.encode()).hexdigest()
        ana.send(type="file_offer", to="ben", name=f"{words}.txt", size=len(content), sha256=digest, id=4)
        number = ben.until("file_offered")["file"]
        ben.send(type="file_accept", file=number)
        ana.until("file_accepted")
        ben.send(type="file_credit", file=number, offset=0, again=True)
        ana.until("file_credit")
        data = base64.b64encode(content.encode()).decode()
        ana.send(type="file_chunk", file=number, offset=0, data=data)
        ben.until("file_chunk")
        peeping: list[dict[str, object]] = [
            {"type": "who", "room": "tea"},
            {"type": "rooms"},
            {"type": "last", "lines": 1_000, "room": "tea"},
            {"type": "last", "lines": 1_000, "room": "inbox"},
            {"type": "last", "lines": 1_000},
            {"type": "settle"},
            {"type": "hello", "nick": "ana", "key": "a guess of 16 letters"},
            {"type": "attach", "token": "guessed", "cursors": {"inbox": 0, "tea": 0}},
            {"type": "file_accept", "file": number},
            {"type": "file_credit", "file": number, "offset": 0, "again": True},
            {"type": "file_chunk", "file": number, "offset": 0, "data": ""},
            {"type": "file_end", "file": number, "outcome": "cancelled"},
            {"type": "say", "text": "?", "room": "tea"},
            {"type": "tell", "to": "ana", "text": "?"},
            {"type": "nick", "nick": "ana"},
            {"type": "nonsense"},
        ]
        for message in peeping:
            eve.send(**message)
        got = f"{eve.welcome} {eve.sync()}"
        with RawClient(server.address) as stranger:
            for message in peeping:
                stranger.send(**message)
            stranger.send(type="hello", nick="ana")
            got += str(stranger.until("refused"))
        address = "{}:{}".format(*ana.sock.getsockname())
        ana.send(type="bye")
        eve.until("left", nick="ana")
        with RawClient(server.address, "ana") as other:
            other.send(type="attach", token=other.welcome["token"], cursors={"inbox": 0, "lobby": 0})
            got += f"{other.welcome} {other.sync()}"
        for each in (ana, ben, eve):
            each.close()
    assert "ana" in got
    for private in (key, token, words, room_words, content, data, digest, address):
        assert private not in got
