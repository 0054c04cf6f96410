//! From a request to a file's answer.
//!
//! The order is: method, path, disk, conditions, range. What a newcomer would get wrong: a `path` below a route and the
//! `uri` of the request may differ (`strip_prefix`), and only the `uri` may go into a redirect.

use std::{
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};

use super::{
    body::{FileBody, Segment, read_whole},
    cache::{BYTES_MAX, Cache, Hot},
    conditional::{Validators, Verdict, judge},
    failures::{
        ALLOW, forbidden, method_failure, not_found, open_failure, precondition_failure, range_failure, read_failure,
        refused,
    },
    listing::{self, Entry},
    locate::{Hidden, Located, locate},
    mime,
    multipart::{boundary, multipart},
    open::{Found, OpenError, Opened, Tree},
    range::{Slice, Wanted, wanted},
    siblings::{Sibling, Siblings},
    variants,
};
use crate::{
    encoding::{Accepted, Coding, Rules, coded, forbids_transformation},
    exchange::{Body, Failure, Offer, Stored, reason},
};

const VARY_ACCEPT: HeaderValue = HeaderValue::from_static("accept");
/// Room for what is said of a file, and for what every answer gets.
const FIELDS: usize = 12;
const ACCEPTS_BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Up to here a file is read before its head is sent: one write, and no stream to drive.
const INLINE_BYTES: u64 = 64 << 10;

/// One configured root, built when the snapshot is built. Workers share it.
pub struct Root {
    /// No two roots of a process have the same.
    id: u64,
    tree: Arc<Tree>,
    hidden: Arc<Hidden>,
    index: Vec<String>,
    listing: bool,
    spa_fallback: Option<String>,
    cache_control: Option<HeaderValue>,
    siblings: Siblings,
    compression: Option<Arc<Rules>>,
}

/// What a request asks of a root.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

/// What a path led to.
enum Served {
    File {
        opened: Opened,
        path: Vec<u8>,
    },
    /// The application's page in place of what is not there.
    Fallback {
        opened: Opened,
        path: Vec<u8>,
    },
    Listing {
        directory: OwnedFd,
        relative: Vec<u8>,
    },
    Redirect(HeaderValue),
}

// === impl Root ===

