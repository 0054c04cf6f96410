"""Caddy: files over HTTP/1.1, 2 and 3 without an access log. Its Go runtime sees the one core that it is pinned to."""

from __future__ import annotations

from pathlib import Path

from ..model import Contender
from .place import Launch, Place


def launch(contender: Contender, place: Place, program: Path) -> Launch:
    del contender
    text = (
        "{\n  admin off\n  auto_https off\n  persist_config off\n  default_sni localhost\n  grace_period 1s\n}\n"
        f"http://:{place.plain_port} {{\n  bind 127.0.0.1\n  root * {place.www}\n  file_server\n}}\n"
        f"https://:{place.tls_port} {{\n  bind 127.0.0.1\n  tls {place.certificate} {place.key}\n"
        f"  root * {place.www}\n  file_server\n}}\n"
    )
    home = str(place.directory)
    environment = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
    command = [str(program), "run", "--config", str(place.directory / "Caddyfile"), "--adapter", "caddyfile"]
    return Launch(command, {"Caddyfile": text}, environment)
