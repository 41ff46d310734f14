//! Clients: connections that are kept, each making one call after the other, and how each call ended for its caller.
//!
//! A client never repeats a call, so a call that a backend sees twice was doubled by somebody else.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use caller::{Broken, Connection, Form, Frame, Framing, Place};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, timeout};

use crate::backend::{CALL, OWN};
use crate::plan::{Leave, Plan, Side};

/// So many calls that nobody ends, and the run is over.
const HUNG_MAX: u64 = 50;

/// How a call ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Status {
        code: u32,
        /// The backend said it, not a proxy.
        own: bool,
        message: String,
        answers: u32,
    },
    /// The client left, as it was planned.
    Left,
    /// The answer broke off.
    Cut(Place),
    /// An answer of HTTP alone.
    Http(u16),
    /// The answer ended cleanly without a status.
    NoStatus,
    Malformed(String),
    /// A message that is not the one that was to come.
    Wrong(String),
    /// The patience was over.
    Hung,
    NoConnection(String),
}

/// Everything that the clients of a run share.
pub struct Floor {
    pub proxy: SocketAddr,
    pub seed: u64,
    pub calls: u64,
    pub patience: Duration,
    pub next: Cell<u64>,
    pub done: Cell<u64>,
    pub hung: Cell<u64>,
    /// By call.
    pub ends: RefCell<Vec<Option<End>>>,
    /// By how much deadlines were overrun.
    pub late: RefCell<Vec<Duration>>,
    /// How many connections were opened.
    pub connections: Cell<u64>,
}

