//! Whether somebody may do what they ask for. Who they are comes from the kernel (peer credentials of the socket); the pid
//! is only information, never a reason to allow anything.
//!
//! Nothing that changes something can be done without a `Caller`, and only `Plane::permit` gives one out.

use std::{collections::BTreeMap, ffi::CString, fmt, time::Duration};

use config::{Account, Grant, Role};
use nix::unistd::{Group, User, geteuid, getgrouplist};
use proto::v1;
use tonic::{Request, transport::server::UdsConnectInfo};

use super::audit::Caller;

/// Names and groups may come from a directory service that hangs.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// What the kernel shows for ids that a namespace does not map: they could be anybody's.
const OVERFLOW_ID: u32 = 65534;

/// What is asked for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right<'a> {
    /// To see how things stand.
    Look,
    /// To read what an app writes.
    Read(&'a str),
    /// To change how an app runs.
    Steer(&'a str),
    /// The same for all apps, and for what belongs to none.
    Operate,
    /// To change what the daemon is: its program, its configuration's place, its certificates, its end.
    Administer,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    uid: Option<u32>,
    gid: Option<u32>,
    pid: Option<i32>,
}

/// What the configuration grants to one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    All,
    /// What any of these allows; with none, a viewer's.
    Granted(Vec<Grant>),
}

type Acl = Option<BTreeMap<Account, Grant>>;

impl Peer {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
        Self {
            uid: credentials.map(|it| it.uid()),
            gid: credentials.map(|it| it.gid()),
            pid: credentials.and_then(|it| it.pid()),
        }
    }

    /// Who that is, and what `acl` grants them.
    pub(super) async fn known(self, acl: &Acl) -> (Caller, Standing) {
        let accounts: Vec<Account> = acl.iter().flat_map(|it| it.keys().cloned()).collect();
        let looking = tokio::task::spawn_blocking(move || self.look_up(accounts));
        let found = tokio::time::timeout(LOOKUP_MAX, looking).await.ok().and_then(Result::ok);
        let (user, accounts) = found.unwrap_or_default();
        let standing = match acl {
            Some(acl) if !self.is_ours() => Standing::of(acl, &accounts),
            _ => Standing::All,
        };
        let user = user.unwrap_or_else(|| "unknown".to_owned());
        (Caller { uid: self.uid, pid: self.pid, user }, standing)
    }

    /// Root, and whoever the daemon runs as, could end it or read its memory anyway.
    fn is_ours(self) -> bool {
        self.uid.is_some_and(|it| it == 0 || it == geteuid().as_raw())
    }

    /// The user's name, and which of `accounts` they are. Blocking.
    fn look_up(self, accounts: Vec<Account>) -> (Option<String>, Vec<Account>) {
        let user = self.uid.and_then(|uid| User::from_uid(uid.into()).ok().flatten()).map(|it| it.name);
        let has_groups = accounts.iter().any(|it| matches!(it, Account::Group(_)));
        let groups = if has_groups { self.groups(user.as_deref()) } else { Vec::new() };
        let uid = self.uid.filter(|it| *it != OVERFLOW_ID);
        let is_theirs = |account: &Account| match account {
            Account::User(it) => uid.is_some_and(|uid| user.as_ref() == Some(it) || uid.to_string() == *it),
            Account::Group(it) => group_id(it).is_some_and(|gid| groups.contains(&gid)),
        };
        let theirs = accounts.into_iter().filter(is_theirs).collect();
        (user, theirs)
    }

    /// The group that the process runs with, and those that its user is in.
    fn groups(self, user: Option<&str>) -> Vec<u32> {
        let Some(gid) = self.gid else { return Vec::new() };
        let name = user.and_then(|it| CString::new(it).ok());
        let listed = name.and_then(|it| getgrouplist(&it, gid.into()).ok()).unwrap_or_default();
        let ids = listed.iter().map(|it| it.as_raw()).chain([gid]);
        ids.filter(|it| *it != OVERFLOW_ID).collect()
    }
}

fn group_id(name: &str) -> Option<u32> {
    let named = Group::from_name(name).ok().flatten().map(|it| it.gid.as_raw());
    named.or_else(|| name.parse().ok())
}

/// Whether there is such an account on this machine. Blocking.
pub fn exists(account: &Account) -> bool {
    match account {
        Account::User(name) => name.parse::<u32>().is_ok() || matches!(User::from_name(name), Ok(Some(_)) | Err(_)),
        Account::Group(name) => name.parse::<u32>().is_ok() || matches!(Group::from_name(name), Ok(Some(_)) | Err(_)),
    }
}

impl Standing {
    fn of(acl: &BTreeMap<Account, Grant>, accounts: &[Account]) -> Self {
        Self::Granted(accounts.iter().filter_map(|it| acl.get(it)).cloned().collect())
    }

    pub(super) fn allows(&self, right: Right<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grants) => right == Right::Look || grants.iter().any(|it| allows(it, right)),
        }
    }

    /// Takes what an app wrote out of what became of it, for those who may not read that.
    pub(super) fn cover_app(&self, app: &mut v1::App) {
        if !self.allows(Right::Read(&app.name)) {
            app.report.clear();
            app.instances.iter_mut().flat_map(|it| &mut it.last_exit).for_each(|it| it.last_lines.clear());
        }
    }

    pub(super) fn cover(&self, operation: &mut v1::Operation) {
        if let Some(error) = operation.error.as_mut().filter(|_| !self.allows(Right::Read(&operation.target))) {
            error.report.clear();
            error.last_lines.clear();
        }
    }

    fn role(&self) -> Role {
        match self {
            Self::All => Role::Admin,
            Self::Granted(grants) => grants.iter().map(|it| it.role).max().unwrap_or(Role::Viewer),
        }
    }
}

