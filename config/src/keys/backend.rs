//! `[backends."HOST"]`, its routes and its files.

use super::{
    COUNT, Key, Kind, STATUS, TEXTS, TIMEOUT, Table, key,
    policy::{CACHE, COMPRESSION, SECURITY},
    process::{JVM, NODEJS, PROCESS, PYTHON, TOMCAT},
    tls::SSL,
};

pub(crate) static BACKEND: Table = Table { doc: "A site.", groups: &[SITE, LEADS, PROXY, POLICY, APP] };

static ROUTE: Table = Table {
    doc: "A part of a site, by path prefix; the longest prefix wins. Without a destination of its own it leads where the site leads.",
    groups: &[ROUTE_ONLY, LEADS, PROXY, POLICY],
};

static ROUTE_TABLE: Kind = Kind::Table(&ROUTE);
static REDIRECT_KINDS: [Kind; 2] = [Kind::Text, Kind::Table(&REDIRECT)];
static RESPOND_KINDS: [Kind; 2] = [Kind::Text, Kind::Table(&RESPOND)];

const SITE: &[Key] = &[
    key("name", Kind::Text, "the host", "Short name for `miwictl` and logs."),
    key("aliases", Kind::List(&Kind::Host), "[]", "Other hosts of the same site."),
    key(
        "app_type",
        Kind::Choice(&["nodejs", "python", "java", "tomcat", "command", "proxy", "static"]),
        "`proxy` with `url` or `urls`, `static` with `root`, `command` with `process` alone",
        "What kind of site this is.",
    ),
    key("routes", Kind::Map(&ROUTE_TABLE), "", "Parts of the site that lead elsewhere, by path prefix."),
];

const ROUTE_ONLY: &[Key] =
    &[key("strip_prefix", Kind::Flag, "false", "Whether the prefix is taken off before the request goes on.")];

const LEADS: &[Key] = &[
    key("url", Kind::Upstream, "", "Where requests go: `http://host:port`, `https://host:port` or `unix:/path`."),
    key("urls", Kind::List(&Kind::Upstream), "", "Several of them, to share the load."),
    key("root", Kind::Path, "", "Directory of files to serve."),
    key("redirect", Kind::Either(&REDIRECT_KINDS), "", "Where clients are sent instead."),
    key("respond", Kind::Either(&RESPOND_KINDS), "", "A fixed answer."),
    key("files", Kind::Table(&FILES), "", "How the files below `root` are served."),
];

const PROXY: &[Key] = &[
    key(
        "strategy",
        Kind::Choice(&["round_robin", "least_conn", "ip_hash", "random_two", "least_time"]),
        "round_robin",
        "How an upstream is picked.",
    ),
    key("health_check", Kind::HttpPath, "", "Path that tells whether an upstream is well."),
    key("health_interval", TIMEOUT, "10s", "Time between two checks."),
    key("health_timeout", TIMEOUT, "5s", "How long a check may take."),
    key("health_expect", Kind::List(&STATUS), "200 to 299", "Status codes that mean well."),
    key("preserve_host", Kind::Flag, "true for apps, false for proxies", "Whether the client's `Host` goes on."),
    key(
        "upstream_http",
        Kind::Choice(&["1.1", "2"]),
        "1.1",
        "HTTP version spoken to the upstream, also in cleartext. What switches protocols (WebSocket) stays on 1.1.",
    ),
    key("connect_timeout", TIMEOUT, "5s", "How long connecting may take."),
    key("retries", Kind::Integer { min: 0, max: 100 }, "1", "Other attempts at a request that is safe to repeat."),
    key("sticky", Kind::Text, "", "Cookie that keeps a client with its upstream."),
    key("max_in_flight", COUNT, "", "Requests at once per upstream."),
    key(
        "proxy_protocol",
        Kind::Choice(&["v1", "v2"]),
        "",
        "PROXY protocol header that connections to the upstream begin with. Each serves one request then.",
    ),
    key(
        "tls_ca",
        Kind::Path,
        "the system's authorities",
        "Authority that signs the certificate of an `https` upstream, in PEM. It has to be for the host of the URL, whatever `Host` says.",
    ),
    key("tls_client_cert", Kind::Path, "", "Certificate and key to show to the upstream, in PEM."),
];

const POLICY: &[Key] = &[
    key("compression", Kind::Table(&COMPRESSION), "", "Compression, here."),
    key("cache", Kind::Table(&CACHE), "", "The cache, here."),
    key("security", Kind::Table(&SECURITY), "", "Security, here."),
];

const APP: &[Key] = &[
    key("ssl", Kind::Table(&SSL), "", "Certificates of this site."),
    key("process", Kind::Table(&PROCESS), "", "The program that miwid runs for this site."),
    key("python", Kind::Table(&PYTHON), "", "How a Python app is started."),
    key("nodejs", Kind::Table(&NODEJS), "", "How a Node.js app is started."),
    key("tomcat", Kind::Table(&TOMCAT), "", "How a web archive is started."),
    key("jvm", Kind::Table(&JVM), "", "The Java machine of a `java` or `tomcat` app."),
];

static REDIRECT: Table = Table {
    doc: "Where clients are sent.",
    groups: &[&[
        key("to", Kind::Text, "", "The address, absolute or beginning with `/`."),
        key("status", Kind::Integer { min: 300, max: 399 }, "302", "The status code."),
    ]],
};

static RESPOND: Table = Table {
    doc: "A fixed answer.",
    groups: &[&[
        key("status", Kind::Integer { min: 200, max: 599 }, "200", "The status code."),
        key("body", Kind::Text, "", "The body."),
        key("content_type", Kind::HeaderValue, "text/plain; charset=utf-8", "Its media type."),
    ]],
};

static FILES: Table = Table {
    doc: "How files are served.",
    groups: &[&[
        key("index", TEXTS, "[\"index.html\"]", "Files that stand for their directory."),
        key("listing", Kind::Flag, "false", "Whether a directory without one is listed."),
        key("spa_fallback", Kind::Text, "", "File for pages that do not exist, below the root."),
        key(
            "precompressed",
            Kind::Flag,
            "false",
            "Whether `.zst`, `.br` and `.gz` files beside the original are served in its place, unless they are older.",
        ),
        key("hidden", TEXTS, "[]", "Globs of names that are never served, beside dotfiles."),
        key("cache_control", Kind::HeaderValue, "", "Value of the `Cache-Control` header."),
        key(
            "symlinks",
            Kind::Choice(&["inside", "follow", "never"]),
            "inside",
            "Links: followed below the root, anywhere, or not at all.",
        ),
    ]],
};