/// One client: as many calls as it gets hold of.
pub async fn client(floor: Rc<Floor>, number: u64) {
    let mut dice = fastrand::Rng::with_seed(floor.seed ^ number << 32);
    let mut held: Option<(Connection, u32)> = None;
    loop {
        let id = floor.next.get();
        if id >= floor.calls {
            return;
        }
        floor.next.set(id + 1);
        let plan = Plan::of(floor.seed, id);
        let begun = Instant::now();
        let made = timeout(floor.patience, one(&floor, &plan, &mut held, &mut dice));
        let end = made.await.unwrap_or(End::Hung);
        if end == End::Hung {
            held = None;
            floor.hung.set(floor.hung.get() + 1);
            if floor.hung.get() >= HUNG_MAX {
                // It is clear by now, and nobody wants to wait for the rest.
                floor.next.set(floor.calls);
            }
        }
        if let End::Status {
            code: 4,
            own: false,
            ..
        } = end
            && let Some(deadline) = plan.deadline_ms
        {
            let late = begun
                .elapsed()
                .saturating_sub(Duration::from_millis(deadline));
            floor.late.borrow_mut().push(late);
        }
        // Who is told that nobody is there does not ask again at once: a run is not to be spent on an outage.
        let outage = matches!(
            end,
            End::Status {
                code: 14,
                own: false,
                ..
            }
        );
        floor.ends.borrow_mut()[id as usize] = Some(end);
        floor.done.set(floor.done.get() + 1);
        if outage {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

async fn one(
    floor: &Floor,
    plan: &Plan,
    held: &mut Option<(Connection, u32)>,
    dice: &mut fastrand::Rng,
) -> End {
    let (connection, left) = match held.take() {
        Some(held) => held,
        None => match Connection::open(floor.proxy).await {
            Ok(connection) => {
                floor.connections.set(floor.connections.get() + 1);
                (connection, dice.u32(1..200))
            }
            Err(error) => return End::NoConnection(error.to_string()),
        },
    };
    let (end, again) = make(plan, floor.seed, connection, dice).await;
    if let Some(connection) = again
        && left > 1
    {
        *held = Some((connection, left - 1));
    }
    end
}

/// Makes one call. The connection comes back if it can take another.
pub async fn make(
    plan: &Plan,
    seed: u64,
    connection: Connection,
    dice: &mut fastrand::Rng,
) -> (End, Option<Connection>) {
    let (bytes, seams) = request(plan, seed, dice);
    let Connection {
        mut reader,
        mut writer,
    } = connection;
    match plan.leave {
        Some(Leave::InRequest(thousandths)) => {
            let cut = match thousandths as usize {
                // Where what was sent looks whole, if anything can make it look so.
                odd if odd % 2 == 1 && !seams.is_empty() => seams[dice.usize(..seams.len())],
                part => bytes.len() * part / 1000,
            };
            let cut = cut.min(bytes.len() - 1);
            // An answer that comes meanwhile is not read: this client has other plans.
            let _ = writer.write_all(&bytes[..cut]).await;
            go(plan, Connection { reader, writer }, dice).await;
            return (End::Left, None);
        }
        Some(Leave::Unanswered) => {
            let _ = writer.write_all(&bytes).await;
            go(plan, Connection { reader, writer }, dice).await;
            return (End::Left, None);
        }
        Some(Leave::InAnswer(_)) | None => {}
    }
    let keep = Cell::new(false);
    let end = {
        let read = answer(plan, &mut reader, &keep);
        let write = write(&mut writer, &bytes);
        tokio::pin!(read, write);
        let mut written = None;
        let end = loop {
            tokio::select! {
                result = &mut write, if written.is_none() => written = Some(result),
                end = &mut read => break end,
            }
        };
        if written.is_none() {
            // Answered early: the rest of the request is still owed, if the connection is to be used again.
            written = timeout(Duration::from_secs(5), &mut write).await.ok();
        }
        if written != Some(true) {
            keep.set(false);
        }
        end
    };
    if end == End::Left {
        go(plan, Connection { reader, writer }, dice).await;
        return (end, None);
    }
    if keep.get() && reader.has_unread() {
        return (End::Malformed("bytes after the answer".to_owned()), None);
    }
    (end, keep.get().then_some(Connection { reader, writer }))
}

async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> bool {
    writer.write_all(bytes).await.is_ok()
}

/// Leaves: at once or a little later, with a FIN or a RST.
async fn go(plan: &Plan, connection: Connection, dice: &mut fastrand::Rng) {
    if dice.bool() {
        tokio::time::sleep(Duration::from_millis(dice.u64(..20))).await;
    }
    if plan.abrupt {
        connection.abort();
    }
}

/// A request's bytes, and where in them a message has just ended.
fn request(plan: &Plan, seed: u64, dice: &mut fastrand::Rng) -> (Vec<u8>, Vec<usize>) {
    let mut body = Vec::new();
    let mut seams = Vec::new();
    for at in 0..plan.requests {
        caller::frame(&plan.message(Side::Request, at), &mut body);
        seams.push(body.len());
    }
    if plan.form == Form::Text {
        body = caller::text(&body);
        seams = vec![body.len()];
    }
    let mut fields = format!("{CALL}: {seed}.{}\r\n", plan.id);
    if let Some(deadline) = plan.deadline_ms {
        fields.push_str(&format!("grpc-timeout: {deadline}m\r\n"));
    }
    let framing = match plan.chunked {
        true => Framing::Chunked,
        false => Framing::Length(body.len()),
    };
    let mut out = caller::head(
        "ledger.test",
        plan.method.path(),
        plan.form,
        framing,
        &fields,
    );
    if !plan.chunked {
        let head = out.len();
        out.extend(body);
        // The whole is no cut.
        seams.pop();
        return (out, seams.into_iter().map(|seam| head + seam).collect());
    }
    let mut left = &body[..];
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(dice.usize(1..=40_000).min(left.len()));
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        left = rest;
    }
    // All but the last chunk.
    let seams = vec![out.len()];
    out.extend(b"0\r\n\r\n");
    (out, seams)
}

/// Reads an answer to its end, or to where the plan says that the client leaves.
async fn answer(plan: &Plan, reader: &mut caller::Reader, keep: &Cell<bool>) -> End {
    let broken = |broken| match broken {
        Broken::Cut(place) => End::Cut(place),
        Broken::Malformed(what) => End::Malformed(what),
    };
    let (head, mut body) = match reader.head().await {
        Ok(begun) => begun,
        Err(why) => return broken(why),
    };
    let own_head = head.get(OWN).map(str::to_owned);
    if own_head
        .as_ref()
        .is_some_and(|id| *id != plan.id.to_string())
    {
        return End::Wrong(format!("crossed: the head is call {own_head:?}'s"));
    }
    let mut answers = 0;
    let mut trailers = None;
    loop {
        if let Some(Leave::InAnswer(until)) = plan.leave
            && answers >= until
            && trailers.is_none()
        {
            return End::Left;
        }
        match reader.frame(&mut body).await {
            Ok(Frame::Message(message)) => {
                if let Err(wrong) = plan.check(Side::Answer, answers, &message) {
                    return End::Wrong(format!("answer message {answers}: {wrong}"));
                }
                answers += 1;
            }
            Ok(Frame::Trailers(fields)) => trailers = Some(fields),
            Ok(Frame::End) => break,
            Err(why) => return broken(why),
        }
    }
    keep.set(!head.closes());
    // A proxy may put a status into the head where there is no body.
    let fields = trailers.unwrap_or(head.fields);
    let get = |name: &str| {
        let field = fields.iter().find(|(at, _)| at == name)?;
        Some(field.1.clone())
    };
    let Some(code) = get("grpc-status") else {
        return match head.status {
            200 => End::NoStatus,
            status => End::Http(status),
        };
    };
    let Ok(code) = code.parse() else {
        return End::Malformed(format!("grpc-status {code:?}"));
    };
    let own = get(OWN);
    if own.as_ref().is_some_and(|id| *id != plan.id.to_string()) {
        return End::Wrong(format!("crossed: the trailers are call {own:?}'s"));
    }
    End::Status {
        code,
        own: own.is_some(),
        message: get("grpc-message").unwrap_or_default(),
        answers,
    }
}
