"""What a message costs its sender, in units: about the work that it makes. See :class:`chat.server.budget.Budget`."""

from chat.protocol.filemessages import FileChunk, FileCredit, FileOffer
from chat.protocol.messages import Hello, Join, Leave, Nick, Recall, Say, SetTopic, Up, Who
from chat.server.rooms import Rooms

#: So many people hear a line for the price of one unit, and so many bytes have it.
HEARERS, BYTES = 50, 1_024
#: Coming, going and being called differently concern everybody, and are done seldom.
CHANGE = 10.0
#: What is no message at all.
MALFORMED = 5.0


def cost_of(message: Up, rooms: Rooms) -> float:
    """In the rooms as they are now."""
    match message:
        case Say(text, _, name):
            room = rooms.find(name)
            return 1 + len(text) / BYTES + (len(room.members) / HEARERS if room is not None else 0)
        case Join() | Leave() | Nick() | Hello() | SetTopic():
            return CHANGE + len(rooms.lobby.members) / HEARERS
        case FileOffer() | Recall():
            return CHANGE
        case Who(name):
            room = rooms.find(name)
            return 1 + (len(room.members) / HEARERS if room is not None else 0)
        case FileChunk() | FileCredit():
            return 0.0  # bounded by what the receiver confirms
    return 1.0
