//! What has arrived on a stream and waits for its sink: content, then how it ended.

use std::task::{Context, Poll};

use h2::RecvStream;
use http::HeaderMap;

use crate::wire::{Part, Pieces, Reset};

/// What was taken out of `h2`. The stream's window bounds it, for that goes back only when the sink has taken what used it.
#[derive(Debug, Default)]
pub struct Gathered {
    pieces: Pieces,
    /// How the message ended; given out when what came before it is.
    end: Option<Result<Option<Box<HeaderMap>>, Box<Reset>>>,
}

impl Gathered {
    /// Takes out all that is there. `reset_of` says what an error of `h2` means to whoever waits for this message.
    pub fn sense(
        &mut self,
        body: &mut RecvStream,
        reset_of: impl Fn(&h2::Error) -> Reset,
        cx: &mut Context<'_>,
    ) {
        if self.end.is_some() {
            // `h2` gives trailers out once; asked again it says that there were none.
            return;
        }
        let end = loop {
            match body.poll_data(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(bytes))) => self.pieces.push(bytes),
                Poll::Ready(Some(Err(error))) => break Err(reset_of(&error)),
                Poll::Ready(None) => match body.poll_trailers(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(trailers)) => break Ok(trailers.map(Box::new)),
                    Poll::Ready(Err(error)) => break Err(reset_of(&error)),
                },
            }
        };
        self.end = Some(end.map_err(Box::new));
    }

    /// Lets go of trailers that nobody will ask for.
    pub fn forget_trailers(&mut self) {
        if let Some(Ok(trailers)) = &mut self.end {
            *trailers = None;
        }
    }

    /// Ends it from outside: nothing more is taken out.
    pub fn end(&mut self, reset: Reset) {
        self.end = Some(Err(Box::new(reset)));
    }

    /// The next piece, or how it ended. Trailers are given out once.
    pub fn poll_part(&mut self) -> Poll<Result<Part, Reset>> {
        if let Some(bytes) = self.pieces.pop() {
            return Poll::Ready(Ok(Part::Data(bytes)));
        }
        match &mut self.end {
            None => Poll::Pending,
            Some(Ok(trailers)) => Poll::Ready(Ok(Part::End(trailers.take()))),
            Some(Err(reset)) => Poll::Ready(Err(**reset)),
        }
    }

    /// The sink has taken so many bytes: their window may go back.
    pub fn taken(&self, body: &mut RecvStream, bytes: usize) {
        // Where the message has ended, the window goes back by itself when the stream is dropped.
        if self.end.is_none() {
            // An error says that more was released than was received, which the lane's bookkeeping rules out.
            let released = body.flow_control().release_capacity(bytes);
            debug_assert!(released.is_ok(), "released more than was received");
        }
    }

    /// How much waits, bytes.
    pub fn bytes(&self) -> usize {
        self.pieces.bytes()
    }

    /// Why it will not come to a clean end, if that is known.
    pub fn fault(&self) -> Option<Reset> {
        match &self.end {
            Some(Err(reset)) => Some(**reset),
            Some(Ok(_)) | None => None,
        }
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it has come to a clean end.
    pub fn is_whole(&self) -> bool {
        matches!(self.end, Some(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_that_nobody_wants_are_gone_and_the_end_is_not() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-large", "much".parse().expect("a value"));
        let mut gathered = Gathered {
            pieces: Pieces::default(),
            end: Some(Ok(Some(Box::new(trailers)))),
        };
        gathered.forget_trailers();
        assert!(gathered.is_whole());
        let end = gathered.poll_part();
        assert!(matches!(end, Poll::Ready(Ok(Part::End(None)))), "{end:?}");
    }
}
