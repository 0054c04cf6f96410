//! What both of our sides of HTTP/2 and HTTP/3 have in common: how much may be under way, and where their tasks run.

/// Uploads and downloads over many streams share one connection: room for a fast path's bandwidth times its delay.
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = 16 << 20;
/// Requests that a client may have under way on one connection.
pub const STREAMS_MAX: u32 = 128;

/// Runs hyper's tasks on the worker that owns the connection.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
