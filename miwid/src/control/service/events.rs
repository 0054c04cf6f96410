//! What happened. A reader that is too slow is told how much it missed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use proto::v1::{self, events_server};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::{Request, Response};

use super::{Reply, Streamed, lasting};
use crate::control::{convert, plane::Plane};
use crate::telemetry::Event;

pub(in crate::control) struct Events(pub(in crate::control) Arc<Plane>);

impl Events {
    fn recent(&self, cursor: u64, since_seconds: Option<u64>) -> Vec<Event> {
        let earliest = since_seconds.and_then(|seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds)));
        let mut events = self.0.control.events.since(cursor);
        events.retain(|event| earliest.is_none_or(|earliest| event.at >= earliest));
        events
    }
}

#[tonic::async_trait]
impl events_server::Events for Events {
    type WatchStream = Streamed<v1::Event>;

    async fn list(&self, request: Request<v1::ListEventsRequest>) -> Reply<v1::ListEventsReply> {
        let events = self.recent(0, request.get_ref().since_seconds);
        Ok(Response::new(v1::ListEventsReply { events: events.iter().map(convert::event).collect() }))
    }

    async fn watch(&self, request: Request<v1::WatchEventsRequest>) -> Reply<Self::WatchStream> {
        let ask = request.get_ref();
        // Subscribing first leaves no hole between the ring and the feed; what both have is sent once.
        let feed = self.0.control.events.subscribe();
        let recent = self.recent(ask.cursor, ask.since_seconds);
        let last = recent.last().map_or(ask.cursor, |event| event.cursor);
        let recent = stream::iter(recent.iter().map(|event| Ok(convert::event(event))).collect::<Vec<_>>());
        Ok(Response::new(lasting(self.0.course.clone(), recent.chain(following(feed, last)))))
    }
}

fn following(feed: Receiver<Event>, last: u64) -> Streamed<v1::Event> {
    Box::pin(stream::unfold(feed, move |mut feed| async move {
        loop {
            match feed.recv().await {
                Ok(event) if event.cursor <= last => {}
                Ok(event) => return Some((Ok(convert::event(&event)), feed)),
                Err(RecvError::Lagged(gap)) => return Some((Ok(v1::Event { gap, ..v1::Event::default() }), feed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }))
}
