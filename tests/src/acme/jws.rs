//! Signed requests (RFC 7515, 8555 6.2), read strictly.

use rustls::{SignatureScheme, crypto::aws_lc_rs};
use serde_json::Value;

pub(super) const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A request whose signature has been judged.
pub(super) struct Signed {
    pub(super) header: Value,
    /// `None`: an empty payload, which reads.
    pub(super) payload: Option<Value>,
    /// The point that signed, uncompressed.
    pub(super) key: Vec<u8>,
}

/// `known` is the key of an account by its address.
pub(super) fn read(body: &[u8], known: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Signed, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "the body is no JSON")?;
    let body = body.as_object().filter(|it| it.len() == 3).ok_or("a flattened JWS has three members")?;
    let member = |name: &str| body.get(name).and_then(Value::as_str).ok_or("a member of the JWS is missing");
    let (protected, payload, signature) = (member("protected")?, member("payload")?, member("signature")?);
    let header: Value = serde_json::from_slice(&decode(protected)?).map_err(|_| "the protected header is no JSON")?;
    if header["alg"] != "ES256" {
        return Err("the algorithm is not ES256");
    }
    let key = match (header["jwk"].as_object(), header["kid"].as_str()) {
        (Some(jwk), None) => point(jwk)?,
        (None, Some(kid)) => known(kid).ok_or("there is no such account")?,
        _ => return Err("exactly one of jwk and kid"),
    };
    verify(&key, format!("{protected}.{payload}").as_bytes(), &decode(signature)?)?;
    let payload = match payload {
        "" => None,
        text => Some(serde_json::from_slice(&decode(text)?).map_err(|_| "the payload is no JSON")?),
    };
    Ok(Signed { header, payload, key })
}

fn point(jwk: &serde_json::Map<String, Value>) -> Result<Vec<u8>, &'static str> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str).ok_or("the key lacks a member");
    if text("kty")? != "EC" || text("crv")? != "P-256" {
        return Err("the key is not of P-256");
    }
    let (x, y) = (decode(text("x")?)?, decode(text("y")?)?);
    if x.len() != 32 || y.len() != 32 {
        return Err("a coordinate has 32 bytes");
    }
    Ok([&[4][..], &x, &y].concat())
}

fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let (r, s) = signature.split_at_checked(32).filter(|(_, s)| s.len() == 32).ok_or("a signature has 64 bytes")?;
    let body = [integer(r), integer(s)].concat();
    let length = u8::try_from(body.len()).map_err(|_| "too long")?;
    let der = [&[0x30, length][..], &body].concat();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let fitting = algorithms.mapping.iter().find(|it| it.0 == SignatureScheme::ECDSA_NISTP256_SHA256);
    let fitting = fitting.and_then(|it| it.1.first()).ok_or("P-256 is not known here")?;
    fitting.verify_signature(key, message, &der).map_err(|_| "the signature is wrong")
}

/// As DER has it: no needless zeros in front, one where the sign would be taken for a minus.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().position(|it| *it != 0).unwrap_or(bytes.len() - 1)..];
    let sign: &[u8] = if bytes[0] & 0x80 == 0 { &[] } else { &[0] };
    let length = u8::try_from(sign.len() + bytes.len()).unwrap_or(u8::MAX);
    [&[2, length][..], sign, bytes].concat()
}

/// Without padding, and no digit that nobody needs.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0_u32, Vec::new());
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|it| *it == digit).ok_or("not base64url")?;
        bits = bits << 6 | u32::try_from(value).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff).to_le_bytes()[0]);
        }
    }
    if count >= 6 || bits & ((1 << count) - 1) != 0 { Err("not base64url") } else { Ok(bytes) }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk.iter().fold(0_u32, |it, byte| it << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let value = usize::try_from(all >> (18 - 6 * at) & 63).unwrap_or_default();
            text.push(char::from(ALPHABET[value]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_goes_there_and_back() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (&[251, 255], "-_8")] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes));
        }
        for text in ["Z", "Zg==", "Zh", "Zm9v+", "a b"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
