//! How the kernel is asked for input and output, and what else it has that is not used, said once at the start.

use crate::tls::Support;

/// What every worker uses.
pub(super) const ACTIVE: &str = "epoll";

/// Says which way is used, and why the others are not. `kernel`: whether it is to encrypt, and what of that it can.
pub(super) fn announce(kernel: Kernel) {
    tracing::info!(
        io_backend = ACTIVE,
        io_uring = io_uring(read("/proc/sys/kernel/io_uring_disabled").as_deref()),
        ktls = ktls(kernel, read("/proc/sys/net/ipv4/tcp_available_ulp").as_deref()),
        "input and output"
    );
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// By the switch that the kernel has had since 6.6; a container may forbid it besides.
fn io_uring(disabled: Option<&str>) -> &'static str {
    match disabled.map(str::trim) {
        Some("0") => "not used: the kernel allows it, but this version has no way of asking by it",
        Some("1") => "not used: the kernel keeps it for one group (kernel.io_uring_disabled = 1)",
        Some(_) => "not used: the kernel forbids it (kernel.io_uring_disabled)",
        None => "not used: the kernel does not say that it has it",
    }
}

#[derive(Clone, Copy)]
pub(super) enum Kernel {
    NotAsked,
    Able(Support),
    Unable,
}

/// The protocols are those that the kernel lays over TCP; `tls` is there once its module is loaded.
fn ktls(kernel: Kernel, protocols: Option<&str>) -> String {
    let has_module = protocols.is_some_and(|it| it.split_whitespace().any(|it| it == "tls"));
    match kernel {
        Kernel::Able(support) => format!("large files: {support}"),
        Kernel::Unable if has_module => "not used: the kernel takes none of our ciphers".to_owned(),
        Kernel::NotAsked if has_module => "not used: the kernel has it, `[ssl] ktls` does not ask for it".to_owned(),
        _ => "not used: the kernel has no module for it loaded (modprobe tls)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_used_says_why() {
        let check =
            |told: &str, expected: &str| assert!(told.starts_with("not used") && told.contains(expected), "{told}");
        check(io_uring(Some("0\n")), "allows it");
        check(io_uring(Some("1\n")), "one group");
        check(io_uring(Some("2\n")), "forbids it");
        check(io_uring(None), "does not say");
        check(&ktls(Kernel::NotAsked, Some("espintcp mptcp tls\n")), "does not ask");
        check(&ktls(Kernel::Unable, Some("mptcp tls\n")), "ciphers");
        check(&ktls(Kernel::Unable, Some("mptcp\n")), "modprobe tls");
        check(&ktls(Kernel::NotAsked, None), "modprobe tls");
    }
}