fn allows(grant: &Grant, right: Right<'_>) -> bool {
    match right {
        Right::Look => true,
        // A viewer sees the output of apps that are named only.
        Right::Read(app) => grant.covers(app) && (grant.role > Role::Viewer || grant.apps.is_some()),
        Right::Steer(app) => grant.role >= Role::Operator && grant.covers(app),
        Right::Operate => grant.role >= Role::Operator && grant.apps.is_none(),
        Right::Administer => grant.role == Role::Admin,
    }
}

/// What to tell somebody who may not.
pub(super) struct Denial<'a> {
    pub(super) caller: &'a Caller,
    pub(super) standing: &'a Standing,
    pub(super) method: &'a str,
    pub(super) right: Right<'a>,
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, standing, method, right } = self;
        write!(f, "permission denied: `{method}` ")?;
        match right {
            Right::Read(app) => write!(f, "of {app:?} is for its operators and viewers that it is named to"),
            Right::Steer(app) => write!(f, "of {app:?} is for its operators"),
            Right::Look | Right::Operate => f.write_str("is for operators of all apps"),
            Right::Administer => f.write_str("is for admins"),
        }?;
        write!(f, "; {} has the role {}", caller.account(), standing.role())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn grant(role: Role, apps: Option<&[&str]>) -> Grant {
        let apps = apps.map(|it| it.iter().map(|&it| it.to_owned()).collect());
        Grant { role, apps, origin: config::Origin::default() }
    }

    #[test]
    fn each_role_may_what_it_may() {
        use Right::{Administer, Look, Operate, Read, Steer};
        const RIGHTS: [Right<'_>; 7] =
            [Look, Read("shop"), Read("blog"), Steer("shop"), Steer("blog"), Operate, Administer];
        let shop: Option<&[&str]> = Some(&["shop*"]);
        let cases = [
            (vec![], "y......"),
            (vec![grant(Role::Viewer, None)], "y......"),
            (vec![grant(Role::Viewer, shop)], "yy....."),
            (vec![grant(Role::Operator, Some(&[]))], "y......"),
            (vec![grant(Role::Operator, shop)], "yy.y..."),
            (vec![grant(Role::Operator, None)], "yyyyyy."),
            (vec![grant(Role::Admin, None)], "yyyyyyy"),
            // Entries add up.
            (vec![grant(Role::Operator, shop), grant(Role::Viewer, Some(&["blog"]))], "yyyy..."),
        ];
        for (grants, expected) in cases {
            let standing = Standing::Granted(grants);
            let may: String = RIGHTS.iter().map(|it| if standing.allows(*it) { 'y' } else { '.' }).collect();
            assert_eq!(may, expected, "{standing:?}");
        }
        assert!(RIGHTS.iter().all(|it| Standing::All.allows(*it)));
    }

    #[test]
    fn somebody_is_the_accounts_of_their_name_number_and_groups() {
        let accounts = |it: &[&str]| it.iter().map(|it| Account::parse(it).unwrap()).collect::<Vec<_>>();
        let asked =
            accounts(&["root", "user:0", "user:1", "group:0", "group:root", "group:4711", "nobody-of-this-name"]);
        let root = Peer { uid: Some(0), gid: Some(0), pid: None };
        assert_eq!(root.look_up(asked.clone()).1, accounts(&["root", "user:0", "group:0", "group:root"]));
        let nameless = Peer { uid: Some(3_000_000_001), gid: Some(4711), pid: None };
        assert_eq!(nameless.look_up(asked).1, accounts(&["group:4711"]));
    }

    #[test]
    fn ids_that_a_namespace_does_not_map_are_nobody() {
        let unmapped = Peer { uid: Some(OVERFLOW_ID), gid: Some(OVERFLOW_ID), pid: None };
        let asked = ["nobody", "65534", "group:nogroup", "group:65534"].map(|it| Account::parse(it).unwrap());
        assert_eq!(unmapped.look_up(asked.to_vec()).1, []);
    }

    #[tokio::test]
    async fn without_a_list_all_may_do_everything_and_with_one_root_still_may() {
        let stranger = Peer { uid: Some(3_000_000_001), gid: Some(3_000_000_001), pid: Some(7) };
        assert_eq!(stranger.known(&None).await.1, Standing::All);
        let acl = Some(BTreeMap::from([(Account::User("3000000001".into()), grant(Role::Operator, None))]));
        assert_eq!(stranger.known(&acl).await.1, Standing::Granted(vec![grant(Role::Operator, None)]));
        let root = Peer { uid: Some(0), ..stranger };
        assert_eq!(root.known(&Some(BTreeMap::new())).await.1, Standing::All);
        // A connection that says nothing of its owner.
        let (caller, standing) = Peer::default().known(&acl).await;
        assert_eq!((caller.holder().as_str(), standing), ("unknown", Standing::Granted(vec![])));
    }

    #[test]
    fn a_denial_names_what_was_asked_for_and_who_one_is() {
        let caller = Caller { uid: Some(1000), pid: Some(4711), user: "anna".into() };
        let standing = Standing::Granted(vec![grant(Role::Viewer, None)]);
        let told = Denial { caller: &caller, standing: &standing, method: "restart", right: Right::Steer("shop") };
        let expected =
            "permission denied: `restart` of \"shop\" is for its operators; anna (uid 1000) has the role viewer";
        assert_eq!(told.to_string(), expected);
    }
}
