//! An answer from the shelf on its way: a head, and its content from memory or from a file.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::connection::Io;
use crate::net::{Sending, poll_send_more};

/// A head and a content that are written as one piece: to copy a little is cheaper than to describe two places.
const ONE_PIECE: usize = 8 << 10;

pub(super) enum Content {
    None,
    Bytes(Bytes),
    File(Sending),
}

/// How far an answer has come.
pub(super) struct Progress {
    pub(super) head: usize,
    content: Content,
    /// Of the content.
    pub(super) sent: u64,
}

impl Progress {
    pub(super) fn new(content: Content) -> Self {
        Self { head: 0, content, sent: 0 }
    }

    /// `buffer` begins with the head, of `length` bytes; behind it there may be room for the content.
    pub(super) fn poll<T: Io>(
        &mut self,
        io: &mut T,
        buffer: &mut [u8],
        length: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if let Content::Bytes(bytes) = &self.content
            && self.head == 0
            && length + bytes.len() <= ONE_PIECE.min(buffer.len())
        {
            let end = length + bytes.len();
            buffer[length..end].copy_from_slice(bytes);
            let written = moved(Pin::new(&mut *io).poll_write(cx, &buffer[..end]))?;
            if let Poll::Ready(written) = written {
                self.count(written, length);
            } else {
                return Poll::Pending;
            }
        }
        while self.head < length {
            let rest = &buffer[self.head..length];
            let written = match &self.content {
                Content::None => Pin::new(&mut *io).poll_write(cx, rest),
                Content::Bytes(bytes) => {
                    Pin::new(&mut *io).poll_write_vectored(cx, &[IoSlice::new(rest), IoSlice::new(bytes)])
                }
                Content::File(_) => {
                    let socket = ready!(io.poll_file_socket(cx))?;
                    poll_send_more(socket, rest, cx)
                }
            };
            self.count(ready!(moved(written))?, length);
        }
        ready!(self.poll_content(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    fn poll_content<T: Io>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.content {
                Content::None => return Poll::Ready(Ok(())),
                Content::Bytes(bytes) => {
                    let written = ready!(moved(Pin::new(&mut *io).poll_write(cx, bytes)))?;
                    self.count(written, self.head);
                }
                Content::File(sending) => {
                    let socket = ready!(io.poll_file_socket(cx))?;
                    let sent = ready!(sending.poll_send(socket, cx))?;
                    io.has_sent(sent);
                    self.sent += sent as u64;
                    if sending.is_done() {
                        self.content = Content::None;
                    } else {
                        // A client as fast as we are would keep all others waiting.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// `written` bytes of what is left of the head (of `length`) and the content have gone.
    fn count(&mut self, written: usize, length: usize) {
        let of_head = written.min(length - self.head);
        self.head += of_head;
        let of_content = written - of_head;
        self.sent += of_content as u64;
        if let Content::Bytes(bytes) = &mut self.content {
            let _ = bytes.split_to(of_content);
            if bytes.is_empty() {
                self.content = Content::None;
            }
        }
    }
}

/// A socket that takes nothing although it is ready will never take anything.
fn moved(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => written,
    }
}
