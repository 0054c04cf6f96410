//! The tables: what a client sends, and what a strict echo says to it. Every case ends the connection, by a Close, a fault or
//! an end, so that a verdict is all that was ever said.

use bytes::Bytes;

use super::Seen;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CONTINUED: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Taken off a first byte: more fragments follow.
const FIN: u8 = 0x80;

const NORMAL: u16 = 1000;
const PROTOCOL: u16 = 1002;
const INVALID: u16 = 1007;

/// The first of the reserved bits, as permessage-deflate uses it.
const COMPRESSED: u8 = 0x40;
/// What ends every compressed message and is left out.
const END_OF_BLOCK: &[u8] = &[0, 0, 0xff, 0xff];

/// Bytes above this are sent in larger pieces where a case is chopped.
const SMALL: usize = 2000;

pub struct Case {
    pub name: String,
    pub sent: Vec<u8>,
    /// The length of the pieces it is sent in; all at once without.
    pub chop: Option<usize>,
    pub goodbye: Goodbye,
    /// The extension that is offered, if any.
    pub offer: &'static str,
    pub expected: Vec<Seen>,
}

/// What the client does when it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    Wait,
    HalfClose,
}

fn case(name: impl Into<String>, sent: &[Vec<u8>], expected: Vec<Seen>) -> Case {
    Case { name: name.into(), sent: sent.concat(), chop: None, goodbye: Goodbye::Wait, offer: "", expected }
}

/// A frame of a client: masked, with the shortest form of its length.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | u8::try_from(short).expect("it is short")),
        medium @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(medium).expect("two bytes").to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn code(code: u16) -> Vec<u8> {
    code.to_be_bytes().to_vec()
}

/// Compressed by itself (RFC 7692, 7.2.1, without what the other messages have taught).
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflate = flate2::Compress::new(flate2::Compression::default(), false);
    let mut bytes = Vec::with_capacity(message.len() + 1024);
    deflate.compress_vec(message, &mut bytes, flate2::FlushCompress::Sync).expect("there is room");
    assert!(bytes.ends_with(END_OF_BLOCK) && deflate.total_in() == message.len() as u64);
    bytes.truncate(bytes.len() - END_OF_BLOCK.len());
    bytes
}

/// The other way, where a frame says that it is compressed.
pub fn inflated(frame: Seen) -> Seen {
    if frame.first & COMPRESSED == 0 {
        return frame;
    }
    let mut inflate = flate2::Decompress::new(false);
    let mut message = Vec::with_capacity(2 << 20);
    let bytes = [&frame.payload[..], END_OF_BLOCK].concat();
    inflate.decompress_vec(&bytes, &mut message, flate2::FlushDecompress::Sync).expect("it is compressed");
    Seen { first: frame.first ^ COMPRESSED, payload: message.into() }
}

/// The client's own goodbye.
fn bye() -> Vec<u8> {
    frame(CLOSE, code(NORMAL))
}

fn seen(first: u8, payload: impl AsRef<[u8]>) -> Seen {
    Seen { first, payload: Bytes::copy_from_slice(payload.as_ref()) }
}

fn closed(with: u16) -> Seen {
    seen(CLOSE, code(with))
}

/// The same again, a byte at a time where it is small.
fn and_chopped(mut cases: Vec<Case>) -> Vec<Case> {
    let chopped = cases.iter().map(|case| Case {
        name: format!("{}, chopped", case.name),
        sent: case.sent.clone(),
        chop: Some(if case.sent.len() < SMALL { 1 } else { 997 }),
        goodbye: case.goodbye,
        offer: case.offer,
        expected: case.expected.clone(),
    });
    let chopped: Vec<Case> = chopped.collect();
    cases.extend(chopped);
    cases
}

pub fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, fill) in [(TEXT, b'*'), (BINARY, 0xfe)] {
        for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
            let message = vec![fill; length];
            let expected = vec![seen(kind, &message), closed(NORMAL)];
            cases.push(case(format!("{length} bytes of {kind:#x}"), &[frame(kind, &message), bye()], expected));
        }
    }
    // Not the shortest form of a length, which RFC 6455, 5.2, asks for: readers let it pass.
    cases.push(case(
        "a length in more bytes than it needs",
        &[vec![TEXT, 0x80 | 126, 0, 2, 0, 0, 0, 0, b'h', b'i'], bye()],
        vec![seen(TEXT, "hi"), closed(NORMAL)],
    ));
    and_chopped(cases)
}

