//! The comparison of the clients' books with the backends': what every call came to, and what may not be.

use std::collections::{BTreeMap, HashMap};

use caller::Place;

use crate::book::Entry;
use crate::client::End;
use crate::plan::{Leave, Method, Plan};

/// How long after its last word on a call a process must have lived for the call to count as undisturbed, milliseconds:
/// longer than a backend is ever stopped, with what it had said still unsent.
const UNDISTURBED_MS: u64 = 5_000;

/// What the books say.
#[derive(Debug, Default)]
pub struct Audit {
    /// Calls by how they ended.
    pub causes: BTreeMap<String, u64>,
    pub ok: u64,
    /// Errors that the backends themselves gave.
    pub own_errors: u64,
    /// Errors that the proxy gave in their place.
    pub proxy_errors: u64,
    pub cut_in_message: u64,
    pub left: u64,
    /// Calls that some backend saw.
    pub begun: u64,
    /// Of these, the ones whose process was killed under them.
    pub died: u64,
    /// What may not be, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The first of them, in words.
    pub stories: Vec<String>,
}

impl Audit {
    fn fault(&mut self, kind: &'static str, story: String) {
        *self.faults.entry(kind).or_default() += 1;
        if self.stories.len() < 40 {
            self.stories.push(format!("{kind}: {story}"));
        }
    }
}

/// What the backends know of one call.
#[derive(Debug, Default)]
struct Seen {
    begun: u32,
    read: bool,
    answered: Option<(u32, u32)>,
    left: Option<String>,
    last_ms: u64,
    /// When the process died that saw it last.
    killed_ms: Option<u64>,
}

impl Seen {
    /// Whether the backend that saw it went on living long enough.
    fn undisturbed(&self) -> bool {
        self.killed_ms
            .is_none_or(|killed| killed > self.last_ms + UNDISTURBED_MS)
    }
}

/// Compares everything. `books`: one per backend.
pub fn audit(seed: u64, ends: &[Option<End>], books: &[Vec<(u64, Entry)>]) -> Audit {
    let mut audit = Audit::default();
    let seen = gather(&mut audit, ends.len() as u64, books);
    let nobody = Seen::default();
    for (id, end) in ends.iter().enumerate() {
        let plan = Plan::of(seed, id as u64);
        let seen = seen.get(&plan.id).unwrap_or(&nobody);
        judge(&mut audit, &plan, end.as_ref(), seen);
    }
    audit
}

fn gather(audit: &mut Audit, calls: u64, books: &[Vec<(u64, Entry)>]) -> HashMap<u64, Seen> {
    let mut all: HashMap<u64, Seen> = HashMap::new();
    for book in books {
        let mut alive: Vec<u64> = Vec::new();
        for (at, entry) in book {
            let id = match entry {
                Entry::Started => continue,
                Entry::Killed => {
                    for id in alive.drain(..) {
                        if let Some(seen) = all.get_mut(&id) {
                            seen.killed_ms = Some(*at);
                            if seen.answered.is_none() && seen.left.is_none() {
                                audit.died += 1;
                            }
                        }
                    }
                    continue;
                }
                Entry::Begun(id)
                | Entry::Read(id, _)
                | Entry::Answered(id, ..)
                | Entry::Left(id, _)
                | Entry::Wrong(id, _) => *id,
            };
            if id >= calls {
                // The greetings before the run.
                continue;
            }
            let seen = all.entry(id).or_default();
            seen.last_ms = *at;
            match entry {
                Entry::Begun(_) => {
                    seen.begun += 1;
                    seen.killed_ms = None;
                    alive.push(id);
                    if seen.begun > 1 {
                        audit.fault("doubled", format!("call {id} was begun twice"));
                    }
                }
                Entry::Read(..) => seen.read = true,
                Entry::Answered(_, count, code) => seen.answered = Some((*count, *code)),
                Entry::Left(_, why) => seen.left = Some(why.clone()),
                Entry::Wrong(_, what) => {
                    let kind = match what {
                        what if what.contains("crossed") => "crossed",
                        what if what.contains("whole") => "truncated",
                        what if what.contains("order") => "order",
                        _ => "corrupt",
                    };
                    audit.fault(kind, format!("call {id} at the backend: {what}"));
                }
                Entry::Started | Entry::Killed => {}
            }
        }
    }
    audit.begun = all.values().filter(|seen| seen.begun > 0).count() as u64;
    for (id, seen) in &all {
        if seen.killed_ms.is_none() && seen.answered.is_none() && seen.left.is_none() {
            audit.fault("leaked", format!("call {id} is still open at its backend"));
        }
    }
    all
}

