//! How the kernel is asked for input and output, and what else it has that is not used, said once at the start.

/// What every worker uses.
pub(super) const ACTIVE: &str = "epoll";

/// Says which way is used, and why the others are not.
pub(super) fn announce() {
    tracing::info!(
        io_backend = ACTIVE,
        io_uring = io_uring(read("/proc/sys/kernel/io_uring_disabled").as_deref()),
        ktls = ktls(read("/proc/sys/net/ipv4/tcp_available_ulp").as_deref()),
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

/// By the protocols that the kernel lays over TCP; `tls` is there once its module is loaded.
fn ktls(protocols: Option<&str>) -> &'static str {
    if protocols.is_some_and(|it| it.split_whitespace().any(|it| it == "tls")) {
        "not used: the kernel has it, but this version encrypts by itself"
    } else {
        "not used: the kernel has no module for it loaded (modprobe tls)"
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
        check(ktls(Some("espintcp mptcp tls\n")), "has it");
        check(ktls(Some("mptcp\n")), "modprobe tls");
        check(ktls(None), "modprobe tls");
    }
}
