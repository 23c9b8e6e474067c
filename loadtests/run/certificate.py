"""A certificate for the embedded server of one trial, which nobody else ever trusts."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from loadtests.errors import HarnessError


class Certificate(NamedTuple):
    """PEM files; it is its own authority."""

    chain: Path
    key: Path


def new_certificate(folder: Path, addresses: Iterable[str]) -> Certificate:
    """One for these IP addresses, valid for two days; the files lie in `folder`.

    Raises HarnessError: `openssl` is missing, or cannot do it.
    """
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    names = ",".join(f"IP:{address}" for address in addresses)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=chatlab", "-addext", f"subjectAltName={names}", "-days", "2"]
    command += ["-out", str(made.chain), "-keyout", str(made.key)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise HarnessError("tls needs openssl to make a certificate: apt-get install openssl") from None
    if done.returncode:
        raise HarnessError(f"openssl made no certificate: {done.stderr.strip()}")
    return made
