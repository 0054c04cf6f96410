//! The root of a file, and the tables about the server itself.

use super::{
    COUNT, Key, Kind, NETS, PORT, SIZE, TEXTS, TIMEOUT, Table,
    backend::BACKEND,
    key,
    logging::LOGGING,
    policy::{CACHE, COMPRESSION, SECURITY},
    tls::{ACME, CLOUDFLARE, SSL},
};

pub(crate) static ROOT: Table = Table {
    doc: "The top of a configuration file.",
    groups: &[&[
        key("include", TEXTS, "", "Other files to read, as globs relative to this file: `[\"sites/*.toml\"]`."),
        key("server", Kind::Table(&SERVER), "", "The server itself: addresses, workers, timeouts."),
        key("admin", Kind::Table(&ADMIN), "", "The listener for health, readiness and metrics."),
        key("control", Kind::Table(&CONTROL), "", "The socket that `miwictl` speaks to."),
        key("ssl", Kind::Table(&SSL), "", "Certificates and TLS."),
        key("cloudflare", Kind::Table(&CLOUDFLARE), "", "The Cloudflare account and zone."),
        key("acme", Kind::Table(&ACME), "", "An ACME certificate authority; the table's presence accepts its terms."),
        key("compression", Kind::Table(&COMPRESSION), "", "Compression of answers; the table's presence turns it on."),
        key("cache", Kind::Table(&CACHE), "", "The shared cache of answers; the table's presence turns it on."),
        key("security", Kind::Table(&SECURITY), "", "Who may ask what, and how often."),
        key("logging", Kind::Table(&LOGGING), "", "The daemon's log and the access log."),
        key("tracing", Kind::Table(&TRACING), "", "Export of traces."),
        key("metrics", Kind::Table(&METRICS), "", "Metrics for Prometheus."),
        key(
            "backends",
            Kind::Map(&Kind::Table(&BACKEND)),
            "",
            "The sites, by host name: exact, `*.example.com`, or `_` for every other host.",
        ),
    ]],
};

static SERVER: Table = Table { doc: "The server itself.", groups: &[LISTENING, RUNNING] };

const LISTENING: &[Key] = &[
    key("bind", Kind::List(&Kind::Address), "[\"0.0.0.0\", \"[::]\"]", "Addresses that every port is bound on."),
    key("http_port", PORT, "8080", "Port for plain HTTP; 0 turns it off."),
    key("https_port", PORT, "8443", "Port for HTTPS and HTTP/3; 0 turns it off."),
    key("enable_https", Kind::Flag, "true when a certificate or `auto_cert` is configured", "Whether to serve HTTPS."),
    key("http3", Kind::Flag, "true", "Whether to serve HTTP/3 beside HTTPS."),
    key("redirect_https", Kind::Flag, "false", "Whether plain HTTP only redirects to HTTPS."),
    key(
        "proxy_protocol",
        Kind::Flag,
        "false",
        "Whether connections from `trusted_proxies` begin with a PROXY protocol header (version 1 or 2).",
    ),
    key("h2c", Kind::Flag, "true", "Whether HTTP/2 without TLS is served to clients that know beforehand."),
    key("trusted_proxies", NETS, "[]", "Address ranges whose forwarding headers are believed."),
];