impl Root {
    /// A root that does not exist is a warning of the caller, not an error: it may appear later (404 until then).
    pub fn new(config: &config::Files) -> Self {
        static ROOTS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: ROOTS.fetch_add(1, Relaxed),
            tree: Arc::new(Tree::new(&config.root, config.symlinks)),
            hidden: Arc::new(Hidden::new(&config.hidden)),
            index: config.index.clone(),
            listing: config.listing,
            spa_fallback: config.spa_fallback.as_ref().map(|path| path.trim_start_matches('/').to_owned()),
            cache_control: config.cache_control.as_deref().and_then(|value| HeaderValue::from_str(value).ok()),
            siblings: Siblings::new(config.precompressed),
            compression: None,
        }
    }

    /// Files that these rules cover are also kept as well encoded as can be, once they were asked for.
    pub fn with_compression(mut self, rules: Option<Arc<Rules>>) -> Self {
        self.siblings = self.siblings.preferring(rules.as_deref());
        let transforms = |_: &Arc<Rules>| !self.cache_control.as_ref().is_some_and(forbids_transformation);
        self.compression = rules.filter(transforms);
        self
    }

    /// `path` is the part of the URI's path below the route (`strip_prefix`), still percent-encoded, beginning with `/`;
    /// `uri` is the request's own (for redirects, which keep the query). `offer` is set when the answer is a whole file
    /// that may be used again.
    pub async fn serve(
        &self,
        cache: &Cache,
        offer: &mut Option<Offer>,
        Sought { method, uri, path, headers }: Sought<'_>,
    ) -> Result<Response<Body>, Failure> {
        match *method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(options()),
            _ => return Err(method_failure()),
        }
        let located = locate(path).map_err(refused)?;
        if let Some(hot) = cache.fresh(self.id, &located) {
            self.read_ahead(&hot).await?;
            return self.answer_file(cache, method, headers, hot, offer).await;
        }
        let served = if self.hidden.hides(&located) { Err(not_found()) } else { self.resolve(&located, uri) };
        match self.or_fallback(served, &located, headers)? {
            Served::File { opened, path } => {
                let hot = cache.found(self.id, &located, opened, path);
                self.answer_file(cache, method, headers, hot, offer).await
            }
            Served::Fallback { opened, path } => {
                let hot = Rc::new(Hot::passing(opened, path));
                let mut response = self.answer_file(cache, method, headers, hot, &mut None).await?;
                // Whoever accepts something else gets a 404 here, and a cache between us must know.
                response.headers_mut().append(header::VARY, VARY_ACCEPT);
                Ok(response)
            }
            Served::Listing { directory, relative } => {
                let entries = self.entries(directory, relative).await?;
                Ok(list(method, uri, headers, &entries))
            }
            Served::Redirect(location) => Ok(redirect(location)),
        }
    }

    /// What is asked for again within a moment is worth the memory.
    async fn read_ahead(&self, hot: &Hot) -> Result<(), Failure> {
        if hot.stored.length <= BYTES_MAX && hot.stored.bytes().is_none() {
            read(hot).await?;
        }
        Ok(())
    }

    fn resolve(&self, located: &Located, uri: &Uri) -> Result<Served, Failure> {
        match self.tree.find(&located.relative).map_err(open_failure)? {
            Found::File(_) if located.slash => Err(not_found()),
            Found::File(opened) => Ok(Served::File { opened, path: located.relative.clone() }),
            Found::Directory(_) if !uri.path().ends_with('/') => with_slash(uri).map(Served::Redirect),
            Found::Directory(directory) => self.resolve_directory(located, directory),
        }
    }

    fn resolve_directory(&self, located: &Located, directory: OwnedFd) -> Result<Served, Failure> {
        for index in &self.index {
            let mut path = located.relative.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(index.as_bytes());
            match self.tree.find(&path) {
                Ok(Found::File(opened)) => return Ok(Served::File { opened, path }),
                Ok(Found::Directory(_)) | Err(OpenError::NotFound) => {}
                Err(error) => return Err(open_failure(error)),
            }
        }
        match &self.spa_fallback {
            _ if self.listing => Ok(Served::Listing { directory, relative: located.relative.clone() }),
            // The application's page stands in for a missing index, so this is something that was not found.
            Some(_) => Err(not_found()),
            None => Err(forbidden()),
        }
    }

    /// A page of a single-page application, when nothing else was found and a page was asked for.
    fn or_fallback(
        &self,
        served: Result<Served, Failure>,
        located: &Located,
        headers: &HeaderMap,
    ) -> Result<Served, Failure> {
        let (Err(failure), Some(fallback)) = (&served, &self.spa_fallback) else {
            return served;
        };
        if failure.status != StatusCode::NOT_FOUND || !wants_page(located, headers) || self.hidden.hides(located) {
            return served;
        }
        match self.tree.find(fallback.as_bytes()) {
            Ok(Found::File(opened)) => Ok(Served::Fallback { opened, path: fallback.clone().into_bytes() }),
            Ok(Found::Directory(_)) | Err(_) => served,
        }
    }

    async fn answer_file(
        &self,
        cache: &Cache,
        method: &Method,
        headers: &HeaderMap,
        original: Rc<Hot>,
        offer: &mut Option<Offer>,
    ) -> Result<Response<Body>, Failure> {
        let (hot, sibling) = self.siblings.choose(cache, self.id, &self.tree, &original, headers);
        let size = hot.stored.length;
        let asked = match judge(method, headers, &hot.validators) {
            Verdict::PreconditionFailed => return Err(precondition_failure()),
            Verdict::NotModified => {
                let mut response = self.not_modified(&hot.validators);
                sibling.mark_unmodified(response.headers_mut());
                return Ok(response);
            }
            Verdict::Proceed if *method == Method::GET => asked_range(headers, size),
            Verdict::Proceed | Verdict::ProceedWhole => Wanted::Whole,
        };
        let variant = self.variant(&asked, &hot, sibling, headers);
        let is_whole = *method == Method::GET && matches!(asked, Wanted::Whole) && hot.is_settled();
        let mut response = match asked {
            Wanted::Unsatisfiable => return Err(range_failure(size)),
            _ if variant.is_some() => Response::new(Body::Empty),
            _ if *method == Method::HEAD => sized(Body::Empty, size),
            Wanted::Whole => whole(&hot, size).await?,
            Wanted::One(slice) => partial(&hot, slice, size).await?,
            Wanted::Several(slices) => several(&hot, &slices, size, &original.kind),
        };
        let until = original.fresh_until().min(hot.fresh_until());
        let offered = |stored| is_whole.then_some(Offer { stored, until });
        *offer = offered(hot.stored.clone());
        let head = response.headers_mut();
        head.reserve(FIELDS);
        head.entry(header::CONTENT_TYPE).or_insert_with(|| original.kind.clone());
        head.insert(header::ACCEPT_RANGES, ACCEPTS_BYTES);
        self.stamp(head, &hot.validators);
        sibling.mark(head);
        if let Some((coding, bytes)) = variant {
            coded(head, coding);
            head.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            *offer = offered(Rc::new(Stored::of_bytes(bytes.clone())));
            if *method == Method::GET {
                *response.body_mut() = Body::from(bytes);
            }
        }
        Ok(response)
    }

    /// The whole file in another coding, when that is there already.
    fn variant(&self, asked: &Wanted, hot: &Hot, sibling: Sibling, headers: &HeaderMap) -> Option<(Coding, Bytes)> {
        let rules = self.compression.as_deref().filter(|it| it.covers(hot.kind.as_bytes()))?;
        let plain = !matches!(sibling, Sibling::Taken(_)) && matches!(asked, Wanted::Whole);
        if !plain || headers.contains_key(header::RANGE) || hot.stored.length < rules.bytes_min() {
            return None;
        }
        let coding = Accepted::of(headers).best(rules.codings())?;
        Some((coding, variants::variant(&hot.opened, coding)?))
    }

    fn not_modified(&self, validators: &Validators) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.stamp(response.headers_mut(), validators);
        response
    }

    /// What a 200, a 206 and a 304 have in common. `Date` is the connection's affair.
    fn stamp(&self, head: &mut HeaderMap, validators: &Validators) {
        head.insert(header::ETAG, validators.etag.clone());
        if let Some(date) = &validators.last_modified {
            head.insert(header::LAST_MODIFIED, date.clone());
        }
        if let Some(value) = &self.cache_control {
            head.insert(header::CACHE_CONTROL, value.clone());
        }
    }

    /// Off the worker: a directory may be large, and every name costs a system call.
    async fn entries(&self, directory: OwnedFd, relative: Vec<u8>) -> Result<Vec<Entry>, Failure> {
        let (tree, hidden) = (self.tree.clone(), self.hidden.clone());
        let failed = |detail: String| {
            Failure::server(StatusCode::INTERNAL_SERVER_ERROR, reason::INTERNAL, "The directory could not be read.")
                .detail(detail)
        };
        tokio::task::spawn_blocking(move || listing::read(&tree, &hidden, &relative, directory))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|errno| failed(errno.to_string()))
    }
}

