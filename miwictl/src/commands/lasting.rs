//! What is followed outlasts the engine that sends it, through an upgrade as through a crash: the warden keeps the control socket,
//! and who connects to it waits there until the next engine answers.

use std::{error::Error as _, time::Duration};

use proto::v1::StatusRequest;
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

/// How far a stream has been shown. An engine that goes on after all, because a newer one has failed, says again what was shown
/// before; a newer one says only what is new, whatever has become of the clock.
#[derive(Default)]
struct Shown {
    newest: u64,
    at: String,
    /// So many were of that moment.
    count: usize,
    /// So many of that moment are still to be left out, and all before it. `None`: everything is new.
    again: Option<usize>,
}

impl Shown {
    /// An engine begins to tell.
    fn begin(&mut self, generation: u64) {
        self.again = (generation <= self.newest).then_some(self.count);
        self.newest = self.newest.max(generation);
    }

    fn is_news(&mut self, at: &str) -> bool {
        // Without it the text of an earlier moment is less, however many digits its second has.
        let at = at.trim_end_matches('Z');
        if at.is_empty() {
            return true;
        }
        match &mut self.again {
            Some(_) if at < self.at.as_str() => return false,
            Some(left) if at == self.at && *left > 0 => {
                *left -= 1;
                return false;
            }
            _ => self.again = None,
        }
        self.count = if at == self.at { self.count + 1 } else { 1 };
        at.clone_into(&mut self.at);
        true
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
    let client = connect(globals).await?;
    let mut stream = begin(&client, Engine::First).await.map_err(&unknown)?;
    shown.begin(generation(&client).await?);
    loop {
        match stream.message().await {
            Ok(Some(message)) if shown.is_news(message.at()) => show(&message),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(gone) if went_away(&gone) => {
                let (number, next) = of_the_next(globals, &begin, &unknown, gone).await?;
                shown.begin(number);
                stream = next;
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
) -> Result<(u64, Streaming<T>)> {
    while !client::is_deserted(globals.socket.as_deref()).await {
        if let Ok(client) = connect(globals).await {
            let begun = async { Ok((generation(&client).await?, begin(&client, Engine::Next).await?)) };
            match begun.await {
                Ok(begun) => {
                    output::talk(globals, "(another engine goes on)");
                    return Ok(begun);
                }
                Err(status) if went_away(&status) => {}
                Err(status) => return Err(unknown(status)),
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(gone.into())
}

async fn generation(client: &Client) -> std::result::Result<u64, Status> {
    Ok(client.daemon().status(StatusRequest {}).await?.get_ref().engine_generation)
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
        shown.begin(1);
        assert_eq!(news(&mut shown, &["1", "2", "2", "", "3", "3"]), [true; 6]);
        shown.begin(2);
        assert_eq!(news(&mut shown, &["3", "4", "4"]), [true; 3], "a newer engine has only news");
        shown.begin(1);
        assert_eq!(news(&mut shown, &["1", "3", "3"]), [false; 3], "one that goes on after all");
        assert_eq!(news(&mut shown, &["4", "4", "4", "5"]), [false, false, true, true]);
        assert_eq!(news(&mut shown, &["2", "2"]), [true; 2], "a clock that was set back hides nothing");
        shown.begin(3);
        assert_eq!(news(&mut shown, &["1"]), [true], "from one engine to the next, either");
        let mut shown = Shown::default();
        shown.begin(1);
        assert_eq!(news(&mut shown, &["07.12Z"]), [true]);
        shown.begin(1);
        assert_eq!(news(&mut shown, &["07Z", "07.12Z", "07.123Z", "08Z"]), [false, false, true, true]);
    }
}
