//! What an adapter settles, and what keeps it from settling it; which adapter it is.

use std::time::Duration;

use config::{AppType, KillMode, Process, Secret};

use super::{
    super::spec::{AddressPlan, Base, Gate},
    command, jar, node, python, tomcat,
};

/// What an adapter settles; the preflight adds what all apps share.
#[derive(Debug)]
pub(in crate::app) struct Recipe {
    pub(in crate::app) argv: Vec<String>,
    /// Set unless the operator did.
    pub(in crate::app) env: Vec<(String, String)>,
    pub(in crate::app) address: AddressPlan,
    pub(in crate::app) kill_mode: KillMode,
    pub(in crate::app) upstream_idle: Duration,
    pub(in crate::app) notices: Vec<String>,
    pub(in crate::app) base: Option<Base>,
    pub(in crate::app) gates: Vec<Gate>,
}

/// One obstacle; `key` is relative to `process`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::app) struct Obstacle {
    pub(in crate::app) code: &'static str,
    pub(in crate::app) key: &'static str,
    pub(in crate::app) message: String,
    pub(in crate::app) hint: Option<String>,
}

impl Obstacle {
    pub(in crate::app) fn new(
        code: &'static str,
        key: &'static str,
        message: String,
        hint: impl Into<Option<String>>,
    ) -> Self {
        Self { code, key, message, hint: hint.into() }
    }
}

pub(in crate::app) fn recipe(
    kind: AppType,
    process: &Process,
    env: &[(String, Secret)],
) -> Result<Recipe, Vec<Obstacle>> {
    match kind {
        AppType::Nodejs => node::recipe(process, env),
        AppType::Python => python::recipe(process, env),
        AppType::Command => command::recipe(process, env).map_err(|obstacle| vec![obstacle]),
        AppType::Java => jar::recipe(process, env),
        AppType::Tomcat => tomcat::recipe(process, env),
        AppType::Proxy | AppType::Static => {
            Err(vec![Obstacle::new("app-no-process", "", "this app_type has no process".to_owned(), None)])
        }
    }
}
