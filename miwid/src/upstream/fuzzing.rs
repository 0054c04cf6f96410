//! The door that the fuzz targets in `tests/fuzz` come in by; nobody else uses it.

use std::{cell::RefCell, io, rc::Rc};

use bytes::Bytes;
use http::{Response, request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http1;
use crate::exchange::Body;

/// An HTTP/1.1 connection to an upstream.
pub struct Line<S>(http1::Shared<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Line<S> {
    pub fn over(stream: S) -> Self {
        Self(Rc::new(RefCell::new(http1::Wire::new(stream))))
    }

    /// `None`: there is no answer, or none that is HTTP.
    pub async fn ask(
        &self,
        head: &request::Parts,
    ) -> Option<Response<impl http_body::Body<Data = Bytes, Error = io::Error> + use<S>>> {
        http1::send(&self.0, (head, b""), Body::Empty, None).await.ok()
    }

    /// As the pool asks before it gives a connection to the next request.
    pub fn is_free(&self) -> bool {
        let mut wire = self.0.borrow_mut();
        wire.is_free() && wire.is_quiet()
    }
}