const RUNNING: &[Key] = &[
    key(
        "workers",
        Kind::Integer { min: 0, max: 1024 },
        "0",
        "Worker threads; 0 = one per CPU that the process may use.",
    ),
    key(
        "max_connections",
        COUNT,
        "(descriptor limit - 512) / 2",
        "Client connections at once; the kernel's backlog holds the rest.",
    ),
    key("keepalive_timeout", TIMEOUT, "65s", "How long an idle client connection stays open."),
    key(
        "request_timeout",
        TIMEOUT,
        "30s",
        "How long a request head, an upstream's answer, or the next piece of a body may take.",
    ),
    key("stream_idle_timeout", TIMEOUT, "1h", "How long a WebSocket or an event stream may stay silent."),
    key("shutdown_timeout", TIMEOUT, "75s", "How long a shutdown waits for requests to end."),
    key(
        "state_dir",
        Kind::Path,
        "/var/lib/miwid as root, else $XDG_STATE_HOME/miwid",
        "Where certificates and operations are kept.",
    ),
    key("server_header", Kind::Flag, "true", "Whether answers carry `Server: miwid`."),
    key("request_id_header", Kind::Flag, "false", "Whether answers of files carry `X-Request-Id` too."),
    key(
        "user",
        Kind::Text,
        "",
        "Account that engines and apps run as when miwid is started as root; without it they are root, and each app may have its own `user`.",
    ),
    key("group", Kind::Text, "", "Group that goes with `user`; default: the account's own."),
    key(
        "io_backend",
        Kind::Choice(&["auto", "epoll", "io_uring"]),
        "auto",
        "How the kernel is asked for input and output.",
    ),
    key("limits", Kind::Table(&LIMITS), "", "How big a request may be."),
];

static LIMITS: Table = Table {
    doc: "How big a request may be.",
    groups: &[&[
        key("max_request_size", SIZE, "10MB", "Bytes of a request body; more is answered with 413."),
        key(
            "max_header_size",
            Kind::Size { min: 1024 },
            "32KB",
            "Bytes of the whole header block; more is answered with 431.",
        ),
        key(
            "max_uri_length",
            Kind::Integer { min: 16, max: 1 << 20 },
            "8192",
            "Bytes of the request target; more is answered with 414.",
        ),
        key(
            "max_headers",
            Kind::Integer { min: 8, max: 10_000 },
            "100",
            "Number of header fields; more is answered with 431.",
        ),
        key(
            "underscore_headers",
            Kind::Choice(&["drop", "reject", "keep"]),
            "drop",
            "What becomes of headers with `_` in their name, which many apps cannot tell from `-`; reject answers 400.",
        ),
    ]],
};

static ADMIN: Table = Table {
    doc: "The listener for `/health`, `/ready` and `/metrics`.",
    groups: &[&[key(
        "listen",
        Kind::Either(&[Kind::Choice(&["off"]), Kind::Socket]),
        "127.0.0.1:9180",
        "Address and port, or `off`.",
    )]],
};

static CONTROL: Table = Table {
    doc: "The socket that `miwictl` speaks to.",
    groups: &[&[
        key(
            "socket",
            Kind::Path,
            "/run/miwid/control.sock as root, else in $XDG_RUNTIME_DIR",
            "Path of the control socket.",
        ),
        key("group", Kind::Text, "miwid", "Group whose members may use the socket."),
        key(
            "acl",
            Kind::Map(&GRANT),
            "everybody who can open it may do everything",
            "Who may do what: `user:NAME` or `group:NAME` = a role.",
        ),
    ]],
};

const ROLE: Kind = Kind::Choice(&["viewer", "operator", "admin"]);

const GRANT: Kind = Kind::Either(&[ROLE, Kind::Table(&GRANT_TABLE)]);

static GRANT_TABLE: Table = Table {
    doc: "What an account may do over the control socket.",
    groups: &[&[
        key(
            "role",
            ROLE,
            "",
            "`viewer` looks, `operator` steers apps and reads their logs, `admin` may do everything.",
        ),
        key(
            "apps",
            TEXTS,
            "all",
            "Names of the apps that it is about; `*` and `?` stand for any characters and for one.",
        ),
    ]],
};

static TRACING: Table = Table {
    doc: "Export of traces.",
    groups: &[&[
        key("otlp_endpoint", Kind::WebUrl, "", "Where traces are sent."),
        key("sample_ratio", Kind::Number { min: 0.0, max: 1.0 }, "", "Share of requests that are traced."),
    ]],
};

static METRICS: Table = Table {
    doc: "Metrics for Prometheus, on the admin listener.",
    groups: &[&[
        key("enabled", Kind::Flag, "true", "Whether `/metrics` answers."),
        key("per_site", Kind::Flag, "false", "Whether request metrics carry the site's name."),
    ]],
};
