//! Broken configurations, each with everything that is said about it.

use std::path::Path;

use config::{Capabilities, Problem, load_text};

fn said(problem: &Problem) -> String {
    let Problem { file, line, column, key, message, hint, .. } = problem;
    let hint = hint.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
    format!("{}:{line}:{column} {key}: {message}{hint}", file.display())
}

fn problems(text: &str) -> Vec<String> {
    match load_text(Path::new("m.toml"), text, &[], &Capabilities::default()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(said).collect(),
    }
}

#[test]
fn every_broken_configuration_is_explained() {
    let table = include_str!("broken.txt").trim_end();
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in table.split("\n====\n") {
        let (text, expected) = case.split_once("\n----\n").expect("a case has a text and what is said");
        let expected: Vec<&str> = expected.lines().collect();
        let actual = problems(text);
        if actual != expected || actual.is_empty() {
            wrong.push(format!("{text}\n----\n{}", actual.join("\n")));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n====\n"));
    assert!(count >= 40, "{count} cases");
}
