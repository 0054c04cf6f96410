//! The content codings that we speak.

use http::HeaderValue;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As it stands in `Accept-Encoding`, `Content-Encoding` and the configuration.
    pub fn token(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.token())
    }

    /// What a file in this coding is called after the original.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// `x-gzip` is another name for the same (RFC 9110, 8.4.1.3).
    pub fn named(token: &str) -> Option<Self> {
        match token {
            it if it.eq_ignore_ascii_case("x-gzip") => Some(Self::Gzip),
            it => Self::ALL.into_iter().find(|coding| coding.token().eq_ignore_ascii_case(it)),
        }
    }
}
