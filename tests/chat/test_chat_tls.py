"""TLS: private connections in the same loop; what is not to be trusted, or speaks something else, gets a sentence.

chat/README.md, "TLS". Certificates are made by `openssl`, which also is the other people's program here.
"""

import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from chat_helpers import MODES, SECOND, Clients, RawClient, ServerProcess, leave, server_process
from hostile_helpers import WELCOME

from chat.client.client import ChatClient, Mode
from chat.client.events import Echoed, FileDone, FileOffered, PathDown, Received
from chat.net.tls import Tls, client_context, server_context
from chat.net.transport import Transport
from chat.protocol.errors import TlsError

pytestmark = pytest.mark.realtime("chat")


class Certificate(NamedTuple):
    """PEM files; self-signed, so that the certificate is its own authority."""

    certificate: str
    key: str


def make(folder: Path, name: str, host: str, *options: str) -> Certificate:
    made = Certificate(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-out", made.certificate]
    subprocess.run([*command, "-keyout", made.key, *(options or ("-days", "2"))], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.fail("these tests need openssl: apt-get install openssl")
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def good(folder: Path) -> Certificate:
    return make(folder, "good", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def server(good: Certificate) -> Iterator[ServerProcess]:
    with server_process("127.0.0.1", "--tls-cert", good.certificate, "--tls-key", good.key) as server:
        yield server


def tls_client(clients: Clients, nick: str, server: ServerProcess, good: Certificate, mode: Mode) -> ChatClient:
    return clients.join(nick, server.address, mode=mode, tls=client_context(good.certificate))


@pytest.mark.parametrize("mode", MODES)
def test_a_private_talk(clients: Clients, server: ServerProcess, good: Certificate, mode: Mode, tmp_path: Path) -> None:
    """What is said, a long burst, a file, and a reset of all connections: as without TLS."""
    ana, ben = (tls_client(clients, nick, server, good, mode) for nick in ("ana", "ben"))
    for number in range(2_000):
        ana.say(f"{number} {'x' * 300}")
    clients.until(lambda: len(clients.of(ben, Received)) == 2_000)
    assert [event.text.split()[0] for event in clients.of(ben, Received)] == [str(each) for each in range(2_000)]
    (tmp_path / "file").write_bytes(bytes(range(256)) * 4_000)
    ana.files.send("ben", tmp_path / "file")
    clients.until(lambda: clients.of(ben, FileOffered))
    ben.files.accept(clients.of(ben, FileOffered)[0].id, tmp_path / "in")
    clients.until(lambda: clients.of(ben, FileDone))
    assert (tmp_path / "in" / "file").read_bytes() == bytes(range(256)) * 4_000
    ana.reconnect()
    number = ana.say("again")
    clients.until(lambda: any(event.id == number for event in clients.of(ana, Echoed)))
    leave(clients, ana, ben)


def test_other_people_s_program_speaks_to_it(server: ServerProcess, good: Certificate) -> None:
    host, port = server.address
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", good.certificate, "-quiet"]
    command += ["-verify_return_error", "-verify_ip", host, "-no_ign_eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        talk.stdin.write(b'{"type":"hello","nick":"openssl"}\n{"type":"say","text":"hi","id":1}\n{"type":"bye"}\n')
        talk.stdin.flush()
        lines = talk.stdout.read().decode().splitlines()
    assert sorted(line.split('"')[3] for line in lines) == ["bye", "said", "welcome"]
    assert talk.returncode == 0


def visit(port: int, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "chat", "connect", "ana", "--port", str(port), *options]
    return subprocess.run(command, input="hi\n", capture_output=True, text=True, timeout=30 * SECOND, check=False)


@pytest.mark.parametrize(
    ("name", "host", "options", "trusted", "reason"),
    [
        ("foreign", "IP:127.0.0.1", (), False, "self-signed certificate"),
        ("elsewhere", "DNS:example.org", (), True, "ip address mismatch, certificate is not valid for '127.0.0.1'"),
        ("old", "IP:127.0.0.1", ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z"), True, "expired"),
    ],
)
def test_a_certificate_that_is_not_to_be_trusted(
    folder: Path, good: Certificate, name: str, host: str, options: tuple[str, ...], trusted: bool, reason: str
) -> None:
    try:
        made = make(folder, name, host, *options)
    except subprocess.CalledProcessError:
        made = expired(folder, name, host)
    with server_process("127.0.0.1", "--tls-cert", made.certificate, "--tls-key", made.key) as server:
        done = visit(server.address[1], "--ca", made.certificate if trusted else good.certificate)
        _, log = server.stop()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "its certificate is not to be trusted: " in done.stderr
    assert reason in done.stderr
    assert "the other end ended the handshake" in log


def expired(folder: Path, name: str, host: str) -> Certificate:
    """With an openssl that cannot date a certificate: one that is signed for minus one day."""
    made = Certificate(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={host}\nbasicConstraints=critical,CA:TRUE\n")
    new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*new, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request], check=True, capture_output=True
    )
    sign = ["openssl", "x509", "-req", "-in", request, "-key", made.key, "-days", "-1", "-extfile", extensions]
    subprocess.run([*sign, "-out", made.certificate], check=True, capture_output=True)
    return made


def test_plain_text_on_a_private_port(server: ServerProcess) -> None:
    done = visit(server.address[1])
    assert done.returncode == 1
    assert "This server speaks TLS only: connect with --tls." in done.stderr
    with RawClient(server.address) as stranger:
        stranger.send(type="hello", nick="ana")
        assert stranger.until("error")["code"] == "tls_only"


def test_tls_on_a_plain_port(good: Certificate) -> None:
    with server_process() as server:
        done = visit(server.address[1], "--ca", good.certificate)
        _, log = server.stop()
    assert done.returncode == 1
    assert "the other end does not speak TLS" in done.stderr
    assert "is sent away: This port does not speak TLS" in log


def test_an_alert_says_why_there_is_no_tls(good: Certificate) -> None:
    """As of a server that wants nothing of what we offer (RFC 8446, 6.2)."""
    tls = Tls(client_context(good.certificate), "127.0.0.1")
    with pytest.raises(TlsError, match="handshake failure"):
        list(tls.decrypt(b"\x15\x03\x03\x00\x02\x02\x28"))


def test_what_is_no_certificate(folder: Path, good: Certificate) -> None:
    nothing = folder / "nothing"
    nothing.write_text("nothing")
    for certificate, key in ((str(nothing), good.key), (good.certificate, str(nothing)), ("/no/such", good.key)):
        with pytest.raises(
            TlsError, match=r"^Cannot use the certificate in .*: (no such file|a certificate or a key is)"
        ):
            server_context(certificate, key)
    half = folder / "half"
    half.write_text(Path(good.certificate).read_text()[:300])
    with pytest.raises(TlsError, match=r"half: a certificate or a key is missing there, or not whole\.$"):
        client_context(str(half))
    with pytest.raises(TlsError, match=r"^Cannot use the certificates in /no/such: no such file or directory\.$"):
        client_context("/no/such")


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(tmp_path: Path, good: Certificate) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkcs8", "-topk8", "-in", good.key, "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(TlsError, match=r"^Cannot use the certificate in .*: the key has a pass phrase"):
        server_context(good.certificate, str(locked))


def test_an_end_that_was_not_said_is_none(server: ServerProcess, good: Certificate) -> None:
    """Whoever cuts the stream from outside must not end a session: only the record that says so does."""
    hello = b'{"type":"hello","nick":"cut","key":"0123456789abcdef"}\n'
    ana = private_socket(server, good)
    ana.sendall(hello)
    assert b'"lobby":' in ana.recv(65_536)
    raw = socket.socket(fileno=ana.detach())
    raw.shutdown(socket.SHUT_WR)  # an end of the stream without the last record
    while raw.recv(65_536):
        pass
    raw.close()
    with private_socket(server, good) as again:
        again.sendall(hello + b'{"type":"ping","n":7}\n')
        heard = b""
        while b"pong" not in heard:
            heard += again.recv(65_536)
    assert b"welcome" in heard
    assert b'"left"' not in heard
    assert b'"joined"' not in heard, "it is the session that was there"


@pytest.mark.parametrize("allowed", [False, True])
def test_a_server_that_begins_another_handshake(
    clients: Clients, folder: Path, good: Certificate, allowed: bool
) -> None:
    """It is declined; and if it were not, what cannot be sent meanwhile is a lost connection, and nothing worse."""
    context = client_context(good.certificate)
    if allowed:
        context.options &= ~ssl.OP_NO_RENEGOTIATION
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", good.certificate, "-key", good.key]
    server = subprocess.Popen([*command, "-tls1_2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with server.stdin as say, server.stdout as heard:  # type: ignore[union-attr]
        while not heard.readline().startswith(b"ACCEPT"):
            pass
        os.set_blocking(heard.fileno(), False)
        ana = clients.add("ana", ("127.0.0.1", port), tls=context)
        try:
            clients.until(lambda: b'"hello"' in (heard.read() or b""))
            say.write(json.dumps(WELCOME).encode() + b"\n")
            say.flush()
            clients.until(lambda: ana.registered)
            say.write(b"r\n")
            say.flush()
            clients.until(lambda: clients.of(ana, PathDown) or (ana.waiting < 500 and not ana.say("x")))
        finally:
            server.kill()
            server.wait()
    (down,) = clients.of(ana, PathDown)
    assert ("another handshake" in down.reason) == allowed


def test_a_connection_that_was_reset_has_not_ended_in_order(good: Certificate) -> None:
    """Several records are under way: the kernel says once that it was reset, and then only that it is closed."""
    tls, far = Tls(client_context(good.certificate), "127.0.0.1"), Tls(server_context(*good))
    while not (tls.ready and far.ready):
        assert not any(far.decrypt(tls.records()))
        assert not any(tls.decrypt(far.records()))
    lost: list[str] = []
    with Clients() as clients, socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        sock.setblocking(False)
        transport = Transport(
            clients.loop, sock, on_data=lambda _: None, on_writable=lambda: None, on_lost=lost.append, tls=tls
        )
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        transport.send(bytes(100_000))
        clients.until(lambda: lost)
        assert lost == ["connection reset by peer"]
        assert not transport.ended_by_peer


def private_socket(server: ServerProcess, good: Certificate) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=good.certificate)
    return context.wrap_socket(socket.create_connection(server.address), server_hostname=server.address[0])


def test_any_cut_of_the_bytes_makes_no_difference(good: Certificate) -> None:
    """Both ends without a network, one byte at a time."""
    near = Tls(client_context(good.certificate), "127.0.0.1")
    far = Tls(server_context(*good))
    to_far, to_near = near.records(), b""
    while not (near.ready and far.ready):
        for byte in to_far:
            assert not any(far.decrypt(bytes([byte])))
        to_near, to_far = far.records(), b""
        for byte in to_near:
            assert not any(near.decrypt(bytes([byte])))
        to_far = near.records()
    cut = (bytes([byte]) for byte in to_far + near.encrypt(b"hello\n") + near.end())
    assert b"".join(plain for byte in cut for plain in far.decrypt(byte)) == b"hello\n"
    assert far.ended


def test_how_a_key_is_agreed_on_is_not_the_client_s_choice(server: ServerProcess, good: Certificate) -> None:
    """What takes the server long is refused; others begin again as it wishes; our own client begins so."""
    host, port = server.address
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_3", "-groups"]
    for groups, agreed in (("ffdhe8192", False), ("X25519:P-256", True)):
        done = subprocess.run([*command, groups], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert (b"Server Temp Key" in done.stdout or b"Negotiated TLS1.3 group" in done.stdout) == agreed
    near, far = Tls(client_context(good.certificate), "127.0.0.1"), Tls(server_context(*good))
    assert not any(far.decrypt(near.records()))
    assert not any(near.decrypt(far.records()))
    assert near.ready
