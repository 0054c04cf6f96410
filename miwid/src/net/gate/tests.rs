//! The gate by tables, and the one property that matters most: its verdict does not depend on how the bytes arrive.

use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { target_max: 40, header_max: 120, fields_max: 6 };

/// What came of a stream: what passed, how many requests, and how it stopped.
#[derive(Debug, PartialEq)]
struct Outcome {
    passed: Vec<u8>,
    requests: u64,
    stopped: Option<(bool, Flaw)>,
}

/// Feeds `pieces` as the io does: what is held comes again, with what follows.
fn fed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut gate = Gate::new(RULES);
    let (mut held, mut passed) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let step = gate.feed(&mut held);
        passed.extend(held.drain(..step.passed));
        let stopped = match step.stop {
            None => continue,
            Some(Stop::Refused(verdict)) => (true, verdict.flaw),
            Some(Stop::Broken(flaw)) => (false, flaw),
        };
        return Outcome { passed, requests: gate.requests(), stopped: Some(stopped) };
    }
    Outcome { passed, requests: gate.requests(), stopped: None }
}

fn all(bytes: &str) -> Outcome {
    fed([bytes.as_bytes()])
}

const AFTER: &str = "GET /after HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn messages_end_where_their_framing_says() {
    for message in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nGET /",
        "GET / HTTP/1.1\r\nContent-Length: 3 \r\n\r\n\r\n\r",
        "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n000\r\nsum: 1\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /?a=b&c=%20 HTTP/1.1\r\nx:\r\ny: \t z\u{e4}\t\r\n\r\n",
    ] {
        let outcome = all(&format!("{message}{AFTER}"));
        assert_eq!((outcome.requests, outcome.stopped), (2, None), "{message:?}");
        assert_eq!(String::from_utf8_lossy(&outcome.passed), format!("{message}{AFTER}"), "every byte passes");
    }
}

#[test]
fn a_newer_minor_version_is_read_as_the_one_we_know() {
    let outcome = all("GET / HTTP/1.7\r\n\r\n");
    assert_eq!(outcome.passed, b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn heads_are_refused_whole_and_nothing_after_them_passes() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(40));
    let big = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(118));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(7));
    for (head, expected) in [
        (long.as_str(), Some(Flaw::Target)),
        (&big, Some(Flaw::Header)),
        (&many, Some(Flaw::Header)),
        ("GET / HTTP/2.0\r\n\r\n", Some(Flaw::Version)),
        ("CONNECT a:80 HTTP/1.1\r\n\r\n", Some(Flaw::Method)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", Some(Flaw::Coding)),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", None),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ntransfer-encoding:\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ncontent-length: 1,1\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", None),
        ("POST / HTTP/1.1\r\ncontent-length: 9999999999999999999\r\n\r\n", None),
        ("GET / HTTP/1.1\n\n", None),
        ("GET / HTTP/1.1\r\na: b\n\r\n", None),
        ("GET / HTTP/1.1\r\na: b\rc\r\n\r\n", None),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", None),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nab\r\n\r\n", None),
        ("GET / HTTP/1.1\r\na: \0\r\n\r\n", None),
        ("GET  / HTTP/1.1\r\n\r\n", None),
        ("GET / HTTP/1.1 \r\n\r\n", None),
        ("GET\t/ HTTP/1.1\r\n\r\n", None),
        ("GET / http/1.1\r\n\r\n", None),
        ("GET /\r\n\r\n", None),
        ("GET /a#b HTTP/1.1\r\n\r\n", None),
        ("GET a HTTP/1.1\r\n\r\n", None),
        ("GET http://u@a/ HTTP/1.1\r\n\r\n", None),
        ("GET ftp://a/ HTTP/1.1\r\n\r\n", None),
        ("GET * HTTP/1.1\r\n\r\n", None),
        ("\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", None),
        ("\u{16}\u{3}", None),
    ] {
        let outcome = all(&format!("{AFTER}{head}{AFTER}"));
        assert_eq!(outcome.passed, AFTER.as_bytes(), "{head:?}");
        match (outcome.stopped, expected) {
            (Some((true, flaw)), Some(expected)) => assert_eq!(flaw, expected, "{head:?}"),
            (Some((true, Flaw::Syntax(_))), None) => {}
            (other, _) => panic!("{head:?}: {other:?}"),
        }
    }
}

#[test]
fn broken_chunks_break_the_body() {
    let ext = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000));
    for body in [
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1 ;x\r\na\r\n0\r\n\r\n",
        "\r\n",
        ";x\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1\ra\r\n",
        "1;\nx\r\n",
        "1;\0\r\n",
        "00000000000000001\r\na\r\n",
        "g\r\n",
        "0\r\ncontent-length: 1\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\n\n",
        "0\r\nHost: a\r\n\r\n",
        &ext,
    ] {
        let outcome = all(&format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}{AFTER}"));
        assert_eq!(outcome.requests, 1, "{body:?}");
        assert!(matches!(outcome.stopped, Some((false, _))), "{body:?}: {outcome:?}");
    }
}

#[test]
fn behind_an_upgrade_everything_waits_for_its_answer() {
    let upgrade = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    let mut bytes = [&upgrade[..], b"\0raw"].concat();
    let mut gate = Gate::new(RULES);
    assert_eq!(gate.feed(&mut bytes).passed, upgrade.len());
    assert!(gate.is_waiting());
    gate.open();
    assert_eq!(gate.feed(&mut bytes[upgrade.len()..]).passed, 4);
    gate.resume();
    assert!(gate.feed(&mut bytes[upgrade.len()..]).stop.is_some(), "as HTTP it is nothing");
}

/// Streams that are nearly right: pieces of messages, in any order.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(AFTER.to_owned()),
        2 => Just("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n".to_owned()),
        2 => Just("POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody".to_owned()),
        2 => "[A-Z]{1,5} /[a-z]{0,45} HTTP/1\\.[0-3]\r\n",
        2 => "[a-z-]{1,9}:[ -~]{0,60}\r\n",
        1 => Just("\r\n".to_owned()),
        1 => "[\r\n\\x00-\\x7f]{1,6}",
    ];
    prop::collection::vec(piece, 1..6).prop_map(|it| it.concat().into_bytes())
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_arrive(
        bytes in stream(),
        cuts in prop::collection::vec(1_usize..20, 1..40),
    ) {
        let whole = fed([&bytes[..]]);
        let mut rest = &bytes[..];
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        prop_assert_eq!(&whole, &fed(pieces));
        prop_assert_eq!(&whole, &fed(bytes.chunks(1)));
    }
}
