//! What an answer says about which origin may read it (CORS).

use http::{HeaderMap, HeaderValue, header};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// `Access-Control-Allow-Origin`; `None`: nobody from elsewhere.
    pub with: Option<HeaderValue>,
    /// Cookies may come along.
    pub credentials: bool,
    /// Another origin would be told something else.
    pub varies: bool,
}

impl Sharing {
    /// Takes the place of what an app says: two answers to one question are none to a browser.
    pub fn apply(&self, to: &mut HeaderMap) {
        to.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        to.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if let Some(with) = &self.with {
            to.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, with.clone());
            if self.credentials {
                to.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        let names = |it: &HeaderValue| {
            let mut names = it.as_bytes().split(|it| *it == b',').map(<[u8]>::trim_ascii);
            names.any(|it| it.eq_ignore_ascii_case(b"origin") || it == b"*")
        };
        if self.varies && !to.get_all(header::VARY).iter().any(names) {
            to.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_says_is_replaced_and_vary_is_said_once() {
        for (vary, expected) in [("", 1), ("Accept, Origin", 1), ("*", 1), ("accept", 2), ("x-origin", 2)] {
            let mut headers = HeaderMap::new();
            headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
            headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
            if !vary.is_empty() {
                headers.insert("vary", HeaderValue::from_static(vary));
            }
            let sharing =
                Sharing { with: Some(HeaderValue::from_static("https://a")), credentials: false, varies: true };
            sharing.apply(&mut headers);
            assert_eq!(headers["access-control-allow-origin"], "https://a");
            assert!(!headers.contains_key("access-control-allow-credentials"));
            assert_eq!(headers.get_all("vary").iter().count(), expected, "{vary}");
            Sharing { with: None, ..sharing }.apply(&mut headers);
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
    }
}
