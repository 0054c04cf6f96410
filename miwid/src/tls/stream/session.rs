//! One TLS connection without any io: records in, data out, and the other way round. Nothing is kept here but what the
//! protocol itself has to remember; all bytes lie in buffers of the caller.
//!
//! ```text
//!             open: Record | Drained                 seal, farewell
//! [ front of the input | shown | not shown ]       [ data ] -> records
//! ```
//!
//! rustls looks at its whole input before it lets anything be encrypted. So `seal` and `farewell` are shown that part again
//! in which `open` has found nothing whole: usually none, else what there is of a handshake message; never a record that
//! nobody has room for yet.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use rustls::{
    CipherSuite, CommonState, Error, ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
        WriteTraffic,
    },
};

use super::{held::Held, scratch};

/// The data of a full record.
const DATA_MAX: usize = 16 << 10;
/// What is sealed at once, if there is so much: more would only wait here instead of there.
pub(super) const SEALED_MAX: usize = 4 * DATA_MAX;
/// What is around the data of a record, at most, in any version: header, nonce, type, tag.
const AROUND: usize = 64;
const ALERT: usize = 128;

pub(super) struct Session {
    connection: UnbufferedServerConnection,
    end: Option<End>,
    has_said_farewell: bool,
    /// Something else than data has come since the handshake: perhaps a wish for new keys, which rustls answers with the
    /// next data only.
    may_owe: bool,
}

/// Why nothing comes in any more.
enum End {
    /// The peer has said so.
    Farewell,
    /// The stream below ended and the peer has not said anything.
    Cut,
    Failed(Box<Error>),
}

/// Where the input stands when `open` returns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// One record of data has been given away; more may follow it.
    Record,
    /// There is nothing whole left, or nothing that counts.
    Drained,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, end: None, has_said_farewell: false, may_owe: false })
    }

    pub(super) fn state(&self) -> &CommonState {
        &self.connection
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What its records are encrypted with, if nothing is between two states: it may go on elsewhere then.
    pub(super) fn at_rest(&self) -> Option<CipherSuite> {
        let is_busy = self.is_handshaking() || self.has_ended() || self.has_said_farewell || self.may_owe;
        if is_busy || self.connection.wants_write() {
            return None;
        }
        self.connection.negotiated_cipher_suite().map(|it| it.suite())
    }

    pub(super) fn into_connection(self) -> UnbufferedServerConnection {
        self.connection
    }

    /// Nothing more comes in, for whatever reason.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// How it ended, as a reader is told.
    pub(super) fn end(&self) -> io::Result<()> {
        match &self.end {
            None | Some(End::Farewell) => Ok(()),
            Some(End::Cut) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer left without a close_notify")),
            Some(End::Failed(error)) => Err(invalid((**error).clone())),
        }
    }

    pub(super) fn cut(&mut self) {
        self.end.get_or_insert(End::Cut);
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.end = Some(End::Failed(Box::new(error)));
    }

    /// Opens records at the front of `input` up to the first with data, which `data` gets; answers go to `out`. The count is
    /// of bytes that are done with and must not be shown again. Nobody may call this with an input that ends before what was
    /// shown to it last.
    pub(super) fn open(&mut self, input: &mut [u8], out: &mut Held, mut data: impl FnMut(&[u8])) -> (usize, Rest) {
        let mut done = 0;
        loop {
            let (is_settled, first) = (!self.is_handshaking(), first_record(&input[done..]));
            let (count, rest) = self.step(&mut input[done..], out, &mut data);
            done = (done + count).min(input.len());
            let expected = if rest == Ok(Some(Rest::Record)) { first } else { 0 };
            self.may_owe |= is_settled && count > expected;
            match rest {
                Ok(None) => {}
                Ok(Some(rest)) => return (done, rest),
                Err(error) => {
                    self.utter(&mut input[done..], out);
                    self.fail(error);
                    return (done, Rest::Drained);
                }
            }
        }
    }

    /// One state of the connection. The count is of bytes that are done with; `None`: there are other states to come.
    fn step(
        &mut self,
        input: &mut [u8],
        out: &mut Held,
        data: &mut impl FnMut(&[u8]),
    ) -> (usize, Result<Option<Rest>, Error>) {
        let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(input);
        let rest = match state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => encode(&mut message, out).map(|()| None),
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                // `out` has it, and sees to it.
                sent.done();
                Ok(None)
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Some(Rest::Record)),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        data(record.payload);
                    }
                }
            },
            Ok(ConnectionState::PeerClosed) => {
                self.end.get_or_insert(End::Farewell);
                Ok(None)
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                Ok(Some(Rest::Drained))
            }
            // Early data is not offered.
            Ok(_) => Err(Error::General("an unexpected state of the connection".to_owned())),
            Err(error) => Err(error),
        };
        (discard, rest)
    }

    /// Whether something has come that is answered with the next data only.
    pub(super) fn may_owe(&self) -> bool {
        self.may_owe
    }

    /// Answers although there is no data. As long as one answer is on its way others have time: a peer that takes none gets
    /// no more of them.
    pub(super) fn answer(&mut self, shown: &mut [u8], out: &mut Held) {
        if !out.is_empty() || self.has_said_farewell {
            return;
        }
        self.may_owe = false;
        // There is no room for this byte, so it is not encrypted; but what has to go before it is ready then.
        let nudged = self.with_traffic(shown, out, |traffic, _| Ok(traffic.encrypt(&[0], &mut []).is_err()));
        if nudged.is_ok() {
            self.utter(shown, out);
        }
    }

    /// What rustls has to say already, such as the alert after an error. It must not be asked without need: it would go on
    /// with an input that is not there any more.
    fn utter(&mut self, mut input: &mut [u8], out: &mut Held) {
        while self.connection.wants_write() {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(input);
            let Ok(ConnectionState::EncodeTlsData(mut message)) = state else { return };
            if encode(&mut message, out).is_err() {
                return;
            }
            let (_, rest) = input.split_at_mut(discard.min(input.len()));
            input = rest;
        }
    }

    /// Whether anything may be sealed now.
    pub(super) fn writable(&self) -> io::Result<()> {
        match &self.end {
            _ if self.has_said_farewell => Err(io::ErrorKind::BrokenPipe.into()),
            Some(End::Failed(error)) => Err(invalid((**error).clone())),
            _ => Ok(()),
        }
    }

    /// Records of so much of `parts` as is good to be sent at once. The count is of bytes of data.
    pub(super) fn seal(&mut self, shown: &mut [u8], parts: &[IoSlice<'_>], out: &mut Held) -> Result<usize, Error> {
        self.with_traffic(shown, out, |traffic, out| pack(traffic, parts, out))
    }

    /// Tells the peer that nothing more comes from us. Once; after an error there is nothing left to say.
    pub(super) fn say_farewell(&mut self, shown: &mut [u8], out: &mut Held) {
        let has_failed = matches!(self.end, Some(End::Failed(_)));
        if std::mem::replace(&mut self.has_said_farewell, true) || has_failed {
            return;
        }
        let _ = self.with_traffic(shown, out, |traffic, out| {
            let count = traffic.queue_close_notify(out.room(ALERT)).map_err(|_| exhausted())?;
            out.put(count);
            Ok(())
        });
        // What had no room there waits in rustls.
        self.utter(shown, out);
    }

    fn with_traffic<T>(
        &mut self,
        shown: &mut [u8],
        out: &mut Held,
        then: impl FnOnce(&mut Traffic<'_>, &mut Held) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(shown);
            debug_assert_eq!(discard, 0, "nothing whole is shown");
            match state? {
                ConnectionState::EncodeTlsData(mut message) => encode(&mut message, out)?,
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => {
                    self.end.get_or_insert(End::Farewell);
                }
                ConnectionState::WriteTraffic(mut traffic) => return then(&mut traffic, out),
                _ => return Err(Error::HandshakeNotComplete),
            }
        }
    }
}

