"""What `limit.c` does, in plain Python: a chat server of one room, in our own lines. `limit.py PORT`.

It checks nothing, parses nothing beyond a line's beginning and knows no session. What it takes more than `limit.c` is
about what the language costs; what our server takes more than it, what we do with each message.
"""

import resource
import select
import socket
import sys

SAY = b'{"type":"say",'
HELLO = b'{"type":"hello","nick":"'
READ_BYTES = 65_536


class Member:
    """A connection, and what it has sent of a line, or has not been sent."""

    __slots__ = ("nick", "rest", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.nick = self.rest = self.unsent = b""


class Limit:
    """All that there is."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self._poller = select.epoll()
        self._poller.register(self._listener, select.EPOLLIN)
        self._members: dict[int, Member] = {}
        self._seq = 0
        self._news: list[bytes] = []

    def run(self) -> None:
        """For ever: what is new goes to everybody at the end of each turn, all in one piece."""
        while True:
            for number, events in self._poller.poll():
                if number == self._listener.fileno():
                    self._admit()
                elif events & ~select.EPOLLOUT:
                    self._take(self._members[number])
                else:
                    self._send(self._members[number], b"")
            if self._news:
                data = b"".join(self._news)
                self._news.clear()
                for member in self._members.values():
                    if member.unsent:
                        member.unsent += data
                    else:
                        self._send(member, data)

    def _admit(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._members[sock.fileno()] = Member(sock)
            self._poller.register(sock, select.EPOLLIN)

    def _take(self, member: Member) -> None:
        try:
            data = member.sock.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._poller.unregister(member.sock)
            del self._members[member.sock.fileno()]
            member.sock.close()
            return
        *lines, member.rest = (member.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(SAY):
                self._seq += 1
                begin = b'{"type":"said","log":"lobby","seq":%d,"from":"%s",' % (self._seq, member.nick)
                self._news.append(b"%s%s\n" % (begin, line[len(SAY) :]))
            elif line.startswith(HELLO):
                member.nick = line[len(HELLO) :].partition(b'"')[0]
                self._send(member, b'{"type":"welcome"}\n')

    def _send(self, member: Member, data: bytes) -> None:
        waited = bool(member.unsent)
        data = member.unsent + data
        try:
            sent = member.sock.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            sent = len(data)  # it is gone; its read will say so
        member.unsent = data[sent:]
        if bool(member.unsent) != waited:
            self._poller.modify(member.sock, select.EPOLLIN | (select.EPOLLOUT if member.unsent else 0))


if __name__ == "__main__":
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    Limit(int(sys.argv[1])).run()
