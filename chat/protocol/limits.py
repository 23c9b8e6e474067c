"""What a server accepts: told in `welcome`, kept to by both ends."""

import msgspec

from chat.protocol.fields import Count


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What this server accepts."""

    #: Longest line a client may send, without its newline.
    line_bytes: Count = 65_536
    #: Longest text, as UTF-8. Escaped in JSON it may grow sixfold and must still fit in a line.
    text_bytes: Count = 8_192
    #: Longest name of a person or a room, and longest topic of a room, in characters.
    nick_chars: Count = 32
    topic_chars: Count = 300
    #: How far a file's sender may be ahead of what its receiver has confirmed.
    file_window_bytes: Count = 524_288
    #: Open transfers of one session, counted apart as sender and as receiver.
    files: Count = 8
    #: In how many rooms a session may be, beside the lobby.
    rooms: Count = 16
    #: Units of work that a session earns in a second, and how many it may save up; 0: as many as it likes. A message
    #: costs 1, and more the longer it is and the more people hear it; who has none left is read no further for a while.
    cost_per_s: Count = 0
    cost_burst: Count = 0
    #: Connections at a time, in all and from one address; 0: as many as the system allows.
    connections: Count = 0
    connections_per_address: Count = 0


#: Fit for a server that anybody may reach.
PUBLIC_LIMITS = Limits(cost_per_s=100, cost_burst=1_000, connections=10_000, connections_per_address=256)
