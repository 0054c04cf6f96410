//! A body that is encoded on its way out, on the worker that sends it and without holding it up.
//!
//! A worker has many connections and one thread, so a poll does `WORK_BYTES` of work and then lets the others go first,
//! however much is there to encode. Returning a frame would not do: whoever drives the body asks for the next at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{Coding, Encoder, INLINE_BYTES, Permit, encode};

/// What brotli does in about half a millisecond.
const WORK_BYTES: usize = 32 << 10;
/// Less is not worth a frame unless it is to be seen at once.
const FRAME_BYTES: usize = 16 << 10;

/// When what was encoded leaves the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// As soon as nothing more is there: what the source sends piece by piece can be read piece by piece.
    AtPauses,
    /// When the encoder has enough of it.
    WhenFull,
}

pub struct Encoded<B> {
    source: B,
    stage: Stage,
    /// Taken from the source and not encoded yet.
    input: Bytes,
    /// Bytes encoded since others had their turn.
    worked: usize,
    resting: Option<Pin<Box<dyn Future<Output = ()>>>>,
    trailers: Option<HeaderMap>,
}

enum Stage {
    /// A small body: gathered, then encoded at once.
    Gathering {
        coding: Coding,
        level: u32,
        gathered: Vec<u8>,
    },
    Encoding(Box<Working>),
    /// The source has ended; what is left goes out, then the trailers.
    Ending(Bytes),
}

struct Working {
    encoder: Encoder,
    flush: Flush,
    /// Something was written since the last flush.
    unflushed: bool,
    _permit: Permit,
}

enum Step {
    Frame(Bytes),
    Wait,
    On,
}

