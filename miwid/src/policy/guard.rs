//! What stands before a route: who may ask, how often, and from which pages (hot). A route without a guard pays nothing.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, Response, StatusCode};

use super::{Access, Clients, Cors, Csrf, Nets, Pace};
use crate::exchange::{Body, Context, Failure, reason};

/// Refusals of one guard are told this often, with how many there were: a flood must not fill the log.
const TOLD_EVERY: u64 = 10_000_000_000;

pub struct Guard {
    access: Option<Access>,
    rate: Option<Rate>,
    cors: Option<Cors>,
    csrf: Option<Csrf>,
    is_enforced: bool,
    /// The table of `[security]` that says so, for the log.
    place: Box<str>,
    clients: Clients,
    told: Told,
}

struct Rate {
    pace: Pace,
    exempt: Nets,
    /// Whose bucket it is: that of the table which set the limit, over reloads.
    scope: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Denied,
    TooOften {
        wait: Duration,
    },
    /// By a page of another site.
    Foreign,
}

/// What of a request matters here beside its client.
#[derive(Clone, Copy, Debug)]
pub struct Asks<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// As in the Host header.
    pub authority: &'a str,
    /// As routes see it.
    pub path: &'a str,
}

/// What came of a request, and what is to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub refusal: Option<Refusal>,
    /// Somebody else's count had to be forgotten.
    pub evicted: bool,
}

// === impl Guard ===

impl Guard {
    /// `None` when there is nothing to guard.
    pub fn new(security: &config::Security, clients: &Clients) -> Option<Arc<Self>> {
        let access = Access::new(security);
        let rate = security.rate_limit.map(|requests| Rate {
            pace: Pace::per_minute(requests),
            exempt: Nets::new(&security.rate_limit_exempt),
            scope: clients.cells().scope(&security.rate_limit_place),
        });
        let (cors, csrf) = (Cors::new(security), Csrf::new(security));
        if access.is_none() && rate.is_none() && cors.is_none() && csrf.is_none() {
            return None;
        }
        Some(Arc::new(Self {
            access,
            rate,
            cors,
            csrf,
            is_enforced: security.mode == config::SecurityMode::Enforce,
            place: security.place.as_str().into(),
            clients: clients.clone(),
            told: Told::default(),
        }))
    }

    /// A refusal only counts when this says so; otherwise it is told and the request goes on.
    pub fn is_enforced(&self) -> bool {
        self.is_enforced
    }

    /// Decides, and charges the client for it. Who is refused for asking too often is not charged. `client` is who it really
    /// is: the peer, or whom a trusted peer speaks for.
    pub fn judge(&self, client: IpAddr, at: Instant, asks: Asks<'_>) -> Judged {
        if self.access.as_ref().is_some_and(|it| !it.admits(client)) {
            return Judged { refusal: Some(Refusal::Denied), evicted: false };
        }
        let mut judged = self.charge(client, at);
        let admits = |it: &Csrf| it.admits(asks.method, asks.headers, asks.authority, asks.path);
        if judged.refusal.is_none() && !self.csrf.as_ref().is_none_or(admits) {
            judged.refusal = Some(Refusal::Foreign);
        }
        judged
    }

    fn charge(&self, client: IpAddr, at: Instant) -> Judged {
        let Some(rate) = self.rate.as_ref().filter(|it| !it.exempt.contains(client)) else { return Judged::default() };
        let cells = self.clients.cells();
        let charged = cells.charge(cells.client(rate.scope, client), rate.pace, cells.time(at));
        let refusal = charged.result.err().map(|it| Refusal::TooOften { wait: Duration::from_nanos(it.nanos) });
        Judged { refusal, evicted: charged.evicted }
    }

    /// `judge` for a request, with its consequences for the context. An error is the answer, and so is what a browser wants to
    /// know before a request.
    pub fn admit(
        &self,
        context: &mut Context,
        (method, headers, path): (&Method, &HeaderMap, &str),
        count: impl FnOnce(&Judged),
    ) -> Result<Option<Response<Body>>, Failure> {
        // A page has to be able to read a refusal as well.
        context.sharing = self.cors.as_ref().map(|it| Box::new(it.sharing(headers)));
        let asks = Asks { method, headers, authority: &context.authority, path };
        let judged = self.judge(context.client_ip, context.started, asks);
        count(&judged);
        if let Some(refusal) = judged.refusal {
            self.tell(refusal, context);
            if self.is_enforced {
                return Err(refusal.failure());
            }
            context.reason = Some(refusal.reported());
        }
        let preflight = context.sharing.as_deref().and_then(|it| Cors::preflight(method, headers, it));
        Ok(preflight.map(|said| {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.headers_mut() = said;
            response
        }))
    }

