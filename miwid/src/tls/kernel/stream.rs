//! A connection whose keys the kernel has.
//!
//! ```text
//! data  <- Reading <- recvmsg: kind of the record, bytes        Writing -> write, sendfile
//!             | KeyUpdate: new keys for reading                    ^ a KeyUpdate that is owed goes first
//!             | close_notify, anything else: the end               | new keys for writing
//! ```
//!
//! What is owed for a `KeyUpdate` may wait for the next data (RFC 8446, 4.6.3), so a reader never writes.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll, ready},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, TlsGetRecordType, recvmsg, setsockopt, sockopt},
};
use rustls::{
    ConnectionTrafficSecrets, Error, SupportedCipherSuite,
    kernel::KernelConnection,
    server::{ServerConnectionData, UnbufferedServerConnection},
};
use socket2::{MsgHdr, SockRef};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    keys::described,
    message::{ALERT, CLOSE_NOTIFY, Ear, HANDSHAKE, Heard, KEY_UPDATE, record_kind},
    support::Support,
};

/// The data of a full record.
const DATA_MAX: u64 = 16 << 10;
/// So many messages may come without data between them, such as wishes for new keys; rustls has the like of it.
const IDLE_MAX: u32 = 32;
/// So many records before the last that keys are good for, other keys are asked for.
const MARGIN: u64 = 1 << 16;

pub(in super::super) struct KernelStream {
    socket: TcpStream,
    connection: KernelConnection<ServerConnectionData>,
    renews: bool,
    ear: Ear,
    end: Option<Result<(), String>>,
    /// Records under the present keys, at most as many as counted.
    sealed: u64,
    sealed_max: u64,
    owes_new_keys: bool,
    has_said_farewell: bool,
    /// Messages since there was data.
    idle: u32,
}

/// Makes the kernel look for TLS on this socket, which changes nothing before it has keys.
pub(in super::super) fn prepare(socket: &TcpStream) -> bool {
    setsockopt(socket, sockopt::TcpUlp::default(), b"tls").is_ok()
}

