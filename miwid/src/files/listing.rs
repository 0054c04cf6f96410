//! A directory as a page, or as JSON for those who prefer it.
//!
//! A listing shows exactly what a request could get: hidden names, devices and links that may not be followed are left
//! out. Names are text from outside: escaped in HTML, percent-encoded in links (behind `./`, or `a:b` would be a scheme).

use std::{
    fmt::Write as _,
    os::fd::OwnedFd,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use rustix::{
    fs::{AtFlags, Dir, FileType, Stat, fstat, statat},
    io::Errno,
};

use super::{
    locate::{Hidden, dotfile},
    open::{Found, Tree},
};

/// A page of more names helps nobody, and a directory may have millions.
const ENTRIES_MAX: usize = 10_000;
const LINK: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified: u64,
}

/// In the order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Directory,
    File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Json,
}

/// Reads a directory, directories first, then by name. Blocks: call it where that is allowed.
pub(super) fn read(tree: &Tree, hidden: &Hidden, relative: &[u8], directory: OwnedFd) -> Result<Vec<Entry>, Errno> {
    let mut directory = Dir::new(directory)?;
    let mut names = Vec::new();
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if dotfile(name) || name.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\') {
            continue;
        }
        let mut path = relative.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if !hidden.hides_entry(name, &path) {
            names.push((name.to_vec(), path));
        }
        if names.len() == ENTRIES_MAX {
            break;
        }
    }
    let describe = |(name, path): (Vec<u8>, Vec<u8>)| {
        let there = statat(directory.fd().ok()?, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let stat =
            if FileType::from_raw_mode(there.st_mode) == FileType::Symlink { through(tree, &path)? } else { there };
        entry(name, &stat)
    };
    let mut entries: Vec<Entry> = names.into_iter().filter_map(describe).collect();
    entries.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    Ok(entries)
}

/// A link is shown as what it leads to, if a request may go there.
fn through(tree: &Tree, path: &[u8]) -> Option<Stat> {
    match tree.find(path).ok()? {
        Found::File(opened) => Some(opened.stat),
        Found::Directory(directory) => fstat(&directory).ok(),
    }
}

fn entry(name: Vec<u8>, stat: &Stat) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        _ => return None,
    };
    let modified = u64::try_from(stat.st_mtime).unwrap_or(0);
    Some(Entry { name, kind, size: stat.st_size as u64, modified })
}

/// JSON only when it is preferred by name: `*/*` and ties get the page.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let (mut html, mut json, mut any) = (None, None, 0.0);
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
        match kind.as_str() {
            "text/html" => html = Some(quality),
            "application/json" => json = Some(quality),
            "*/*" | "text/*" => any = f32::max(any, quality),
            _ => {}
        }
    }
    if json.unwrap_or(0.0) > html.unwrap_or(any) { Format::Json } else { Format::Html }
}

impl Format {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        })
    }

    /// `path` is the path of the request, still encoded.
    pub(super) fn render(self, path: &str, entries: &[Entry]) -> String {
        match self {
            Self::Html => html(path, entries),
            Self::Json => json(entries),
        }
    }
}

fn json(entries: &[Entry]) -> String {
    let objects: Vec<_> = entries
        .iter()
        .map(|entry| {
            let name = String::from_utf8_lossy(&entry.name);
            match entry.kind {
                Kind::Directory => {
                    serde_json::json!({ "name": name, "type": "directory", "modified": date(entry.modified) })
                }
                Kind::File => {
                    let modified = date(entry.modified);
                    serde_json::json!({ "name": name, "type": "file", "size": entry.size, "modified": modified })
                }
            }
        })
        .collect();
    format!("{}\n", serde_json::Value::Array(objects))
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse}\
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #8883}\
th{font-weight:600;font-size:.85rem;opacity:.7}\
td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
a{text-decoration:none;overflow-wrap:anywhere}a:hover{text-decoration:underline}";

fn html(path: &str, entries: &[Entry]) -> String {
    let title = escape(&percent_decode_str(path).decode_utf8_lossy());
    let mut page = String::with_capacity(1024 + entries.len() * 160);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table>\n\
         <thead><tr><th>Name</th><th>Size</th><th>Modified</th></tr></thead>\n<tbody>\n"
    );
    if !path.trim_matches('/').is_empty() {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in entries {
        let slash = if entry.kind == Kind::Directory { "/" } else { "" };
        let size = if entry.kind == Kind::Directory { String::new() } else { human(entry.size) };
        let link = percent_encode(&entry.name, LINK);
        let name = escape(&String::from_utf8_lossy(&entry.name));
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{link}{slash}\">{name}{slash}</a></td><td>{size}</td><td>{}</td></tr>",
            date(entry.modified)
        );
    }
    page.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Empty for a date that no HTTP header could write either.
fn date(seconds: u64) -> String {
    if seconds > super::conditional::DATE_MAX_SECONDS {
        return String::new();
    }
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Entry {
        Entry { name: name.into(), kind: Kind::File, size: 1536, modified: 0 }
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let page = Format::Html.render("/a%3Cb%3E/", &[file("<script>\"&'.txt"), file("a:b c#?.txt")]);
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;&quot;&amp;&#39;.txt"), "{page}");
        assert!(page.contains("href=\"./a%3Ab%20c%23%3F.txt\""), "{page}");
        assert!(page.contains("<title>/a&lt;b&gt;/</title>"), "{page}");
        assert!(page.contains("href=\"../\"") && page.contains("1.5 KiB"), "{page}");
        assert!(!Format::Html.render("/", &[]).contains("href=\"../\""));
    }

    #[test]
    fn json_names_type_size_and_date() {
        let directory = Entry { name: b"d\"".to_vec(), kind: Kind::Directory, size: 4096, modified: 0 };
        let text = Format::Json.render("/", &[directory, file("f")]);
        let value: serde_json::Value = serde_json::from_str(&text).expect("a listing is valid JSON");
        assert_eq!(value[0]["name"], "d\"");
        assert_eq!(value[0]["type"], "directory");
        assert_eq!(value[0].get("size"), None);
        assert_eq!(value[1]["size"], 1536);
        assert_eq!(value[1]["modified"], "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn json_is_for_those_who_prefer_it() {
        let check = |accept: &str, expected: Format| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("the table holds header values"));
            assert_eq!(format(&headers), expected, "{accept}");
        };
        check("*/*", Format::Html);
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Html);
        check("application/json", Format::Json);
        check("application/json, */*;q=0.5", Format::Json);
        check("application/json, text/html", Format::Html);
        check("application/json;q=0.5, text/html;q=0.9", Format::Html);
        check("Application/JSON;q=0.9, text/html;q=0.5", Format::Json);
        assert_eq!(format(&HeaderMap::new()), Format::Html);
    }
}
