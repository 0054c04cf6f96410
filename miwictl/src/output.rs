//! Data to standard output, talk to standard error.

use std::io::Write as _;

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    cli::{Color, Format, Globals},
    error::Error,
};

const SCHEMA: &str = "miwi/v1";

pub(crate) fn choose_color(color: Color) {
    match color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
}

/// Writes one line of data. A reader that has gone (`| head`) ends the program quietly.
pub(crate) fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn talk(globals: &Globals, text: &str) {
    if !globals.quiet {
        let _ = writeln!(anstream::stderr(), "{text}");
    }
}

/// What is wrong: said even to those who want quiet.
pub(crate) fn complaint(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// One document: as JSON with its schema, or as `table` shows it.
pub(crate) fn document<T: Serialize>(globals: &Globals, data: &T, table: impl FnOnce(&T) -> String) {
    match globals.output {
        Format::Table => line(table(data).trim_end()),
        Format::Json => line(&format!("{:#}", with_schema(data))),
        Format::Jsonl => line(&with_schema(data).to_string()),
    }
}

/// One object of a stream: always one line.
pub(crate) fn object<T: Serialize>(globals: &Globals, data: &T, text: impl FnOnce(&T) -> String) {
    match globals.output {
        Format::Table => line(&text(data)),
        Format::Json | Format::Jsonl => line(&with_schema(data).to_string()),
    }
}

pub(crate) fn with_schema<T: Serialize>(data: &T) -> Value {
    let mut document = Map::new();
    document.insert("schema".to_owned(), SCHEMA.into());
    match serde_json::to_value(data) {
        Ok(Value::Object(fields)) => document.extend(fields),
        Ok(other) => drop(document.insert("value".to_owned(), other)),
        Err(_) => {}
    }
    Value::Object(document)
}

pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Says what went wrong: for people on standard error, for scripts also on standard output.
pub(crate) fn failure(globals: &Globals, error: &Error) {
    if globals.output != Format::Table && !error.answered {
        line(&json!({ "schema": SCHEMA, "error": error }).to_string());
    }
    let _ = anstream::stderr().write_all(failure_text(error).as_bytes());
}

fn failure_text(error: &Error) -> String {
    if error.message.is_empty() {
        return String::new();
    }
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let mut text = format!("{red}error:{red:#} {}\n", error.message);
    for line in error.report.lines().chain(error.last_lines.iter().map(String::as_str)) {
        text.push_str(&format!("  {line}\n"));
    }
    if !error.hint.is_empty() {
        text.push_str(&format!("hint: {}\n", error.hint));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_under_their_name_beside_the_schema() {
        let value = with_schema(&proto::v1::ListAppsReply { apps: vec![proto::v1::App::default()] });
        assert_eq!(value["schema"], "miwi/v1");
        assert_eq!(value["apps"][0]["type"], "", "raw identifiers lose their prefix");
        assert!(value["apps"][0]["ready"].is_number());
    }

    #[test]
    fn status_has_every_field_that_scripts_rely_on() {
        let reply = proto::v1::StatusReply { connections: Some(Default::default()), ..Default::default() };
        let value = with_schema(&reply);
        for field in "schema version pid uptime_seconds config_generation engine_generation state config_path workers \
            listeners apps certificates connections io_backend"
            .split_whitespace()
        {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert!(value["connections"]["active"].is_number());
    }

    #[test]
    fn an_error_ends_with_its_hint_on_a_line_of_its_own() {
        let error = Error { last_lines: vec!["boom".into()], ..Error::new(6, "failed", "it broke").hint("mend it") };
        let text = failure_text(&error);
        assert!(text.ends_with("it broke\n  boom\nhint: mend it\n"), "{text}");
    }

    #[test]
    fn an_error_as_json_has_the_fixed_fields() {
        let value = serde_json::to_value(Error::new(5, "not-found", "x")).unwrap_or_default();
        let mut fields: Vec<_> = value.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default();
        fields.sort();
        assert_eq!(fields, ["code", "exit", "hint", "last_lines", "message"]);
    }
}
