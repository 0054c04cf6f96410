//! What can be set for the whole server, a site or a route: `compression`, `cache`, `security`.

use super::{DURATION, Kind, NETS, SIZE, TEXTS, Table, key};

pub(crate) static COMPRESSION: Table = Table {
    doc: "Compression of answers. What a site or route does not set comes from the table above it. Parts, answers that are \
          encoded already and `Cache-Control: no-transform` are left alone; streams are flushed whenever they pause. Do not \
          compress pages that mix secrets with what a stranger can put there (BREACH).",
    groups: &[&[
        key("enabled", Kind::Flag, "true when the table is there", "Whether answers are compressed."),
        key(
            "algorithms",
            Kind::List(&Kind::Choice(&["zstd", "br", "gzip"])),
            "[\"zstd\", \"br\", \"gzip\"]",
            "In order of preference, where the client has none.",
        ),
        key(
            "level",
            Kind::Integer { min: 1, max: 19 },
            "3 for zstd, 4 for br, 6 for gzip",
            "How hard to try while the client waits; at most 12, 6 and 9. Files are kept at the best level once asked for.",
        ),
        key("min_size", Kind::Size { min: 0 }, "1KB", "Smaller answers are left alone."),
        key(
            "types",
            TEXTS,
            "text, JSON, JavaScript, XML, SVG, YAML, TOML, WebAssembly, TTF, OTF, ICO",
            "Media types; `text/*` is all of a kind, `*+json` all with that ending.",
        ),
    ]],
};

pub(crate) static CACHE: Table = Table {
    doc: "The cache of answers. What a site or route does not set comes from the table above it.",
    groups: &[&[
        key("enabled", Kind::Flag, "true when the table is there", "Whether answers are kept."),
        key("max_size", SIZE, "64MB", "Memory for cached answers."),
        key("ttl", DURATION, "", "How long an answer without a freshness of its own is kept."),
        key("ignore_cookies", TEXTS, "[]", "Cookies that do not keep an answer out of the cache."),
        key("disk_path", Kind::Path, "", "Directory for the part on disk."),
        key("disk_size", SIZE, "", "Room for the part on disk."),
        key("max_object_size", SIZE, "", "Bigger answers are not kept."),
    ]],
};

pub(crate) static SECURITY: Table = Table {
    doc: "Who may ask what, and how often. What a site or route does not set comes from the table above it.",
    groups: &[&[
        key(
            "enable_cors",
            Kind::Flag,
            "false",
            "Whether CORS is answered here: preflights by miwid, and what an app says of origins and cookies is replaced.",
        ),
        key("cors_origins", TEXTS, "[]", "Origins that may read answers; `*` = every one."),
        key("cors_credentials", Kind::Flag, "false", "Whether cookies may come along; not with `*`."),
        key(
            "enable_csrf",
            Kind::Flag,
            "false",
            "Whether unsafe requests (POST, PUT, ...) from pages of other sites are refused: by `Sec-Fetch-Site`, or else by \
             `Origin`. Clients that are no browsers send neither.",
        ),
        key(
            "csrf_trusted_origins",
            TEXTS,
            "[]",
            "Origins whose pages may send unsafe requests; to be in `cors_origins` is not enough.",
        ),
        key("csrf_exempt_paths", Kind::List(&Kind::HttpPath), "[]", "Paths without that check, and all below them."),
        key(
            "rate_limit",
            Kind::Integer { min: 1, max: u32::MAX as i64 },
            "",
            "Requests per minute and client address (IPv6: /64), a tenth of them at once. All that take it over \
             from one table count together. More get 429 with `Retry-After`.",
        ),
        key(
            "rate_limit_exempt",
            NETS,
            "[]",
            "Address ranges without that limit; `0.0.0.0/0` and `::/0` are everybody.",
        ),
        key("ip_whitelist", NETS, "[]", "The only address ranges that may ask (same as `allow`)."),
        key("allow", NETS, "[]", "The only address ranges that may ask; others get 403."),
        key("deny", NETS, "[]", "Address ranges that may not ask, even if `allow` has them."),
        key(
            "headers",
            Kind::Map(&Kind::HeaderValue),
            "",
            "Headers for every answer, `_` for `-`; an empty value removes one.",
        ),
        key(
            "mode",
            Kind::Choice(&["enforce", "report"]),
            "enforce",
            "`report` only logs and counts what would be refused.",
        ),
    ]],
};
