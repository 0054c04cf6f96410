//! Who asked for what, and how it went: one line for every call that changes something. Identity comes from the kernel
//! (peer credentials of the socket); the pid is only information, never a reason to allow anything.

use tonic::{Request, Status, transport::server::UdsConnectInfo};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: Option<u32>,
    pub(super) pid: Option<i32>,
    pub(super) user: String,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
        let uid = credentials.map(|peer| peer.uid());
        let user = uid.and_then(|uid| nix::unistd::User::from_uid(uid.into()).ok().flatten());
        Self {
            uid,
            pid: credentials.and_then(|peer| peer.pid()),
            user: user.map_or_else(|| "unknown".to_owned(), |user| user.name),
        }
    }

    /// As the message to a second operation names it: `anna (uid 1000, pid 4711)`.
    pub(super) fn holder(&self) -> String {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => format!("{} (uid {uid}, pid {pid})", self.user),
            (Some(uid), None) => format!("{} (uid {uid})", self.user),
            _ => self.user.clone(),
        }
    }

    pub(super) fn record(&self, method: &str, target: &str, result: &str) {
        let (uid, pid) = (self.uid.map_or(-1, i64::from), self.pid.unwrap_or(-1));
        tracing::info!(target: "audit", uid, user = %self.user, pid, method, target = %target, result);
    }

    /// Records how a call ended and passes the reply on.
    pub(super) fn audited<T>(&self, method: &str, target: &str, reply: Result<T, Status>) -> Result<T, Status> {
        match &reply {
            Ok(_) => self.record(method, target, "ok"),
            Err(status) => self.record(method, target, status.message()),
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_names_user_and_process() {
        let caller = Caller { uid: Some(1000), pid: Some(4711), user: "anna".into() };
        assert_eq!(caller.holder(), "anna (uid 1000, pid 4711)");
    }

    #[test]
    fn a_call_without_credentials_comes_from_an_unknown_user() {
        assert_eq!(Caller::of(&Request::new(())).holder(), "unknown");
    }
}