    fn tell(&self, refusal: Refusal, context: &Context) {
        let now = self.clients.cells().time(context.started);
        let Some(count) = self.told.ask(now) else { return };
        tracing::warn!(
            table = %self.place,
            reason = refusal.reason(),
            client = %context.client_ip,
            host = %context.host,
            count,
            "{}",
            if self.is_enforced { "requests are refused" } else { "requests would be refused" }
        );
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Denied => reason::DENIED,
            Self::TooOften { .. } => reason::RATE_LIMIT,
            Self::Foreign => reason::CSRF,
        }
    }

    /// The reason in the record of a request that was let pass.
    fn reported(self) -> &'static str {
        match self {
            Self::Denied => reason::WOULD_DENY,
            Self::TooOften { .. } => reason::WOULD_RATE_LIMIT,
            Self::Foreign => reason::WOULD_CSRF,
        }
    }

    fn failure(self) -> Failure {
        match self {
            Self::Denied => {
                Failure::client(StatusCode::FORBIDDEN, self.reason(), "Requests from this address are not served here.")
            }
            Self::Foreign => {
                Failure::client(StatusCode::FORBIDDEN, self.reason(), "This request comes from a page of another site.")
            }
            Self::TooOften { wait } => {
                let message = "There are too many requests from this address.";
                let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
                Failure::client(StatusCode::TOO_MANY_REQUESTS, self.reason(), message)
                    .retry_after(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
            }
        }
    }
}

/// When it was last told, and how often it was not.
#[derive(Default)]
struct Told {
    next: AtomicU64,
    untold: AtomicU64,
}

impl Told {
    /// How many there are to tell of, if it is time to.
    fn ask(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        if now < next || self.next.compare_exchange(next, now + TOLD_EVERY, Relaxed, Relaxed).is_err() {
            self.untold.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.untold.swap(0, Relaxed) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(text: &str) -> config::Security {
        let loaded = config::load_text(
            std::path::Path::new("m.toml"),
            &format!("[security]\n{text}"),
            &[],
            &config::Capabilities::default(),
        );
        loaded.expect("a good table").config.security
    }

    fn guard(text: &str, clients: &Clients) -> Arc<Guard> {
        Guard::new(&security(text), clients).expect("there is something to guard")
    }

    fn refused(guard: &Guard, client: &str, times: usize) -> usize {
        let at = Instant::now();
        let client = client.parse().expect("an address");
        let headers = HeaderMap::new();
        let asks = Asks { method: &Method::GET, headers: &headers, authority: "a.test", path: "/" };
        (0..times).filter(|_| guard.judge(client, at, asks).refusal.is_some()).count()
    }

    #[test]
    fn where_nothing_is_asked_for_nobody_stands() {
        for text in ["", "mode = \"report\"", "rate_limit_exempt = [\"10.0.0.1\"]", "allow = []"] {
            assert!(Guard::new(&security(text), &Clients::default()).is_none(), "{text}");
        }
    }

    #[test]
    fn exempt_clients_are_not_counted_and_denied_ones_not_charged() {
        let clients = Clients::default();
        let text = "rate_limit = 100\nrate_limit_exempt = [\"10.0.0.0/8\"]\n";
        let open = guard(text, &clients);
        assert_eq!(refused(&open, "10.1.1.1", 500), 0);
        let closed = guard(&format!("{text}deny = [\"192.0.2.1\"]"), &clients);
        assert_eq!(refused(&closed, "192.0.2.1", 20), 20);
        assert_eq!(refused(&open, "192.0.2.1", 20), 10);
        assert_eq!(refused(&closed, "10.1.1.1", 500), 0);
    }

    #[test]
    fn what_a_client_has_used_is_remembered_by_the_guard_of_the_next_configuration() {
        let clients = Clients::default();
        assert_eq!(refused(&guard("rate_limit = 100", &clients), "192.0.2.1", 8), 0);
        let next = guard("rate_limit = 100\ndeny = [\"192.0.2.9\"]", &clients);
        assert_eq!(refused(&next, "192.0.2.1", 20), 18);
    }

    #[test]
    fn a_flood_of_refusals_is_told_now_and_then() {
        let told = Told::default();
        assert_eq!(told.ask(1), Some(1));
        assert_eq!((2..1000).filter_map(|now| told.ask(now)).count(), 0);
        assert_eq!(told.ask(1 + TOLD_EVERY), Some(999));
    }

    #[test]
    fn who_comes_too_often_is_told_when_to_come_again_in_whole_seconds() {
        let after = |wait| {
            let failure = Refusal::TooOften { wait }.failure();
            (failure.status.as_u16(), failure.reason, failure.retry_after.map(|it| it.as_secs()))
        };
        assert_eq!(after(Duration::from_millis(1)), (429, "rate-limit", Some(1)));
        assert_eq!(after(Duration::from_millis(1000)), (429, "rate-limit", Some(1)));
        assert_eq!(after(Duration::from_millis(5001)), (429, "rate-limit", Some(6)));
    }
}
