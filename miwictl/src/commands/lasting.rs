//! What is followed outlasts the engine that sends it, through an upgrade as through a crash: the warden keeps the control socket,
//! and who connects to it waits there until the next engine answers.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status, Streaming};

use super::connect;
use crate::{
    cli::Globals,
    client::{self, Client},
    error::{Error, Result},
    output,
};

/// Between two attempts while engines come and go.
const BETWEEN: Duration = Duration::from_millis(250);

/// A stream, or why there is none.
pub(super) type Begun<T> = std::result::Result<Streaming<T>, Status>;

/// Which engine a stream is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    First,
    /// It is asked for everything it has.
    Next,
}

/// What stands in a stream, as far as it matters here.
pub(super) trait Moment {
    /// When it was. Empty: nobody knows, and what is sent again would be shown again.
    fn at(&self) -> &str;
}

/// How far a stream has been shown: an engine that goes on after all has things to say that were shown before.
#[derive(Default)]
struct Shown {
    at: String,
    /// So many were of that moment.
    count: usize,
    /// So many of that moment are still to be left out.
    again: usize,
}

impl Shown {
    fn is_news(&mut self, at: &str) -> bool {
        // Without it the text of an earlier moment is less, however many digits its second has.
        let at = at.trim_end_matches('Z');
        if at.is_empty() {
            return true;
        }
        if at < self.at.as_str() || (at == self.at && self.again > 0) {
            self.again -= usize::from(at == self.at);
            return false;
        }
        self.count = if at == self.at { self.count + 1 } else { 1 };
        if at != self.at {
            (self.at, self.again) = (at.to_owned(), 0);
        }
        true
    }

    /// From here on it may come again.
    fn begin_again(&mut self) {
        self.again = self.count;
    }
}

/// Shows what `begin` brings until it ends or the user has enough; what the next engine sends, too.
pub(super) async fn follow<T: Moment>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    show: impl Fn(&T),
) -> Result {
    tokio::select! {
        ended = followed(globals, begin, unknown, show) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn followed<T: Moment>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    show: impl Fn(&T),
) -> Result {
    let mut shown = Shown::default();
    let mut stream = begin(&connect(globals).await?, Engine::First).await.map_err(&unknown)?;
    loop {
        match stream.message().await {
            Ok(Some(message)) if shown.is_news(message.at()) => show(&message),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(gone) if went_away(&gone) => {
                stream = of_the_next(globals, &begin, &unknown, gone).await?;
                shown.begin_again();
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// `gone` is the error when no other engine comes.
async fn of_the_next<T>(
    globals: &Globals,
    begin: impl AsyncFn(&Client, Engine) -> Begun<T>,
    unknown: impl Fn(Status) -> Error,
    gone: Status,
) -> Result<Streaming<T>> {
    while !client::is_deserted(globals.socket.as_deref()).await {
        if let Ok(client) = connect(globals).await {
            match begin(&client, Engine::Next).await {
                Ok(stream) => {
                    output::talk(globals, "(another engine goes on)");
                    return Ok(stream);
                }
                Err(status) if went_away(&status) => {}
                Err(status) => return Err(unknown(status)),
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(gone.into())
}

/// It says so, or its connection has broken off.
pub(super) fn went_away(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_not_shown_again_and_nothing_else_is_left_out() {
        let mut shown = Shown::default();
        let news = |shown: &mut Shown, moments: &[&str]| moments.iter().map(|it| shown.is_news(it)).collect::<Vec<_>>();
        assert_eq!(news(&mut shown, &["1", "2", "2", "", "3", "3"]), [true; 6]);
        shown.begin_again();
        assert_eq!(news(&mut shown, &["1", "2", "2"]), [false; 3], "an engine that goes on after all");
        assert_eq!(news(&mut shown, &["3", "3", "3", "4"]), [false, false, true, true]);
        shown.begin_again();
        assert_eq!(news(&mut shown, &["5", "5", ""]), [true; 3], "another one has only news");
        shown.begin_again();
        assert_eq!(news(&mut shown, &["4", "5", "5", "5"]), [false, false, false, true]);
        let mut shown = Shown::default();
        assert_eq!(news(&mut shown, &["07Z", "07.12Z", "07.123Z", "08Z"]), [true; 4]);
    }
}