impl KernelStream {
    /// Gives the keys to a kernel that is prepared. An error ends the connection: they are nowhere then.
    pub(in super::super) fn new(
        socket: TcpStream,
        connection: UnbufferedServerConnection,
        support: Support,
    ) -> io::Result<Self> {
        let (secrets, connection) = connection.dangerous_into_kernel_connection().map_err(invalid)?;
        let sealed = secrets.tx.0;
        give(&socket, Direction::Out, secrets.tx)?;
        give(&socket, Direction::In, secrets.rx)?;
        let sealed_max = match connection.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        };
        Ok(Self {
            socket,
            connection,
            renews: support.renews,
            ear: Ear::default(),
            end: None,
            sealed,
            sealed_max,
            owes_new_keys: false,
            has_said_farewell: false,
            idle: 0,
        })
    }

    /// What a file may be sent to.
    pub(in super::super) fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&TcpStream>> {
        ready!(self.poll_renewed(cx))?;
        Poll::Ready(Ok(&self.socket))
    }

    /// So many bytes went to the socket at once.
    pub(in super::super) fn has_sent(&mut self, bytes: usize) {
        self.sealed = self.sealed.saturating_add(bytes as u64 / DATA_MAX + 2);
    }

    fn poll_record(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(end) = &self.end {
                return Poll::Ready(end.clone().map_err(refused));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match self.socket.try_io(Interest::READABLE, || receive(&self.socket, room)) {
                Ok((None, 0)) => {
                    let cut = "the peer left without a close_notify";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
                }
                Ok((None | Some(TlsGetRecordType::ApplicationData), count @ 1..)) => {
                    self.idle = 0;
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok((Some(_), _)) if self.idle >= IDLE_MAX => {
                    self.end = Some(Err("messages without end, and no data".to_owned()));
                }
                // Records may be empty.
                Ok((Some(TlsGetRecordType::ApplicationData), _)) => self.idle += 1,
                Ok((Some(kind), count)) => {
                    self.idle += 1;
                    let heard = self.ear.hear(number(kind), &room[..count]);
                    let done = heard.and_then(|it| self.follow(it).map_err(|error| error.to_string()));
                    if let Err(error) = done {
                        self.end = Some(Err(error));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn follow(&mut self, heard: Heard) -> io::Result<()> {
        match heard {
            Heard::Nothing => {}
            Heard::Farewell => self.end = Some(Ok(())),
            Heard::NewKeys { .. } if !self.renews => {
                return Err(io::Error::other("the peer wants new keys, which this kernel cannot change"));
            }
            Heard::NewKeys { asked } => {
                self.owes_new_keys |= asked;
                give(&self.socket, Direction::In, self.connection.update_rx_secret().map_err(invalid)?)?;
            }
        }
        Ok(())
    }

    /// What must go out before any more data: that our keys are others from now on.
    fn poll_renewed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_said_farewell {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let is_worn = self.sealed >= self.sealed_max.saturating_sub(MARGIN);
        if self.renews && (self.owes_new_keys || is_worn) {
            ready!(poll_say(&self.socket, cx, HANDSHAKE, &KEY_UPDATE))?;
            self.owes_new_keys = false;
            self.sealed = 0;
            give(&self.socket, Direction::Out, self.connection.update_tx_secret().map_err(invalid)?)?;
        } else if self.sealed >= self.sealed_max {
            let worn = "these keys must not encrypt any more, and this kernel cannot change them";
            return Poll::Ready(Err(io::Error::other(worn)));
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

fn give(socket: &TcpStream, direction: Direction, secrets: (u64, ConnectionTrafficSecrets)) -> io::Result<()> {
    let keys = described(secrets.0, &secrets.1).map_err(invalid)?;
    match direction {
        Direction::In => setsockopt(socket, sockopt::TcpTlsRx, &keys)?,
        Direction::Out => setsockopt(socket, sockopt::TcpTlsTx, &keys)?,
    }
    Ok(())
}

/// A piece of one record, or of several with data.
fn receive(socket: &TcpStream, room: &mut [u8]) -> io::Result<(Option<TlsGetRecordType>, usize)> {
    let mut control = cmsg_space!(u8);
    let mut parts = [IoSliceMut::new(room)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let kind = received.cmsgs()?.find_map(|it| match it {
        ControlMessageOwned::TlsGetRecordType(kind) => Some(kind),
        _ => None,
    });
    Ok((kind, received.bytes))
}

fn number(kind: TlsGetRecordType) -> u8 {
    match kind {
        TlsGetRecordType::ChangeCipherSpec => 20,
        TlsGetRecordType::Alert => ALERT,
        TlsGetRecordType::Handshake => HANDSHAKE,
        TlsGetRecordType::ApplicationData => 23,
        TlsGetRecordType::Unknown(kind) => kind,
        // Nothing has this number.
        _ => 0,
    }
}

/// A message in a record of its own. The kernel takes all of one as short as these, or nothing.
fn poll_say(socket: &TcpStream, cx: &mut Context<'_>, kind: u8, bytes: &[u8]) -> Poll<io::Result<()>> {
    let (control, parts) = (record_kind(kind), [IoSlice::new(bytes)]);
    let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
    loop {
        ready!(socket.poll_write_ready(cx))?;
        let flags = nix::libc::MSG_NOSIGNAL;
        match socket.try_io(Interest::WRITABLE, || SockRef::from(socket).sendmsg(&message, flags)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            said => return Poll::Ready(said.map(drop)),
        }
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl AsyncRead for KernelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 { Poll::Ready(Ok(())) } else { self.get_mut().poll_record(cx, buf) }
    }
}

impl AsyncWrite for KernelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_renewed(cx))?;
        let written = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, parts))?;
        this.has_sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_said_farewell {
            // After an error there is nothing left to say, and whoever has left needs no farewell.
            if !matches!(this.end, Some(Err(_))) {
                let _ = ready!(poll_say(&this.socket, cx, ALERT, &CLOSE_NOTIFY));
            }
            this.has_said_farewell = true;
        }
        match ready!(Pin::new(&mut this.socket).poll_shutdown(cx)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }
}
