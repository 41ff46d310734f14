//! The messages of `echo.proto`, kept by hand so that no protoc is needed, and two small pieces that tonic leaves to others.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_stream::Stream;
use tonic::body::Body;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Failure {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(bytes = "vec", tag = "3")]
    pub details: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SayRequest {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub delay_ms: u32,
    #[prost(message, optional, tag = "4")]
    pub failure: Option<Failure>,
    #[prost(string, tag = "5")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SayReply {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Field>,
    #[prost(sint64, tag = "4")]
    pub deadline_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamRequest {
    #[prost(uint32, tag = "1")]
    pub count: u32,
    #[prost(uint32, tag = "2")]
    pub interval_ms: u32,
    #[prost(uint32, tag = "3")]
    pub size: u32,
    #[prost(message, optional, tag = "4")]
    pub failure: Option<Failure>,
    #[prost(uint32, tag = "5")]
    pub hold_after: u32,
    #[prost(string, tag = "6")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamReply {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UploadRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UploadReply {
    #[prost(uint32, tag = "1")]
    pub messages: u32,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
}

/// The same body with those fields added to its trailers.
pub fn with_trailers(body: Body, extra: HeaderMap) -> Body {
    Body::new(WithTrailers { body, extra })
}

struct WithTrailers {
    body: Body,
    extra: HeaderMap,
}

impl http_body::Body for WithTrailers {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_trailers() {
                Ok(mut trailers) => {
                    trailers.extend(std::mem::take(&mut self.extra));
                    Frame::trailers(trailers)
                }
                Err(frame) => frame,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A stream out of a state: each step gives an item, and the state that goes on.
pub fn unfold<S, T, F>(state: S, step: impl Fn(S) -> F) -> impl Stream<Item = T>
where
    F: Future<Output = (Option<T>, Option<S>)>,
{
    Unfold {
        state: Some(state),
        step,
        running: None,
    }
}

struct Unfold<S, Step, F> {
    state: Option<S>,
    step: Step,
    running: Option<Pin<Box<F>>>,
}

impl<S, Step, F> Unpin for Unfold<S, Step, F> {}

impl<S, T, Step, F> Stream for Unfold<S, Step, F>
where
    Step: Fn(S) -> F,
    F: Future<Output = (Option<T>, Option<S>)>,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.running.is_none() {
            let Some(state) = self.state.take() else {
                return Poll::Ready(None);
            };
            self.running = Some(Box::pin((self.step)(state)));
        }
        let Some(running) = self.running.as_mut() else {
            return Poll::Ready(None);
        };
        let (item, state) = std::task::ready!(running.as_mut().poll(cx));
        self.running = None;
        self.state = state;
        Poll::Ready(item)
    }
}
