"""The files that are served and the certificate, made once for a run."""

from __future__ import annotations

import gzip
import socket
from pathlib import Path

from .machine import cores
from .process import output_of

SIZES = {"1k": 1, "10k": 10, "32k": 32, "64k": 64, "100k": 100, "1m": 1024}

#: English enough for a compressor: words in an order that does not repeat soon.
_WORDS = "the server sends what a client asks for when it has it and says so plainly when it has not".split()


def text(size: int) -> bytes:
    words, state = [], 1
    length = 0
    while length < size:
        state = (state * 1103515245 + 12345) % 2**31
        word = f"{_WORDS[state // 65536 % len(_WORDS)]}{state // 4096 % 97}"
        words.append(word)
        length += len(word) + 1
    return " ".join(words).encode()[:size]


def make_files(www: Path) -> None:
    www.mkdir(parents=True)
    for name, kilobytes in SIZES.items():
        (www / f"{name}.html").write_bytes(b"x" * (kilobytes * 1024))
    page = text(32 * 1024)
    (www / "text.html").write_bytes(page)
    (www / "text.html.gz").write_bytes(gzip.compress(page, 9))
    # Beside no sibling, for what is compressed while it is served.
    (www / "page.html").write_bytes(page)


def make_certificate(openssl: Path, certificate: Path, key: Path) -> None:
    """A certificate of its own for localhost, on P-256."""
    command = [str(openssl), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    output_of([*command, "-out", str(certificate), "-keyout", str(key)], cores().every, 30)
    key.chmod(0o600)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has; held together so that they differ. Outside the range that clients' ends are taken from."""
    held: list[socket.socket] = []
    ports: list[int] = []
    for port in range(21_000, 32_000):
        probe = socket.socket()
        held.append(probe)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        ports.append(port)
        if len(ports) == count:
            break
    for probe in held:
        probe.close()
    return ports
