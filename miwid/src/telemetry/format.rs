//! How one access record becomes one line, in three formats.
//!
//! Whatever a client sends, a line stays one line: `common` and `combined` write control bytes, quotes, backslashes and
//! bytes that are not UTF-8 as `\xHH`; JSON writes a byte that is not UTF-8 as the text `\xHH` (a backslash of the
//! client is `\\` in the JSON source as always), so the line is valid JSON and nothing is lost.

use std::{
    io::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use config::AccessFormat;

use super::Record;

/// The JSON fields in the order they are written when `fields` is empty: the eight of the README first.
const FIELDS: [(&str, Field); 22] = [
    ("timestamp", Field::Timestamp),
    ("remote_addr", Field::RemoteAddr),
    ("method", Field::Method),
    ("path", Field::Path),
    ("status", Field::Status),
    ("response_time_ms", Field::ResponseTime),
    ("bytes_sent", Field::BytesSent),
    ("request_id", Field::RequestId),
    ("host", Field::Host),
    ("protocol", Field::Protocol),
    ("scheme", Field::Scheme),
    ("query", Field::Query),
    ("referer", Field::Referer),
    ("user_agent", Field::UserAgent),
    ("site", Field::Site),
    ("upstream", Field::Upstream),
    ("upstream_time_ms", Field::UpstreamTime),
    ("bytes_received", Field::BytesReceived),
    ("reason", Field::Reason),
    ("cf_ray", Field::Ray),
    ("peer_addr", Field::PeerAddr),
    ("aborted", Field::Aborted),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Timestamp,
    RemoteAddr,
    Method,
    Path,
    Status,
    ResponseTime,
    BytesSent,
    RequestId,
    Host,
    Protocol,
    Scheme,
    Query,
    Referer,
    UserAgent,
    Site,
    Upstream,
    UpstreamTime,
    BytesReceived,
    Reason,
    Ray,
    PeerAddr,
    Aborted,
}

/// The format as configured, with the field names already looked up.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    format: AccessFormat,
    fields: Vec<(&'static str, Field)>,
}

impl Layout {
    /// A name that is no field is an error of the operator, who would otherwise miss it in every line.
    pub(super) fn new(format: AccessFormat, names: &[String]) -> std::io::Result<Self> {
        let find = |name: &String| {
            FIELDS.iter().find(|field| field.0 == name).copied().ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("no access log field is called {name:?}"))
            })
        };
        let fields =
            if names.is_empty() { FIELDS.to_vec() } else { names.iter().map(find).collect::<Result<_, _>>()? };
        Ok(Self { format, fields })
    }
}

/// Formats the lines of one buffer: keeps the text of the current second and a fast generator for request ids.
pub(super) struct Formatter {
    second: i64,
    clf: String,
    rfc3339: String,
    random: fastrand::Rng,
}

impl Default for Formatter {
    fn default() -> Self {
        Self { second: i64::MIN, clf: String::new(), rfc3339: String::new(), random: fastrand::Rng::new() }
    }
}

impl Formatter {
    /// Appends one line, with its newline.
    pub(super) fn line(&mut self, out: &mut Vec<u8>, layout: &Layout, record: &Record<'_>) {
        let millis = self.turn_to(record);
        match layout.format {
            AccessFormat::Json => self.json(out, layout, record, millis),
            AccessFormat::Common => self.common(out, record),
            AccessFormat::Combined => {
                self.common(out, record);
                out.push(b' ');
                quoted(out, record.referer);
                out.push(b' ');
                quoted(out, record.user_agent);
            }
        }
        out.push(b'\n');
    }

    /// Renders the second of `record` unless it is the one rendered last; returns the milliseconds within it.
    fn turn_to(&mut self, record: &Record<'_>) -> u32 {
        let since = record.started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        if second != self.second {
            let at = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.clf = at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            self.rfc3339 = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.second = second;
        }
        since.subsec_millis()
    }

