"""What can go wrong in the chat, and whose fault it is.

- :exc:`ChatError`: base of all; its text is one sentence for a person
    - :exc:`Refusal`: the peer asked for something the rules do not allow; `code` is for programs
    - :exc:`PeerError`: the peer said what cannot be; the connection cannot go on
    - :exc:`NotRegistered`: our own program speaks before the server has welcomed it, or after the end
    - :exc:`TooMuchUnderWay`: our own program speaks faster than it is heard
    - :exc:`TooLong`: our own program asks for what does not fit into a line of this server
    - :exc:`NotText`: our own program says what has no UTF-8
    - :exc:`FileError`: a file cannot be read, stored, or is not what it was said to be
    - :exc:`AddressError`: a host or port cannot be listened on, resolved, or reached
    - :exc:`TlsError`: a certificate cannot be used, or the other end's cannot be trusted

Faults inside the bytes of a connection are not raised: :mod:`chat.protocol.wire` returns them among the messages,
because the lines before and after a bad one count.
"""


class ChatError(Exception):
    """One clear sentence."""


class Refusal(ChatError):
    """A request was understood and is not granted. The peer's fault; the connection goes on."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class PeerError(ChatError):
    """The peer's fault: a message that is well-formed and cannot be true, or was not asked for."""


class NotRegistered(ChatError):
    """The caller's fault: a message was sent while no session existed to send it in."""


class TooMuchUnderWay(ChatError):
    """The caller's fault: so many messages wait for their echo that one more could not be told from an old one."""


class TooLong(ChatError):
    """The caller's fault: the server would end the connection over a line of this length."""


class NotText(ChatError):
    """The caller's fault: half a character; Python makes one of each typed byte, or argument's, that is not UTF-8."""


class FileError(ChatError):
    """The machine's or the user's fault: this file, or folder, cannot be used; the sentence says which and why."""


class AddressError(ChatError):
    """The machine's or the user's fault: this address cannot be used; the sentence says which and why."""


class TlsError(ChatError):
    """The user's or the peer's fault: no private connection can be made; the text says why."""
