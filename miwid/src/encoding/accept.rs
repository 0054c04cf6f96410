//! `Accept-Encoding` (RFC 9110, 12.5.3). Pure: header fields in, weights out.
//!
//! What is easy to get wrong: `identity` is acceptable although nobody names it, until `identity;q=0` or `*;q=0` says
//! otherwise; and a client that sends no field at all is not asked to decode anything, though the RFC would allow it.

use http::{HeaderMap, header};

use super::Coding;

/// What a client accepts. Weights are in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    weights: [u16; Coding::ALL.len()],
    /// `None`: not spoken of, so acceptable when nothing better is there.
    identity: Option<u16>,
}

/// A member of the list: a coding, or all that are not listed.
enum Member {
    Coding(Coding),
    Identity,
    Rest,
}

impl Accepted {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut weights = [None; Coding::ALL.len()];
        let (mut identity, mut rest) = (None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
        for (member, weight) in values.flat_map(|it| it.split(',')).filter_map(member) {
            let place = match member {
                Member::Coding(coding) => &mut weights[coding as usize],
                Member::Identity => &mut identity,
                Member::Rest => &mut rest,
            };
            // Said twice, the first counts.
            place.get_or_insert(weight);
        }
        Self { weights: weights.map(|it| it.or(rest).unwrap_or(0)), identity: identity.or(rest) }
    }

    /// The best of `offered`, which is in the server's order of preference. `None`: the answer goes as it is.
    pub fn best(&self, offered: &[Coding]) -> Option<Coding> {
        self.ranked(offered).next()
    }

    /// The acceptable ones of `offered`, best first; where weights are equal, in the order given. One that is wanted less
    /// than the answer as it is does not count.
    pub fn ranked(&self, offered: &[Coding]) -> impl Iterator<Item = Coding> + use<> {
        let least = self.identity.unwrap_or(0).max(1);
        let mut found = [None; Coding::ALL.len()];
        let acceptable = offered.iter().copied().filter(|it| self.weight(*it) >= least);
        for (place, coding) in found.iter_mut().zip(acceptable) {
            *place = Some(coding);
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.map_or(0, |coding| self.weight(coding))));
        found.into_iter().flatten()
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.weights[coding as usize]
    }
}

/// `None` for what we do not know or cannot read: it is as if it were not there.
fn member(text: &str) -> Option<(Member, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?;
    let member = match Coding::named(name) {
        Some(coding) => Member::Coding(coding),
        None if name == "*" => Member::Rest,
        None if name.eq_ignore_ascii_case("identity") => Member::Identity,
        None => return None,
    };
    for parameter in parts {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("q")
        {
            return Some((member, weight(value.trim())?));
        }
    }
    Some((member, 1000))
}

/// `0`, `1`, `0.25`. Digits past the third are cut off: some clients compute their weights.
fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "1" if thousandths == 0 => Some(1000),
        "0" => Some(thousandths),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accepted(lines: &[&str]) -> Accepted {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).expect("a header value"));
        }
        Accepted::of(&headers)
    }

    #[test]
    fn the_best_coding_is_chosen() {
        use Coding::{Brotli, Gzip, Zstd};
        let all = [Zstd, Brotli, Gzip];
        let check = |line: &str, expected: Option<Coding>| {
            assert_eq!(accepted(&[line]).best(&all), expected, "{line:?}");
        };
        for (line, expected) in [
            ("gzip", Some(Gzip)),
            ("br", Some(Brotli)),
            ("zstd", Some(Zstd)),
            ("GZip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("gzip;q=0.8, br;q=0.9, zstd;q=0.1", Some(Brotli)),
            ("gzip ; q = 0.5 , br;q=0.4", Some(Gzip)),
            ("gzip;Q=0.5,br;q=0.6", Some(Brotli)),
            ("gzip;level=9;q=0.5, br;q=0.4", Some(Gzip)),
            ("gzip;q=0.001", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=0.5, gzip;q=0", Some(Gzip)),
            ("gzip;q=1.5", None),
            ("gzip;q=-1", None),
            ("gzip;q=x", None),
            ("gzip;q=", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.12345", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0", None),
            ("*;q=0, gzip", Some(Gzip)),
            ("zstd;q=0, *", Some(Brotli)),
            ("zstd;q=0, br;q=0, *;q=0.1", Some(Gzip)),
            ("gzip;q=0.5, *;q=0.1", Some(Gzip)),
            ("identity", None),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("deflate", None),
            ("compress, deflate", None),
            ("gzipped, brotli", None),
            ("", None),
            (",,", None),
            (" , gzip ,", Some(Gzip)),
        ] {
            check(line, expected);
        }
    }

    #[test]
    fn the_servers_order_breaks_ties_and_bounds_the_choice() {
        use Coding::{Brotli, Gzip, Zstd};
        assert_eq!(accepted(&["br, gzip, zstd"]).best(&[Gzip, Zstd]), Some(Gzip));
        assert_eq!(accepted(&["br"]).best(&[Gzip, Zstd]), None);
        assert_eq!(accepted(&["gzip;q=0.4, *;q=0.5"]).best(&[Gzip]), None, "the rest includes the answer as it is");
        let ranked: Vec<Coding> = accepted(&["gzip, br;q=0.5, zstd"]).ranked(&[Brotli, Zstd, Gzip]).collect();
        assert_eq!(ranked, [Zstd, Gzip, Brotli]);
    }

    #[test]
    fn fields_are_joined_and_none_means_none() {
        assert_eq!(accepted(&["gzip;q=0.5", "br"]).best(&Coding::ALL), Some(Coding::Brotli));
        assert_eq!(accepted(&[]).best(&Coding::ALL), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_refused_is_chosen(line in "[ -~]{0,60}") {
            let line = format!("gzip;q=0, {line}");
            prop_assert_ne!(accepted(&[&line]).best(&Coding::ALL), Some(Coding::Gzip));
        }
    }
}
