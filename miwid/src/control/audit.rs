//! Who asked for what, and how it went: one line for every call that changes something, or would have.

use tonic::Status;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) uid: Option<u32>,
    pub(super) pid: Option<i32>,
    pub(super) user: String,
}

impl Caller {
    /// `anna (uid 1000)`.
    pub(super) fn account(&self) -> String {
        match self.uid {
            Some(uid) => format!("{} (uid {uid})", self.user),
            None => self.user.clone(),
        }
    }

    /// As the message to a second operation names it: `anna (uid 1000, pid 4711)`.
    pub(super) fn holder(&self) -> String {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => format!("{} (uid {uid}, pid {pid})", self.user),
            _ => self.account(),
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
}
