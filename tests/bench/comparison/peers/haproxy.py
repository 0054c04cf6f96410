"""HAProxy: one thread, connections to the upstream shared, no log."""

from __future__ import annotations

from pathlib import Path

from ..model import Contender
from .place import Launch, Place


def launch(contender: Contender, place: Place, program: Path) -> Launch:
    setup = contender.setup
    text = (
        f"global\n  nbthread {setup.workers}\n  maxconn {setup.connections + 64}\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n"
        "  timeout tunnel 3600s\n  http-reuse always\n"
        f"frontend clients\n  bind 127.0.0.1:{place.plain_port}\n  default_backend origin\n"
        f"backend origin\n  server one {place.upstream} pool-max-conn -1\n"
    )
    # The wheel brings its libraries beside the program.
    libraries = {"LD_LIBRARY_PATH": str(program.parent / "lib")}
    return Launch([str(program), "-db", "-f", str(place.directory / "haproxy.cfg")], {"haproxy.cfg": text}, libraries)
