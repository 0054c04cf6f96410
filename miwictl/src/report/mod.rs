//! `miwictl logs report` and `miwictl logs top`: reads access logs of any of the three formats, also compressed ones.
//! It needs no daemon.

mod parse;
mod render;
mod summary;
mod top;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    path::PathBuf,
};

pub(crate) use top::{TopArgs, run_top};

/// One row for each hour or day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Period {
    Hourly,
    #[default]
    Daily,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub(crate) struct ReportArgs {
    /// `-` is standard input.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) period: Period,
    pub(crate) output: Output,
}

/// Reads the files and writes one report about all of them to `out`.
pub(crate) fn run_report(args: &ReportArgs, out: &mut dyn Write) -> io::Result<()> {
    let mut summary = summary::Summary::new(args.period);
    for path in &args.files {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if path.as_os_str() == "-" {
            read(io::stdin().lock(), &mut summary).map_err(named)?;
        } else {
            let file = File::open(path).map_err(named)?;
            read(BufReader::new(file), &mut summary).map_err(named)?;
        }
    }
    match args.output {
        Output::Text => render::text(&summary, out),
        Output::Json => render::json(&summary, out),
    }
}

fn read(mut input: impl BufRead, summary: &mut summary::Summary) -> io::Result<()> {
    // The magic bytes decide, not the name: a pipe has none.
    if input.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        lines(BufReader::new(flate2::bufread::MultiGzDecoder::new(input)), |line| summary.line(line))
    } else {
        lines(input, |line| summary.line(line))
    }
}

/// Memory stays bounded: of a longer line the rest is skipped, and the line then counts as unreadable.
const LINE_BYTES_MAX: u64 = 1 << 20;

fn lines(mut input: impl BufRead, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
            input.skip_until(b'\n')?;
        }
        each(line.trim_ascii_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = r#"127.0.0.1 - - [09/Aug/2025:10:15:32 +0000] "GET /a?x=1 HTTP/1.1" 200 1000"#;
    const COMBINED: &str = r#"127.0.0.1 - - [09/Aug/2025:11:15:32 +0000] "GET /b\x22 HTTP/1.1" 404 43 "-" "agent""#;
    const JSON: &str = r#"{"timestamp":"2025-08-10T10:15:32.007Z","remote_addr":"10.0.0.1","method":"GET","path":"/a","status":200,"response_time_ms":12.5,"bytes_sent":7}"#;

    fn report(input: &[u8], period: Period) -> serde_json::Value {
        let mut summary = summary::Summary::new(period);
        read(input, &mut summary).expect("reads");
        let mut out = Vec::new();
        render::json(&summary, &mut out).expect("writes");
        serde_json::from_slice(&out).expect("valid JSON")
    }

    #[test]
    fn one_file_may_mix_all_three_formats() {
        let value = report(format!("{COMMON}\n{COMBINED}\n{JSON}\nnonsense\n").as_bytes(), Period::Daily);
        assert_eq!(value["requests"], 3);
        assert_eq!(value["unreadable"], 1);
        assert_eq!(value["bytes_sent"], 1050);
        assert_eq!(value["statuses"]["404"], 1);
        assert_eq!(value["top_paths"][0], serde_json::json!({"name": "/a", "requests": 2}));
        assert_eq!(value["slowest_paths"][0]["max_ms"], 12.5);
        assert_eq!(value["periods"]["2025-08-09"]["requests"], 2);
    }

    #[test]
    fn hours_are_rows_of_an_hourly_report() {
        let value = report(format!("{COMMON}\n{COMBINED}\n").as_bytes(), Period::Hourly);
        assert_eq!(value["periods"]["2025-08-09 10:00"]["requests"], 1);
        assert_eq!(value["periods"]["2025-08-09 11:00"]["errors"], 1);
    }

    #[test]
    fn compressed_input_is_recognized_even_in_several_members() {
        let mut bytes = Vec::new();
        for line in [COMMON, JSON] {
            let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            writeln!(encoder, "{line}").expect("writes");
            encoder.finish().expect("ends");
        }
        assert_eq!(report(&bytes, Period::Daily)["requests"], 2);
    }

    #[test]
    fn a_line_without_end_is_skipped_and_counted() {
        let mut bytes = vec![b'x'; 3 << 20];
        bytes.extend(format!("\n{COMMON}\n").bytes());
        let value = report(&bytes, Period::Daily);
        assert_eq!((value["requests"].as_u64(), value["unreadable"].as_u64()), (Some(1), Some(1)));
    }
}
