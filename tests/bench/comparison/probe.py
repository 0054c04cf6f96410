"""Single requests: whether a server is up, and whether it answers what a scenario is about."""

from __future__ import annotations

import socket
import ssl
import time

_HEAD_MAX = 65536


def ask(port: int, tls: bool, path: str, headers: dict[str, str], method: str = "GET", body: bytes = b"") -> tuple[int, dict[str, str], int]:
    """One exchange on a connection of its own: status, headers (lower case), bytes of the body."""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    link: socket.socket = socket.create_connection(("127.0.0.1", port), 5)
    with link:
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            link = context.wrap_socket(link)
        link.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        answer = bytearray()
        while piece := link.recv(65536):
            answer += piece
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    named = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return int(first.split()[1]), named, len(rest)


def answers(port: int, tls: bool, host: str) -> bool:
    """Whether anything answers there."""
    try:
        ask(port, tls, "/1k.html", {"Host": host})
    except (OSError, IndexError, ValueError):
        return False
    return True


def first_byte(port: int, seconds: float) -> bool:
    """Tries without a pause until a byte of an answer came."""
    end = time.monotonic() + seconds
    request = b"GET /1k.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while time.monotonic() < end:
        with socket.socket() as link:
            link.settimeout(2)
            if link.connect_ex(("127.0.0.1", port)) != 0:
                continue
            try:
                link.sendall(request)
                if link.recv(_HEAD_MAX):
                    return True
            except OSError:
                continue
    return False
