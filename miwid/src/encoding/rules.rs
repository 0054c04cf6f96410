//! `[compression]` as requests need it, compiled when the snapshot is built.

use std::sync::Arc;

use super::Coding;

/// What an answer is worth when it is encoded while somebody waits. Above these an encoder costs far more than it saves.
const ZSTD_LEVEL_MAX: u32 = 12;
const BROTLI_LEVEL_MAX: u32 = 6;
const GZIP_LEVEL_MAX: u32 = 9;

#[derive(Debug)]
pub struct Rules {
    codings: Box<[Coding]>,
    level: Option<u32>,
    bytes_min: u64,
    types: Box<[Pattern]>,
}

/// A media type, a whole kind of them (`text/*`), those with an ending (`*+json`), or all.
#[derive(Debug)]
enum Pattern {
    Exactly(Box<str>),
    Kind(Box<str>),
    Ending(Box<str>),
    Any,
}

impl Rules {
    /// `None` when nothing is to be encoded.
    pub fn new(config: &config::Compression) -> Option<Arc<Self>> {
        let mut codings = Vec::with_capacity(Coding::ALL.len());
        for coding in config.algorithms.iter().filter_map(|it| Coding::named(it)) {
            if !codings.contains(&coding) {
                codings.push(coding);
            }
        }
        if !config.enabled || codings.is_empty() {
            return None;
        }
        let types = config.types.iter().map(|it| Pattern::new(it)).collect();
        let codings = codings.into_boxed_slice();
        Some(Arc::new(Self { codings, level: config.level, bytes_min: config.min_size.bytes(), types }))
    }

    /// In order of preference.
    pub fn codings(&self) -> &[Coding] {
        &self.codings
    }

    /// An empty answer is never worth it.
    pub fn bytes_min(&self) -> u64 {
        self.bytes_min.max(1)
    }

    pub fn level(&self, coding: Coding) -> u32 {
        let (usual, most) = match coding {
            Coding::Zstd => (3, ZSTD_LEVEL_MAX),
            Coding::Brotli => (4, BROTLI_LEVEL_MAX),
            Coding::Gzip => (6, GZIP_LEVEL_MAX),
        };
        self.level.unwrap_or(usual).clamp(1, most)
    }

    /// `content_type` as it stands in the header, parameters and all.
    pub fn covers(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|it| *it == b';').next().unwrap_or_default().trim_ascii();
        self.types.iter().any(|it| it.matches(essence))
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let text = text.trim().to_ascii_lowercase();
        if let Some(ending) = text.strip_prefix('*').filter(|it| it.starts_with('+')) {
            return Self::Ending(ending.into());
        }
        match text.strip_suffix('*') {
            Some("" | "*/") => Self::Any,
            Some(kind) if kind.ends_with('/') => Self::Kind(kind.into()),
            _ => Self::Exactly(text.into()),
        }
    }

    fn matches(&self, essence: &[u8]) -> bool {
        match self {
            Self::Exactly(name) => essence.eq_ignore_ascii_case(name.as_bytes()),
            Self::Kind(kind) => essence.get(..kind.len()).is_some_and(|it| it.eq_ignore_ascii_case(kind.as_bytes())),
            Self::Ending(ending) => {
                let from = essence.len().checked_sub(ending.len());
                from.is_some_and(|it| essence[it..].eq_ignore_ascii_case(ending.as_bytes()))
            }
            Self::Any => true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use config::ByteSize;

    use super::*;

    pub(crate) fn rules(algorithms: &[&str], level: Option<u32>, types: &[&str]) -> Arc<Rules> {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        let config = config::Compression {
            enabled: true,
            algorithms: owned(algorithms),
            level,
            min_size: ByteSize::kib(1),
            types: owned(types),
        };
        Rules::new(&config).expect("rules")
    }

    #[test]
    fn types_are_matched_by_name_and_by_kind() {
        let rules = rules(&["gzip"], None, &["text/*", "Application/JSON", "*+xml"]);
        for (content_type, expected) in [
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("text/event-stream", true),
            ("application/json", true),
            (" application/json ;charset=utf-8", true),
            ("application/jsonp", false),
            ("application/json+x", false),
            ("image/SVG+XML", true),
            ("application/xml", false),
            ("+xml", true),
            ("xml", false),
            ("texty/html", false),
            ("text", false),
            ("image/png", false),
            ("", false),
        ] {
            assert_eq!(rules.covers(content_type.as_bytes()), expected, "{content_type:?}");
        }
        assert!(self::rules(&["gzip"], None, &["*/*"]).covers(b"image/png"));
        assert!(self::rules(&["gzip"], None, &["*"]).covers(b"image/png"));
    }

    #[test]
    fn levels_stay_where_encoding_is_cheap() {
        let levels = |level| {
            let rules = rules(&["gzip"], level, &[]);
            Coding::ALL.map(|it| rules.level(it))
        };
        assert_eq!(levels(None), [3, 4, 6]);
        assert_eq!(levels(Some(1)), [1, 1, 1]);
        assert_eq!(levels(Some(8)), [8, 6, 8]);
        assert_eq!(levels(Some(19)), [12, 6, 9]);
    }

    #[test]
    fn a_coding_counts_once() {
        let rules = rules(&["gzip", "gzip", "br", "gzip", "zstd"], None, &[]);
        assert_eq!(rules.codings(), [Coding::Gzip, Coding::Brotli, Coding::Zstd]);
    }

    #[test]
    fn rules_without_work_are_none() {
        let config = config::Compression {
            enabled: false,
            algorithms: vec!["gzip".into()],
            level: None,
            min_size: ByteSize::kib(1),
            types: vec!["*".into()],
        };
        assert!(Rules::new(&config).is_none());
        assert!(Rules::new(&config::Compression { enabled: true, algorithms: Vec::new(), ..config }).is_none());
    }
}