    fn common(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{} - - [{}] \"", record.client_ip, self.clf);
        escape(out, record.method.as_bytes());
        out.push(b' ');
        escape(out, record.target.as_bytes());
        out.push(b' ');
        escape(out, record.protocol.as_bytes());
        let _ = write!(out, "\" {} {}", record.status, record.bytes_sent);
    }

    fn json(&mut self, out: &mut Vec<u8>, layout: &Layout, record: &Record<'_>, millis: u32) {
        out.push(b'{');
        let start = out.len();
        for (name, field) in &layout.fields {
            if is_absent(*field, record) {
                continue;
            }
            if out.len() > start {
                out.push(b',');
            }
            let _ = write!(out, "\"{name}\":");
            self.json_value(out, *field, record, millis);
        }
        out.push(b'}');
    }

    fn json_value(&mut self, out: &mut Vec<u8>, field: Field, record: &Record<'_>, millis: u32) {
        let (path, query) = record.target.split_once('?').unwrap_or((record.target, ""));
        // Writing to a Vec cannot fail.
        let _ = match field {
            Field::Timestamp => write!(out, "\"{}.{millis:03}Z\"", self.rfc3339),
            Field::RemoteAddr => write!(out, "\"{}\"", record.client_ip),
            Field::PeerAddr => write!(out, "\"{}\"", record.peer_ip),
            Field::Status => write!(out, "{}", record.status),
            Field::BytesSent => write!(out, "{}", record.bytes_sent),
            Field::BytesReceived => write!(out, "{}", record.bytes_received),
            Field::Aborted => write!(out, "{}", record.aborted),
            Field::ResponseTime => write_millis(out, record.duration),
            Field::UpstreamTime => write_millis(out, record.upstream_duration.unwrap_or_default()),
            Field::RequestId if record.request_id.is_empty() => {
                let id = uuid::Builder::from_random_bytes(self.random.u128(..).to_ne_bytes()).into_uuid();
                write!(out, "\"{}\"", id.hyphenated())
            }
            Field::RequestId => json_string(out, record.request_id.as_bytes()),
            Field::Method => json_string(out, record.method.as_bytes()),
            Field::Path => json_string(out, path.as_bytes()),
            Field::Query => json_string(out, query.as_bytes()),
            Field::Host => json_string(out, record.host.as_bytes()),
            Field::Protocol => json_string(out, record.protocol.as_bytes()),
            Field::Scheme => json_string(out, record.scheme.as_bytes()),
            Field::Referer => json_string(out, record.referer),
            Field::UserAgent => json_string(out, record.user_agent),
            Field::Site => json_string(out, record.site.as_bytes()),
            Field::Upstream => json_string(out, record.upstream.as_bytes()),
            Field::Reason => json_string(out, record.reason.as_bytes()),
            Field::Ray => json_string(out, record.ray.as_bytes()),
        };
    }
}

/// Optional fields are left out when there is nothing to say.
fn is_absent(field: Field, record: &Record<'_>) -> bool {
    match field {
        Field::Query => !record.target.contains('?'),
        Field::Referer => record.referer.is_empty(),
        Field::UserAgent => record.user_agent.is_empty(),
        Field::Site => record.site.is_empty(),
        Field::Upstream => record.upstream.is_empty(),
        Field::UpstreamTime => record.upstream_duration.is_none(),
        Field::Reason => record.reason.is_empty(),
        Field::Ray => record.ray.is_empty(),
        _ => false,
    }
}

/// Whole milliseconds as the README has them; a fraction only when there is one.
fn write_millis(out: &mut Vec<u8>, duration: Duration) -> std::io::Result<()> {
    let micros = duration.as_micros();
    match micros % 1000 {
        0 => write!(out, "{}", micros / 1000),
        rest => write!(out, "{}.{rest:03}", micros / 1000),
    }
}

fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    escape(out, if value.is_empty() { b"-" } else { value });
    out.push(b'"');
}

/// UTF-8 stays; control bytes, quote, backslash and everything that is not UTF-8 become `\xHH`.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' | 0x00..=0x1f | 0x7f => hex(out, byte),
                _ => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(out, *byte));
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    let _ = write!(out, "\\x{byte:02X}");
}

