//! Raw HTTP/1.1 requests and what RFC 9110 and 9112 (and the gate, where they leave a choice) make of them. `@` in a
//! request stands for the site's host, and a byte 1 for an `@`.

/// What must become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// 200 from files and upstream, and the connection goes on.
    Served,
    /// 200 from both, and the connection ends.
    Last,
    /// 200 from the upstream; files refuse the method and may end the connection.
    Upstream,
    /// This status from both before any upstream hears of it, and the connection ends.
    Refused(u16),
    /// The head is fine and the body is not: an error, and the connection ends.
    Broken,
    /// This status from both, and the connection goes on.
    Answered(u16),
}

pub(super) struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub expected: Expected,
}

use Expected::{Answered, Broken, Last, Refused, Served, Upstream};

/// Request lines, each followed by a Host.
const LINES: &[(&str, &str, Expected)] = &[
    ("a plain request", "GET /a HTTP/1.1", Served),
    ("HEAD", "HEAD /a HTTP/1.1", Served),
    ("a query", "GET /a?b=c&d HTTP/1.1", Served),
    ("an empty query", "GET /a? HTTP/1.1", Served),
    ("a query with a question mark", "GET /a?b?c HTTP/1.1", Served),
    ("a query with a slash", "GET /a?/../b HTTP/1.1", Served),
    ("an escaped letter", "GET /%61 HTTP/1.1", Served),
    ("absolute form", "GET http://@/a HTTP/1.1", Served),
    ("absolute form with a loud scheme", "GET HTTP://@/a HTTP/1.1", Served),
    ("absolute form with https", "GET https://@/a HTTP/1.1", Served),
    ("a newer minor version", "GET /a HTTP/1.2", Served),
    ("the newest minor version", "GET /a HTTP/1.9", Served),
    ("HTTP/1.0", "GET /a HTTP/1.0", Last),
    ("OPTIONS of the server", "OPTIONS * HTTP/1.1", Answered(200)),
    ("absolute form of another host", "GET http://other.example/a HTTP/1.1", Refused(400)),
    ("absolute form without a host", "GET http:///a HTTP/1.1", Refused(400)),
    ("absolute form with a user", "GET http://user\x01@/a HTTP/1.1", Refused(400)),
    ("absolute form of another scheme", "GET ftp://@/a HTTP/1.1", Refused(400)),
    ("absolute form of a file", "GET file:///etc/passwd HTTP/1.1", Refused(400)),
    ("a scheme alone", "GET http: HTTP/1.1", Refused(400)),
    ("authority form with GET", "GET @:80 HTTP/1.1", Refused(400)),
    ("CONNECT", "CONNECT @:443 HTTP/1.1", Refused(501)),
    ("CONNECT with a path", "CONNECT /a HTTP/1.1", Refused(400)),
    ("CONNECT without a port", "CONNECT @ HTTP/1.1", Refused(400)),
    ("an asterisk with GET", "GET * HTTP/1.1", Refused(400)),
    ("an asterisk with POST", "POST * HTTP/1.1", Refused(400)),
    ("two asterisks", "OPTIONS ** HTTP/1.1", Refused(400)),
    ("no slash", "GET a HTTP/1.1", Refused(400)),
    ("a query alone", "GET ?a HTTP/1.1", Refused(400)),
    ("a fragment", "GET /a#b HTTP/1.1", Refused(400)),
    ("a fragment in the query", "GET /a?b#c HTTP/1.1", Refused(400)),
    ("an empty target", "GET  HTTP/1.1", Refused(400)),
    ("two spaces before the target", "GET  /a HTTP/1.1", Refused(400)),
    ("two spaces after the target", "GET /a  HTTP/1.1", Refused(400)),
    ("a space in the target", "GET /a b HTTP/1.1", Refused(400)),
    ("a space at the end", "GET /a HTTP/1.1 ", Refused(400)),
    ("a space at the start", " GET /a HTTP/1.1", Refused(400)),
    ("a tab at the start", "\tGET /a HTTP/1.1", Refused(400)),
    ("a tab before the target", "GET\t/a HTTP/1.1", Refused(400)),
    ("a tab after the target", "GET /a\tHTTP/1.1", Refused(400)),
    ("a tab in the target", "GET /a\tb HTTP/1.1", Refused(400)),
    ("a form feed in the request line", "GET /a\x0cHTTP/1.1", Refused(400)),
    ("a vertical tab in the request line", "GET\x0b/a HTTP/1.1", Refused(400)),
    ("a bare CR in the target", "GET /a\rb HTTP/1.1", Refused(400)),
    ("NUL in the target", "GET /a\0 HTTP/1.1", Refused(400)),
    ("NUL in the method", "G\0T /a HTTP/1.1", Refused(400)),
    ("DEL in the target", "GET /a\x7f HTTP/1.1", Refused(400)),
    ("an angle bracket in the target", "GET /<a HTTP/1.1", Refused(400)),
    ("a letter beyond ASCII in the target", "GET /\u{e4} HTTP/1.1", Refused(400)),
    ("a letter beyond ASCII in the query", "GET /a?\u{e4} HTTP/1.1", Refused(400)),
    ("a letter beyond ASCII in the method", "G\u{e4}T /a HTTP/1.1", Refused(400)),
    ("a quote in the query", "GET /a?\" HTTP/1.1", Refused(400)),
    ("no version", "GET /a", Refused(400)),
    ("no version but its space", "GET /a ", Refused(400)),
    ("no target", "GET HTTP/1.1", Refused(400)),
    ("a method alone", "GET", Refused(400)),
    ("a quiet version", "GET /a http/1.1", Refused(400)),
    ("half a version", "GET /a HTTP/1", Refused(400)),
    ("a version with a point only", "GET /a HTTP/1.", Refused(400)),
    ("a version with a long minor", "GET /a HTTP/1.10", Refused(400)),
    ("a version with a long major", "GET /a HTTP/01.1", Refused(400)),
    ("a version with a comma", "GET /a HTTP/1,1", Refused(400)),
    ("another protocol", "GET /a HTTPS/1.1", Refused(400)),
    ("a version with a letter", "GET /a HTTP/1.x", Refused(400)),
    ("a signed version", "GET /a HTTP/+1.1", Refused(400)),
    ("HTTP/2.0", "GET /a HTTP/2.0", Refused(505)),
    ("HTTP/3.0", "GET /a HTTP/3.0", Refused(505)),
    ("HTTP/0.9", "GET /a HTTP/0.9", Refused(505)),
    ("HTTP/9.9", "GET /a HTTP/9.9", Refused(505)),
    ("a method with a colon", "GE:T /a HTTP/1.1", Refused(400)),
    ("a method in brackets", "(GET) /a HTTP/1.1", Refused(400)),
    ("a method in quotes", "\"GET\" /a HTTP/1.1", Refused(400)),
    ("a method with a slash", "GET/ /a HTTP/1.1", Refused(400)),
    ("an unknown method", "BREW /a HTTP/1.1", Upstream),
    ("a quiet method", "get /a HTTP/1.1", Upstream),
    ("a method of marks", "M-SEARCH /a HTTP/1.1", Upstream),
    ("DELETE without a body", "DELETE /a HTTP/1.1", Upstream),
];

