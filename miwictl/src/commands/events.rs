//! `miwictl events`: what happened, one line each.

use std::time::Duration;

use proto::v1::{Event, ListEventsRequest, WatchEventsRequest};

use super::connect;
use crate::{
    cli::{Format, Globals},
    error::Result,
    output,
};

pub(super) async fn run(globals: &Globals, follow: bool, since: Option<Duration>) -> Result {
    let since_seconds = since.map(|since| since.as_secs());
    let mut events = connect(globals).await?.events();
    if !follow {
        let reply = events.list(ListEventsRequest { since_seconds }).await?.into_inner();
        reply.events.iter().for_each(|event| show(globals, event));
        return Ok(());
    }
    let mut stream = events.watch(WatchEventsRequest { cursor: 0, since_seconds }).await?.into_inner();
    loop {
        tokio::select! {
            next = stream.message() => match next? {
                Some(event) => show(globals, &event),
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
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