// === impl Encoded ===

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Encoded<B> {
    pub fn new(source: B, encoder: Encoder, flush: Flush, permit: Permit) -> Self {
        let working = Working { encoder, flush, unflushed: false, _permit: permit };
        Self::at(source, Stage::Encoding(Box::new(working)))
    }

    /// For a body that says that it has at most `INLINE_BYTES`.
    pub fn small(source: B, coding: Coding, level: u32) -> Self {
        Self::at(source, Stage::Gathering { coding, level, gathered: Vec::new() })
    }

    fn at(source: B, stage: Stage) -> Self {
        Self { source, stage, input: Bytes::new(), worked: 0, resting: None, trailers: None }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(resting) = &mut self.resting {
                ready!(resting.as_mut().poll(cx));
                self.resting = None;
            }
            match &mut self.stage {
                Stage::Ending(rest) if !rest.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(rest)))));
                }
                Stage::Ending(_) => return Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it)))),
                Stage::Encoding(working) if !self.input.is_empty() => {
                    let piece = self.input.split_to(self.input.len().min(WORK_BYTES - self.worked));
                    working.encoder.write(&piece)?;
                    working.unflushed = true;
                    self.worked += piece.len();
                    if self.worked == WORK_BYTES {
                        self.worked = 0;
                        self.resting = Some(Box::pin(tokio::task::yield_now()));
                    }
                    if working.encoder.ready() >= FRAME_BYTES {
                        return Poll::Ready(Some(Ok(Frame::data(working.encoder.take()))));
                    }
                    continue;
                }
                Stage::Encoding(_) | Stage::Gathering { .. } => {}
            }
            match self.poll_source(cx)? {
                Step::Frame(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Step::Wait => return Poll::Pending,
                Step::On => {}
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> io::Result<Step> {
        match Pin::new(&mut self.source).poll_frame(cx) {
            Poll::Pending => self.pause(),
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(error))) => Err(error),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.data(data),
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.finish()
                }
            },
        }
    }

    fn pause(&mut self) -> io::Result<Step> {
        let Stage::Encoding(working) = &mut self.stage else { return Ok(Step::Wait) };
        if working.flush == Flush::AtPauses && std::mem::take(&mut working.unflushed) {
            working.encoder.flush()?;
        }
        // Whatever is there had better be on its way while we wait.
        Ok(if working.encoder.ready() > 0 { Step::Frame(working.encoder.take()) } else { Step::Wait })
    }

    fn data(&mut self, data: Bytes) -> io::Result<Step> {
        match &mut self.stage {
            Stage::Gathering { gathered, .. } => {
                if gathered.len() + data.len() > INLINE_BYTES as usize {
                    return Err(io::Error::other("the body is longer than it said"));
                }
                if gathered.is_empty() && self.source.is_end_stream() {
                    self.input = data;
                    return self.finish();
                }
                gathered.extend_from_slice(&data);
            }
            Stage::Encoding(_) => self.input = data,
            Stage::Ending(_) => {}
        }
        Ok(Step::On)
    }

    fn finish(&mut self) -> io::Result<Step> {
        let rest = match &mut self.stage {
            Stage::Gathering { coding, level, gathered } => {
                let whole = if gathered.is_empty() { &self.input[..] } else { gathered };
                Bytes::from(encode(*coding, *level, whole)?)
            }
            Stage::Encoding(working) => {
                working.encoder.finish()?;
                working.encoder.take()
            }
            Stage::Ending(_) => Bytes::new(),
        };
        self.input = Bytes::new();
        // The encoder and its permit go now, not when the client has taken the last byte.
        self.stage = Stage::Ending(rest);
        Ok(Step::On)
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Encoded<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.poll_step(cx)
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.stage, Stage::Ending(rest) if rest.is_empty()) && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.stage {
            Stage::Ending(rest) => SizeHint::with_exact(rest.len() as u64),
            Stage::Gathering { .. } | Stage::Encoding(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{cell::Cell, collections::VecDeque, rc::Rc};

    use http_body_util::BodyExt;

    use super::*;
    use crate::encoding::{
        Budget, Purpose,
        encoder::tests::{decoded, text},
    };

    enum Said {
        Data(Bytes),
        Pause,
        Trailers,
        Trouble,
    }

    /// A source that says what it was told to, and how often it was asked.
    struct Script(VecDeque<Said>);

    impl Body for Script {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Ready(match self.0.pop_front() {
                Some(Said::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Said::Pause) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Said::Trailers) => Some(Ok(Frame::trailers(HeaderMap::new()))),
                Some(Said::Trouble) => Some(Err(io::Error::other("the source broke"))),
                None => None,
            })
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn body(coding: Coding, flush: Flush, said: Vec<Said>, budget: &Budget) -> Encoded<Script> {
        let encoder = Encoder::new(coding, 4, Purpose::Body, None).unwrap();
        Encoded::new(Script(said.into()), encoder, flush, budget.take(1).unwrap())
    }

    fn data(bytes: &[u8]) -> Said {
        Said::Data(Bytes::copy_from_slice(bytes))
    }

    #[tokio::test]
    async fn all_comes_out_and_the_permit_goes_back() {
        let text = text(500_000);
        for coding in Coding::ALL {
            for flush in [Flush::AtPauses, Flush::WhenFull] {
                let budget = Budget::of(1);
                let mut said = vec![data(&text[..7]), Said::Pause];
                said.extend(text[7..].chunks(100_001).flat_map(|it| [data(it), Said::Pause]));
                let mut body = body(coding, flush, said, &budget);
                assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
                let mut out = Vec::new();
                while let Some(frame) = body.frame().await {
                    out.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                assert_eq!(decoded(coding, &out), text, "{coding:?} {flush:?}");
                assert!(body.is_end_stream() && budget.take(1).is_some());
            }
        }
    }

    #[tokio::test]
    async fn at_a_pause_all_is_on_its_way() {
        for coding in Coding::ALL {
            let budget = Budget::of(1);
            let said = vec![data(b"one "), data(b"two "), Said::Pause, data(b"three"), Said::Pause, Said::Pause];
            let mut body = body(coding, Flush::AtPauses, said, &budget);
            let mut out = Vec::new();
            for expected in ["one two ", "one two three"] {
                out.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
                assert_eq!(decoded(coding, &out), expected.as_bytes(), "{coding:?}");
            }
        }
    }

    #[tokio::test]
    async fn others_go_first_however_much_is_there() {
        let text = text(1 << 20);
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let other = async move {
            loop {
                counted.set(counted.get() + 1);
                tokio::task::yield_now().await;
            }
        };
        let budget = Budget::of(1);
        let encoding = body(Coding::Gzip, Flush::WhenFull, vec![data(&text)], &budget).collect();
        tokio::select! {
            biased;
            () = other => unreachable!("it never ends"),
            whole = encoding => drop(whole.unwrap()),
        }
        assert!(turns.get() >= (1 << 20) / WORK_BYTES, "{} turns", turns.get());
    }

    #[tokio::test]
    async fn trailers_come_last_and_trouble_is_no_end() {
        let budget = Budget::of(1);
        let mut whole = body(Coding::Brotli, Flush::WhenFull, vec![data(b"text"), Said::Trailers], &budget);
        let first = whole.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(decoded(Coding::Brotli, &first), b"text");
        assert!(!whole.is_end_stream());
        assert!(whole.frame().await.unwrap().unwrap().is_trailers());
        assert!(whole.is_end_stream() && whole.frame().await.is_none());

        let mut broken = body(Coding::Brotli, Flush::WhenFull, vec![data(b"text"), Said::Trouble], &Budget::of(1));
        assert!(broken.frame().await.unwrap().is_err());
        assert!(!broken.is_end_stream());
    }

    #[tokio::test]
    async fn small_bodies_are_gathered() {
        for said in [vec![data(b"a whole")], vec![data(b"a "), Said::Pause, data(b"who"), data(b"le"), Said::Trailers]]
        {
            let mut body = Encoded::small(Script(said.into()), Coding::Gzip, 6);
            let out = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(decoded(Coding::Gzip, &out), b"a whole");
        }
        let long = vec![data(&[0; INLINE_BYTES as usize]), data(b"more")];
        let mut body = Encoded::small(Script(long.into()), Coding::Gzip, 6);
        assert!(body.frame().await.unwrap().is_err());
        let mut body = Encoded::small(Script(vec![data(b"x"), Said::Trouble].into()), Coding::Gzip, 6);
        assert!(body.frame().await.unwrap().is_err());
    }
}
