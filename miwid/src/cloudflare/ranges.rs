//! The addresses that Cloudflare connects from: built in, and what its API has said since. Whoever is in them may say who its
//! clients are, so an answer is looked at hard before it counts, and never takes away what is built in.
//!
//! ```text
//! built in ──┬── kept on the disk (judged again) ──┐
//!            │                                     ├──> net::edge::Known
//!            └── GET /ips, daily ── judged ── kept ┘
//! ```

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, header};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    api::BASE,
    error::{Class, Error, judge},
};
use crate::{
    client::{Ask, Client},
    net::edge::{Known, Ranges},
};

const BUILT_IN: &str = include_str!("ranges.txt");
/// Some two dozen are expected.
const RANGES_MAX: usize = 500;
/// Cloudflare's largest are a /13 and a /29.
const PREFIX_LEAST: (u8, u8) = (8, 16);
const EVERY: Duration = Duration::from_secs(86_400);
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

/// Nobody connects to us from here, except those who are not Cloudflare.
const RESERVED: [&str; 16] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "2001:db8::/32",
    "2002::/16",
    "2001::/32",
];

fn built_in() -> Vec<IpNet> {
    BUILT_IN.lines().filter_map(|it| it.parse().ok()).collect()
}

/// The ranges of an answer, or why it is not believed. Pure.
fn believed(document: &Value) -> Result<Vec<IpNet>, String> {
    let mut all = Vec::new();
    for (key, is_v4) in [("ipv4_cidrs", true), ("ipv6_cidrs", false)] {
        let listed = document["result"][key].as_array().ok_or_else(|| format!("it has no `{key}`"))?;
        let nets = listed.iter().map(|it| range(it, is_v4)).collect::<Result<Vec<_>, _>>()?;
        let least = built_in().iter().filter(|it| is_v4 == matches!(it, IpNet::V4(_))).count() / 2;
        if nets.len() <= least {
            return Err(format!("`{key}` has {} ranges, which is too few", nets.len()));
        }
        if nets.len() > RANGES_MAX {
            return Err(format!("`{key}` has {} ranges, which is too many", nets.len()));
        }
        all.extend(nets);
    }
    Ok(all)
}

fn range(value: &Value, is_v4: bool) -> Result<IpNet, String> {
    let text = value.as_str().unwrap_or_default();
    let net: IpNet = text.parse().map_err(|_| format!("{text:?} is no range"))?;
    let net = net.trunc();
    let least = match net {
        IpNet::V4(_) if is_v4 => PREFIX_LEAST.0,
        IpNet::V6(_) if !is_v4 => PREFIX_LEAST.1,
        _ => return Err(format!("{text} is of the other family")),
    };
    if net.prefix_len() < least {
        return Err(format!("{text} is too much of the world"));
    }
    let overlaps = |it: &IpNet| it.contains(&net) || net.contains(it);
    let is_reserved = RESERVED.iter().filter_map(|it| it.parse().ok()).any(|it| overlaps(&it));
    let is_global = |it: IpNet| match it {
        IpNet::V4(_) => true,
        // 2000::/3
        IpNet::V6(it) => it.network().octets()[0] >> 5 == 1,
    };
    if is_reserved || !is_global(net) {
        return Err(format!("{text} is not of the public network"));
    }
    Ok(net)
}

/// What was heard last, as it lies on the disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Heard {
    /// Seconds since 1970.
    at: u64,
    result: Value,
}

/// How it stands with the ranges.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub ranges: Vec<String>,
    /// When the API last said what counts; `None`: only what is built in does.
    pub heard: Option<SystemTime>,
    pub last_error: Option<String>,
}

struct State {
    nets: Vec<IpNet>,
    heard: Option<SystemTime>,
    last_error: Option<String>,
    next: SystemTime,
}

/// The one writer of the ranges.
pub struct Keeper {
    known: Known,
    path: PathBuf,
    client: Client,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// With what is built in and what the disk has, if that is still believed.
    pub fn open(known: Known, path: PathBuf) -> Arc<Self> {
        let mut state = State { nets: built_in(), heard: None, last_error: None, next: SystemTime::UNIX_EPOCH };
        match read(&path) {
            Ok(Some((at, nets))) => {
                state.take(nets);
                (state.heard, state.next) = (Some(at), at + EVERY);
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(path = %path.display(), "the kept ranges of Cloudflare are not used: {why}");
            }
        }
        known.replace(Ranges::new(state.nets.iter().copied()));
        let client = Client::default();
        Arc::new(Self { known, path, client, state: Mutex::new(state), turn: tokio::sync::Mutex::default() })
    }

    pub fn standing(&self) -> Standing {
        let state = self.lock();
        Standing {
            ranges: state.nets.iter().map(ToString::to_string).collect(),
            heard: state.heard,
            last_error: state.last_error.clone(),
        }
    }

    pub fn is_due(&self, now: SystemTime) -> bool {
        now >= self.lock().next
    }

