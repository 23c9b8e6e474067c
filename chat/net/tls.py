"""TLS between a transport and its owner: plain bytes on one side, records on the other. It touches no socket.

Contexts are made once for all connections: :func:`server_context`, :func:`client_context`.
"""

import contextlib
import ssl
import time
from collections.abc import Iterator

from chat.protocol.errors import TlsError

#: What every TLS connection begins with: a record of the handshake; or one that says why there is none.
HANDSHAKE, ALERT = 0x16, 0x15
#: Of each record: its kind, its version, and how many bytes follow; never more than so many (RFC 5246, 6.2.3).
_HEADER_BYTES, _LONGEST_BYTES = 5, 18_432
#: With what both ends agree on a key. A server that left it to its clients would compute very long for each that wants
#: ffdhe8192; a client that left it to its server would have to begin twice.
_GROUP = "prime256v1"


def server_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """For a server with this certificate chain and private key, both PEM files, or both in one.

    Raises:
        TlsError: a file is missing, is something else, or they do not belong together; or the key has a pass phrase.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ecdh_curve(_GROUP)
    try:
        context.load_cert_chain(certificate, key, _pass_phrase)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        files = certificate if key is None else f"{certificate} and {key}"
        raise TlsError(f"Cannot use the certificate in {files}: {_words(error)}.") from error
    return context


def _pass_phrase() -> str:
    """OpenSSL would ask the terminal, which a server seldom has."""
    raise ValueError("the key has a pass phrase, which nobody could type when the server starts again; take it off")


def client_context(authorities: str | None) -> ssl.SSLContext:
    """For a client that trusts the system's authorities, or only those in this PEM file.

    Raises:
        TlsError: the file is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise TlsError(f"Cannot use the certificates in {authorities}: {_words(error)}.") from error
    # In the middle of a second handshake nothing could be sent.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ecdh_curve(_GROUP)
    return context


class Tls:
    """One connection's.

    Args:
        context: the keys, and whom to trust.
        host: whose certificate a client wants to see; None at the server.
        to_plain: what a server answers to who does not speak TLS.
    """

    __slots__ = ("_heard", "_in", "_object", "_out", "_rest", "_to_plain", "ended", "handshake_ns", "ready")

    def __init__(self, context: ssl.SSLContext, host: str | None = None, to_plain: bytes = b"") -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_side=host is None, server_hostname=host)
        self._to_plain = to_plain
        self._heard = False
        #: Of a record that is not complete: what was received.
        self._rest = b""
        #: CPU time that the handshake has taken so far: how much that is, the certificate and the other end decide.
        self.handshake_ns = 0
        #: Whether the handshake is done, so that plain bytes can go out.
        self.ready = False
        #: Whether the other end has said that nothing more will come.
        self.ended = False

    def __repr__(self) -> str:
        return f"<Tls {'ended' if self.ended else 'ready' if self.ready else 'handshake'}>"

    def records(self) -> bytes:
        """What is to be sent now: of the handshake, or in answer to what was received."""
        if not self._heard:  # else it has gone on with what was received
            self._go_on()
        return self._out.read()

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """The record of at most 16,384 plain bytes. Only when :attr:`ready`.

        Raises:
            TlsError: nothing more can be sent.
        """
        try:
            self._object.write(data)
        except ssl.SSLWantReadError as error:  # with a context that allows it
            raise TlsError("the other end began another handshake") from error
        except ssl.SSLError as error:
            raise TlsError(_words(error)) from error
        return self._out.read()

    def decrypt(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes of each record that is complete now, which may be none, as in a handshake. Each is looked at
        when it is asked for; all of them before the next bytes are received.

        Raises:
            TlsError: the other end is not to be trusted, or does not speak TLS. :meth:`last_words` are for it.
        """
        if not self._heard and data[0] not in (HANDSHAKE, ALERT):
            raise self._no_tls()
        self._heard = True
        data = self._rest + data
        begin = 0
        while not self.ended:
            length = int.from_bytes(data[begin + 3 : begin + _HEADER_BYTES], "big")
            end = begin + _HEADER_BYTES + min(length, _LONGEST_BYTES)
            if end > len(data):
                break
            # One by one: of what it has, OpenSSL reads on in one call until there is something for us.
            self._in.write(data[begin:end])
            begin = end
            if not self.ready:
                self._go_on()
            plain = self._read() if self.ready else b""
            if not self.ended:
                yield plain
        self._rest = data[begin:]

    def end(self) -> bytes:
        """The record that says that nothing more will come."""
        if self.ready:
            with contextlib.suppress(ssl.SSLError):  # it wants to read the other end's, which may never come
                self._object.unwrap()
        return self._out.read()

    def last_words(self) -> bytes:
        """After a TlsError: what tells the other end why."""
        return self._out.read()

    def _go_on(self) -> None:
        begin_ns = time.thread_time_ns()
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise TlsError(_words(error)) from error
        finally:
            self.handshake_ns += time.thread_time_ns() - begin_ns
        self.ready = True

    def _read(self) -> bytes:
        plain = b""
        try:
            plain = self._object.read(_LONGEST_BYTES)
            self.ended = not plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise TlsError(_words(error)) from error
        return plain

    def _no_tls(self) -> TlsError:
        self._out.read()
        self._out.write(self._to_plain)
        return TlsError("the other end does not speak TLS")


def _words(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message.rstrip('.').lower()}"
    reason = str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
    words = reason.replace("_", " ").lower()
    if "pem lib" in words:
        return "a certificate or a key is missing there, or not whole"
    if "alert" in words:
        return f"the other end ended the handshake: {words.partition('alert ')[2]}"
    return words
