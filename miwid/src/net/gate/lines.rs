//! The lines of a head or of a trailer section, judged one by one as they become whole. The order of the checks matters: a
//! limit comes before anything that needs the end of the line, so that the verdict is the same however the bytes arrive.

use memchr::memchr;

use super::{
    Flaw,
    line::{self, LINE_REST, METHOD_MAX},
};

/// Empty lines that may come before a request line (RFC 9112, 2.2).
const BLANK_LINES_MAX: u8 = 2;

/// How big what a client sends may be.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub target_max: usize,
    /// Bytes of all field lines together; of a trailer section likewise.
    pub header_max: usize,
    pub fields_max: usize,
}

/// How the body of a message is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Head,
    Trailers,
}

/// Offsets are from the first byte of the section.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    section: Section,
    line: usize,
    scanned: usize,
    blank: u8,
    /// The request line has come; whether it says HTTP/1.0.
    old: Option<bool>,
    fields: usize,
    block: usize,
    length: Option<u64>,
    encoding: Option<Result<(), Flaw>>,
    upgrade: bool,
}

/// A section that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub bytes: usize,
    pub framing: Framing,
    /// The client wants to change the protocol: what follows may not be HTTP.
    pub upgrade: bool,
}

impl Lines {
    pub(super) fn head() -> Self {
        Self::new(Section::Head)
    }

    pub(super) fn trailers() -> Self {
        Self::new(Section::Trailers)
    }

    fn new(section: Section) -> Self {
        Self {
            section,
            line: 0,
            scanned: 0,
            blank: 0,
            old: None,
            fields: 0,
            block: 0,
            length: None,
            encoding: None,
            upgrade: false,
        }
    }

    /// `bytes`: all of the section so far. `None`: its end has not come.
    pub(super) fn advance(&mut self, bytes: &mut [u8], rules: &Rules) -> Result<Option<Whole>, Flaw> {
        loop {
            let end = memchr(b'\n', &bytes[self.scanned..]).map(|it| self.scanned + it);
            self.limit(&bytes[self.line..end.unwrap_or(bytes.len())], rules)?;
            let Some(end) = end else {
                self.scanned = bytes.len();
                return Ok(None);
            };
            if end == self.line || bytes[end - 1] != b'\r' {
                return Err(Flaw::Syntax("A line does not end with CR LF."));
            }
            let line = self.line..end - 1;
            (self.line, self.scanned) = (end + 1, end + 1);
            if line.is_empty() && self.awaits_opening() {
                self.blank += 1;
                if self.blank > BLANK_LINES_MAX {
                    return Err(Flaw::Syntax("There are empty lines before the request."));
                }
            } else if line.is_empty() {
                let framing = self.framing()?;
                return Ok(Some(Whole { bytes: end + 1, framing, upgrade: self.upgrade }));
            } else if self.awaits_opening() {
                let opening = line::request_line(&bytes[line.clone()], rules.target_max)?;
                if let Some(at) = opening.newer_at {
                    bytes[line.start + at] = b'1';
                }
                self.old = Some(opening.old);
            } else {
                self.block += line.len() + 2;
                self.fields += 1;
                if self.fields > rules.fields_max {
                    return Err(Flaw::Header);
                }
                self.field(&bytes[line])?;
            }
        }
    }

    fn awaits_opening(&self) -> bool {
        self.section == Section::Head && self.old.is_none()
    }

    /// `line`: as much of it as there is, with its CR when that has come.
    fn limit(&self, line: &[u8], rules: &Rules) -> Result<(), Flaw> {
        if !self.awaits_opening() {
            return if self.block + line.len() > rules.header_max { Err(Flaw::Header) } else { Ok(()) };
        }
        match line.first() {
            // Something else than HTTP is told so at once, not when its first line feed comes.
            Some(first) if *first != b'\r' && !line::is_token(*first) => Err(Flaw::Syntax("This is not HTTP.")),
            _ if line.len() > METHOD_MAX + rules.target_max + LINE_REST + 1 => Err(Flaw::Target),
            _ => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let (name, value) = line::field(line)?;
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if self.section == Section::Trailers {
            // Nothing that says how a message is framed or where it goes can come after the fact.
            let forbidden = is(b"content-length") || is(b"transfer-encoding") || is(b"host") || is(b"trailer");
            return if forbidden { Err(Flaw::Syntax("A trailer frames the message.")) } else { Ok(()) };
        }
        match name.len() {
            7 if is(b"upgrade") => self.upgrade = true,
            14 if is(b"content-length") => return self.add_length(value),
            17 if is(b"transfer-encoding") => return self.add_encoding(value),
            _ => {}
        }
        Ok(())
    }

    fn add_length(&mut self, value: &[u8]) -> Result<(), Flaw> {
        let length = line::content_length(value).ok_or(Flaw::Syntax("Content-Length is not a number."))?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Flaw::Syntax("There is more than one Content-Length.")),
        }
    }

    /// A coding that is unknown is no more than that; what stands beside it may yet be worse.
    fn add_encoding(&mut self, value: &[u8]) -> Result<(), Flaw> {
        let encoding = line::transfer_encoding(value);
        if let Err(syntax @ Flaw::Syntax(_)) = encoding {
            return Err(syntax);
        }
        match self.encoding.replace(encoding) {
            None => Ok(()),
            Some(_) => Err(Flaw::Syntax("There is more than one Transfer-Encoding.")),
        }
    }

    fn framing(&self) -> Result<Framing, Flaw> {
        let old = self.old == Some(true);
        match (self.encoding, self.length) {
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Flaw::Syntax("There are both Content-Length and Transfer-Encoding.")),
            (Some(_), None) if old => Err(Flaw::Syntax("HTTP/1.0 has no Transfer-Encoding.")),
            (Some(encoding), None) => encoding.map(|()| Framing::Chunked),
        }
    }

    /// Where the request line stands, if one has begun.
    pub(super) fn opening<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let rest = &bytes[usize::from(self.blank.min(BLANK_LINES_MAX)) * 2..];
        let end = memchr(b'\r', rest).or(memchr(b'\n', rest)).unwrap_or(rest.len());
        &rest[..end]
    }
}