fn json_string(out: &mut Vec<u8>, value: &[u8]) -> std::io::Result<()> {
    out.push(b'"');
    for chunk in value.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend([b'\\', byte]),
                0x00..=0x1f | 0x7f => write!(out, "\\u{byte:04x}")?,
                _ => out.push(byte),
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\\\x{byte:02X}")?;
        }
    }
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    pub(in crate::telemetry) fn record() -> Record<'static> {
        Record {
            started: UNIX_EPOCH + Duration::from_millis(1_754_734_532_007),
            duration: Duration::from_millis(12),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            peer_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            method: "GET",
            target: "/index.html?a=1",
            protocol: "HTTP/1.1",
            scheme: "http",
            host: "example.com",
            status: 200,
            bytes_sent: 1043,
            bytes_received: 0,
            referer: b"https://example.com",
            user_agent: b"Mozilla/5.0",
            request_id: "550e8400-e29b-41d4-a716-446655440000",
            site: "",
            upstream: "",
            upstream_duration: None,
            reason: "",
            ray: "",
            aborted: false,
        }
    }

    fn line(format: AccessFormat, fields: &[&str], record: &Record<'_>) -> String {
        let names: Vec<String> = fields.iter().map(ToString::to_string).collect();
        let mut out = Vec::new();
        let layout = Layout::new(format, &names).expect("known fields");
        Formatter::default().line(&mut out, &layout, record);
        String::from_utf8(out).expect("every line is UTF-8")
    }

    #[test]
    fn common_and_combined_carry_the_protocol() {
        let common = "127.0.0.1 - - [09/Aug/2025:10:15:32 +0000] \"GET /index.html?a=1 HTTP/1.1\" 200 1043";
        assert_eq!(line(AccessFormat::Common, &[], &record()), format!("{common}\n"));
        let combined = format!("{common} \"https://example.com\" \"Mozilla/5.0\"\n");
        assert_eq!(line(AccessFormat::Combined, &[], &record()), combined);
    }

    #[test]
    fn json_begins_with_the_eight_documented_fields() {
        let text = line(AccessFormat::Json, &[], &record());
        let head = "{\"timestamp\":\"2025-08-09T10:15:32.007Z\",\"remote_addr\":\"127.0.0.1\",\"method\":\"GET\",\
                    \"path\":\"/index.html\",\"status\":200,\"response_time_ms\":12,\"bytes_sent\":1043,\
                    \"request_id\":\"550e8400-e29b-41d4-a716-446655440000\",";
        assert!(text.starts_with(head), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["query"], "a=1");
    }

    #[test]
    fn fields_choose_and_order() {
        assert_eq!(line(AccessFormat::Json, &["status", "method"], &record()), "{\"status\":200,\"method\":\"GET\"}\n");
        assert!(Layout::new(AccessFormat::Json, &["nonsense".to_owned()]).is_err());
    }

    #[test]
    fn hostile_bytes_stay_inside_their_quotes() {
        let table: [(&[u8], &str, &str); 5] = [
            (b"a\"b", r"a\x22b", "a\"b"),
            (b"a\nb", r"a\x0Ab", "a\nb"),
            (b"a\\b", r"a\x5Cb", "a\\b"),
            (b"a\xffb", r"a\xFFb", r"a\xFFb"),
            ("é".as_bytes(), "é", "é"),
        ];
        for (sent, combined, json) in table {
            let hostile = Record { user_agent: sent, ..record() };
            let text = line(AccessFormat::Combined, &[], &hostile);
            assert!(text.ends_with(&format!(" \"{combined}\"\n")), "{text}");
            let text = line(AccessFormat::Json, &["user_agent"], &hostile);
            assert_eq!(text.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
            assert_eq!(value["user_agent"], json);
        }
    }

    #[test]
    fn missing_request_ids_are_made_and_differ() {
        let anonymous = Record { request_id: "", ..record() };
        let first = line(AccessFormat::Json, &["request_id"], &anonymous);
        assert_eq!(first.len(), "{\"request_id\":\"\"}\n".len() + 36);
        assert_ne!(first, line(AccessFormat::Json, &["request_id"], &anonymous));
    }
}
