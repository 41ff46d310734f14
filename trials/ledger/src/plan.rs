//! What a call is: everything about it follows from the run's seed and its id, so that the client, the backend and whoever
//! compares their books know it without asking each other.
//!
//! Owns also the stamp that every message bears, and the check of it.

use std::fmt;

use caller::Form;

/// How gRPC shapes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Unary,
    Stream,
    Upload,
}

impl Method {
    pub fn path(self) -> &'static str {
        match self {
            Self::Unary => "/trials.ledger.v1.Ledger/Unary",
            Self::Stream => "/trials.ledger.v1.Ledger/Stream",
            Self::Upload => "/trials.ledger.v1.Ledger/Upload",
        }
    }
}

/// When a client leaves that does not stay to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With so many thousandths of its request written, and never all of it.
    InRequest(u32),
    /// With its request written, before a byte of the answer was read.
    Unanswered,
    /// After so many messages of the answer.
    InAnswer(u32),
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub id: u64,
    pub method: Method,
    pub form: Form,
    pub chunked: bool,
    pub requests: u32,
    pub answers: u32,
    /// The status that the backend ends it with.
    pub code: u32,
    /// The backend answers when it has read so many messages, and wants no more.
    pub early: Option<u32>,
    pub deadline_ms: Option<u64>,
    /// How long the backend rests: before its answer, and in the middle of a stream.
    pub rest_ms: u64,
    pub leave: Option<Leave>,
    /// A client that leaves does so with a RST.
    pub abrupt: bool,
    seed: u64,
}

impl Plan {
    pub fn of(seed: u64, id: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(mixed(seed, id));
        let method = match dice.u32(..100) {
            0..50 => Method::Unary,
            50..80 => Method::Stream,
            _ => Method::Upload,
        };
        let form = [Form::Binary, Form::Binary, Form::Text][dice.usize(..3)];
        let code = match dice.u32(..5) {
            0 => [5, 9, 13, 14, 16][dice.usize(..5)],
            _ => 0,
        };
        let requests = match method {
            Method::Upload => dice.u32(0..12),
            Method::Unary | Method::Stream => 1,
        };
        let answers = match method {
            Method::Stream => dice.u32(0..20),
            Method::Unary | Method::Upload => u32::from(code == 0),
        };
        let early = (code != 0 && method == Method::Upload && requests > 1 && dice.bool())
            .then(|| dice.u32(0..requests));
        let deadline_ms = (dice.u32(..100) < 15).then(|| dice.u64(20..3000));
        let rest_ms = match dice.u32(..100) {
            0..6 => dice.u64(1..400),
            _ => 0,
        };
        let leave = match dice.u32(..100) {
            0..3 => Some(Leave::InRequest(dice.u32(..1000))),
            3..5 => Some(Leave::Unanswered),
            5..9 => Some(Leave::InAnswer(dice.u32(0..=answers))),
            _ => None,
        };
        Self {
            id,
            method,
            form,
            chunked: method == Method::Upload && dice.bool(),
            requests,
            answers,
            code,
            early,
            deadline_ms,
            rest_ms,
            leave,
            abrupt: dice.bool(),
            seed,
        }
    }

    /// A message of this call. Some hold nothing at all: who they are is known from where they stand.
    pub fn message(&self, side: Side, at: u32) -> Vec<u8> {
        let mut dice = fastrand::Rng::with_seed(mixed(
            self.seed,
            mixed(self.id, u64::from(at) << 8 | side as u64),
        ));
        let length: usize = match dice.u32(..100) {
            0..8 => return Vec::new(),
            8..60 => dice.usize(..256),
            60..85 => dice.usize(..8 << 10),
            85..96 => dice.usize(..64 << 10),
            _ => dice.usize(..200 << 10),
        };
        let mut out = Vec::with_capacity(STAMP_BYTES + length);
        out.extend(self.id.to_be_bytes());
        out.push(side as u8);
        out.extend(at.to_be_bytes());
        out.extend(self.count(side).to_be_bytes());
        out.extend([0; 8]);
        out.resize(STAMP_BYTES + length, 0);
        dice.fill(&mut out[STAMP_BYTES..]);
        let sum = checksum(&out);
        out[SUM_AT..STAMP_BYTES].copy_from_slice(&sum.to_be_bytes());
        out
    }

    pub fn count(&self, side: Side) -> u32 {
        match side {
            Side::Request => self.requests,
            Side::Answer => self.answers,
        }
    }