pub fn pings() -> Vec<Case> {
    let answered = |payload: &[u8]| {
        let sent = [frame(PING, payload), bye()];
        case(format!("a ping of {} bytes", payload.len()), &sent, vec![seen(PONG, payload), closed(NORMAL)])
    };
    let mut cases = vec![
        answered(b""),
        answered(b"Hello"),
        answered(b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        answered(&[0xfe; 125]),
        case("a ping of 126 bytes", &[frame(PING, [0xfe; 126]), bye()], vec![closed(PROTOCOL)]),
        case("a pong that nobody asked for", &[frame(PONG, ""), bye()], vec![closed(NORMAL)]),
        case("a pong with a payload", &[frame(PONG, "unsolicited"), bye()], vec![closed(NORMAL)]),
        case(
            "a pong, then a ping",
            &[frame(PONG, "no"), frame(PING, "yes"), bye()],
            vec![seen(PONG, "yes"), closed(NORMAL)],
        ),
        case("a pong of 126 bytes", &[frame(PONG, [0; 126]), bye()], vec![closed(PROTOCOL)]),
        case("a ping without a mask", &[vec![PING, 0], bye()], vec![closed(PROTOCOL)]),
        case("a text without a mask", &[vec![TEXT, 2, b'h', b'i'], bye()], vec![closed(PROTOCOL)]),
    ];
    let payloads: Vec<String> = (0..10).map(|it| format!("payload {it}")).collect();
    let sent: Vec<_> = payloads.iter().map(|it| frame(PING, it)).chain([bye()]).collect();
    let expected = payloads.iter().map(|it| seen(PONG, it)).chain([closed(NORMAL)]).collect();
    cases.push(case("ten pings", &sent, expected));
    and_chopped(cases)
}

pub fn reserved() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8u8 {
        for kind in [TEXT, BINARY, PING, CLOSE] {
            let payload: &[u8] = if kind == CLOSE { &[0x03, 0xe8] } else { b"small" };
            let sent = [frame(kind | bits << 4, payload), frame(PING, "")];
            cases.push(case(format!("reserved bits {bits:03b} on {kind:#x}"), &sent, vec![closed(PROTOCOL)]));
        }
    }
    for opcode in (3..8u8).chain(11..16) {
        for payload in ["", "reserved opcode"] {
            let sent = [frame(TEXT, "good"), frame(FIN | opcode, payload), frame(PING, "")];
            let name = format!("opcode {opcode} with {} bytes", payload.len());
            cases.push(case(name, &sent, vec![seen(TEXT, "good"), closed(PROTOCOL)]));
        }
    }
    and_chopped(cases)
}

pub fn fragments() -> Vec<Case> {
    let begin = |text: &str| frame(TEXT & !FIN, text);
    let middle = |text: &str| frame(CONTINUED & !FIN, text);
    let end = |text: &str| frame(CONTINUED, text);
    let whole = |text: &str| vec![seen(TEXT, text), closed(NORMAL)];
    let big: Vec<Vec<u8>> = std::iter::once(frame(BINARY & !FIN, [1; 70_000]))
        .chain((0..10).map(|_| frame(0, [1; 70_000])))
        .chain([end(""), bye()])
        .collect();
    and_chopped(vec![
        case("two fragments", &[begin("one "), end("two"), bye()], whole("one two")),
        case("empty fragments", &[begin(""), middle(""), end(""), bye()], whole("")),
        case("only the middle is not empty", &[begin(""), middle("middle"), end(""), bye()], whole("middle")),
        case("large fragments", &big, vec![seen(BINARY, vec![1; 770_000]), closed(NORMAL)]),
        case(
            "pings between",
            &[begin("one "), frame(PING, "a"), middle("two "), frame(PING, "b"), end("three"), bye()],
            vec![seen(PONG, "a"), seen(PONG, "b"), seen(TEXT, "one two three"), closed(NORMAL)],
        ),
        case("a pong between", &[begin("one "), frame(PONG, "?"), end("two"), bye()], whole("one two")),
        case("a ping in fragments", &[frame(PING & !FIN, "a"), end("b"), bye()], vec![closed(PROTOCOL)]),
        case("a pong in fragments", &[frame(PONG & !FIN, "a"), end("b"), bye()], vec![closed(PROTOCOL)]),
        case("a close in fragments", &[frame(CLOSE & !FIN, ""), end("")], vec![closed(PROTOCOL)]),
        case("an end of nothing", &[end("nothing"), frame(TEXT, "text")], vec![closed(PROTOCOL)]),
        case("a middle of nothing", &[middle("nothing"), frame(TEXT, "text")], vec![closed(PROTOCOL)]),
        case(
            "a second end",
            &[begin("one "), end("two"), end("three"), frame(TEXT, "text")],
            vec![seen(TEXT, "one two"), closed(PROTOCOL)],
        ),
        case("a text within a text", &[begin("one"), frame(TEXT, "two"), end("three")], vec![closed(PROTOCOL)]),
        case("a text begins within a text", &[begin("one"), begin("two"), end("three")], vec![closed(PROTOCOL)]),
        case("a binary within a text", &[begin("one"), frame(BINARY, "two"), end("three")], vec![closed(PROTOCOL)]),
        case(
            "two messages",
            &[begin("a"), end("b"), frame(BINARY & !FIN, "c"), end("d"), bye()],
            vec![seen(TEXT, "ab"), seen(BINARY, "cd"), closed(NORMAL)],
        ),
    ])
}

