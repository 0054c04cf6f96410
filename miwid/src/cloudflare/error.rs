//! Answers that are no success, by what is to be done about them. Pure.
//!
//! The HTTP status and `success` are looked at before anything else in the body: it may be HTML, or half a document.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::client;

/// Without a word about when to come back: all calls are refused for five minutes.
const BLOCKED: Duration = Duration::from_secs(300);
const BLOCKED_MAX: Duration = Duration::from_secs(3600);
const SHOWN_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The token is wrong, ended, or lacks a right.
    Auth,
    /// What was asked for will never be granted as it is.
    Config,
    NotFound,
    /// It is there already.
    Exists,
    /// Too many requests.
    Throttled {
        until: SystemTime,
    },
    /// It will pass.
    Transient,
    /// Nobody knows; it is asked again, but seldom.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Error {
    pub class: Class,
    pub message: String,
    pub hint: Option<&'static str>,
    /// What was asked for may have been done, although there is no answer that says so.
    pub may_be_done: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

const RIGHTS: &str = "give the token the permission Zone > SSL and Certificates > Edit on every zone that is named, and its \
                      owner API access to the account";
const ZONES: &str =
    "the zone must be active in the token's account; Zone > SSL and Certificates > Edit is needed on it";
const READ: &str = "set `[cloudflare] zone_id`, or give the token the permission Zone > Zone > Read";
const TOKEN: &str = "check `[cloudflare] api_token`: it is an API token and nothing else, without blanks";

impl Error {
    pub(super) fn new(class: Class, message: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self { class, message: message.into(), hint, may_be_done: false }
    }

    pub(super) fn of_transport(error: &client::Error) -> Self {
        let class = if matches!(error, client::Error::Url(_)) { Class::Config } else { Class::Transient };
        let message = format!("Cloudflare's API cannot be reached: {error}");
        let hint = (class == Class::Config).then_some("check `[cloudflare] api_base`");
        Self { may_be_done: error.may_have_arrived(), ..Self::new(class, message, hint) }
    }
}

/// The `result` of an answer that says success, or what its failure means.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<Value, Error> {
    let ray =
        headers.get("cf-ray").and_then(|it| it.to_str().ok()).map_or_else(String::new, |it| format!(" (cf-ray {it})"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        let until = retry_at(headers, now);
        let seconds = until.duration_since(now).unwrap_or_default().as_secs();
        let message = format!("Cloudflare takes no more requests for {seconds} s (HTTP 429){ray}");
        return Err(Error::new(Class::Throttled { until }, message, None));
    }
    if status.is_redirection() {
        let message = format!("Cloudflare's API answers with a redirect ({status}), which is not followed{ray}");
        return Err(Error::new(Class::Config, message, Some("check `[cloudflare] api_base`")));
    }
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|it| it != "identity");
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let parsed = if encoded { None } else { serde_json::from_slice::<Value>(text).ok() };
    let Some(document) = parsed.filter(Value::is_object) else {
        let what = if encoded { "an encoded body that nobody asked for".to_owned() } else { shown(body) };
        let message = format!("Cloudflare's API answers {status} with {what}{ray}");
        let class = if status.is_client_error() { Class::Unknown } else { Class::Transient };
        // A success that cannot be read may be one.
        return Err(Error { may_be_done: !status.is_client_error(), ..Error::new(class, message, None) });
    };
    if status.is_success() && document["success"] == true {
        return Ok(document);
    }
    Err(refusal(status, &document["errors"], &ray))
}

fn refusal(status: StatusCode, errors: &Value, ray: &str) -> Error {
    let listed: Vec<(u64, String)> = errors
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|it| std::iter::once(it).chain(it["error_chain"].as_array().into_iter().flatten()))
        .map(|it| (it["code"].as_u64().unwrap_or_default(), cut(it["message"].as_str().unwrap_or_default())))
        .collect();
    let said: Vec<String> = listed.iter().map(|(code, text)| format!("{text} (code {code})")).collect();
    let said = if said.is_empty() { format!("no reason ({status})") } else { said.join("; ") };
    let (class, hint) = class(status, &listed);
    Error { may_be_done: status.is_server_error(), ..Error::new(class, format!("Cloudflare says: {said}{ray}"), hint) }
}

fn class(status: StatusCode, errors: &[(u64, String)]) -> (Class, Option<&'static str>) {
    for (code, message) in errors {
        return match code {
            _ if message.starts_with("Failed to validate requested hostname") => (Class::Config, Some(ZONES)),
            // Both look final and are not: they have let a certificate expire elsewhere.
            1100 | 1201 => (Class::Transient, None),
            1016 | 10000 => (Class::Auth, Some(RIGHTS)),
            0 if message.contains("requires permission") => (Class::Auth, Some(READ)),
            9109 | 1000 => (Class::Auth, Some(RIGHTS)),
            6003 | 6111 | 6103 => (Class::Config, Some(TOKEN)),
            7003 | 7000 => (Class::NotFound, None),
            81057 | 81058 => (Class::Exists, None),
            _ => continue,
        };
    }
    match status.as_u16() {
        500.. => (Class::Transient, None),
        401 | 403 => (Class::Auth, Some(RIGHTS)),
        404 => (Class::NotFound, None),
        _ => (Class::Unknown, None),
    }
}

