//! Reads answers as a strict client would, without a line of the proxy's own code.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One HTTP answer that came to its end.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().find(|(own, _)| own == name);
        field.map(|(_, value)| value.as_str())
    }

    pub(crate) fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

/// Splits what comes on one connection into answers.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    present: Option<(Answer, Rest)>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) continues: usize,
    pub(crate) total: usize,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    Length(usize),
    ChunkHead,
    Chunk(usize),
    LastLine,
}

impl Reader {
    /// Takes in what has arrived. `Err`: it is no HTTP.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.total += bytes.len();
        self.buffer.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// What has come of the answer that is not whole.
    pub(crate) fn partial(&self) -> Option<&Answer> {
        self.present.as_ref().map(|(answer, _)| answer)
    }

    /// Whether not a byte has come beyond the last whole answer.
    pub(crate) fn at_rest(&self) -> bool {
        self.present.is_none() && self.buffer.is_empty()
    }

    fn line(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Some(line)
    }

    fn step(&mut self) -> Result<bool, String> {
        let Some((_, rest)) = &self.present else {
            return self.head();
        };
        match *rest {
            Rest::Length(left) | Rest::Chunk(left) => {
                let n = left.min(self.buffer.len());
                let Some((answer, rest)) = &mut self.present else {
                    return Ok(false);
                };
                answer.body.extend(self.buffer.drain(..n));
                match rest {
                    Rest::Length(left) => {
                        *left -= n;
                        if *left == 0 {
                            self.finish();
                            return Ok(true);
                        }
                        Ok(false)
                    }
                    _ if left > n => {
                        *rest = Rest::Chunk(left - n);
                        Ok(false)
                    }
                    _ => {
                        if self.buffer.len() < 2 {
                            *rest = Rest::Chunk(0);
                            return Ok(false);
                        }
                        if &self.buffer[..2] != b"\r\n" {
                            return Err("a chunk without its end".into());
                        }
                        self.buffer.drain(..2);
                        *rest = Rest::ChunkHead;
                        Ok(true)
                    }
                }
            }
            Rest::ChunkHead => {
                let Some(line) = self.line() else {
                    return Ok(false);
                };
                let size =
                    usize::from_str_radix(&line, 16).map_err(|_| format!("chunk {line:?}"))?;
                if let Some((_, rest)) = &mut self.present {
                    *rest = match size {
                        0 => Rest::LastLine,
                        size => Rest::Chunk(size),
                    };
                }
                Ok(true)
            }
            Rest::LastLine => {
                let Some(line) = self.line() else {
                    return Ok(false);
                };
                if !line.is_empty() {
                    return Err(format!("trailer {line:?}"));
                }
                self.finish();
                Ok(true)
            }
        }
    }

    fn finish(&mut self) {
        if let Some((answer, _)) = self.present.take() {
            self.answers.push(answer);
        }
    }

    fn head(&mut self) -> Result<bool, String> {
        if !self.buffer.is_empty() && self.answers.last().is_some_and(Answer::closes) {
            return Err("bytes after the last answer".into());
        }
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect())
            .map_err(|_| "a head that is not text")?;
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse::<u16>().ok())
            .ok_or_else(|| format!("status line {line:?}"))?;
        if status == 100 {
            self.continues += 1;
            return Ok(true);
        }
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(": ")
                .ok_or_else(|| format!("field {line:?}"))?;
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let answer = Answer {
            status,
            fields,
            body: Vec::new(),
        };
        let rest = match (
            answer.field("content-length"),
            answer.field("transfer-encoding"),
        ) {
            (Some(length), None) => {
                Rest::Length(length.parse().map_err(|_| format!("length {length:?}"))?)
            }
            (None, Some("chunked")) => Rest::ChunkHead,
            other => return Err(format!("framing {other:?}")),
        };
        let empty = matches!(rest, Rest::Length(0));
        self.present = Some((answer, rest));
        if empty {
            self.finish();
        }
        Ok(true)
    }
}

/// What a gRPC-Web body holds.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) messages: Vec<Vec<u8>>,
    /// The trailer frame, if it is whole.
    pub(crate) trailers: Option<Vec<(String, String)>>,
    /// Bytes of what is not whole.
    pub(crate) rest: Vec<u8>,
}

impl Content {
    /// Reads a body, whole or cut. `Err`: it is no gRPC-Web, however it may go on.
    pub(crate) fn of(body: &[u8], text: bool) -> Result<Self, String> {
        let mut bytes = Vec::new();
        if text {
            for quantum in body.chunks_exact(4) {
                let decoded = STANDARD.decode(quantum);
                bytes.extend(decoded.map_err(|error| format!("base64 {quantum:?}: {error}"))?);
            }
        } else {
            bytes.extend_from_slice(body);
        }
        let mut content = Self::default();
        let mut at = &bytes[..];
        while let [flag, a, b, c, d, tail @ ..] = at {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if content.trailers.is_some() {
                return Err("a frame after the trailer frame".into());
            }
            let Some(payload) = tail.get(..length) else {
                break;
            };
            match flag {
                0 => content.messages.push(payload.to_vec()),
                0x80 => content.trailers = Some(fields(payload)?),
                other => return Err(format!("a frame with flag {other:#x}")),
            }
            at = &tail[length..];
        }
        content.rest = at.to_vec();
        if text && !body.len().is_multiple_of(4) && content.trailers.is_some() {
            return Err("characters after the end".into());
        }
        Ok(content)
    }

    pub(crate) fn code(&self) -> Option<u8> {
        let trailers = self.trailers.as_ref()?;
        let mut codes = trailers.iter().filter(|(name, _)| name == "grpc-status");
        let code = codes.next()?.1.parse().ok()?;
        codes.next().is_none().then_some(code)
    }
}

fn fields(payload: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(payload).map_err(|_| "a trailer frame that is not text")?;
    text.split_terminator("\r\n")
        .map(|line| {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("trailer {line:?}"))?;
            Ok((name.to_owned(), value.trim_start().to_owned()))
        })
        .collect()
}
