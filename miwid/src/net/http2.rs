//! What both of our sides of HTTP/2 and HTTP/3 have in common: how much may be under way, and where their tasks run.

/// Uploads and downloads over many streams share one connection: room for a fast path's bandwidth times its delay.
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Requests that a client may have under way on one connection.
pub const STREAMS_MAX: u32 = 128;

/// How large a head the libraries let through. We judge heads ourselves, with a reason and a record; theirs is a bare 431, and
/// is for what is far too large.
pub fn head_max(limit: usize) -> u32 {
    u32::try_from(limit.saturating_mul(2)).unwrap_or(u32::MAX)
}

/// Runs hyper's tasks on the worker that owns the connection.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