type Traffic<'a> = WriteTraffic<'a, rustls::server::ServerConnectionData>;

pub(super) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn exhausted() -> Error {
    Error::General("these keys must not encrypt any more".to_owned())
}

fn encode<D>(message: &mut EncodeTlsData<'_, D>, out: &mut Held) -> Result<(), Error> {
    // Without room it says how much it needs.
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = message.encode(&mut []) else {
        return Ok(());
    };
    let count = message.encode(out.room(required_size)).map_err(|error| Error::General(error.to_string()))?;
    out.put(count);
    Ok(())
}

/// How long the record at the front says it is.
fn first_record(input: &[u8]) -> usize {
    match input {
        [_, _, _, high, low, ..] => 5 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

fn pack(traffic: &mut Traffic<'_>, parts: &[IoSlice<'_>], out: &mut Held) -> Result<usize, Error> {
    let (mut pieces, mut taken) = (Pieces { parts, at: 0 }, 0);
    while taken < SEALED_MAX {
        let mut joined = Vec::new();
        let data = match pieces.next() {
            Piece::End => break,
            Piece::Whole(data) => data,
            Piece::Parted => {
                joined = scratch::joining();
                pieces.join(&mut joined);
                &joined
            }
        };
        let length = data.len();
        let sealed = encrypt(traffic, data, out);
        if joined.capacity() > 0 {
            scratch::has_joined(joined);
        }
        match sealed {
            Ok(()) => taken += length,
            // What is sealed is on its way; who comes again is told.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

fn encrypt(traffic: &mut Traffic<'_>, data: &[u8], out: &mut Held) -> Result<(), Error> {
    let mut room = data.len() + AROUND;
    loop {
        match traffic.encrypt(data, out.room(room)) {
            Ok(count) => {
                out.put(count);
                return Ok(());
            }
            // New keys come before the data.
            Err(EncryptError::InsufficientSize(it)) if it.required_size > room => room = it.required_size,
            Err(_) => return Err(exhausted()),
        }
    }
}

/// What is to be sent, record by record.
struct Pieces<'a> {
    parts: &'a [IoSlice<'a>],
    /// So much of the first part is taken.
    at: usize,
}

enum Piece<'a> {
    End,
    /// A record's worth, or all there is.
    Whole(&'a [u8]),
    /// A record's worth is in several parts.
    Parted,
}

impl<'a> Pieces<'a> {
    fn next(&mut self) -> Piece<'a> {
        while let [first, others @ ..] = self.parts {
            let left = first.len() - self.at;
            if left > 0 && (left >= DATA_MAX || others.iter().all(|it| it.is_empty())) {
                let data = &first[self.at..self.at + left.min(DATA_MAX)];
                self.at += data.len();
                return Piece::Whole(data);
            }
            if left > 0 {
                return Piece::Parted;
            }
            (self.parts, self.at) = (others, 0);
        }
        Piece::End
    }

    fn join(&mut self, joined: &mut Vec<u8>) {
        while let [first, others @ ..] = self.parts
            && joined.len() < DATA_MAX
        {
            let count = (first.len() - self.at).min(DATA_MAX - joined.len());
            joined.extend_from_slice(&first[self.at..self.at + count]);
            self.at += count;
            if self.at == first.len() {
                (self.parts, self.at) = (others, 0);
            }
        }
    }
}
