//! `miwictl events`: what happened, one line each.

use std::time::Duration;

use proto::v1::{Event, ListEventsRequest, WatchEventsRequest};
use tonic::Response;

use super::{
    connect,
    lasting::{self, Engine, Moment},
};
use crate::{
    cli::{Format, Globals},
    client::Client,
    error::{Error, Result},
    output,
};

pub(super) async fn run(globals: &Globals, follow: bool, since: Option<Duration>) -> Result {
    let since_seconds = since.map(|since| since.as_secs());
    if !follow {
        let reply = connect(globals).await?.events().list(ListEventsRequest { since_seconds }).await?.into_inner();
        reply.events.iter().for_each(|event| show(globals, event));
        return Ok(());
    }
    let begin = async |client: &Client, engine| {
        let since_seconds = since_seconds.filter(|_| engine == Engine::First);
        let request = WatchEventsRequest { cursor: 0, since_seconds };
        client.events().watch(request).await.map(Response::into_inner)
    };
    lasting::follow(globals, begin, Error::from, |event| show(globals, event)).await
}

impl Moment for Event {
    fn at(&self) -> &str {
        &self.at
    }
}

fn show(globals: &Globals, event: &Event) {
    // For scripts it is a record among the others.
    if event.gap > 0 && globals.output == Format::Table {
        output::talk(globals, &format!("({} events missed)", event.gap));
        return;
    }
    output::object(globals, event, |Event { at, kind, subject, message, .. }| {
        format!("{at} {kind} {subject} {message}")
    });
}
