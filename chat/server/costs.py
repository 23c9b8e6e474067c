"""What a message costs its sender, in units: about the work that it makes. See :class:`chat.server.budget.Budget`."""

from chat.protocol.filemessages import FileChunk, FileCredit, FileOffer
from chat.protocol.messages import (
    Attach,
    Hello,
    Join,
    Leave,
    ListRooms,
    Nick,
    Recall,
    Say,
    SetTopic,
    Tell,
    Up,
    Who,
)
from chat.protocol.names import COMPOSED_CHARS, LONGEST_CHARS
from chat.server.hub import Hub
from chat.server.members import Connection
from chat.server.rooms import RECALLED_LINES, Rooms

#: For the price of one unit: so many characters are taken, so many people hear a line, if it is short (each time it has
#: so many characters more, they cost as much again), and so many names, or lines, are in an answer.
CHARS, HEARERS, HEARD_CHARS, NAMES, LINES = 1_024, 50, 256, 10, 25
#: For one more: so many characters of a name that is not of ASCII alone, which has to be normalised to be found.
NORMALISED_CHARS = 4
#: For one more: so many bytes of what was said before, to who comes back and has not heard it.
AGAIN_BYTES = 4_096
#: Coming, going and being called differently concern everybody, and are done seldom.
CHANGE = 10.0
#: What is no message at all.
MALFORMED = 5.0
#: A read of so few bytes that completes no line: who sends byte by byte makes more work than who sends more.
CRUMB, CRUMB_BYTES = 0.5, 256
#: A record of TLS that completes no line; most of all is done when the other end changes its key.
BARREN = 2.0
#: A handshake costs what it takes, so many ns of CPU for one unit: much more with a long key of RSA than with P-256.
UNIT_NS = 15_000
#: A chunk or a credit that is passed on: no transfer is so fast that it notices, since the receiver holds it back.
PASSED_ON = 1 / 256


def cost_of(message: Up, hub: Hub) -> float:
    """When it has just been handled, in the rooms as they are now."""
    rooms = hub.rooms
    match message:
        case Say(text, _, name):
            room = rooms.find(name)
            hearers = len(room.members) if room is not None else 0
            return 1 + _room(name, rooms) + len(text) / CHARS + (1 + len(text) / HEARD_CHARS) * hearers / HEARERS
        case Tell(nick, text):
            return 1 + _name(nick) + len(text) / CHARS
        case FileChunk() | FileCredit():
            return PASSED_ON if message is hub.relay.passed_on else 1.0
        case Join(name) | Leave(name) | Nick(name) | Hello(name) | SetTopic(room=name):
            return CHANGE + _name(name) + len(rooms.lobby.members) / HEARERS
        case FileOffer(nick):
            return CHANGE + _name(nick)
        case Attach():
            return CHANGE
        case Recall(lines, name):
            return CHANGE + _room(name, rooms) + min(lines, RECALLED_LINES) / LINES
        case Who(name):
            room = rooms.find(name)
            return 1 + _room(name, rooms) + (len(room.members) / NAMES if room is not None else 0)
        case ListRooms():
            return 1 + len(rooms) / NAMES
    return 1.0


def cost_of_catching_up(message: Up, connection: Connection, hub: Hub) -> float:
    """What its connection is sent of what was said before, if this asks for it; when it has just been handled."""
    match message:
        case Hello() | Attach():
            return connection.lag_bytes / AGAIN_BYTES
        case Join(name, _, int(cursor)) if (room := hub.rooms.find(name)) is not None:
            return room.log.bytes_after(cursor) / AGAIN_BYTES
    return 0.0


def _room(name: str, rooms: Rooms) -> float:
    """What it costs to find a room by this name."""
    return 0.0 if rooms.is_folded(name) else _name(name)


def _name(name: str) -> float:
    """What it costs to normalise a name; one that is too long for any is not looked at."""
    is_looked_at = not name.isascii() and len(name) <= LONGEST_CHARS * COMPOSED_CHARS
    return len(name) / NORMALISED_CHARS if is_looked_at else 0.0
