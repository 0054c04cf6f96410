//! One line of an access log in any of the three formats. Which one is decided for each line, because a file may change
//! its format at a reload.

use std::borrow::Cow;

/// What reports need of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// `2025-08-09 10`: day and hour as the log has them.
    pub(super) hour: String,
    pub(super) client: String,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) bytes_sent: u64,
    /// Only JSON lines tell it.
    pub(super) millis: Option<f64>,
}

pub(super) fn parse(line: &[u8]) -> Option<Line> {
    let text = String::from_utf8_lossy(line);
    if text.starts_with('{') { json(&text) } else { common(&text) }
}

#[derive(serde::Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    remote_addr: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    status: u16,
    #[serde(default)]
    bytes_sent: u64,
    response_time_ms: Option<f64>,
}

fn json(text: &str) -> Option<Line> {
    let line: Json<'_> = serde_json::from_str(text).ok()?;
    Some(Line {
        hour: line.timestamp.get(..13)?.replace('T', " "),
        client: line.remote_addr.into_owned(),
        path: line.path.into_owned(),
        status: line.status,
        bytes_sent: line.bytes_sent,
        millis: line.response_time_ms,
    })
}

/// Common and combined differ only after the part that is needed here. Quotes inside the request are escaped, so the
/// next quote ends it.
fn common(text: &str) -> Option<Line> {
    let (client, rest) = text.split_once(' ')?;
    let (_, rest) = rest.split_once('[')?;
    let (time, rest) = rest.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut numbers = rest.split(' ');
    let status = numbers.next()?.parse().ok()?;
    let bytes_sent = numbers.next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    let target = request.split(' ').nth(1).unwrap_or("-");
    let path = target.split('?').next().unwrap_or(target);
    Some(Line { hour: hour(time)?, client: client.into(), path: path.into(), status, bytes_sent, millis: None })
}

/// `09/Aug/2025:10:15:32 +0000` -> `2025-08-09 10`.
fn hour(time: &str) -> Option<String> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let (day, month, year, hour) = (time.get(..2)?, time.get(3..6)?, time.get(7..11)?, time.get(12..14)?);
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)? / 3 + 1;
    Some(format!("{year}-{month:02}-{day} {hour}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_none_and_never_a_panic() {
        let table: [&[u8]; 7] =
            [b"", b"{", b"{}", b"a [", b"a - - [09/Aug/2025:10", b"a - - [x] \"G\" 200 1", b"\xff\xfe - \xff"];
        for line in table {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }
}
