//! What is written down, and what is measured.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use crate::ByteSize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Logging {
    /// A tracing filter: `info`, `miwid=debug`. `RUST_LOG` wins.
    pub level: String,
    pub format: LogFormat,
    /// `None` = standard error.
    pub path: Option<PathBuf>,
    pub access_log: AccessLog,
    pub rotation: Rotation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccessLog {
    pub enabled: bool,
    pub path: PathBuf,
    pub format: AccessFormat,
    /// Lines held before a write.
    pub buffer_size: usize,
    pub on_full: OnFull,
    /// JSON fields to write, in this order; empty = all.
    pub fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    Common,
    #[default]
    Combined,
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    #[default]
    Drop,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    pub enabled: bool,
    pub max_size: ByteSize,
    pub max_backups: usize,
    pub compress: bool,
    pub max_age: Option<Duration>,
    pub max_total: Option<ByteSize>,
    pub naming: BackupNaming,
}

/// How rotated files are called: `access.log.1` or `access.log.20261124-101532`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupNaming {
    #[default]
    Numbered,
    Timed,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tracing {
    pub otlp_endpoint: Option<String>,
    pub sample_ratio: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    pub enabled: bool,
    pub per_site: bool,
}
