"""A real-time chat: nonblocking server and client library. These names are the public way in."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chat.client.client import ChatClient
    from chat.net.loop import Loop
    from chat.server.server import ChatServer

__all__ = ["ChatClient", "ChatServer", "Loop"]

_PLACES = {"ChatClient": "chat.client.client", "ChatServer": "chat.server.server", "Loop": "chat.net.loop"}


def __getattr__(name: str) -> Any:
    """Loaded when first used: a client needs no server, and `chatlab --help` neither."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