/// Field lines behind `GET /a HTTP/1.1` and a Host.
const FIELDS: &[(&str, &str, Expected)] = &[
    ("an empty value", "x:\r\n", Served),
    ("white space around a value", "x: \t a b \t \r\n", Served),
    ("no white space", "x:y\r\n", Served),
    ("a colon in a value", "x: a:b\r\n", Served),
    ("a tab in a value", "x: a\tb\r\n", Served),
    ("a letter beyond ASCII in a value", "x: \u{e4}\r\n", Served),
    ("a name of marks", "!#$%&'*+-.^`|~: 1\r\n", Served),
    ("an underscored name", "a_b: 1\r\n", Served),
    ("an underscored length", "content_length: 7\r\n", Served),
    ("an underscored coding", "transfer_encoding: chunked\r\n", Served),
    ("the same field twice", "x: 1\r\nx: 2\r\n", Served),
    ("Content-Length: 0", "content-length: 0\r\n", Served),
    ("Content-Length with zeros before", "content-length: 000\r\n", Served),
    ("Content-Length with white space around", "content-length: \t0 \r\n", Served),
    ("Connection: close", "connection: close\r\n", Last),
    ("Connection: Close among others", "connection: x, Close\r\n", Last),
    ("Connection: keep-alive", "connection: keep-alive\r\n", Served),
    ("Connection names Host", "connection: host\r\n", Served),
    ("TE", "te: trailers\r\nconnection: te\r\n", Served),
    ("Upgrade without Connection", "upgrade: websocket\r\n", Served),
    ("Upgrade to h2c", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n", Served),
    ("Expect without a body", "expect: 100-continue\r\n", Served),
    ("a loud Expect without a body", "expect: 100-Continue\r\n", Served),
    ("an unknown Expect", "expect: 200-ok\r\n", Refused(417)),
    ("two expectations", "expect: 100-continue, x\r\n", Refused(417)),
    ("an unknown Expect in a second line", "expect: 100-continue\r\nexpect: y\r\n", Refused(417)),
    ("white space before the colon", "x : 1\r\n", Refused(400)),
    ("a tab before the colon", "x\t: 1\r\n", Refused(400)),
    ("an empty name", ": 1\r\n", Refused(400)),
    ("no colon", "x\r\n", Refused(400)),
    ("a space in a name", "x y: 1\r\n", Refused(400)),
    ("folded with a space", "x: 1\r\n 2\r\n", Refused(400)),
    ("folded with a tab", "x: 1\r\n\t2\r\n", Refused(400)),
    ("folded to nothing", "x: 1\r\n \r\n", Refused(400)),
    ("a space before a name", " x: 1\r\n", Refused(400)),
    ("a bare LF", "x: 1\n", Refused(400)),
    ("a bare LF before a field", "x: 1\ny: 2\r\n", Refused(400)),
    ("a bare CR in a value", "x: 1\r2\r\n", Refused(400)),
    ("a bare CR before a field", "x: 1\rtransfer-encoding: chunked\r\n", Refused(400)),
    ("CR CR LF", "x: 1\r\r\n", Refused(400)),
    ("a bare CR in a name", "x\ry: 1\r\n", Refused(400)),
    ("NUL in a value", "x: a\0b\r\n", Refused(400)),
    ("NUL in a name", "x\0: 1\r\n", Refused(400)),
    ("a bell in a value", "x: \x07\r\n", Refused(400)),
    ("an escape in a value", "x: \x1b[0m\r\n", Refused(400)),
    ("DEL in a value", "x: \x7f\r\n", Refused(400)),
    ("a letter beyond ASCII in a name", "\u{e4}: 1\r\n", Refused(400)),
    ("a bracket in a name", "x(: 1\r\n", Refused(400)),
    ("a comma in a name", "x,y: 1\r\n", Refused(400)),
    ("a semicolon in a name", "x;: 1\r\n", Refused(400)),
    ("a slash in a name", "x/y: 1\r\n", Refused(400)),
    ("an at sign in a name", "x\x01: 1\r\n", Refused(400)),
    ("a brace in a name", "{x}: 1\r\n", Refused(400)),
    ("a backslash in a name", "x\\y: 1\r\n", Refused(400)),
    ("a quote in a name", "\"x\": 1\r\n", Refused(400)),
    ("a second Host", "host: @\r\n", Refused(400)),
    ("a second, other Host", "host: other.example\r\n", Refused(400)),
    ("a negative length", "content-length: -1\r\n", Refused(400)),
    ("a signed length", "content-length: +1\r\n", Refused(400)),
    ("a hexadecimal length", "content-length: 0x1\r\n", Refused(400)),
    ("a length of hexadecimal digits", "content-length: a\r\n", Refused(400)),
    ("an empty length", "content-length:\r\n", Refused(400)),
    ("a length with a space within", "content-length: 1 1\r\n", Refused(400)),
    ("a length with a point", "content-length: 1.0\r\n", Refused(400)),
    ("a length with a comma", "content-length: 0,\r\n", Refused(400)),
    ("a list of equal lengths", "content-length: 0, 0\r\n", Refused(400)),
    ("a list of lengths", "content-length: 0, 5\r\n", Refused(400)),
    ("two equal lengths", "content-length: 0\r\ncontent-length: 0\r\n", Refused(400)),
    ("two lengths", "content-length: 0\r\ncontent-length: 5\r\n", Refused(400)),
    ("a length beyond 63 bits", "content-length: 9223372036854775808\r\n", Refused(400)),
    ("a length beyond 64 bits", "content-length: 18446744073709551616\r\n", Refused(400)),
    ("a length of very many digits", "content-length: 00000000000000000000000000\r\n", Refused(400)),
    ("a length with an exponent", "content-length: 1e1\r\n", Refused(400)),
    ("a length with an underscore", "content-length: 1_0\r\n", Refused(400)),
    ("a length in quotes", "content-length: \"1\"\r\n", Refused(400)),
    ("a length too large for us", "content-length: 99999999999\r\n", Refused(413)),
    ("length and coding", "content-length: 5\r\ntransfer-encoding: chunked\r\n", Refused(400)),
    ("coding and length", "transfer-encoding: chunked\r\ncontent-length: 5\r\n", Refused(400)),
    ("coding and no length", "transfer-encoding: chunked\r\ncontent-length: 0\r\n", Refused(400)),
    ("length and an unknown coding", "content-length: 5\r\ntransfer-encoding: x\r\n", Refused(400)),
    ("gzip", "transfer-encoding: gzip\r\n", Refused(501)),
    ("identity", "transfer-encoding: identity\r\n", Refused(501)),
    ("gzip, chunked", "transfer-encoding: gzip, chunked\r\n", Refused(501)),
    ("chunked, gzip", "transfer-encoding: chunked, gzip\r\n", Refused(400)),
    ("chunked, identity", "transfer-encoding: chunked, identity\r\n", Refused(400)),
    ("xchunked", "transfer-encoding: xchunked\r\n", Refused(501)),
    ("chunked twice in a list", "transfer-encoding: chunked, chunked\r\n", Refused(400)),
    ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Refused(400)),
    (
        "chunked and identity in two lines",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        Refused(400),
    ),
    ("an empty coding", "transfer-encoding:\r\n", Refused(400)),
    ("chunked with a comma after", "transfer-encoding: chunked,\r\n", Refused(400)),
    ("chunked with a comma before", "transfer-encoding: ,chunked\r\n", Refused(400)),
    ("chunked with a parameter", "transfer-encoding: chunked;q=1\r\n", Refused(400)),
    ("chunked in quotes", "transfer-encoding: \"chunked\"\r\n", Refused(400)),
    ("chunked with a vertical tab", "transfer-encoding: \x0bchunked\r\n", Refused(400)),
    ("chunked with NUL", "transfer-encoding: chunked\0\r\n", Refused(400)),
    ("chunked with a space within", "transfer-encoding: chu nked\r\n", Refused(400)),
    ("coding with a space before its colon", "transfer-encoding : chunked\r\n", Refused(400)),
    ("folded coding", "transfer-encoding:\r\n chunked\r\n", Refused(400)),
];

