//! Which `Content-Type` a name gets: our own table first (text says its charset there), then `mime_guess`.
//!
//! The table exists because browsers refuse modules, WebAssembly and fonts that come with the wrong type, and because
//! a text without a charset is guessed at.

use http::HeaderValue;

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `path` may be a whole path; only the extension of its last segment counts.
pub(super) fn content_type(path: &[u8]) -> HeaderValue {
    let Some(extension) = extension(path) else {
        return BYTES;
    };
    let mut lower = [0; 16];
    let Some(lower) = lower.get_mut(..extension.len()) else {
        return BYTES;
    };
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    let Ok(extension) = str::from_utf8(lower) else {
        return BYTES;
    };
    known(extension).map(HeaderValue::from_static).unwrap_or_else(|| guessed(extension))
}

/// Without the dot. A name that begins with its only dot has none.
pub(super) fn extension(path: &[u8]) -> Option<&[u8]> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    (dot > 0 && dot + 1 < name.len()).then(|| &name[dot + 1..])
}

fn known(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "jsonld" => "application/ld+json; charset=utf-8",
        "geojson" => "application/geo+json; charset=utf-8",
        "webmanifest" => "application/manifest+json; charset=utf-8",
        "txt" | "text" | "log" | "conf" | "ini" => "text/plain; charset=utf-8",
        "md" | "markdown" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "ics" => "text/calendar; charset=utf-8",
        "vtt" => "text/vtt; charset=utf-8",
        "xml" | "xsl" => "text/xml; charset=utf-8",
        "xhtml" => "application/xhtml+xml; charset=utf-8",
        "atom" => "application/atom+xml; charset=utf-8",
        "rss" => "application/rss+xml; charset=utf-8",
        "yaml" | "yml" => "application/yaml; charset=utf-8",
        "toml" => "application/toml; charset=utf-8",
        "svg" => "image/svg+xml; charset=utf-8",
        "svgz" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "jxl" => "image/jxl",
        "heic" => "image/heic",
        "ico" => "image/x-icon",
        "wasm" => "application/wasm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "m3u8" => "application/vnd.apple.mpegurl",
        // `mime_guess` takes it for TypeScript or Qt translations; on a web server it is a piece of a video.
        "ts" => "video/mp2t",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "ogg" | "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "zst" => "application/zstd",
        _ => return None,
    })
}

fn guessed(extension: &str) -> HeaderValue {
    let Some(guess) = mime_guess::from_ext(extension).first_raw() else {
        return BYTES;
    };
    if guess.starts_with("text/") && !guess.contains("charset") {
        let value = [guess, "; charset=utf-8"].concat();
        return HeaderValue::try_from(value).unwrap_or(BYTES);
    }
    HeaderValue::from_static(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_its_type_and_text_its_charset() {
        let check = |name: &str, expected: &str| assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        check("index.html", "text/html; charset=utf-8");
        check("a/b.d/INDEX.HTM", "text/html; charset=utf-8");
        check("app.mjs", "text/javascript; charset=utf-8");
        check("data.json", "application/json; charset=utf-8");
        check("x.wasm", "application/wasm");
        check("x.avif", "image/avif");
        check("x.jxl", "image/jxl");
        check("f.woff2", "font/woff2");
        check("site.webmanifest", "application/manifest+json; charset=utf-8");
        check("README.md", "text/markdown; charset=utf-8");
        check("archive.tar.gz", "application/gzip");
        check("main.c", "text/plain; charset=utf-8");
        check("LICENSE", "application/octet-stream");
        check("dir.txt/LICENSE", "application/octet-stream");
        check("trailing.", "application/octet-stream");
        check(".html", "application/octet-stream");
        check("x.averyveryverylongextension", "application/octet-stream");
        check("x.unknownext", "application/octet-stream");
    }
}