pub fn texts() -> Vec<Case> {
    const VALID: &[&str] = &[
        "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!",
        "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}",
        "\0",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}\u{feff}",
    ];
    const INVALID_TEXTS: &[(&str, &[u8])] = &[
        ("a surrogate", b"\xed\xa0\x80"),
        ("a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
        ("above the last", b"\xf4\x90\x80\x80"),
        ("five bytes", b"\xf8\x88\x80\x80\x80"),
        ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
        ("an overlong slash of two", b"\xc0\xaf"),
        ("an overlong slash of three", b"\xe0\x80\xaf"),
        ("an overlong slash of four", b"\xf0\x80\x80\xaf"),
        ("an overlong zero", b"\xc0\x80"),
        ("a continuation alone", b"\x80"),
        ("a continuation too many", b"\xc3\xb6\xb6"),
        ("a start alone", b"\xc3"),
        ("a start, then a letter", b"\xce\xba\xe1\xbdA"),
        ("an end cut off", b"ok\xf0\x9f\x98"),
        ("never a byte of a text", b"\xfe"),
        ("never a byte of a text either", b"\xff"),
    ];
    let halves = |bytes: &[u8], at: usize| [frame(TEXT & !FIN, &bytes[..at]), frame(CONTINUED, &bytes[at..]), bye()];
    let mut cases = Vec::new();
    for text in VALID {
        let expected = vec![seen(TEXT, text), closed(NORMAL)];
        cases.push(case(format!("{text:?}"), &[frame(TEXT, text), bye()], expected.clone()));
        // A fragment may end within a character.
        for at in 1..text.len() {
            cases.push(case(format!("{text:?} cut at {at}"), &halves(text.as_bytes(), at), expected.clone()));
        }
    }
    for (name, text) in INVALID_TEXTS {
        cases.push(case(*name, &[frame(TEXT, text), bye()], vec![closed(INVALID)]));
        cases.push(case(format!("{name}, cut"), &halves(text, 1.min(text.len() - 1)), vec![closed(INVALID)]));
        let binary = vec![seen(BINARY, text), closed(NORMAL)];
        cases.push(case(format!("{name}, as a binary"), &[frame(BINARY, text), bye()], binary));
    }
    and_chopped(cases)
}