/// When the next request may go out: as the answer says, else after five minutes; with a tenth more at random, so that
/// many daemons do not come back at once.
fn retry_at(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).map(str::trim);
    let date = |text: &str| httpdate::parse_http_date(text).ok().and_then(|it| it.duration_since(now).ok());
    let after = text("retry-after").and_then(|it| it.parse().ok().map(Duration::from_secs).or_else(|| date(it)));
    let wait = after.or_else(|| text("x-ratelimit-reset").and_then(date)).unwrap_or(BLOCKED).min(BLOCKED_MAX);
    now + wait + wait.mul_f64(fastrand::f64() / 10.0)
}

/// The beginning of a body that is no JSON, fit for a line of a log.
fn shown(body: &[u8]) -> String {
    if body.is_empty() { "no body".to_owned() } else { format!("{:?}", cut(&String::from_utf8_lossy(body))) }
}

fn cut(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn judged(status: u16, body: &str) -> Result<Value, Error> {
        let status = StatusCode::from_u16(status).expect("a status");
        judge(status, &HeaderMap::new(), body.as_bytes(), now())
    }

    fn refused(code: u32, message: &str) -> String {
        format!(r#"{{"success":false,"errors":[{{"code":{code},"message":"{message}"}}],"messages":[],"result":null}}"#)
    }

    #[test]
    fn every_failure_has_its_class() {
        let hostname = "Failed to validate requested hostname x: This zone is either not part of your account";
        for (status, body, class) in [
            (400, refused(10000, "Authentication error"), Class::Auth),
            (403, refused(10000, "Authentication error"), Class::Auth),
            (400, refused(1016, "User is not authorized"), Class::Auth),
            (403, refused(9109, "Invalid access token"), Class::Auth),
            (401, refused(1000, "Invalid API Token"), Class::Auth),
            (403, refused(0, "Actor 'x' requires permission 'y' to list zones"), Class::Auth),
            (400, refused(1010, hostname), Class::Config),
            (400, refused(6003, "Invalid request headers"), Class::Config),
            (400, refused(1100, "Failed to write certificate to Database"), Class::Transient),
            (400, refused(1201, "CA signing failure"), Class::Transient),
            (404, refused(7003, "Could not route"), Class::NotFound),
            (400, refused(81058, "An identical record already exists."), Class::Exists),
            (400, refused(4242, "Something new"), Class::Unknown),
            (500, refused(4242, "Something new"), Class::Transient),
            (200, refused(1100, "although 200"), Class::Transient),
            (502, "<html>Bad gateway</html>".into(), Class::Transient),
            (520, "error code: 520".into(), Class::Transient),
            (503, String::new(), Class::Transient),
            (403, "<html>blocked</html>".into(), Class::Unknown),
            (301, String::new(), Class::Config),
            (200, "[]".into(), Class::Transient),
            (200, r#"{"success":tr"#.into(), Class::Transient),
        ] {
            let error = judged(status, &body).expect_err("no success");
            assert_eq!(error.class, class, "{status} {body}");
        }
    }

    #[test]
    fn odd_envelopes_of_successes_are_taken() {
        for body in [
            r#"{"success":true,"errors":[],"messages":["a word"],"result":{"id":"1"}}"#,
            r#"{"success":true,"result":{"id":"1"}}"#,
            "\u{feff}{\"success\":true,\"errors\":null,\"result\":{\"id\":\"1\"},\"later\":1}",
        ] {
            assert_eq!(judged(200, body).expect("a success")["result"]["id"], "1", "{body}");
        }
    }

    #[test]
    fn the_wait_is_as_long_as_the_answer_says_and_bounded() {
        let in_a_minute = httpdate::fmt_http_date(now() + Duration::from_secs(60));
        for (name, value, seconds) in [
            ("retry-after", "2", 2),
            ("retry-after", &*in_a_minute, 60),
            ("retry-after", "soon", 300),
            ("retry-after", "-1", 300),
            ("retry-after", "999999999", 3600),
            ("x-ratelimit-reset", &in_a_minute, 60),
            ("x-other", "1", 300),
        ] {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a value"),
            )]);
            let judged = judge(StatusCode::TOO_MANY_REQUESTS, &headers, b"error code: 1015", now());
            let Err(Error { class: Class::Throttled { until }, .. }) = judged else { panic!("{judged:?}") };
            let wait = until.duration_since(now()).expect("later").as_secs_f64();
            assert!((f64::from(seconds)..=f64::from(seconds) * 1.1).contains(&wait), "{name}: {value}: {wait}");
        }
    }
}