    /// Asks the API; an answer that is not believed changes nothing.
    pub async fn refresh(&self, base: Option<&str>, now: SystemTime) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let asked = self.ask(base, now).await;
        let jitter = 1.0 + fastrand::f64() / 10.0;
        let mut state = self.lock();
        match asked {
            Ok(nets) => {
                state.nets = built_in();
                state.take(nets);
                self.known.replace(Ranges::new(state.nets.iter().copied()));
                (state.heard, state.last_error, state.next) = (Some(now), None, now + EVERY.mul_f64(jitter));
                Ok(())
            }
            Err(error) => {
                state.last_error = Some(error.message.clone());
                state.next = now + AFTER_FAILURE.mul_f64(jitter);
                Err(error)
            }
        }
    }

    async fn ask(&self, base: Option<&str>, now: SystemTime) -> Result<Vec<IpNet>, Error> {
        let bad_base = || Error::new(Class::Config, "`[cloudflare] api_base` is no address", None);
        let url = format!("{}/ips", base.unwrap_or(BASE).trim_end_matches('/')).parse().map_err(|_| bad_base())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // Everybody may ask: no token goes along.
        let ask = Ask { method: Method::GET, url, headers, body: None };
        let reply = self.client.send(ask).await.map_err(|error| Error::of_transport(&error))?;
        let document = judge(reply.status, &reply.headers, &reply.body, now)?;
        let nets = believed(&document).map_err(|why| {
            let message = format!("the list of Cloudflare's addresses is not believed: {why}");
            Error::new(Class::Unknown, message, Some("what was known before still counts"))
        })?;
        let heard = Heard { at: seconds(now), result: document["result"].clone() };
        if let Err(error) = write(self.path.clone(), heard).await {
            tracing::warn!(path = %self.path.display(), %error, "the ranges of Cloudflare cannot be kept on the disk");
        }
        Ok(nets)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, nets: Vec<IpNet>) {
        self.nets.extend(nets);
        self.nets.sort_unstable();
        self.nets.dedup();
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `None`: nothing was ever kept.
fn read(path: &std::path::Path) -> Result<Option<(SystemTime, Vec<IpNet>)>, String> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let heard: Heard = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let nets = believed(&serde_json::json!({ "result": heard.result }))?;
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(heard.at)).ok_or("its time is absurd")?;
    Ok(Some((at, nets)))
}

/// Whole or not at all.
async fn write(path: PathBuf, heard: Heard) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let fresh = path.with_extension("new");
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = fs::File::create(&fresh)?;
        serde_json::to_writer(&file, &heard)?;
        io::Write::flush(&mut file)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)
    });
    written.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn v4() -> Vec<String> {
        built_in().iter().filter(|it| matches!(it, IpNet::V4(_))).map(ToString::to_string).collect()
    }

    fn v6() -> Vec<String> {
        built_in().iter().filter(|it| matches!(it, IpNet::V6(_))).map(ToString::to_string).collect()
    }

    fn judged(v4: &[String], v6: &[String]) -> Result<usize, String> {
        believed(&json!({ "result": { "ipv4_cidrs": v4, "ipv6_cidrs": v6 } })).map(|it| it.len())
    }

    #[test]
    fn what_is_built_in_would_be_believed() {
        assert_eq!(built_in().len(), 22);
        assert_eq!(judged(&v4(), &v6()), Ok(22));
    }

    #[test]
    fn absurd_answers_are_not_believed() {
        let with = |range: &str| judged(&[v4(), vec![range.to_owned()]].concat(), &v6());
        for range in ["131.0.72.0/22", "131.0.73.1/22", "45.0.0.0/8", "8.8.8.8/32"] {
            assert_eq!(with(range), Ok(23), "{range}");
        }
        for range in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/7",
            "10.0.0.0/8",
            "10.1.2.0/24",
            "127.0.0.1/32",
            "192.168.1.0/24",
            "192.168.0.0/15",
            "172.20.0.0/16",
            "100.64.0.0/10",
            "169.254.169.254/32",
            "198.51.100.0/24",
            "224.0.0.0/8",
            "255.255.255.255/32",
            "2400:cb00::/32",
            "::ffff:10.0.0.0/104",
            "words",
            "",
            "1.2.3.4",
            "1.2.3.0/33",
        ] {
            assert!(with(range).is_err(), "{range}");
        }
        for range in ["::/0", "2000::/3", "fc00::/7", "fe80::/10", "::1/128", "2001:db8::/32", "ff00::/16", "2002::/16"]
        {
            assert!(judged(&v4(), &[v6(), vec![range.to_owned()]].concat()).is_err(), "{range}");
        }
        assert!(judged(&[], &v6()).is_err());
        assert!(judged(&v4(), &[]).is_err());
        assert!(judged(&v4()[..7], &v6()).is_err(), "fewer than half are left");
        assert!(judged(&v4(), &v6()[..3]).is_err());
        assert_eq!(judged(&v4()[..8], &v6()[..4]), Ok(12));
        let many: Vec<String> = (0..600).map(|it| format!("45.{}.{}.0/24", it / 256, it % 256)).collect();
        assert!(judged(&many, &v6()).is_err());
        for document in [json!({}), json!({ "result": null }), json!({ "result": { "ipv4_cidrs": "0.0.0.0/0" } })] {
            assert!(believed(&document).is_err(), "{document}");
        }
    }

    #[test]
    fn what_is_on_the_disk_is_judged_as_if_it_were_new() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ips.json");
        let ip = "45.0.0.1".parse().expect("an address");
        let open = || {
            let known = Known::default();
            Keeper::open(known.clone(), path.clone());
            (known.contains("104.16.0.1".parse().expect("an address")), known.contains(ip))
        };
        assert_eq!(open(), (true, false));
        let keep = |range: &str| {
            let v4 = [v4(), vec![range.to_owned()]].concat();
            let result = json!({ "ipv4_cidrs": v4, "ipv6_cidrs": v6() });
            fs::write(&path, json!({ "at": 1, "result": result }).to_string()).expect("written");
        };
        keep("45.0.0.0/8");
        assert_eq!(open(), (true, true));
        keep("0.0.0.0/0");
        assert_eq!(open(), (true, false));
        fs::write(&path, "{").expect("written");
        assert_eq!(open(), (true, false));
    }
}
