//! A summary as text for people or as JSON for programs. Names come from clients: control characters are not printed.

use std::io::{self, Write};

use super::summary::Summary;

const TOP: usize = 10;

pub(super) fn text(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let totals = summary.totals;
    writeln!(out, "Requests {}  errors {}  bytes sent {}", totals.requests, totals.errors, totals.bytes_sent)?;
    if summary.unreadable > 0 {
        writeln!(out, "Lines that could not be read: {}", summary.unreadable)?;
    }
    writeln!(out, "\n{:<18}{:>12}{:>12}{:>16}", "Period", "Requests", "Errors", "Bytes sent")?;
    for (row, totals) in &summary.periods {
        let row = printable(row);
        writeln!(out, "{row:<18}{:>12}{:>12}{:>16}", totals.requests, totals.errors, totals.bytes_sent)?;
    }
    writeln!(out, "\nStatuses")?;
    for (status, count) in &summary.statuses {
        writeln!(out, "{count:>10}  {status}")?;
    }
    names(out, "Top paths", &summary.top_paths(TOP))?;
    names(out, "Top clients", &summary.top_clients(TOP))?;
    let slowest = summary.slowest(TOP);
    if !slowest.is_empty() {
        writeln!(out, "\n{:>10}{:>12}  Slowest paths (ms)", "Longest", "Mean")?;
    }
    for (path, times) in slowest {
        let mean = times.sum_ms / times.requests as f64;
        writeln!(out, "{:>10.1}{mean:>12.1}  {}", times.max_ms, printable(path))?;
    }
    Ok(())
}

fn names(out: &mut dyn Write, title: &str, names: &[(&str, u64)]) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    names.iter().try_for_each(|(name, count)| writeln!(out, "{count:>10}  {}", printable(name)))
}

fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

pub(super) fn json(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let names = |names: Vec<(&str, u64)>| -> Vec<serde_json::Value> {
        names.into_iter().map(|(name, count)| serde_json::json!({"name": name, "requests": count})).collect()
    };
    let slowest: Vec<_> = summary
        .slowest(TOP)
        .into_iter()
        .map(|(path, times)| {
            let mean = times.sum_ms / times.requests as f64;
            serde_json::json!({"name": path, "requests": times.requests, "max_ms": times.max_ms, "mean_ms": mean})
        })
        .collect();
    let value = serde_json::json!({
        "schema": "miwi/v1",
        "requests": summary.totals.requests,
        "errors": summary.totals.errors,
        "bytes_sent": summary.totals.bytes_sent,
        "unreadable": summary.unreadable,
        "statuses": summary.statuses,
        "periods": summary.periods,
        "top_paths": names(summary.top_paths(TOP)),
        "top_clients": names(summary.top_clients(TOP)),
        "slowest_paths": slowest,
    });
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)
}