pub fn closes() -> Vec<Case> {
    let with = |payload: &[u8]| frame(CLOSE, payload);
    let reason = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    let mut cases = vec![
        case("a close without a code", &[with(b"")], vec![seen(CLOSE, "")]),
        case("a close of one byte", &[with(b"a")], vec![closed(PROTOCOL)]),
        case("a close of 126 bytes", &[with(&reason(NORMAL, &[b'*'; 124]))], vec![closed(PROTOCOL)]),
        case("a reason that is no UTF-8", &[with(&reason(NORMAL, b"\xce\xba\xed\xa0\x80"))], vec![closed(INVALID)]),
        case("a second close", &[bye(), bye()], vec![closed(NORMAL)]),
        case("a ping after the close", &[bye(), frame(PING, "late")], vec![closed(NORMAL)]),
        case("a text after the close", &[bye(), frame(TEXT, "late")], vec![closed(NORMAL)]),
        case(
            "a close among fragments",
            &[frame(TEXT & !FIN, "one"), bye(), frame(CONTINUED, "two")],
            vec![closed(NORMAL)],
        ),
        case(
            "a message, a close, and much more",
            &[frame(TEXT, "Hello"), bye(), frame(BINARY, [0; 262_144]), frame(PING, "")],
            vec![seen(TEXT, "Hello"), closed(NORMAL)],
        ),
    ];
    for said in [&b"Hello World!"[..], &[b'*'; 123]] {
        let payload = reason(NORMAL, said);
        cases.push(case(format!("a reason of {} bytes", said.len()), &[with(&payload)], vec![seen(CLOSE, &payload)]));
    }
    for valid in (1000..=1003).chain(1007..=1013).chain([3000, 3999, 4000, 4999]) {
        cases.push(case(format!("code {valid}"), &[with(&code(valid))], vec![closed(valid)]));
    }
    for invalid in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        // Here the echo's library speaks before the echo does.
        let answer = seen(CLOSE, reason(PROTOCOL, b"Protocol violation"));
        cases.push(case(format!("code {invalid}"), &[with(&code(invalid))], vec![answer]));
    }
    and_chopped(cases)
}

pub fn half_closes() -> Vec<Case> {
    let ended =
        |name: &str, sent: &[Vec<u8>], expected| Case { goodbye: Goodbye::HalfClose, ..case(name, sent, expected) };
    let big = vec![7; 1 << 20];
    and_chopped(vec![
        ended("nothing, then the end", &[], vec![]),
        ended("a text, then the end", &[frame(TEXT, "last words")], vec![seen(TEXT, "last words")]),
        ended("much, then the end", &[frame(BINARY, &big)], vec![seen(BINARY, &big)]),
        ended("a ping, then the end", &[frame(PING, "still?")], vec![seen(PONG, "still?")]),
        ended("half a frame, then the end", &[frame(TEXT, "cut")[..7].to_vec()], vec![]),
        ended("a close, then the end", &[bye()], vec![closed(NORMAL)]),
    ])
}

fn offering(name: impl Into<String>, sent: &[Vec<u8>], expected: Vec<Seen>) -> Case {
    let offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
    Case { offer, ..case(name, sent, expected) }
}

/// For an origin that takes the offer and compresses what it answers.
pub fn compressed() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [1 << 10, 1 << 14, 1 << 17, 1 << 20] {
        let text: String =
            (0..).flat_map(|it: u64| format!("line {}\n", it * it).into_bytes()).take(size).map(char::from).collect();
        let noise: Vec<u8> = (0..size as u64).map(|it| (it.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        for (kind, message) in [(TEXT, text.into_bytes()), (BINARY, noise)] {
            let small = deflated(&message);
            let expected = vec![seen(kind, &message), closed(NORMAL)];
            let whole = [frame(kind | COMPRESSED, &small), bye()];
            cases.push(offering(format!("{size} bytes of {kind:#x}"), &whole, expected.clone()));
            let (head, rest) = small.split_at(small.len() / 3);
            let (middle, end) = rest.split_at(rest.len() / 2);
            let parts = [frame((kind | COMPRESSED) & !FIN, head), frame(0, middle), frame(CONTINUED, end), bye()];
            cases.push(offering(format!("{size} bytes of {kind:#x} in fragments"), &parts, expected));
        }
    }
    let plain = [frame(TEXT, "plain"), bye()];
    cases.push(offering("a text that is not compressed", &plain, vec![seen(TEXT, "plain"), closed(NORMAL)]));
    cases
}

pub fn badly_compressed() -> Vec<Case> {
    let late = [frame(TEXT & !FIN, "one"), frame(CONTINUED | COMPRESSED, "two")];
    let broken = [frame(TEXT | COMPRESSED, [0xff; 40])];
    vec![
        offering("a continuation that says it is compressed", &late, vec![closed(PROTOCOL)]),
        offering("what cannot be expanded", &broken, vec![closed(INVALID)]),
    ]
}
