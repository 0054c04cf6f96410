//! Who may ask at all, by the client's address. Pure.

use std::net::IpAddr;

use super::Nets;

#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Empty: everybody.
    allow: Nets,
    deny: Nets,
}

impl Access {
    pub fn new(security: &config::Security) -> Option<Self> {
        let access = Self { allow: Nets::new(&security.allow), deny: Nets::new(&security.deny) };
        (!access.allow.is_empty() || !access.deny.is_empty()).then_some(access)
    }

    /// `deny` wins: a range can be allowed and an address in it be kept out. `client` is canonical.
    pub fn admits(&self, client: IpAddr) -> bool {
        !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_let_in_or_kept_out() {
        let check = |allow: &[&str], deny: &[&str], client: &str, expected: bool| {
            let nets = |list: &[&str]| list.iter().map(|it| it.parse().expect("a range")).collect();
            let security = config::Security { allow: nets(allow), deny: nets(deny), ..config::Security::default() };
            let access = Access::new(&security).expect("there is something to judge");
            assert_eq!(access.admits(client.parse().expect("an address")), expected, "{client} {allow:?} {deny:?}");
        };
        check(&["192.168.1.0/24"], &[], "192.168.1.9", true);
        check(&["192.168.1.0/24"], &[], "192.168.2.9", false);
        check(&["192.168.1.0/24"], &[], "2001:db8::1", false);
        check(&[], &["192.168.1.0/24"], "192.168.1.9", false);
        check(&[], &["192.168.1.0/24"], "192.168.2.9", true);
        check(&[], &["2001:db8::/32"], "2001:db8::1", false);
        check(&["10.0.0.0/8"], &["10.0.0.1/32"], "10.0.0.1", false);
        check(&["10.0.0.0/8"], &["10.0.0.1/32"], "10.0.0.2", true);
        check(&["10.0.0.1/32"], &["10.0.0.0/8"], "10.0.0.1", false);
        assert!(Access::new(&config::Security::default()).is_none());
    }
}
