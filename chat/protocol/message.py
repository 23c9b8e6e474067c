"""What all messages are."""

import msgspec


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="type", tag=str.lower):
    """Base of all messages; the type on the wire is the class name in lower case."""
