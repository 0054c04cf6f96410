//! The account that an engine is when its warden is root, and how a process becomes it: for good, and before it does anything else.

use std::{
    ffi::CString,
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_keep_capabilities, set_no_new_privs,
    },
};
use serde::{Deserialize, Serialize};

/// How a warden tells an engine who it is. It stays in the environment and says that this daemon began as root.
const VARIABLE: &str = "MIWID_ENGINE_IDENTITY";
/// More than the kernel knows; it says so of those that it does not.
const CAPABILITIES: u32 = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The control socket: the only one beside which the warden, which is root, writes what an engine's trouble is.
    #[serde(default)]
    pub socket: PathBuf,
}

// === impl Identity ===

impl Identity {
    /// What `[server] user` and `group` name, with all groups of the account.
    pub fn of_account(name: &str, group: Option<&str>) -> Result<Self, String> {
        let account = User::from_name(name).ok().flatten().ok_or_else(|| format!("user {name:?} does not exist"))?;
        let gid = match group {
            Some(it) => Group::from_name(it).ok().flatten().ok_or_else(|| format!("group {it:?} does not exist"))?.gid,
            None => account.gid,
        };
        let groups = CString::new(name).ok().and_then(|it| getgrouplist(&it, gid).ok()).unwrap_or_else(|| vec![gid]);
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Ok(Self { name: name.to_owned(), uid: account.uid.as_raw(), gid: gid.as_raw(), groups, socket: PathBuf::new() })
    }

    /// Who the warden wants this engine to be.
    pub fn of_environment() -> io::Result<Option<Self>> {
        std::env::var(VARIABLE).ok().map(|text| Self::parse(&text)).transpose()
    }

    pub fn parse(text: &str) -> io::Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// What may be kept under this key: a control socket elsewhere is nobody's.
    pub fn allows(&self, key: &str) -> bool {
        key.strip_prefix("control:").is_none_or(|socket| Path::new(socket) == self.socket)
    }

    /// What an engine may tell the service manager: how it is, and nothing of processes and descriptors.
    pub fn may_tell(text: &str) -> bool {
        const WORDS: [&str; 6] =
            ["READY=1", "RELOADING=1", "STOPPING=1", "STATUS=", "MONOTONIC_USEC=", "EXTEND_TIMEOUT_USEC="];
        text.lines().all(|line| WORDS.iter().any(|word| line.starts_with(word)))
    }

    pub fn variable(&self) -> (&'static str, String) {
        (VARIABLE, self.text())
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Becomes it, for good: nothing that this process executes gets more. What is kept is the right to bind ports below 1024, if
    /// it is wanted and was there. To be called while there is one thread.
    pub fn take_on(&self, binds_ports: bool) -> io::Result<()> {
        let before = capabilities(None)?.permitted;
        let wanted = if binds_ports { CapabilitySet::NET_BIND_SERVICE } else { CapabilitySet::empty() };
        let kept = before & wanted;
        for number in 0..CAPABILITIES {
            let one = CapabilitySet::from_bits_retain(1 << number);
            match if kept.contains(one) { Ok(()) } else { remove_capability_from_bounding_set(one) } {
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        set_keep_capabilities(true)?;
        setresuid(uid, uid, uid)?;
        set_capabilities(
            None,
            CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
        )?;
        set_keep_capabilities(false)?;
        clear_ambient_capability_set()?;
        set_no_new_privs(true)?;
        // What runs as the same account must not look into its memory.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        Ok(())
    }
}

/// As root a daemon has its files in the system's places; an engine that root started, too.
pub fn began_as_root() -> bool {
    nix::unistd::geteuid().is_root() || std::env::var_os(VARIABLE).is_some()
}

/// Removes what the environment of this process must not hand on by accident.
pub(crate) fn forget(command: &mut std::process::Command) {
    command.env_remove(VARIABLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_way_to_the_engine() {
        let identity =
            Identity { name: "web".into(), uid: 990, gid: 991, groups: vec![991, 27], socket: "/run/x".into() };
        assert_eq!(Identity::parse(&identity.text()).expect("an identity"), identity);
        assert!(Identity::parse("root").is_err());
    }

    #[test]
    fn an_engine_neither_moves_the_socket_nor_speaks_of_other_processes() {
        let identity = Identity {
            name: "web".into(),
            uid: 990,
            gid: 991,
            groups: vec![],
            socket: "/run/miwid/control.sock".into(),
        };
        assert!(identity.allows("control:/run/miwid/control.sock") && identity.allows("tcp:0.0.0.0:443"));
        assert!(!identity.allows("control:/etc/shadow") && !identity.allows("control:"));
        assert!(Identity::may_tell("READY=1\nSTATUS=ready\n") && Identity::may_tell(""));
        for text in ["MAINPID=1", "STATUS=ready\nMAINPID=1", "FDSTORE=1", "\nREADY=1"] {
            assert!(!Identity::may_tell(text), "{text:?}");
        }
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let told = Identity::of_account("nobody-like-that", None).expect_err("no such user");
        assert_eq!(told, "user \"nobody-like-that\" does not exist");
        let told = Identity::of_account("root", Some("no-such-group")).expect_err("no such group");
        assert_eq!(told, "group \"no-such-group\" does not exist");
        let root = Identity::of_account("root", None).expect("root is everywhere");
        assert_eq!((root.uid, root.gid), (0, 0));
    }
}