/// Chunked bodies behind `POST /a HTTP/1.1`.
const BODIES: &[(&str, &str, Expected)] = &[
    ("an empty chunked body", "0\r\n\r\n", Upstream),
    ("one chunk", "5\r\nhello\r\n0\r\n\r\n", Upstream),
    ("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Upstream),
    ("a loud size", "A\r\n0123456789\r\n0\r\n\r\n", Upstream),
    ("a quiet size", "a\r\n0123456789\r\n0\r\n\r\n", Upstream),
    ("zeros before a size", "0005\r\nhello\r\n000\r\n\r\n", Upstream),
    ("an extension", "5;a\r\nhello\r\n0;b\r\n\r\n", Upstream),
    ("an extension with a value", "5;a=b;c=\"d e\"\r\nhello\r\n0\r\n\r\n", Upstream),
    ("a trailer", "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n", Upstream),
    (
        "a body that looks like a request",
        "2f\r\nGET /smuggled HTTP/1.1\r\nhost: smuggled.test\r\n\r\n\r\n0\r\n\r\n",
        Upstream,
    ),
    ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", Broken),
    ("a signed size", "+5\r\nhello\r\n0\r\n\r\n", Broken),
    ("a negative size", "-5\r\nhello\r\n0\r\n\r\n", Broken),
    ("a space before a size", " 5\r\nhello\r\n0\r\n\r\n", Broken),
    ("a space after a size", "5 \r\nhello\r\n0\r\n\r\n", Broken),
    ("a tab after a size", "5\t\r\nhello\r\n0\r\n\r\n", Broken),
    ("a space before an extension", "5 ;a\r\nhello\r\n0\r\n\r\n", Broken),
    ("an empty size", "\r\nhello\r\n0\r\n\r\n", Broken),
    ("no size but an extension", ";a\r\nhello\r\n0\r\n\r\n", Broken),
    ("a size with a letter", "5g\r\nhello\r\n0\r\n\r\n", Broken),
    ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n", Broken),
    ("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", Broken),
    ("a size with an LF", "5\nhello\r\n0\r\n\r\n", Broken),
    ("a size with a CR", "5\rhello\r\n0\r\n\r\n", Broken),
    ("a size with CR CR LF", "5\r\r\nhello\r\n0\r\n\r\n", Broken),
    ("an extension with an LF", "5;a\nhello\r\n0\r\n\r\n", Broken),
    ("an extension with a CR", "5;a\rb\r\nhello\r\n0\r\n\r\n", Broken),
    ("an extension with NUL", "5;\0\r\nhello\r\n0\r\n\r\n", Broken),
    ("data with an LF behind", "5\r\nhello\n0\r\n\r\n", Broken),
    ("data with nothing behind", "5\r\nhello0\r\n\r\n", Broken),
    ("longer data than said", "4\r\nhello\r\n0\r\n\r\n", Broken),
    ("shorter data than said", "6\r\nhello\r\n0\r\n\r\n", Broken),
    ("the end with an LF", "5\r\nhello\r\n0\n\r\n", Broken),
    ("the end with an LF only", "5\r\nhello\r\n0\r\n\n", Broken),
    ("a trailer with a space before its colon", "0\r\nx : 1\r\n\r\n", Broken),
    ("a folded trailer", "0\r\nx: 1\r\n 2\r\n\r\n", Broken),
    ("a trailer without a colon", "0\r\nx\r\n\r\n", Broken),
    ("a trailer with NUL", "0\r\nx: \0\r\n\r\n", Broken),
    ("a trailer that is a length", "0\r\ncontent-length: 5\r\n\r\n", Broken),
    ("a trailer that is a coding", "0\r\ntransfer-encoding: chunked\r\n\r\n", Broken),
    ("a trailer that is a Host", "0\r\nhost: other.example\r\n\r\n", Broken),
];

/// Whole requests.
const WHOLE: &[(&str, &str, Expected)] = &[
    ("no Host", "GET /a HTTP/1.1\r\n\r\n", Refused(400)),
    ("an empty Host", "GET /a HTTP/1.1\r\nhost:\r\n\r\n", Refused(400)),
    ("a Host with a path", "GET /a HTTP/1.1\r\nhost: @/x\r\n\r\n", Refused(400)),
    ("a Host with a user", "GET /a HTTP/1.1\r\nhost: u\x01@\r\n\r\n", Refused(400)),
    ("a Host with a space", "GET /a HTTP/1.1\r\nhost: @ x\r\n\r\n", Refused(400)),
    ("a list of Hosts", "GET /a HTTP/1.1\r\nhost: @, @\r\n\r\n", Refused(400)),
    ("a Host with a bad port", "GET /a HTTP/1.1\r\nhost: @:x\r\n\r\n", Refused(400)),
    ("a Host beyond ASCII", "GET /a HTTP/1.1\r\nhost: \u{e4}\r\n\r\n", Refused(400)),
    ("a Host with a port", "GET /a HTTP/1.1\r\nhost: @:80\r\n\r\n", Served),
    ("a loud name of Host", "GET /a HTTP/1.1\r\nHOST: @\r\n\r\n", Served),
    ("a final dot", "GET /a HTTP/1.1\r\nhost: @.\r\n\r\n", Served),
    ("one empty line before", "\r\nGET /a HTTP/1.1\r\nhost: @\r\n\r\n", Served),
    ("two empty lines before", "\r\n\r\nGET /a HTTP/1.1\r\nhost: @\r\n\r\n", Served),
    ("three empty lines before", "\r\n\r\n\r\nGET /a HTTP/1.1\r\nhost: @\r\n\r\n", Refused(400)),
    ("a bare LF before", "\nGET /a HTTP/1.1\r\nhost: @\r\n\r\n", Refused(400)),
    ("LF everywhere", "GET /a HTTP/1.1\nhost: @\n\n", Refused(400)),
    ("an LF at the very end", "GET /a HTTP/1.1\r\nhost: @\r\n\n", Refused(400)),
    ("an LF after the request line", "GET /a HTTP/1.1\nhost: @\r\n\r\n", Refused(400)),
    ("a TLS greeting", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", Refused(400)),
    ("a folded first field", "GET /a HTTP/1.1\r\n host: @\r\n\r\n", Refused(400)),
    ("keep-alive of HTTP/1.0", "GET /a HTTP/1.0\r\nhost: @\r\nconnection: keep-alive\r\n\r\n", Served),
    (
        "a coding with HTTP/1.0",
        "POST /a HTTP/1.0\r\nhost: @\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("GET with a body", "GET /a HTTP/1.1\r\nhost: @\r\ncontent-length: 5\r\n\r\nhello", Served),
    (
        "GET with a body that is a request",
        "GET /a HTTP/1.1\r\nhost: @\r\ncontent-length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        Served,
    ),
    ("HEAD with a body", "HEAD /a HTTP/1.1\r\nhost: @\r\ncontent-length: 5\r\n\r\nhello", Served),
    (
        "GET with chunks",
        "GET /a HTTP/1.1\r\nhost: @\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Served,
    ),
    ("POST with a length", "POST /a HTTP/1.1\r\nhost: @\r\ncontent-length: 5\r\n\r\nhello", Upstream),
    ("POST without a body", "POST /a HTTP/1.1\r\nhost: @\r\n\r\n", Upstream),
    ("PUT with a loud coding", "PUT /a HTTP/1.1\r\nhost: @\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n", Upstream),
];

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |group: &str, name: &str, text: String, expected| {
        cases.push(Case { name: format!("{group}: {name}"), bytes: text.into_bytes(), expected });
    };
    for (name, line, expected) in LINES {
        add("line", name, format!("{line}\r\nhost: @\r\n\r\n"), *expected);
    }
    for (name, fields, expected) in FIELDS {
        add("field", name, format!("GET /a HTTP/1.1\r\nhost: @\r\n{fields}\r\n"), *expected);
    }
    for (name, body, expected) in BODIES {
        add(
            "body",
            name,
            format!("POST /a HTTP/1.1\r\nhost: @\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
            *expected,
        );
    }
    for (name, text, expected) in WHOLE {
        add("whole", name, (*text).to_owned(), *expected);
    }
    add("limit", "a long target", format!("GET /{} HTTP/1.1\r\nhost: @\r\n\r\n", "x".repeat(8192)), Refused(414));
    add("limit", "an endless target", format!("GET /{}", "x".repeat(70_000)), Refused(414));
    add("limit", "a long method", format!("{} /a HTTP/1.1\r\nhost: @\r\n\r\n", "X".repeat(65)), Refused(501));
    let get = |fields: String| format!("GET /a HTTP/1.1\r\nhost: @\r\n{fields}\r\n");
    add("limit", "a long field", get(format!("x: {}\r\n", "x".repeat(32 << 10))), Refused(431));
    add("limit", "a long name", get(format!("{}: x\r\n", "x".repeat(2000))), Refused(431));
    add("limit", "many fields", get("x: 1\r\n".repeat(100)), Refused(431));
    add("limit", "as many fields as may be", get("x: 1\r\n".repeat(98)), Served);
    add("limit", "an endless field", get(format!("x: {}", "x".repeat(64 << 10))), Refused(431));
    let post = |body: String| format!("POST /a HTTP/1.1\r\nhost: @\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    add("limit", "many trailers", post(format!("0\r\n{}\r\n", "x: 1\r\n".repeat(101))), Broken);
    add("limit", "a long extension", post(format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000))), Broken);
    cases
}
