"""miwid's configuration: the defaults, one worker, and what the scenario asks for."""

from __future__ import annotations

from pathlib import Path

from ..model import Contender, Setup
from .place import Launch, Place

#: Each policy as it is written down and does nothing. What a version does not know yet is left out by whoever starts it.
OFF = (
    "compression.enabled = false",
    "cache.enabled = false",
    "security.enable_cors = false",
    "security.enable_csrf = false",
    "security.allow = []",
    "security.deny = []",
    "security.rate_limit_exempt = []",
    'security.mode = "report"',
    "security.headers = {}",
)


def launch(contender: Contender, place: Place, program: Path) -> Launch:
    socket = place.directory / "control.sock"
    return Launch(
        [str(program), "run", "-c", str(place.directory / "miwid.toml"), "--socket", str(socket)],
        {"miwid.toml": configuration(contender.setup, place)},
    )


def configuration(setup: Setup, place: Place) -> str:
    server = [
        "[server]",
        'bind = ["127.0.0.1"]',
        f"http_port = {place.plain_port}",
        f"https_port = {place.tls_port if setup.tls else 0}",
        f"workers = {setup.workers}",
        f"max_connections = {setup.connections + 64}",
        'keepalive_timeout = "600s"',
        'shutdown_timeout = "2s"',
        f'state_dir = "{place.directory}/state"',
        "[admin]",
        'listen = "off"',
    ]
    if setup.tls:
        server += ["[ssl]", f'cert = "{place.certificate}"', f'key = "{place.key}"', 'unknown_sni = "default"']
    if setup.access_log:
        server += ["[logging.access_log]", f'path = "{place.directory}/access.log"', 'format = "json"']
        server += ["[logging.rotation]", "enabled = false"]
    # Dotted keys come before the first table.
    text = "\n".join([*setup.policies_off, *server]) + "\n"
    if setup.compression == "dynamic":
        # The level that nginx has by default.
        text += '[compression]\nalgorithms = ["gzip"]\nlevel = 1\n'
    return text + "".join(_site(name, setup, place) for name in names(setup))


def names(setup: Setup) -> list[str]:
    return [f"site{number}.example" for number in range(setup.sites)] or ["_"]


def _site(name: str, setup: Setup, place: Place) -> str:
    leads = f'url = "http://{place.upstream}"' if setup.upstream else f'root = "{place.www}"'
    text = f'[backends."{name}"]\n{leads}\n'
    if setup.compression == "siblings":
        text += "files = { precompressed = true }\n"
    return text
