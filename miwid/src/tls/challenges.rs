//! Answers that certificate authorities look for: a token in the path, a text in return (RFC 8555, 8.3). They are there only
//! while somebody is asked to look; an unknown token is the site's business.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Where authorities look.
pub const PREFIX: &str = "/.well-known/acme-challenge/";

/// Cheap to clone. Read only by requests below `PREFIX`, so that nobody else ever waits for it.
#[derive(Clone, Default)]
pub(super) struct Challenges(Arc<RwLock<HashMap<String, String>>>);

impl Challenges {
    pub(super) fn find(&self, token: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// Until the guard is dropped.
    pub(super) fn show(&self, token: &str, answer: &str) -> Showing {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), answer.to_owned());
        Showing { challenges: self.clone(), token: token.to_owned() }
    }
}

pub(super) struct Showing {
    challenges: Challenges,
    token: String,
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.challenges.0.write().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_while_it_is_shown() {
        let challenges = Challenges::default();
        let showing = challenges.show("token", "token.thumbprint");
        assert_eq!(challenges.find("token").as_deref(), Some("token.thumbprint"));
        assert_eq!(challenges.find("other"), None);
        drop(showing);
        assert_eq!(challenges.find("token"), None);
    }
}
