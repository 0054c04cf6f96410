//! Calls of the API: the token in front, the pace kept, the answer judged. The token is in no error and no log.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use config::Secret;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use serde_json::Value;
use tokio::time::Instant;

use super::error::{Class, Error, judge};
use crate::client::{Ask, Client};

/// The address of the API when none is configured.
pub(super) const BASE: &str = "https://api.cloudflare.com/client/v4";
/// Two requests a second: far below the limit of 1200 in five minutes, whatever else uses the account.
const PACE: Duration = Duration::from_millis(500);
/// For somebody who waits at a terminal, and asks a few dozen things in all.
const BRISK: Duration = Duration::from_millis(100);

/// What a configuration says about the account.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub base: Option<String>,
    pub token: Secret,
    /// Read again before every call, so that a new token counts without a reload.
    pub token_file: Option<PathBuf>,
    pub zone_id: Option<String>,
    pub account_id: Option<String>,
}

pub struct Api {
    pub(super) settings: Settings,
    client: Client,
    /// Between two requests.
    step: Duration,
    pace: Mutex<Pace>,
    pub(super) zones: Mutex<std::collections::BTreeMap<String, String>>,
}

#[derive(Default)]
struct Pace {
    next: Option<Instant>,
    /// Until then the API takes nothing.
    blocked: Option<SystemTime>,
}

impl Api {
    /// With a token there is somebody to ask.
    pub fn of(config: &config::Cloudflare) -> Option<Self> {
        let settings = Settings {
            base: config.api_base.clone(),
            token: config.api_token.clone()?,
            token_file: config.api_token_file.clone(),
            zone_id: config.zone_id.clone(),
            account_id: config.account_id.clone(),
        };
        Some(Self::new(settings, Client::default()))
    }

    fn new(settings: Settings, client: Client) -> Self {
        Self { settings, client, step: PACE, pace: Mutex::default(), zones: Mutex::default() }
    }

    pub fn brisk(self) -> Self {
        Self { step: BRISK, ..self }
    }

    /// The whole document of a success; `now` is the clock that back-off is told by.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        now: SystemTime,
    ) -> Result<Value, Error> {
        self.turn(now).await?;
        let token = self.token().await;
        let ask = self.ask(method, path, body, &token)?;
        let reply = self.client.send(ask).await.map_err(|error| Error::of_transport(&error))?;
        let judged = judge(reply.status, &reply.headers, &reply.body, now);
        judged.map_err(|mut error| {
            if let Class::Throttled { until } = error.class {
                self.lock().blocked = Some(until);
            }
            error.message = error.message.replace(&token, "***");
            error
        })
    }

    /// Waits for this call's turn; while the API takes nothing there is none.
    async fn turn(&self, now: SystemTime) -> Result<(), Error> {
        let wait = {
            let mut pace = self.lock();
            if let Some(until) = pace.blocked.filter(|it| *it > now) {
                let message = "Cloudflare takes no more requests for a while (HTTP 429 earlier)";
                return Err(Error::new(Class::Throttled { until }, message, None));
            }
            let turn = pace.next.unwrap_or_else(Instant::now).max(Instant::now());
            pace.next = Some(turn + self.step);
            turn
        };
        tokio::time::sleep_until(wait).await;
        Ok(())
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>, token: &str) -> Result<Ask, Error> {
        let base = self.settings.base.as_deref().unwrap_or(BASE).trim_end_matches('/');
        let bad_base = || Error::new(Class::Config, "`[cloudflare] api_base` is no address", None);
        let url: Uri = format!("{base}{path}").parse().map_err(|_| bad_base())?;
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Error::new(Class::Config, "the API token has characters that no token has", None))?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(Ask { method, url, headers, body: body.map(|it| Bytes::from(it.to_string())) })
    }

    /// The file's token if it can be read, else the one that the configuration was loaded with.
    pub(super) async fn token(&self) -> String {
        let known = || self.settings.token.expose().to_owned();
        let Some(path) = &self.settings.token_file else { return known() };
        match tokio::fs::read_to_string(path).await {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => known(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
