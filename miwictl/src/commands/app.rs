//! `miwictl app`: looks at apps and steers them. Several targets go one after another, so that a bad one does not take
//! the others along.

use proto::v1::{
    App, DeployHead, ListAppsReply, ListAppsRequest, Operation, PauseRequest, ResetRequest, RestartRequest,
    ResumeRequest, RollbackRequest, ScaleRequest, StartRequest, StopRequest,
};
use serde_json::json;

use super::{connect, logs, release, request_id, status};
use crate::{
    cli::{AppCommand, Globals, Targets},
    client::Client,
    error::{Error, INTERRUPTED, NOT_FOUND, PARTLY, Result},
    follow::{follow, verdict},
    output,
};

pub(super) async fn run(globals: &Globals, command: &AppCommand) -> Result {
    match command {
        AppCommand::Maintenance(_) => return Err(Error::unavailable("app maintenance")),
        AppCommand::Logs(args) => return logs::tail(globals, &args.name, args.lines, args.follow).await,
        _ => {}
    }
    let client = connect(globals).await?;
    let apps = client.apps().list(ListAppsRequest {}).await?.into_inner();
    match command {
        AppCommand::List => {
            output::document(globals, &apps, |reply| status::apps(&reply.apps));
            Ok(())
        }
        AppCommand::Status { name } => {
            output::document(globals, known(&apps, name)?, details);
            Ok(())
        }
        change => steer(globals, &client, &apps, change).await,
    }
}

async fn steer(globals: &Globals, client: &Client, apps: &ListAppsReply, command: &AppCommand) -> Result {
    let names = names(apps, command)?;
    let mut ended = Vec::new();
    let mut errors: Vec<(String, Error)> = Vec::new();
    for (position, name) in names.iter().enumerate() {
        // One id for each target: the same id with another target would be a conflict.
        let id = request_id(globals);
        let id = if position == 0 { id } else { format!("{id}-{position}") };
        match one(globals, client, command, name, id).await {
            Ok(operation) => ended.push(operation),
            Err(error) if error.exit == INTERRUPTED => return Err(error),
            Err(error) => errors.push((name.clone(), error)),
        }
    }
    if !ended.is_empty() && (errors.is_empty() || names.len() > 1) {
        output::document(globals, &json!({ "operations": ended }), |_| summary(globals, &ended));
    }
    judged(errors, names.len(), !ended.is_empty())
}

/// One target's error is the command's; of several, each is listed.
fn judged(mut errors: Vec<(String, Error)>, targets: usize, some_done: bool) -> Result {
    if targets == 1 || errors.is_empty() {
        return errors.pop().map_or(Ok(()), |(_, error)| Err(error));
    }
    let listed = errors.iter().map(|(name, error)| format!("{name}: {}", error.message)).collect();
    let first = &errors[0].1;
    let (exit, code) = if some_done { (PARTLY, "partly-done") } else { (first.exit, &*first.code) };
    let message = format!("{} of {targets} apps failed", errors.len());
    let error = Error { last_lines: listed, hint: first.hint.clone(), ..Error::new(exit, code, message) };
    Err(if some_done { error.answered() } else { error })
}

