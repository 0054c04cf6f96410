//! `[logging]`.

use std::{path::PathBuf, time::Duration};

use crate::{AccessFormat, AccessLog, BackupNaming, ByteSize, LogFormat, Logging, OnFull, Rotation, section::Section};

/// `root` is where the default path starts when there is no `[logging]` at all.
pub(super) fn logging(section: &Section<'_>, root: &Section<'_>) -> Logging {
    Logging {
        level: section.text("level").unwrap_or_else(|| "info".into()),
        format: section.choice("format", &[LogFormat::Text, LogFormat::Json]).unwrap_or_default(),
        path: section.path("path"),
        access_log: access_log(&section.section("access_log"), root),
        rotation: rotation(&section.section("rotation")),
    }
}

fn access_log(section: &Section<'_>, root: &Section<'_>) -> AccessLog {
    let formats = [AccessFormat::Common, AccessFormat::Combined, AccessFormat::Json];
    let format = section.choice("format", &formats).unwrap_or_default();
    if section.has("fields") && format != AccessFormat::Json {
        section.error_at("fields", "`fields` are chosen in JSON lines only", Some("add `format = \"json\"`".into()));
    }
    AccessLog {
        enabled: section.flag("enabled").unwrap_or(section.present()),
        path: section.path("path").unwrap_or_else(|| default_path(root.resolve("logs/access.log"))),
        format,
        buffer_size: section.integer("buffer_size").unwrap_or(100),
        on_full: section.choice("on_full", &[OnFull::Drop, OnFull::Block]).unwrap_or_default(),
        fields: section.texts("fields").unwrap_or_default(),
    }
}

/// The service's own configuration has no logs beside it: they go where its unit's account may write.
fn default_path(beside: PathBuf) -> PathBuf {
    if beside.starts_with("/etc/miwid") { "/var/log/miwid/access.log".into() } else { beside }
}

fn rotation(section: &Section<'_>) -> Rotation {
    Rotation {
        enabled: section.flag("enabled").unwrap_or(true),
        max_size: section.megabytes("max_size_mb").unwrap_or(ByteSize::mib(100)),
        max_backups: section.integer("max_backups").unwrap_or(10),
        compress: section.flag("compress").unwrap_or(true),
        max_age: section.integer::<u32>("max_age_days").map(|it| Duration::from_secs(u64::from(it) * 86_400)),
        max_total: section.megabytes("max_total_mb"),
        naming: section.choice("naming", &[BackupNaming::Numbered, BackupNaming::Timed]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_lie_beside_the_configuration_but_for_the_services_own() {
        for (beside, expected) in [
            ("/srv/shop/logs/access.log", "/srv/shop/logs/access.log"),
            ("/etc/miwid/logs/access.log", "/var/log/miwid/access.log"),
            ("/etc/miwid-two/logs/access.log", "/etc/miwid-two/logs/access.log"),
        ] {
            assert_eq!(default_path(beside.into()), PathBuf::from(expected));
        }
    }
}
