//! How much of the machine is ours: descriptors and processors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A connection needs its own descriptor and one to the upstream; files, logs and apps need the rest.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
const DESCRIPTORS_RESERVED: u64 = 512;

/// Keys and tokens are in memory, and a core would take them to the disk.
pub fn forbid_cores() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        eprintln!("warning: core dumps cannot be forbidden, and they would have keys in them: {error}");
    }
}

/// Raises the soft limit to the hard one, and says how many connections it carries.
pub(super) fn connections(wanted: Option<usize>) -> Result<usize, String> {
    let (_, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("cannot read the descriptor limit: {error}"))?;
    // Where the hard limit is "unlimited" the kernel's own maximum applies; asking for more than it fails, so fall back.
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |it| it.0),
    };
    fit(wanted, limit)
}

fn fit(wanted: Option<usize>, limit: u64) -> Result<usize, String> {
    let carried = limit.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CONNECTION;
    let Some(wanted) = wanted else { return Ok(carried.max(1) as usize) };
    let needed = wanted as u64 * DESCRIPTORS_PER_CONNECTION + DESCRIPTORS_RESERVED;
    if needed <= limit {
        return Ok(wanted);
    }
    Err(format!(
        "max_connections = {wanted} needs {needed} descriptors ({DESCRIPTORS_PER_CONNECTION} per connection + \
         {DESCRIPTORS_RESERVED}), the limit is {limit}\n\
         hint: raise it (LimitNOFILE={needed} in the unit, `ulimit -n {needed}` in a shell), or set max_connections = {carried}"
    ))
}

/// One worker for each CPU that this process may use: affinity and cgroup quota count.
pub(super) fn workers(configured: Option<usize>) -> usize {
    configured.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptor_limit() {
        assert_eq!(fit(None, 20_512), Ok(10_000));
        assert_eq!(fit(Some(10_000), 20_512), Ok(10_000));
        assert_eq!(fit(None, 100), Ok(1));
        let error = fit(Some(100_000), 20_512).expect_err("too many");
        assert!(error.contains("needs 200512 descriptors"), "{error}");
        assert!(error.contains("the limit is 20512"), "{error}");
    }
}
