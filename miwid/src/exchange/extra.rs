//! The header fields that an operator wants on every answer (`[security.headers]`), compiled.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Scheme;

/// Fields that are added where the answer has none of that name, and names that never leave the house.
#[derive(Debug, Default)]
pub struct ExtraHeaders {
    added: Vec<(HeaderName, HeaderValue)>,
    removed: Vec<HeaderName>,
}

impl ExtraHeaders {
    /// From names and values as the configuration has judged them; an empty value removes. `None` when there is nothing to
    /// do, so that nothing is done.
    pub fn new<'a>(written: impl IntoIterator<Item = (&'a String, &'a String)>) -> Option<Arc<Self>> {
        let mut headers = Self::default();
        for (name, value) in written {
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            match HeaderValue::from_str(value) {
                Ok(value) if !value.is_empty() => headers.added.push((name, value)),
                _ => headers.removed.push(name),
            }
        }
        (!headers.added.is_empty() || !headers.removed.is_empty()).then(|| Arc::new(headers))
    }

    /// What the answer says by itself stays. Strict-Transport-Security is for HTTPS only: a client must ignore it elsewhere,
    /// and a server must not send it (RFC 6797, 7.2).
    pub fn apply(&self, to: &mut HeaderMap, scheme: Scheme) {
        for (name, value) in self.added(scheme) {
            if !to.contains_key(name) {
                to.insert(name.clone(), value.clone());
            }
        }
        for name in &self.removed {
            to.remove(name);
        }
    }

    /// The fields for answers that do not have them.
    pub fn added(&self, scheme: Scheme) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.added.iter().filter(move |it| scheme == Scheme::Https || it.0 != header::STRICT_TRANSPORT_SECURITY)
    }

    /// In whatever letters it is spelled.
    pub fn removes(&self, name: &str) -> bool {
        self.removed.iter().any(|it| it.as_str().eq_ignore_ascii_case(name))
    }

    pub fn adds(&self, name: &HeaderName) -> bool {
        self.added.iter().any(|it| it.0 == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(written: &[(&str, &str)]) -> Option<Arc<ExtraHeaders>> {
        let owned: Vec<_> = written.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
        ExtraHeaders::new(owned.iter().map(|(name, value)| (name, value)))
    }

    #[test]
    fn nothing_written_is_nothing_to_do() {
        assert!(compiled(&[]).is_none());
    }

    #[test]
    fn what_the_answer_says_itself_stays_and_an_empty_value_removes() {
        let headers = compiled(&[("x-frame-options", "DENY"), ("x-powered-by", "")]).expect("two rules");
        let mut answer = HeaderMap::new();
        answer.insert("x-frame-options", HeaderValue::from_static("SAMEORIGIN"));
        answer.insert("x-powered-by", HeaderValue::from_static("Express"));
        headers.apply(&mut answer, Scheme::Http);
        assert_eq!((&answer["x-frame-options"], answer.len()), (&HeaderValue::from_static("SAMEORIGIN"), 1));
        let mut bare = HeaderMap::new();
        headers.apply(&mut bare, Scheme::Http);
        assert_eq!(bare["x-frame-options"], "DENY");
    }

    #[test]
    fn strict_transport_security_is_said_over_https_only() {
        let headers = compiled(&[("strict-transport-security", "max-age=31536000")]).expect("one rule");
        for (scheme, expected) in [(Scheme::Http, false), (Scheme::Https, true)] {
            let mut answer = HeaderMap::new();
            headers.apply(&mut answer, scheme);
            assert_eq!(answer.contains_key(header::STRICT_TRANSPORT_SECURITY), expected, "{scheme:?}");
        }
    }
}
