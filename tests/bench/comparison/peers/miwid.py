"""miwid's configuration: the defaults, one worker, and what the scenario asks for."""

from __future__ import annotations

from pathlib import Path

from ..model import Contender, Setup
from .place import Launch, Place

_OFF = {
    "compression": "[compression]\nenabled = false\n",
    "cache": "[cache]\nenabled = false\n",
    "security": "[security]\nenable_cors = false\nenable_csrf = false\n",
}


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
    text = "\n".join(server) + "\n"
    text += "".join(_OFF[table] for table in setup.policies_off)
    if setup.compression == "dynamic":
        text += '[compression]\nalgorithms = ["gzip"]\n'
    return text + "".join(_site(name, setup, place) for name in names(setup))


def names(setup: Setup) -> list[str]:
    return [f"site{number}.example" for number in range(setup.sites)] or ["_"]


def _site(name: str, setup: Setup, place: Place) -> str:
    leads = f'url = "http://{place.upstream}"' if setup.upstream else f'root = "{place.www}"'
    text = f'[backends."{name}"]\n{leads}\n'
    if setup.compression == "siblings":
        text += "files = { precompressed = true }\n"
    return text