    /// Whether these bytes are the message that stands at this place.
    pub fn check(&self, side: Side, at: u32, bytes: &[u8]) -> Result<(), Wrong> {
        if at >= self.count(side) {
            return Err(Wrong::TooMany);
        }
        if bytes.is_empty() {
            return match self.message(side, at).is_empty() {
                true => Ok(()),
                false => Err(Wrong::Emptied),
            };
        }
        if bytes.len() < STAMP_BYTES {
            return Err(Wrong::Corrupt);
        }
        let (head, _) = bytes.split_at(STAMP_BYTES);
        let mut sum = [0; 8];
        sum.copy_from_slice(&head[SUM_AT..]);
        if u64::from_be_bytes(sum) != checksum(bytes) {
            return Err(Wrong::Corrupt);
        }
        let mut id = [0; 8];
        id.copy_from_slice(&head[..8]);
        let mut number = [0; 4];
        number.copy_from_slice(&head[9..13]);
        if u64::from_be_bytes(id) != self.id || head[8] != side as u8 {
            Err(Wrong::Crossed(u64::from_be_bytes(id)))
        } else if u32::from_be_bytes(number) != at {
            Err(Wrong::Order(u32::from_be_bytes(number)))
        } else {
            Ok(())
        }
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Answer,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is another call's.
    Crossed(u64),
    /// It is another one of this call.
    Order(u32),
    Corrupt,
    /// It should not have been empty.
    Emptied,
    TooMany,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crossed(id) => write!(f, "crossed: it is call {id}'s"),
            Self::Order(at) => write!(f, "out of order: it is number {at}"),
            Self::Corrupt => f.write_str("corrupt"),
            Self::Emptied => f.write_str("emptied"),
            Self::TooMany => f.write_str("one too many"),
        }
    }
}

/// Id, side, number, count, checksum.
const STAMP_BYTES: usize = SUM_AT + 8;
const SUM_AT: usize = 8 + 1 + 4 + 4;

/// Over everything but itself.
fn checksum(message: &[u8]) -> u64 {
    let (head, body) = message.split_at(STAMP_BYTES);
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| {
        sum = (sum ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    };
    for &byte in &head[..SUM_AT] {
        add(byte.into());
    }
    let (words, rest) = body.as_chunks::<8>();
    for &word in words {
        add(u64::from_le_bytes(word));
    }
    for &byte in rest {
        add(byte.into());
    }
    add(body.len() as u64);
    sum
}

/// Two numbers as one that looks like neither (splitmix64's finish).
fn mixed(one: u64, other: u64) -> u64 {
    let mut out = one ^ other.wrapping_add(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    out = (out ^ out >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    out = (out ^ out >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    out ^ out >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_for_what_it_is_and_for_nothing_else() {
        let full =
            |plan: &Plan| (0..plan.answers).find(|&at| !plan.message(Side::Answer, at).is_empty());
        let plan = (0..)
            .map(|id| Plan::of(1, id))
            .find(|plan| plan.answers > 2 && full(plan) == Some(0))
            .expect("there are many");
        let other = Plan {
            id: plan.id + 1,
            ..plan
        };
        let message = plan.message(Side::Answer, 0);
        assert_eq!(plan.check(Side::Answer, 0, &message), Ok(()));
        assert_eq!(plan.check(Side::Answer, 1, &message), Err(Wrong::Order(0)));
        assert_eq!(
            plan.check(Side::Answer, plan.answers, &message),
            Err(Wrong::TooMany)
        );
        assert_eq!(
            other.check(Side::Answer, 0, &message),
            Err(Wrong::Crossed(plan.id))
        );
        assert_eq!(
            plan.check(Side::Request, 0, &message),
            Err(Wrong::Crossed(plan.id))
        );
        assert_eq!(plan.check(Side::Answer, 0, &[]), Err(Wrong::Emptied));
        for at in 0..message.len() {
            let mut bent = message.clone();
            bent[at] ^= 1;
            assert!(plan.check(Side::Answer, 0, &bent).is_err(), "byte {at}");
        }
        for length in 1..message.len() {
            assert!(
                plan.check(Side::Answer, 0, &message[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_seed_holds_every_kind_of_call() {
        let plans: Vec<Plan> = (0..3000).map(|id| Plan::of(7, id)).collect();
        let has = |what: fn(&Plan) -> bool| plans.iter().any(what);
        assert!(has(
            |plan| plan.method == Method::Upload && plan.early == Some(0)
        ));
        assert!(has(
            |plan| plan.method == Method::Upload && plan.requests == 0
        ));
        assert!(has(|plan| plan.method == Method::Stream
            && plan.answers == 0
            && plan.code == 0));
        assert!(has(|plan| plan.code != 0 && plan.answers > 0));
        assert!(has(|plan| plan.deadline_ms.is_some() && plan.rest_ms > 100));
        assert!(has(|plan| matches!(plan.leave, Some(Leave::InRequest(_)))));
        assert!(has(|plan| plan.leave == Some(Leave::Unanswered)));
        assert!(has(|plan| matches!(plan.leave, Some(Leave::InAnswer(1..)))));
        let sizes: Vec<usize> = plans
            .iter()
            .flat_map(|plan| (0..plan.answers).map(|at| plan.message(Side::Answer, at).len()))
            .collect();
        assert!(sizes.contains(&0) && sizes.iter().any(|&size| size > 190 << 10));
    }
}
