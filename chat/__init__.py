"""A real-time chat: nonblocking server and client library. These names are the public way in."""

from chat.client.client import ChatClient
from chat.net.loop import Loop
from chat.server.server import ChatServer

__all__ = ["ChatClient", "ChatServer", "Loop"]
