//! Who may do what over the control socket: `[control.acl]`, by user and group.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::{Origin, glob};

/// Whom an entry is about. Numbers are ids: accounts need no name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    User(String),
    Group(String),
}

/// What somebody may do; each role may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look, but at no log.
    Viewer,
    /// Steer apps and read their logs.
    Operator,
    /// Everything.
    Admin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grant {
    pub role: Role,
    /// Patterns of the apps that the role is about; `None` = all of them, and what belongs to none.
    pub apps: Option<Vec<String>>,
    #[serde(skip)]
    pub origin: Origin,
}

impl Account {
    /// As a key says it: `deploy`, `user:deploy` or `group:staff`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':').unwrap_or(("user", text));
        match (kind, name) {
            (_, "") => None,
            ("user", name) => Some(Self::User(name.to_owned())),
            ("group", name) => Some(Self::Group(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

impl Grant {
    /// Whether the role is about the app of this name.
    pub fn covers(&self, app: &str) -> bool {
        self.apps.as_ref().is_none_or(|it| it.iter().any(|pattern| glob::matches(pattern.as_bytes(), app.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_user_unless_it_says_that_it_is_a_group() {
        let user = |name: &str| Some(Account::User(name.to_owned()));
        let cases = [
            ("root", user("root")),
            ("user:deploy", user("deploy")),
            ("1001", user("1001")),
            ("group:staff", Some(Account::Group("staff".to_owned()))),
            ("", None),
            ("user:", None),
            ("group:", None),
            ("role:admin", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Account::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_grant_covers_the_apps_that_its_patterns_match_whole() {
        let grant = |apps: Option<&[&str]>| Grant {
            role: Role::Operator,
            apps: apps.map(|it| it.iter().map(|&it| it.to_owned()).collect()),
            origin: Origin::default(),
        };
        let cases: [(Option<&[&str]>, &str, bool); 7] = [
            (None, "shop", true),
            (Some(&[]), "shop", false),
            (Some(&["shop"]), "shop", true),
            (Some(&["shop"]), "shop2", false),
            (Some(&["shop*"]), "shop-admin", true),
            (Some(&["blog", "s?op"]), "shop", true),
            (Some(&["*shop"]), "shop-admin", false),
        ];
        for (apps, app, expected) in cases {
            assert_eq!(grant(apps).covers(app), expected, "{apps:?} {app}");
        }
    }
}
