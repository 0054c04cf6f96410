//! The zones over DNS (RFC 1035), as far as a certificate authority asks: TXT records are what the API was given, every name is
//! at 127.0.0.1, and nothing else is known of any.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::double::Inner;

const A: u16 = 1;
const TXT: u16 = 16;
/// A header has twelve bytes.
const HEADER: usize = 12;

pub(super) async fn serve(inner: Arc<Inner>, socket: UdpSocket) {
    let mut query = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut query).await {
        if let Some(reply) = reply(&query[..length], |name| inner.texts(name)) {
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

/// `None` for what is no query.
fn reply(query: &[u8], texts: impl Fn(&str) -> Vec<String>) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
    let question = query.get(HEADER..end + 4)?;
    let answers: Vec<Vec<u8>> = match kind {
        A => vec![vec![127, 0, 0, 1]],
        TXT => texts(&name)
            .iter()
            .filter_map(|it| Some([&[u8::try_from(it.len()).ok()?], it.as_bytes()].concat()))
            .collect(),
        _ => Vec::new(),
    };
    // The number of the query; an answer with authority; one question, so many answers, nothing else.
    let mut reply = query[..2].to_vec();
    reply.extend([0x84, 0x00, 0, 1]);
    reply.extend(u16::try_from(answers.len()).ok()?.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question);
    for data in answers {
        // The name of the question, class IN, for no time at all.
        reply.extend([0xc0, 0x0c]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0]);
        reply.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// The name that is asked for, in lower case, and where it ends.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = std::str::from_utf8(query.get(at..at + length)?).ok()?;
        labels.push(label.to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x02_A\x04test\x00\x00");
        query.extend([kind, 0, 1]);
        query
    }

    #[test]
    fn texts_and_the_loopback_are_all_that_is_known() {
        let ask =
            |kind| reply(&query(kind), |name| if name == "_a.test" { vec!["v".into(), "w".into()] } else { vec![] });
        let answered = ask(16).expect("an answer");
        assert_eq!((&answered[..2], answered[7]), (&[7, 9][..], 2));
        assert!(answered.ends_with(&[0, 2, 1, b'w']));
        assert!(ask(1).expect("an answer").ends_with(&[0, 4, 127, 0, 0, 1]));
        assert_eq!(ask(28).expect("an answer")[7], 0);
        assert_eq!(reply(&[0; 5], |_| vec![]), None);
    }
}
