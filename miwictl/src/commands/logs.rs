//! `miwictl logs`, and the output of apps.

use std::{
    cell::RefCell,
    io::{self, BufWriter, Write},
};

use proto::v1::{ListLogsReply, ListLogsRequest, LogLine, RotateLogsRequest, StatusRequest, TailRequest};
use tonic::{Response, Status};

use super::{
    connect,
    lasting::{self, Engine, Moment},
};
use crate::{
    cli::{Format, Globals, LogsCommand},
    client::Client,
    error::{Error, NOT_FOUND, Result},
    output,
    report::{self, Output, ReportArgs, TopArgs},
};

/// A position that is in no file: each is read from its beginning.
const BEGINNING: &str = "0:0";

pub(super) async fn run(globals: &Globals, command: &LogsCommand) -> Result {
    match command {
        LogsCommand::List => list(globals).await,
        LogsCommand::Rotate { name, .. } => rotate(globals, name.clone()).await,
        LogsCommand::Tail { name, follow, lines } => tail(globals, name, *lines, *follow).await,
        LogsCommand::Report { files, report } => written(|out| {
            let output = if globals.output == Format::Table { Output::Text } else { Output::Json };
            report::run_report(&ReportArgs { files: files.clone(), period: *report, output }, out)
        }),
        LogsCommand::Top { file } => written(|out| report::run_top(&TopArgs { file: file.clone() }, out)),
    }
}

/// A reader that has gone (`| head`) is no failure.
fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(NOT_FOUND, "not-found", error.to_string()))
        }
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::unexpected(error.to_string())),
        _ => Ok(()),
    }
}

async fn list(globals: &Globals) -> Result {
    let reply = connect(globals).await?.logs().list(ListLogsRequest {}).await?.into_inner();
    output::document(globals, &reply, table);
    Ok(())
}

fn table(reply: &ListLogsReply) -> String {
    let rows = reply.logs.iter().cloned().map(|log| {
        [log.name, log.size_bytes.to_string(), log.backups.to_string(), log.dropped_lines.to_string(), log.path]
    });
    output::table(["LOG", "BYTES", "BACKUPS", "DROPPED", "PATH"], rows)
}

async fn rotate(globals: &Globals, name: Option<String>) -> Result {
    let reply = connect(globals).await?.logs().rotate(RotateLogsRequest { name }).await.map_err(unknown)?;
    output::document(globals, reply.get_ref(), |reply| reply.backups.join("\n"));
    Ok(())
}

pub(super) async fn tail(globals: &Globals, name: &str, lines: u32, follow: bool) -> Result {
    // How far a file has been shown; the engines write into the same one.
    let shown = RefCell::new(String::new());
    let begin = async |client: &Client, engine| {
        let (lines, after) = match engine {
            Engine::First => (lines, String::new()),
            // Of an app's output it has what it has read itself.
            Engine::Next if is_app(client, name).await? => (u32::MAX, String::new()),
            // Where nothing has been shown there was no line.
            Engine::Next if shown.borrow().is_empty() && lines > 0 => (0, BEGINNING.to_owned()),
            Engine::Next => (0, shown.borrow().clone()),
        };
        let request = TailRequest { name: name.to_owned(), lines, follow, after };
        client.logs().tail(request).await.map(Response::into_inner)
    };
    lasting::follow(globals, begin, unknown, |line| {
        shown.replace(line.position.clone());
        show(globals, line);
    })
    .await
}

impl Moment for LogLine {
    fn at(&self) -> &str {
        &self.at
    }
}

async fn is_app(client: &Client, name: &str) -> std::result::Result<bool, Status> {
    let status = client.daemon().status(StatusRequest {}).await?;
    Ok(status.get_ref().apps.iter().any(|it| it.name == name))
}

fn show(globals: &Globals, line: &LogLine) {
    // For scripts it is a record among the others.
    if line.gap > 0 && globals.output == Format::Table {
        output::talk(globals, &format!("({} lines missed)", line.gap));
        return;
    }
    output::object(globals, line, |line| match line.stream.is_empty() {
        true => line.line.clone(),
        false => format!("{} {}.{} {}", line.at, line.app, line.slot, line.line),
    });
}

fn unknown(status: Status) -> Error {
    let error = Error::from(status);
    if error.exit == NOT_FOUND { error.hint("`miwictl logs list` shows what there is") } else { error }
}
