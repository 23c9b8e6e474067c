"""The chat server of a trial, in the laboratory's server namespace."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtests.errors import HarnessError
from loadtests.link.lab import Lab
from loadtests.link.sandbox.topology import ALL_ADDRESSES
from loadtests.run.certificate import Certificate
from loadtests.run.children import APART, ended, tail

PORT = 5000
_LOG = "server.log"
_START_TIMEOUT_S = 20.0


@contextmanager
def embedded_server(
    lab: Lab, congestion: str, raw: Path, certificate: Certificate | None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A chat server that listens on `PORT` when this returns, and has ended when it is left.

    Args:
        congestion: TCP's congestion control.
        raw: where it writes its log and `server-tcp.csv`.
        certificate: with one it speaks TLS only.

    Raises HarnessError: it does not start.
    """
    command = [sys.executable, "-m", "chat", "serve", "--host", ALL_ADDRESSES, "--port", str(PORT)]
    command += ["--no-limits", "--congestion", congestion, "--tcp-info", str(raw / "server-tcp.csv")]
    if certificate:
        command += ["--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key)]
    log = raw / _LOG
    with log.open("wb") as output:
        process = lab.server.popen(command, **APART, stdout=output, stderr=output)
    with ended(process):
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while b"listening" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise HarnessError(f"the chat server did not start:\n{tail(log)}")
            time.sleep(0.02)
        yield process


def check(server: "subprocess.Popen[bytes]", raw: Path) -> None:
    """Raises HarnessError: it has ended, with the end of its log."""
    if server.poll() is not None:
        raise HarnessError(f"the chat server ended by itself:\n{tail(raw / _LOG)}")
