//! `[logging]` and its two tables.

use super::{COUNT, Kind, TEXTS, Table, key};

pub(crate) static LOGGING: Table = Table {
    doc: "The daemon's log and the access log.",
    groups: &[&[
        key("level", Kind::Text, "info", "A filter: `info`, `miwid=debug`. The variable `RUST_LOG` wins."),
        key("format", Kind::Choice(&["text", "json"]), "text", "How lines of the daemon's log look."),
        key("path", Kind::Path, "standard error", "File of the daemon's log; it rotates like the access log."),
        key("access_log", Kind::Table(&ACCESS), "", "One line for every request; the table's presence turns it on."),
        key("rotation", Kind::Table(&ROTATION), "", "When log files are set aside."),
    ]],
};

static ACCESS: Table = Table {
    doc: "One line for every request.",
    groups: &[&[
        key("enabled", Kind::Flag, "true when the table is there", "Whether requests are logged."),
        key(
            "path",
            Kind::Path,
            "logs/access.log; of a configuration in /etc/miwid /var/log/miwid/access.log",
            "The file; its directory is created.",
        ),
        key("format", Kind::Choice(&["common", "combined", "json"]), "combined", "How lines look."),
        key(
            "buffer_size",
            Kind::Integer { min: 1, max: 1_000_000 },
            "100",
            "Lines held before a write; a second is the longest wait.",
        ),
        key(
            "on_full",
            Kind::Choice(&["drop", "block"]),
            "drop",
            "When the disk cannot keep up: lose lines, or delay requests.",
        ),
        key("fields", TEXTS, "all", "Fields of a JSON line, in this order."),
    ]],
};

static ROTATION: Table = Table {
    doc: "When log files are set aside, and how many are kept.",
    groups: &[&[
        key("enabled", Kind::Flag, "true", "Whether log files rotate."),
        key("max_size_mb", Kind::Number { min: 0.0001, max: 1e9 }, "100", "Size at which a file is set aside, in MB."),
        key("max_backups", Kind::Integer { min: 0, max: 100_000 }, "10", "Files that are kept beside the current one."),
        key("compress", Kind::Flag, "true", "Whether they are compressed (gzip)."),
        key("max_age_days", COUNT, "", "Days after which one is deleted."),
        key("max_total_mb", Kind::Number { min: 0.0001, max: 1e9 }, "", "Size of all of them together, in MB."),
        key(
            "naming",
            Kind::Choice(&["numbered", "timed"]),
            "numbered",
            "`access.log.1`, or `access.log.20261124-101532`.",
        ),
    ]],
};
