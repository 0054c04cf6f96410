//! Streams of HTTP/2 whose client takes nothing. A window that stays shut blocks no socket, so `Activity` sees nothing wrong;
//! what can be seen is an answer whose next piece is not asked for. Such a stream is reset, its connection goes on.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{net::patience, telemetry::Metrics};

/// How long a client may take for so many bytes.
type Patience = fn(usize) -> Duration;

/// The streams of one connection: hyper's executor, and what makes its tasks end when they wait too long.
#[derive(Clone)]
pub(super) struct Streams {
    /// Bytes of DATA that the connection has taken.
    taken: Rc<Cell<u64>>,
    metrics: Metrics,
    patience: Patience,
    /// hyper asks the service for an answer and at once gives us the task that will send it: this is how they find each
    /// other.
    opened: Rc<Cell<Option<Rc<Watch>>>>,
}

/// What one stream has handed over.
#[derive(Default)]
struct Watch {
    waiting: Cell<Option<Waiting>>,
}

/// A piece that nobody has come back from yet.
#[derive(Clone, Copy)]
struct Waiting {
    since: Instant,
    bytes: usize,
    /// What the connection had taken then.
    taken: u64,
}

impl Streams {
    pub(super) fn new(taken: Rc<Cell<u64>>, metrics: Metrics) -> Self {
        Self { taken, metrics, patience, opened: Rc::default() }
    }

    /// The stream whose request came just now.
    pub(super) fn open(&self) -> Stream {
        let watch = Rc::new(Watch::default());
        self.opened.set(Some(watch.clone()));
        Stream { watch, taken: self.taken.clone() }
    }

    /// When a stream has waited too long. Whatever the connection takes meanwhile buys time for all of its streams: they
    /// share its path, and one that a reader has paused does no harm to a connection that is in use.
    fn due(&self, watch: &Watch) -> Option<Instant> {
        let waiting = watch.waiting.get()?;
        let taken = usize::try_from(self.taken.get() - waiting.taken).unwrap_or(usize::MAX);
        Some(waiting.since + (self.patience)(waiting.bytes.saturating_add(taken)))
    }

    /// Pending until the stream is overdue. A timer that is armed for an earlier moment stays: most pieces are soon taken.
    fn poll_overdue(&self, watch: &Watch, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(due) = self.due(watch) {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() > due || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        // What follows an upgrade is no answer: tunnels have limits of their own.
        let Some(watch) = self.opened.take() else { return drop(tokio::task::spawn_local(task)) };
        let streams = self.clone();
        tokio::task::spawn_local(async move {
            let (mut task, mut timer) = (pin!(task), None);
            std::future::poll_fn(|cx| {
                if task.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // A task that is dropped resets its stream.
                streams.poll_overdue(&watch, &mut timer, cx).map(|()| streams.metrics.connection_cut("write-stall"))
            })
            .await;
        });
    }
}

/// Where the answer of one stream gets its watch.
pub(super) struct Stream {
    watch: Rc<Watch>,
    taken: Rc<Cell<u64>>,
}

impl Stream {
    pub(super) fn paced<B>(self, body: B) -> Paced<B> {
        Paced { body, stream: self }
    }
}

/// A body that says when a piece of it was handed over, and when the next one is asked for.
pub(super) struct Paced<B> {
    body: B,
    stream: Stream,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let bytes = match &frame {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let Stream { watch, taken } = &self.stream;
        watch.waiting.set((bytes > 0).then(|| Waiting { since: Instant::now(), bytes, taken: taken.get() }));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{io::duplex, task::LocalSet, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// A connection whose streams may wait so long; each answer is one piece.
    fn serve(patience: Patience) -> (tokio::io::DuplexStream, Metrics) {
        let (client, server) = duplex(1 << 16);
        let metrics = Metrics::default();
        let streams = Streams { patience, ..Streams::new(Rc::default(), metrics.clone()) };
        let opening = streams.clone();
        let service = service_fn(move |_: Request<Incoming>| {
            let body = opening.open().paced(Full::new(Bytes::from_static(&[7; 1000])));
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        tokio::task::spawn_local(Builder::new(streams).serve_connection(TokioIo::new(server), service));
        (client, metrics)
    }

    #[tokio::test]
    async fn a_stream_whose_window_stays_shut_is_reset_and_the_connection_goes_on() {
        let test = async {
            let (io, metrics) = serve(|_| Duration::from_millis(50));
            let (mut client, connection) =
                h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(io).await.unwrap();
            tokio::task::spawn_local(connection);
            let mut ask = || client.send_request(Request::new(()), true).unwrap().0;
            let mut shut = ask().await.unwrap().into_body();
            let error = shut.data().await.unwrap().unwrap_err();
            assert!(error.is_reset() && error.reason() == Some(h2::Reason::CANCEL), "{error}");
            let page = metrics.exposition();
            let is_told = page.contains("miwid_connections_cut_total{reason=\"write-stall\"} 1");
            assert!(is_told || cfg!(not(feature = "metrics")), "{page}");
            assert_eq!(ask().await.unwrap().status(), 200);
        };
        LocalSet::new().run_until(timeout(SOON, test)).await.unwrap();
    }

    #[tokio::test]
    async fn what_the_connection_takes_buys_time() {
        let taken = Rc::new(Cell::new(100));
        let streams = Streams {
            patience: |it| Duration::from_secs(it as u64),
            ..Streams::new(taken.clone(), Metrics::default())
        };
        let watch = Watch::default();
        assert_eq!(streams.due(&watch), None, "nothing was handed over");
        let since = Instant::now();
        watch.waiting.set(Some(Waiting { since, bytes: 10, taken: 100 }));
        assert_eq!(streams.due(&watch), Some(since + Duration::from_secs(10)));
        taken.set(130);
        assert_eq!(streams.due(&watch), Some(since + Duration::from_secs(40)));
    }
}
