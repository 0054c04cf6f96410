//! Whatever happens in whatever order, and comes in whatever pieces: from seeds, so that what fails does so again.

use std::io::{self, IoSlice, Read, Write};

use fastrand::Rng;
use futures_util::FutureExt;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{super::TlsStream, world::*};

/// What both sides have said, and what of that has come through. Everything is polled once and never waited for.
struct World {
    rng: Rng,
    client: Client,
    stream: TlsStream<DuplexStream>,
    /// Records of the client that are not on their way yet.
    unsent: Vec<u8>,
    sent: usize,
    got: usize,
    told: usize,
    heard: usize,
    is_spoiled: bool,
    has_ended: bool,
    may_renew: bool,
}

/// A byte that says where it belongs.
fn byte(at: usize) -> u8 {
    (at % 251) as u8 ^ (at / 251 % 256) as u8
}

fn bytes(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(byte).collect()
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let version = VERSIONS[rng.usize(..2)];
        let (client, stream) = pair(version, rng.usize(2000..30_000)).await;
        let may_renew = version.version == TLS13.version;
        let (sent, got, told, heard) = (0, 0, 0, 0);
        let (unsent, is_spoiled, has_ended) = (Vec::new(), false, false);
        Self { rng, client, stream, unsent, sent, got, told, heard, is_spoiled, has_ended, may_renew }
    }

    fn act(&mut self) {
        match self.rng.u8(..40) {
            0..5 => self.client_says(),
            5 if self.may_renew => {
                let renewed = self.client.tls.refresh_traffic_keys();
                assert!(self.is_spoiled || renewed.is_ok(), "{renewed:?}");
                self.client_says();
            }
            6 => self.spoil(),
            7..15 => {
                let count = self.rng.usize(..=20_000);
                self.passes(count);
            }
            15..25 => self.server_reads(),
            25..30 => self.server_says(),
            30..33 => {
                let _ = self.stream.flush().now_or_never();
            }
            _ => self.client_hears(),
        }
    }

    fn client_says(&mut self) {
        let count = self.rng.usize(1..=20_000);
        if let Err(error) = self.client.tls.writer().write_all(&bytes(self.sent, count)) {
            assert!(self.is_spoiled, "{error}");
            return;
        }
        self.sent += count;
        self.unsent.extend(self.client.said());
    }

    fn passes(&mut self, count: usize) {
        let some = &self.unsent[..count.min(self.unsent.len())];
        if let Some(Ok(count)) = self.client.io.write(some).now_or_never() {
            self.unsent.drain(..count);
        }
    }

    /// Once in many runs, so that most come to their end.
    fn spoil(&mut self) {
        if self.rng.u8(..50) == 0 && !self.unsent.is_empty() {
            let at = self.rng.usize(..self.unsent.len());
            self.unsent[at] ^= 1 << self.rng.u8(..8);
            self.is_spoiled = true;
        }
    }

    fn server_reads(&mut self) {
        let mut room = vec![0; self.rng.usize(1..40_000)];
        match self.stream.read(&mut room).now_or_never() {
            Some(Ok(0)) => self.has_ended = true,
            Some(Ok(count)) => {
                assert!(room[..count] == bytes(self.got, count), "from {}, {count} bytes", self.got);
                self.got += count;
            }
            Some(Err(error)) => assert!(self.is_spoiled, "{error}"),
            None => {}
        }
    }

    fn server_says(&mut self) {
        let (data, first) = (bytes(self.told, self.rng.usize(1..40_000)), self.rng.usize(..30_000));
        let (one, two) = data.split_at(first.min(data.len()));
        match self.stream.write_vectored(&[IoSlice::new(one), IoSlice::new(two)]).now_or_never() {
            Some(Ok(count)) => self.told += count,
            Some(Err(error)) => assert!(self.is_spoiled, "{error}"),
            None => {}
        }
    }

    fn client_hears(&mut self) {
        let mut room = [0; 4096];
        let Some(Ok(count)) = self.client.io.read(&mut room).now_or_never() else { return };
        let mut fresh = &room[..count];
        while !fresh.is_empty() {
            self.client.tls.read_tls(&mut fresh).unwrap();
            if let Err(error) = self.client.tls.process_new_packets() {
                assert!(self.is_spoiled, "{error}");
                return;
            }
            self.client_takes();
        }
        self.unsent.extend(self.client.said());
    }

    fn client_takes(&mut self) {
        let mut data = [0; 20_000];
        while let Ok(count @ 1..) = self.client.tls.reader().read(&mut data) {
            assert!(data[..count] == bytes(self.heard, count), "from {}, {count} bytes", self.heard);
            self.heard += count;
        }
    }

    /// Lets everything arrive, and then both leave.
    fn finish(&mut self) {
        self.client.tls.send_close_notify();
        self.unsent.extend(self.client.said());
        for _ in 0..100_000 {
            if self.has_ended && self.heard == self.told {
                break;
            }
            self.passes(usize::MAX);
            self.server_reads();
            let _ = self.stream.flush().now_or_never();
            self.client_hears();
        }
        assert_eq!((self.got, self.heard, self.has_ended), (self.sent, self.told, true));
        assert!(self.stream.shutdown().now_or_never().is_some());
        assert_eq!(self.stream.kept(), 0);
    }
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_all_data_comes_through_or_an_error() {
    for seed in 0..80 {
        eprintln!("seed {seed}");
        let mut world = World::new(seed).await;
        // Polled this often, a pipe would ask a task to let others go first.
        tokio::task::unconstrained(async {
            for _ in 0..200 {
                world.act();
            }
            if !world.is_spoiled {
                world.finish();
            }
        })
        .await;
    }
}

/// How a server takes what a stranger says, in pieces of so many bytes at most: what kind of refusal it is, and what kind of
/// record is said first.
async fn taken(said: &[u8], most: usize, rng: &mut Rng) -> (Option<io::ErrorKind>, Option<u8>) {
    let (near, mut far) = duplex(1 << 20);
    let say = async {
        let mut left = said;
        while !left.is_empty() {
            let piece = left.split_off(..rng.usize(1..=most).min(left.len())).unwrap_or_default();
            if far.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        let _ = far.shutdown().await;
        let _ = far.read_to_end(&mut heard).await;
        heard.first().copied()
    };
    let (shaken, heard) = soon(async { tokio::join!(async { shake(near, server()).await.map(|_| ()) }, say) }).await;
    (shaken.err().map(|it| it.kind()), heard)
}

#[tokio::test]
async fn a_hello_that_went_wrong_is_judged_alike_in_whatever_pieces_it_comes() {
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..150 {
        eprintln!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let mut said = Client::new(client(VERSIONS[rng.usize(..2)]), duplex(1).0).said();
        for _ in 0..rng.usize(..3) {
            let at = if rng.bool() { rng.usize(..60) } else { rng.usize(..said.len()) };
            said[at] = rng.u8(..);
        }
        if rng.bool() {
            let length = rng.usize(1..said.len());
            said = in_records(&said, length);
        }
        said.extend((0..rng.usize(..300)).map(|_| rng.u8(..)));
        let whole = taken(&said, said.len(), &mut Rng::with_seed(0)).await;
        for most in [1, 7, 1000] {
            assert_eq!(taken(&said, most, &mut rng).await, whole, "at most {most} bytes at a time");
        }
        assert!(whole.0.is_some(), "nobody ends a handshake like that");
        kinds.insert(whole.1);
    }
    assert!(kinds.len() >= 3, "an answer, an alert and nothing: {kinds:?}");
}
