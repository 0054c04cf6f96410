//! What the double knows: tokens, zones, certificates, and what it was asked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::faults::Rule;

const LOG_MAX: usize = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    User,
    Account,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Active,
    Disabled,
    Expired,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    SslEdit,
    ZoneRead,
    DnsEdit,
    SettingsRead,
    CachePurge,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub value: String,
    pub id: String,
    pub kind: TokenKind,
    pub status: Status,
    pub expires_on: Option<SystemTime>,
    pub account: String,
    /// Zone id, or `*` for every zone of the account.
    pub rights: BTreeSet<(String, Right)>,
}

impl Token {
    /// An active token of a user, with every right on every zone.
    pub fn user(value: &str) -> Self {
        let rights = [Right::SslEdit, Right::ZoneRead, Right::DnsEdit, Right::SettingsRead, Right::CachePurge];
        Self {
            value: value.to_owned(),
            id: id(value),
            kind: TokenKind::User,
            status: Status::Active,
            expires_on: None,
            account: id("account"),
            rights: rights.into_iter().map(|it| ("*".to_owned(), it)).collect(),
        }
    }

    pub(super) fn may(&self, zone: &str, right: Right) -> bool {
        ["*", zone].iter().any(|it| self.rights.contains(&((*it).to_owned(), right)))
    }

    pub(super) fn may_anywhere(&self, right: Right) -> bool {
        self.rights.iter().any(|(_, it)| *it == right)
    }
}

#[derive(Clone, Debug)]
pub struct Zone {
    pub id: String,
    pub name: String,
    pub account: String,
    pub is_active: bool,
    pub is_paused: bool,
    pub settings: BTreeMap<String, String>,
    /// What was to leave its cache, in the words of the requests.
    pub purged: Vec<Value>,
    pub records: BTreeMap<String, Value>,
}

impl Zone {
    pub fn new(name: &str) -> Self {
        let settings = [("ssl", "strict"), ("tls_client_auth", "off"), ("min_tls_version", "1.2")];
        Self {
            id: id(name),
            name: name.to_owned(),
            account: id("account"),
            is_active: true,
            is_paused: false,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            purged: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    pub fn set(&mut self, setting: &str, value: &str) {
        self.settings.insert(setting.to_owned(), value.to_owned());
    }

    /// Leads visitors of `host` to an address.
    pub fn lead(&mut self, host: &str, proxied: bool) {
        let id = id(&format!("A {host}"));
        let record =
            json!({ "id": id, "type": "A", "name": host, "content": "192.0.2.1", "ttl": 1, "proxied": proxied });
        self.records.insert(id, record);
    }
}

/// 32 hexadecimal digits that are always the same for the same text.
pub(super) fn id(text: &str) -> String {
    let fold = |seed: u64| text.bytes().fold(seed, |it, b| (it ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{:016x}{:016x}", fold(0xcbf2_9ce4_8422_2325), fold(0x8422_2325_cbf2_9ce4))
}

/// A certificate that the double has signed.
#[derive(Clone, Debug)]
pub struct Issued {
    pub id: String,
    pub pem: String,
    pub hostnames: Vec<String>,
    pub request_type: String,
    pub expires_on: String,
    pub zones: Vec<String>,
    pub revoked_at: Option<String>,
}

impl Issued {
    /// As `GET` and the list show it: without what was only asked for.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "certificate": self.pem,
            "hostnames": self.hostnames,
            "expires_on": self.expires_on,
            "request_type": self.request_type,
        });
        if let Some(at) = &self.revoked_at {
            shown["revoked_at"] = json!(at);
        }
        shown
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) tokens: Vec<Token>,
    pub(super) zones: Vec<Zone>,
    pub(super) certificates: Vec<Issued>,
    /// Public keys by the account that brought them first.
    pub(super) keys: BTreeMap<Vec<u8>, String>,
    pub(super) rules: Vec<Rule>,
    pub(super) requests: VecDeque<Value>,
    pub(super) violations: Vec<String>,
    pub(super) clock_ahead: Duration,
    /// Requests of the window that began at the instant, for the limit of 1200 in five minutes.
    pub(super) window: Option<(SystemTime, u32)>,
    pub(super) requests_max: Option<u32>,
    /// What `GET /ips` says in place of the usual.
    pub(super) ips: Option<Value>,
    /// Comment and lifetime of a record that is there, with the same content, whenever one is to be made.
    pub(super) forestalled: Option<(Option<String>, u64)>,
}

impl State {
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::now() + self.clock_ahead
    }

    pub(super) fn token(&self, value: &str) -> Option<&Token> {
        self.tokens.iter().find(|it| it.value == value)
    }

    /// The zone that `host` lies in.
    pub(super) fn zone_of(&self, host: &str) -> Option<&Zone> {
        let host = host.strip_prefix("*.").unwrap_or(host);
        let lies_in = |zone: &&Zone| host == zone.name || host.ends_with(&format!(".{}", zone.name));
        self.zones.iter().filter(lies_in).max_by_key(|it| it.name.len())
    }

    pub(super) fn note(&mut self, request: Value) {
        if self.requests.len() >= LOG_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request);
    }

    pub(super) fn violate(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }
}