fn summary(globals: &Globals, operations: &[Operation]) -> String {
    let line = |operation: &Operation| match globals.no_wait {
        true => operation.id.clone(),
        false => format!("{}: {}", operation.target, operation.result),
    };
    operations.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn one(globals: &Globals, client: &Client, command: &AppCommand, name: &str, id: String) -> Result<Operation> {
    let begun = begin(client, command, name.to_owned(), id).await?;
    let ended = follow(client, globals, begun).await?;
    verdict(&ended).map_err(|error| next_step(error, name))?;
    Ok(ended)
}

fn next_step(error: Error, name: &str) -> Error {
    if error.hint.is_empty() { error.hint(format!("miwictl app logs {name} -n 200")) } else { error }
}

async fn begin(client: &Client, command: &AppCommand, name: String, request_id: String) -> Result<Operation> {
    let mut apps = client.apps();
    let begun = match command {
        AppCommand::Start { .. } => apps.start(StartRequest { request_id, name }).await,
        AppCommand::Stop { now, .. } => apps.stop(StopRequest { request_id, name, now: *now }).await,
        AppCommand::Restart { hard, instance, on_failure, .. } => {
            let (hard, instance, on_failure) = (*hard, *instance, on_failure.clone());
            apps.restart(RestartRequest { request_id, name, hard, instance, on_failure }).await
        }
        AppCommand::Scale { instances, .. } => {
            apps.scale(ScaleRequest { request_id, name, instances: *instances }).await
        }
        AppCommand::Deploy { path, on_failure, .. } => {
            let on_failure = on_failure.clone();
            let head = DeployHead { request_id, name, on_failure, directory: path.is_dir() };
            apps.deploy(release::stream(path, head)?).await
        }
        AppCommand::Rollback { .. } => apps.rollback(RollbackRequest { request_id, name }).await,
        AppCommand::Pause { .. } => apps.pause(PauseRequest { request_id, name }).await,
        AppCommand::Resume { .. } => apps.resume(ResumeRequest { request_id, name }).await,
        AppCommand::Reset { .. } => apps.reset(ResetRequest { request_id, name }).await,
        _ => return Err(Error::unexpected("this command changes nothing")),
    };
    Ok(begun?.into_inner())
}

fn names(apps: &ListAppsReply, command: &AppCommand) -> Result<Vec<String>> {
    let wanted = match command {
        AppCommand::Start { targets } | AppCommand::Stop { targets, .. } | AppCommand::Restart { targets, .. } => {
            let Targets { names, all } = targets;
            if *all {
                return Ok(apps.apps.iter().map(|app| app.name.clone()).collect());
            }
            names.clone()
        }
        AppCommand::Scale { name, .. }
        | AppCommand::Deploy { name, .. }
        | AppCommand::Rollback { name }
        | AppCommand::Pause { name }
        | AppCommand::Resume { name }
        | AppCommand::Reset { name } => vec![name.clone()],
        _ => Vec::new(),
    };
    wanted.iter().map(|name| known(apps, name).map(|app| app.name.clone())).collect()
}

fn known<'a>(apps: &'a ListAppsReply, name: &str) -> Result<&'a App> {
    if let Some(app) = apps.apps.iter().find(|app| app.name == name || app.site == name) {
        return Ok(app);
    }
    let distance = |app: &&App| strsim::damerau_levenshtein(&app.name, name);
    let nearest = apps.apps.iter().min_by_key(distance).filter(|app| distance(app) <= 3);
    let hint = nearest.map_or_else(
        || "`miwictl app list` shows what there is".to_owned(),
        |app| format!("did you mean `{}`?", app.name),
    );
    Err(Error::new(NOT_FOUND, "not-found", format!("there is no app `{name}`")).hint(hint))
}

fn details(app: &App) -> String {
    let mut text = status::apps(std::slice::from_ref(app));
    if let Some(release) = &app.release {
        text.push_str(&format!("\nrelease: {release}"));
    }
    if let Some(operation) = &app.operation {
        text.push_str(&format!("\noperation: {operation}"));
    }
    let rows = app.instances.iter().map(|instance| {
        let pid = instance.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let exit = instance.last_exit.as_ref().map(|exit| exit.cause.clone()).unwrap_or_default();
        [
            instance.slot.to_string(),
            instance.id.clone(),
            pid,
            instance.state.clone(),
            instance.address.clone(),
            instance.restarts.to_string(),
            instance.in_flight.to_string(),
            exit,
        ]
    });
    let head = ["SLOT", "INSTANCE", "PID", "STATE", "ADDRESS", "RESTARTS", "IN FLIGHT", "LAST EXIT"];
    text.push_str(&format!("\n\n{}\n", output::table(head, rows)));
    for notice in &app.notices {
        text.push_str(&format!("\nnotice: {notice}"));
    }
    text.push_str(&app.report);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> ListAppsReply {
        let app = |name: &str| App { name: name.into(), site: format!("{name}.example.com"), ..App::default() };
        ListAppsReply { apps: vec![app("shop"), app("blog")] }
    }

    #[test]
    fn an_unknown_app_gets_the_nearest_name() {
        let error = known(&apps(), "shpo").err().unwrap_or_default();
        assert_eq!((error.exit, error.hint.as_str()), (5, "did you mean `shop`?"));
        let error = known(&apps(), "warehouse").err().unwrap_or_default();
        assert!(!error.hint.contains("did you mean"));
    }

    #[test]
    fn an_app_is_known_by_its_site_too() {
        assert_eq!(known(&apps(), "blog.example.com").map(|app| app.name.as_str()), Ok("blog"));
    }

    #[test]
    fn several_targets_of_which_some_fail_are_partly_done() {
        let failed = || ("shop".to_owned(), Error::new(6, "failed", "exit 1"));
        let exit = |result: Result| result.err().map(|error| error.exit);
        assert_eq!(exit(judged(vec![failed()], 2, true)), Some(9));
        assert_eq!(exit(judged(vec![failed(), failed()], 2, false)), Some(6));
        assert_eq!(exit(judged(vec![failed()], 1, false)), Some(6));
        let denied = || ("x".to_owned(), Error::new(4, "permission-denied", "no").hint("ask"));
        let all = judged(vec![denied(), denied()], 2, false).expect_err("nothing was done");
        assert_eq!((&*all.code, &*all.hint), ("permission-denied", "ask"));
        assert_eq!(exit(judged(vec![], 2, true)), None);
    }
}