// --- bodies ---

async fn whole(hot: &Hot, size: u64) -> Result<Response<Body>, Failure> {
    slice_body(hot, Slice { offset: 0, length: size }).await.map(|body| sized(body, size))
}

async fn partial(hot: &Hot, slice: Slice, size: u64) -> Result<Response<Body>, Failure> {
    let body = slice_body(hot, slice).await?;
    let mut response = sized(body, slice.length);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = format!("bytes {}-{}/{size}", slice.offset, slice.last());
    if let Ok(range) = HeaderValue::try_from(range) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

fn several(hot: &Hot, slices: &[Slice], size: u64, kind: &HeaderValue) -> Response<Body> {
    let made = multipart(slices, size, kind, &boundary());
    let length = made.segments.iter().map(Segment::length).sum();
    let mut response = sized(Body::stream(FileBody::new(hot.opened.file.clone(), made.segments)), length);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response.headers_mut().insert(header::CONTENT_TYPE, made.content_type);
    response
}

async fn slice_body(hot: &Hot, slice: Slice) -> Result<Body, Failure> {
    let (file, length) = (&hot.opened.file, hot.stored.length);
    let in_memory = |bytes: &Bytes| bytes.slice(slice.offset as usize..(slice.offset + slice.length) as usize);
    if let Some(bytes) = hot.stored.bytes() {
        return Ok(Body::from(in_memory(bytes)));
    }
    if slice.length > INLINE_BYTES {
        let segment = Segment::File { offset: slice.offset, length: slice.length };
        return Ok(Body::stream(FileBody::new(file.clone(), [segment])));
    }
    if slice.length == length {
        return read(hot).await.map(Body::from);
    }
    read_whole(file, slice.offset, slice.length).await.map(Body::from).map_err(read_failure)
}

/// The whole file; it is kept when it is sure that no other write came between.
async fn read(hot: &Hot) -> Result<Bytes, Failure> {
    let bytes = read_whole(&hot.opened.file, 0, hot.stored.length).await.map_err(read_failure)?;
    if hot.is_settled() && hot.is_unchanged() {
        hot.stored.keep(bytes.clone());
    }
    Ok(bytes)
}

fn sized(body: Body, length: u64) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn list(method: &Method, uri: &Uri, headers: &HeaderMap, entries: &[Entry]) -> Response<Body> {
    let format = listing::format(headers);
    let text = format.render(uri.path(), entries);
    let length = text.len() as u64;
    let body = if *method == Method::HEAD { Body::Empty } else { Body::from(text) };
    let mut response = sized(body, length);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, format.content_type());
    head.insert(header::VARY, VARY_ACCEPT);
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

// --- what the request says ---

/// Two `Range` fields are not a range.
fn asked_range(headers: &HeaderMap, size: u64) -> Wanted {
    let mut values = headers.get_all(header::RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => wanted(value.as_bytes(), size),
        _ => Wanted::Whole,
    }
}

/// A browser that navigates names `text/html`; a script's `fetch` says `*/*`, so there the name decides: a missing
/// `app.js` must stay a 404.
fn wants_page(located: &Located, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).map_or(&b"*/*"[..], |value| value.as_bytes());
    let names = |range: &[u8]| accept.windows(range.len()).any(|window| window.eq_ignore_ascii_case(range));
    names(b"text/html") || (names(b"*/*") && mime::extension(&located.relative).is_none())
}

// --- answers without a file ---

fn options() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

fn redirect(location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::from("Moved.\n"));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let head = response.headers_mut();
    head.insert(header::LOCATION, location);
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The path of the request with one slash in front, however many it had: `//evil.example/` would be another host.
fn with_slash(uri: &Uri) -> Result<HeaderValue, Failure> {
    let path = uri.path().trim_start_matches('/');
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    HeaderValue::try_from(format!("/{path}/{query}")).map_err(|_| not_found())
}