fn judge(audit: &mut Audit, plan: &Plan, end: Option<&End>, seen: &Seen) {
    let id = plan.id;
    let cause = match end {
        None => {
            audit.fault("lost", format!("call {id} has no end at all"));
            "nothing".to_owned()
        }
        Some(End::Status {
            code,
            own: true,
            answers,
            ..
        }) => {
            if *code != plan.code {
                audit.fault(
                    "status",
                    format!("call {id}: {code} instead of {}", plan.code),
                );
            }
            if *answers != plan.answers {
                let story = format!(
                    "call {id}: {answers} of {} messages, called whole",
                    plan.answers
                );
                audit.fault("truncated", story);
            }
            if seen.answered != Some((plan.answers, plan.code)) {
                audit.fault(
                    "invented",
                    format!("call {id}: its backend's book says {seen:?}"),
                );
            }
            if *code == 0 && plan.method != Method::Stream && !seen.read {
                audit.fault(
                    "truncated",
                    format!("call {id} is OK, but its request was not read whole"),
                );
            }
            match code {
                0 => {
                    audit.ok += 1;
                    "ok".to_owned()
                }
                code => {
                    audit.own_errors += 1;
                    format!("backend's own {code}")
                }
            }
        }
        Some(End::Status {
            code,
            own: false,
            message,
            ..
        }) => {
            audit.proxy_errors += 1;
            let excused = match code {
                0 => false,
                4 => plan.deadline_ms.is_some(),
                14 => true,
                _ => false,
            };
            if !excused {
                audit.fault(
                    "status",
                    format!("call {id}: the proxy's own {code} {message:?}; {seen:?}"),
                );
            } else if *code != 4 && seen.begun > 0 && seen.undisturbed() {
                audit.fault(
                    "dropped",
                    format!("call {id}: {code} {message:?}, but nobody disturbed it: {seen:?}"),
                );
            }
            format!("proxy's {code} {}", message.replace("%20", " "))
        }
        Some(End::Cut(Place::InMessage)) => {
            audit.cut_in_message += 1;
            // Only a stream can be cut so: what had begun could not be finished.
            if plan.deadline_ms.is_none() && seen.undisturbed() {
                audit.fault(
                    "dropped",
                    format!("call {id}: cut, but nobody disturbed it: {seen:?}"),
                );
            }
            "cut in-message".to_owned()
        }
        Some(End::Cut(place)) => {
            audit.fault(
                "lost",
                format!("call {id} was cut {place}, without a status; {seen:?}"),
            );
            format!("cut {place}")
        }
        Some(End::Left) => {
            audit.left += 1;
            if matches!(plan.leave, Some(Leave::InRequest(_))) && seen.read {
                audit.fault(
                    "truncated",
                    format!(
                        "call {id}: its client left within the request, which was called whole"
                    ),
                );
            }
            "client left".to_owned()
        }
        Some(End::Hung) => {
            audit.fault("hung", format!("call {id}; {seen:?}"));
            "hung".to_owned()
        }
        Some(End::Http(status)) => {
            audit.fault("lost", format!("call {id} got HTTP {status} and no status"));
            format!("HTTP {status}")
        }
        Some(End::NoStatus) => {
            audit.fault(
                "lost",
                format!("call {id} ended cleanly without a status; {seen:?}"),
            );
            "no status".to_owned()
        }
        Some(End::Malformed(what)) => {
            audit.fault("malformed", format!("call {id}: {what}"));
            "malformed".to_owned()
        }
        Some(End::Wrong(what)) => {
            let kind = if what.contains("crossed") {
                "crossed"
            } else if what.contains("order") {
                "order"
            } else {
                "corrupt"
            };
            audit.fault(kind, format!("call {id}: {what}"));
            kind.to_owned()
        }
        Some(End::NoConnection(why)) => {
            audit.fault(
                "lost",
                format!("call {id}: no connection to the proxy: {why}"),
            );
            "no connection".to_owned()
        }
    };
    *audit.causes.entry(cause).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 3;

    fn a_call(what: fn(&Plan) -> bool) -> Plan {
        (0..2000)
            .map(|id| Plan::of(SEED, id))
            .find(|plan| plan.leave.is_none() && plan.deadline_ms.is_none() && what(plan))
            .expect("there is one")
    }

    type Book = Vec<(u64, Entry)>;

    /// The faults of one call with this end and this book.
    fn faults(plan: &Plan, end: End, book: Book) -> Vec<&'static str> {
        let mut ends = vec![Some(End::Left); 2000];
        ends[plan.id as usize] = Some(end);
        audit(SEED, &ends, &[book]).faults.into_keys().collect()
    }

    fn own(plan: &Plan) -> End {
        End::Status {
            code: plan.code,
            own: true,
            message: String::new(),
            answers: plan.answers,
        }
    }

    fn unavailable() -> End {
        End::Status {
            code: 14,
            own: false,
            message: String::new(),
            answers: 0,
        }
    }

    fn good(plan: &Plan) -> Book {
        vec![
            (0, Entry::Started),
            (1, Entry::Begun(plan.id)),
            (2, Entry::Read(plan.id, plan.requests)),
            (3, Entry::Answered(plan.id, plan.answers, plan.code)),
        ]
    }

    #[test]
    fn a_good_call_has_no_fault() {
        let plan = a_call(|plan| plan.code == 0);
        assert_eq!(faults(&plan, own(&plan), good(&plan)), [""; 0]);
    }

    #[test]
    fn every_fault_is_found() {
        let plan = a_call(|plan| plan.code == 0 && plan.answers > 3);
        let with = |entry: Entry| [good(&plan), vec![(4, entry)]].concat();
        let (id, good) = (plan.id, good(&plan));
        let less = End::Status {
            code: 0,
            own: true,
            message: String::new(),
            answers: plan.answers - 1,
        };
        let invented = End::Status {
            code: 0,
            own: false,
            message: String::new(),
            answers: plan.answers,
        };
        let begun = vec![(0, Entry::Started), (1, Entry::Begun(id))];
        let killed = |at| [begun.clone(), vec![(at, Entry::Killed)]].concat();
        let rows: Vec<(End, Book, &str)> = vec![
            (own(&plan), with(Entry::Begun(id)), "doubled"),
            (
                own(&plan),
                with(Entry::Wrong(
                    id,
                    "request message 0: crossed: it is call 1's".into(),
                )),
                "crossed",
            ),
            (
                own(&plan),
                with(Entry::Wrong(id, "half a message was called whole".into())),
                "truncated",
            ),
            (
                own(&plan),
                with(Entry::Wrong(id, "request message 0: corrupt".into())),
                "corrupt",
            ),
            (less, good.clone(), "truncated"),
            (invented, good.clone(), "status"),
            (own(&plan), killed(2), "invented"),
            (unavailable(), good.clone(), "dropped"),
            (unavailable(), killed(1 + 2 * UNDISTURBED_MS), "dropped"),
            (unavailable(), begun.clone(), "leaked"),
            (End::Cut(Place::Boundary), good.clone(), "lost"),
            (End::Cut(Place::BeforeHead), good.clone(), "lost"),
            (End::Cut(Place::InMessage), good.clone(), "dropped"),
            (End::NoStatus, good.clone(), "lost"),
            (End::Http(503), good.clone(), "lost"),
            (End::Hung, good.clone(), "hung"),
            (End::Malformed(String::new()), good.clone(), "malformed"),
            (
                End::Wrong("answer message 0: out of order: it is number 1".into()),
                good.clone(),
                "order",
            ),
        ];
        for (end, book, kind) in rows {
            let found = faults(&plan, end.clone(), book);
            assert!(found.contains(&kind), "{end:?}: {found:?} lacks {kind}");
        }
        // What the kill of its backend explains is no fault.
        assert_eq!(faults(&plan, unavailable(), killed(2)), [""; 0]);
        assert_eq!(
            faults(&plan, End::Cut(Place::InMessage), killed(2)),
            [""; 0]
        );
    }

    #[test]
    fn a_request_that_its_client_never_finished_may_not_be_called_whole() {
        let plan = (0..2000)
            .map(|id| Plan::of(SEED, id))
            .find(|plan| matches!(plan.leave, Some(Leave::InRequest(_))))
            .expect("there is one");
        let left = |plan: &Plan| {
            vec![
                (0, Entry::Started),
                (1, Entry::Begun(plan.id)),
                (2, Entry::Left(plan.id, "reset".into())),
            ]
        };
        assert_eq!(faults(&plan, End::Left, left(&plan)), [""; 0]);
        assert_eq!(faults(&plan, End::Left, good(&plan)), ["truncated"]);
    }
}
