//! Heads of answers: how they frame what follows, and that it does not matter in which pieces they come.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// The first head, as it is made out of pieces.
fn read(sent: &[u8], pieces: usize, method: &Method) -> Result<(Head, Vec<u8>), NotHttp> {
    let (mut heads, mut bytes, mut pieces) = (Heads::default(), BytesMut::new(), sent.chunks(pieces));
    loop {
        let Some(piece) = pieces.next() else {
            return Heads::cut(&bytes).and(Err(NotHttp("cut")));
        };
        bytes.extend_from_slice(piece);
        if let Some(head) = heads.next(&mut bytes, method)? {
            pieces.for_each(|it| bytes.extend_from_slice(it));
            return Ok((head, bytes.to_vec()));
        }
    }
}

fn framed(sent: &str, method: &Method) -> Result<(Framing, After), NotHttp> {
    read(sent.as_bytes(), usize::MAX, method).map(|(head, _)| (head.framing, head.after))
}

#[test]
fn an_answer_is_framed_as_the_rules_say() {
    use After::Keep;
    use Framing::{Chunked, Length};
    let close = |framing| Ok((framing, After::Close));
    let keep = |framing| Ok((framing, Keep));
    for (status, fields, expected) in [
        ("1.1 200 OK", "Content-Length: 5\r\n", keep(Length(5))),
        ("1.1 200 OK", "Content-Length: 0\r\n", keep(Length(0))),
        ("1.1 200", "Content-Length: 5, 5\r\ncontent-length: 05\r\n", keep(Length(5))),
        ("1.1 200 OK", "", close(Framing::Close)),
        ("1.1 200 OK", "Transfer-Encoding: gzip, Chunked\r\n", keep(Chunked)),
        ("1.1 200 OK", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", close(Framing::Close)),
        ("1.1 200 OK", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", close(Chunked)),
        ("1.1 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\nConnection: a, Close\r\n", close(Length(5))),
        ("1.0 200 OK", "Content-Length: 5\r\n", close(Length(5))),
        ("1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\n", keep(Length(5))),
        ("1.0 200 OK", "Connection: keep-alive\r\n", close(Framing::Close)),
        ("1.1 204 No Content", "Content-Length: x\r\n", keep(Length(0))),
        ("1.1 304 Not Modified", "Content-Length: 100\r\n", keep(Length(0))),
        ("1.1 101 Switching", "", close(Length(0))),
    ] {
        assert_eq!(framed(&format!("HTTP/{status}\r\n{fields}\r\n"), &Method::GET), expected, "{status} {fields}");
    }
    assert_eq!(framed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &Method::HEAD), keep(Length(0)));
}

#[test]
fn what_is_no_answer_is_refused_however_it_comes() {
    let field = |field: &str| format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
    let mut wrong = vec!["SSH-2.0-OpenSSH_9\r\n\r\n".to_owned(), "HTTP/2 200 OK\r\n\r\n".to_owned(), field("a : b")];
    wrong
        .extend(["HTTP/1.1 20 OK\r\n\r\n".to_owned(), "HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()]);
    for length in ["5, 6", "x", "", "-1", "5,", "1 1", "99999999999999999999"] {
        wrong.push(field(&format!("Content-Length: {length}")));
    }
    wrong.push(field(&"a: b\r\n".repeat(FIELDS_MAX + 1)));
    wrong.push(field(&format!("a: {}", "b".repeat(HEAD_MAX))));
    for sent in wrong {
        for pieces in [1000, 7, 1].map(|it| it * sent.len().div_ceil(1000)) {
            let refused = read(sent.as_bytes(), pieces, &Method::GET).unwrap_err();
            assert_ne!(refused, NotHttp("cut"), "{} in pieces of {pieces}", &sent[..sent.len().min(60)]);
        }
    }
}

#[test]
fn values_share_the_memory_of_the_head() {
    let mut bytes = BytesMut::from("HTTP/1.1 200 OK\r\nX-Long: 0123456789abcdef0123456789abcdef\r\n\r\nrest");
    let memory = bytes.as_ptr_range();
    let head = Heads::default().next(&mut bytes, &Method::GET).unwrap().unwrap();
    assert!(memory.contains(&head.headers["x-long"].as_bytes().as_ptr()));
    assert_eq!(&bytes[..], b"rest");
}

proptest! {
    #[test]
    fn chopping_changes_nothing(
        lines in proptest::collection::vec("(HTTP/1\\.[01] [1-5][0-9]{2} [a-z]{0,3}|content-length: [0-9, ]{0,3}|x: [ -~]{0,9}|[ -~]{0,5}|)", 0..6),
        ends in proptest::collection::vec(prop_oneof![Just("\r\n"), Just("\n"), Just("\r")], 6),
        pieces in 1usize..20,
    ) {
        let mut sent = String::from("HTTP/1.1 200 OK\r\n");
        for (line, end) in lines.iter().zip(ends) {
            sent.push_str(line);
            sent.push_str(end);
        }
        let whole = read(sent.as_bytes(), sent.len(), &Method::GET).map_err(|_| ());
        prop_assert_eq!(read(sent.as_bytes(), pieces, &Method::GET).map_err(|_| ()), whole);
    }
}
