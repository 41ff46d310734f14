//! Whoever prints on standard output: the banner, then a line for each finished call and for each backend that changes.
//!
//! Owns when something is written, never how a line looks. Where nobody reads, lines are dropped and counted; calls go on.
//!
//! A line of its own appears at once. After it the printer rests a moment, and what has come meanwhile is written together:
//! under load a core finds nobody whom it must wake, and hundreds of lines cost a few writes.

use std::collections::HashMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, select};

use crate::cli::access::Lines;
use crate::cli::args::Exit;
use crate::cli::banner::{self, Banner, Probe, Row, backend_line};
use crate::cli::style::Color;
use crate::control::Notice;
use crate::core::Report;
use crate::policy::Remedy;
use crate::telemetry::Record;
use crate::upstream::{Attempt, Opening};
use crate::wire::Reason;

/// How long the banner waits for the backends to answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long the printer rests after it has written: so much later may a line appear that follows another one. Long enough that
/// waking it costs nothing beside the calls of that time, and short enough for eyes and for the caches of the CPU.
const REST: Duration = Duration::from_millis(5);
/// How much is written at once, bytes, in whole lines: as much as a pipe takes in one piece (`PIPE_BUF`, pipe(7)), so that
/// lines do not mix with those of the log on the same pipe.
const PIECE_MAX: usize = 4096;

/// Where the printer hears what it is to print.
pub(crate) struct Ears {
    /// From the cores.
    pub(crate) records: Receiver<Report>,
    /// Takes records back that are printed.
    pub(crate) spent: Sender<Box<Record>>,
    /// From the control thread.
    pub(crate) notices: Receiver<Notice>,
}

/// What was heard before the banner was said.
#[derive(Default)]
pub(crate) struct Early {
    reports: Vec<Report>,
    notices: Vec<Notice>,
}

/// Writes to `W`.
pub(crate) struct Printer<W> {
    out: W,
    color: Color,
    lines: Lines,
    /// Whole lines that are not written yet.
    text: String,
    /// What was said last of each endpoint.
    known: HashMap<Arc<str>, Probe>,
    /// The backends that an endpoint belongs to, where a file has given them names.
    owners: HashMap<Arc<str>, Vec<Arc<str>>>,
    remedy: Remedy,
    ears: Ears,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, color: Color, remedy: Remedy, ears: Ears) -> Self {
        Self {
            out,
            color,
            lines: Lines::new(color).without_file(remedy == Remedy::Flag),
            text: String::new(),
            known: HashMap::new(),
            owners: HashMap::new(),
            remedy,
            ears,
        }
    }

    /// The same, and each of these endpoints is shown with the names of its backends, by which lines of calls tell of them.
    pub(crate) fn owned_by(self, owners: HashMap<Arc<str>, Vec<Arc<str>>>) -> Self {
        Self { owners, ..self }
    }

    /// An endpoint as it is shown: `localhost:50051`, or `localhost:50051 (greeter)`.
    fn shown(&self, endpoint: &Arc<str>) -> String {
        match self.owners.get(endpoint) {
            Some(owners) => format!("{endpoint} ({})", owners.join(", ")),
            None => endpoint.to_string(),
        }
    }

    /// Gathers what the first attempts say; what else is heard is kept for later.
    pub(crate) fn wait_for_backends(&mut self, count: usize) -> Early {
        let mut early = Early::default();
        let end = after(PROBE_TIMEOUT);
        while self.known.len() < count {
            select! {
                recv(self.ears.records) -> report => match report {
                    Ok(Report::Attempt(attempt)) => {
                        let probe = probe_of(&attempt);
                        // That a name has no address is known already, and says more than "no attempt was possible".
                        if attempt.failure != Some(Reason::BackendDns) {
                            self.known.insert(attempt.endpoint, probe);
                        }
                    }
                    Ok(other) => early.reports.push(other),
                    Err(_) => break,
                },
                recv(self.ears.notices) -> notice => match notice {
                    Ok(Notice::Unresolved { name, error }) => {
                        self.known.insert(name, Probe::NoAddress(error));
                    }
                    Ok(other) => early.notices.push(other),
                    Err(_) => break,
                },
                recv(end) -> _ => break,
            }
        }
        early
    }

    /// Says where pages come in and how each endpoint stands.
    /// Which backends the banner tells of is found out here.
    pub(crate) fn banner(&mut self, banner: &Banner<'_>, endpoints: &[Arc<str>]) {
        let mut rows = Vec::new();
        for name in endpoints {
            let silent = Probe::Timeout(PROBE_TIMEOUT);
            let probe = self.known.entry(Arc::clone(name)).or_insert(silent).clone();
            rows.push(Row {
                name: self.shown(name),
                probe,
            });
        }
        if banner.demo {
            let name = crate::wire::proto::demo::SERVICE.to_owned();
            rows.push(Row {
                name,
                probe: Probe::Local,
            });
        }
        let banner = Banner {
            backends: &rows,
            ..banner.clone()
        };
        let text = banner::render(&banner, self.color);
        Self::out(&mut self.out, &text);
    }

    /// Prints whatever comes, until the last word.
    pub(crate) fn print_until_stopped(mut self, early: Early) -> Exit {
        match self.print(early) {
            ControlFlow::Break(exit) => exit,
            ControlFlow::Continue(never) => match never {},
        }
    }

    fn print(&mut self, early: Early) -> ControlFlow<Exit, std::convert::Infallible> {
        for report in early.reports {
            self.report(report);
        }
        for notice in early.notices {
            self.round(Some(notice))?;
        }
        self.round(None)?;
        loop {
            let notice = select! {
                recv(self.ears.records) -> report => {
                    if let Ok(report) = report {
                        self.report(report);
                    }
                    None
                }
                recv(self.ears.notices) -> notice => match notice {
                    Ok(notice) => Some(notice),
                    // The control thread has gone without a word.
                    Err(_) => return ControlFlow::Break(Exit::Failed),
                },
            };
            self.round(notice)?;
            // Whoever sends something meanwhile finds nobody at the channel whom it must wake.
            // clock: this thread only prints; waiting at a channel would spin before it sleeps.
            thread::sleep(REST);
        }
    }

    /// Writes what the cores have told up to now, and then the notice.
    fn round(&mut self, notice: Option<Notice>) -> ControlFlow<Exit> {
        // No more than there are: the next ones may come as fast as these are written.
        for _ in 0..self.ears.records.len() {
            if let Ok(report) = self.ears.records.try_recv() {
                self.report(report);
            }
        }
        let end = match &notice {
            Some(notice) => self.notice(notice),
            None => ControlFlow::Continue(()),
        };
        Self::out(&mut self.out, &self.text);
        self.text.clear();
        end
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Record(mut record) => {
                self.push(|lines, text| {
                    lines.append(&record, text);
                    text.push('\n');
                });
                record.trim();
                // Where enough are waiting already it is not needed.
                let _ = self.ears.spent.try_send(record);
            }
            Report::Attempt(attempt) if attempt.failure != Some(Reason::BackendDns) => {
                self.backend(&attempt.endpoint, probe_of(&attempt));
            }
            Report::Attempt(_)
            | Report::Adopted { .. }
            | Report::Stopped { .. }
            | Report::Failed { .. } => {}
        }
    }

    fn notice(&mut self, notice: &Notice) -> ControlFlow<Exit> {
        match notice {
            Notice::Unresolved { name, error } => {
                self.backend(name, Probe::NoAddress(error.clone()));
            }
            Notice::Draining { limit } => {
                let seconds = limit.as_secs();
                let line = format!(
                    "stopping as soon as no call is open, after {seconds} s at the latest; a second Ctrl-C stops at once\n"
                );
                self.push(|_, text| text.push_str(&line));
            }
            Notice::Stopped {
                dropped, forced, ..
            } => {
                if *dropped > 0 {
                    log::warn!("{dropped} lines were dropped: whoever reads them is too slow");
                }
                return ControlFlow::Break(if *forced { Exit::Failed } else { Exit::Fine });
            }
        }
        ControlFlow::Continue(())
    }

    /// Says how an endpoint stands, if that has changed.
    fn backend(&mut self, name: &Arc<str>, probe: Probe) {
        let before = self.known.insert(Arc::clone(name), probe.clone());
        let changed = before
            .is_none_or(|before| std::mem::discriminant(&before) != std::mem::discriminant(&probe));
        if changed {
            let line = backend_line(
                &Row {
                    name: self.shown(name),
                    probe,
                },
                self.remedy,
                self.color,
            );
            self.push(|_, text| text.push_str(&line));
        }
    }

    /// Has whole lines written behind the others. What is too much for one piece with them makes them be written first.
    fn push(&mut self, write: impl FnOnce(&mut Lines, &mut String)) {
        let before = self.text.len();
        write(&mut self.lines, &mut self.text);
        if self.text.len() > PIECE_MAX && before > 0 {
            Self::out(&mut self.out, &self.text[..before]);
            self.text.drain(..before);
        }
    }

    fn out(out: &mut W, text: &str) {
        if text.is_empty() {
            return;
        }
        // Where nobody reads any more there is nobody to tell; calls go on.
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

fn probe_of(attempt: &Attempt) -> Probe {
    match (attempt.failure, &attempt.opening) {
        (None, _) => match attempt.tried.first() {
            Some(&address) => Probe::Answers {
                address,
                elapsed: attempt.elapsed,
            },
            None => Probe::NotGrpc,
        },
        (Some(Reason::BackendConnectRefused), _) => Probe::Refused {
            tried: attempt.tried.clone(),
        },
        (Some(Reason::BackendConnectTimeout), _) => Probe::Timeout(attempt.elapsed),
        (Some(Reason::BackendTls), _) => Probe::WantsTls,
        (Some(Reason::BackendDns), _) => Probe::NoAddress("it has no address".to_owned()),
        (Some(_), Some(Opening::Http1(line))) => Probe::SpeaksHttp1(line.clone()),
        (Some(Reason::BackendClosed), None) => Probe::ClosedMute,
        (Some(Reason::BackendClosed), Some(Opening::Http2)) => Probe::ClosedEarly,
        (Some(_), _) => Probe::NotGrpc,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Instant;

    use crossbeam_channel::{bounded, unbounded};

    use super::*;
    use crate::wire::{Code, Party};

    /// Only a failing test waits so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Tells of every single write.
    struct Writes(Sender<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = str::from_utf8(bytes).expect("it is text").to_owned();
            self.0.send(text).expect("somebody looks");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Desk {
        records: Sender<Report>,
        spent: Receiver<Box<Record>>,
        notices: Sender<Notice>,
        written: Receiver<String>,
    }

    fn desk() -> (Desk, Printer<Writes>) {
        let (write, written) = unbounded();
        let (records, recorded) = unbounded();
        let (spend, spent) = bounded(1000);
        let (notices, noticed) = unbounded();
        let ears = Ears {
            records: recorded,
            spent: spend,
            notices: noticed,
        };
        let desk = Desk {
            records,
            spent,
            notices,
            written,
        };
        let printer = Printer::new(Writes(write), Color::Never, Remedy::Flag, ears);
        (desk, printer)
    }

    impl Desk {
        fn call(&self, name: &str) {
            let record = Record {
                path: name.to_owned(),
                protocol: "grpc-web",
                code: Some(Code::OK),
                http_status: Some(200),
                by: Party::Upstream,
                ..Record::blank()
            };
            let report = Report::Record(Box::new(record));
            self.records.send(report).expect("the printer lives");
        }

        fn stop(&self) {
            let last = Notice::Stopped {
                dropped: 0,
                forced: false,
                heard: bounded(0).0,
            };
            self.notices.send(last).expect("the printer lives");
        }
    }

    #[test]
    fn lines_that_come_together_are_written_in_whole_pieces_in_their_order_before_the_end() {
        let (desk, printer) = desk();
        for n in 0..500 {
            desk.call(&format!("call.{n}."));
        }
        desk.notices
            .send(Notice::Draining {
                limit: Duration::from_secs(3),
            })
            .expect("the printer lives");
        desk.call("later");
        desk.stop();
        let exit = printer.print_until_stopped(Early::default());
        assert!(matches!(exit, Exit::Fine));
        let pieces: Vec<String> = desk.written.try_iter().collect();
        for piece in &pieces {
            assert!(piece.ends_with('\n') && piece.len() <= PIECE_MAX, "{piece}");
        }
        let text = pieces.concat();
        let lines: Vec<&str> = text.lines().collect();
        for (n, line) in lines.iter().take(500).enumerate() {
            assert!(line.contains(&format!("  call.{n}. ")), "{n}: {line}");
        }
        assert_eq!(lines.len(), 502);
        assert!(lines.iter().any(|line| line.starts_with("stopping ")));
        let least = text.len() / PIECE_MAX;
        assert!(pieces.len() <= least + least / 10 + 3, "{}", pieces.len());
        assert_eq!(desk.spent.len(), 501, "every record comes back");
    }

    #[test]
    fn a_line_longer_than_a_piece_is_written_whole() {
        let (desk, printer) = desk();
        desk.call("before");
        // Each of them is shown as `\u{202e}`.
        desk.call(&"\u{202e}".repeat(119));
        desk.call("behind");
        desk.stop();
        let mut printer = printer;
        let long = "x".repeat(PIECE_MAX);
        printer.push(|_, text| text.push_str(&format!("{long}\n")));
        printer.print_until_stopped(Early::default());
        let pieces: Vec<String> = desk.written.try_iter().collect();
        assert_eq!(pieces.first(), Some(&format!("{long}\n")));
        assert_eq!(pieces.concat().lines().count(), 4);
    }

    #[test]
    fn a_line_of_its_own_appears_while_others_are_not_there_yet_and_those_that_follow_wait_for_a_rest()
     {
        const CALLS: u32 = 20;
        let (desk, printer) = desk();
        let printing = thread::spawn(|| printer.print_until_stopped(Early::default()));
        let begun = Instant::now();
        for n in 0..CALLS {
            desk.call(&format!("call.{n}."));
            let line = desk.written.recv_timeout(PATIENCE).expect("a line");
            assert!(line.contains(&format!("  call.{n}. ")), "{line}");
        }
        // Whoever writes a line and goes to sleep at once must be woken for the next one. It rests behind every line but perhaps
        // the first, which may have been there before it looked for the first time, and the last, which nobody waits for.
        assert!(begun.elapsed() >= REST * (CALLS - 2), "it never rested");
        desk.stop();
        assert!(matches!(printing.join(), Ok(Exit::Fine)));
    }

    #[test]
    fn what_was_heard_before_the_banner_stands_behind_it() {
        let (desk, mut printer) = desk();
        desk.call("early");
        desk.notices
            .send(Notice::Unresolved {
                name: "a:1".into(),
                error: "no such name".to_owned(),
            })
            .expect("the printer lives");
        desk.stop();
        // The last word comes early too; one endpoint is known by then, the other never.
        let early = printer.wait_for_backends(2);
        assert_eq!((early.reports.len(), early.notices.len()), (1, 1));
        assert!(desk.written.is_empty());
        printer.print_until_stopped(early);
        let text: String = desk.written.try_iter().collect();
        assert!(text.contains("  early "), "{text}");
    }

    #[test]
    fn an_endpoint_is_shown_with_the_name_that_calls_know_its_backend_by() {
        let (desk, printer) = desk();
        let owners = [("a:1".into(), vec!["greeter".into(), "users".into()])];
        let printer = printer.owned_by(owners.into());
        for name in ["a:1", "b:1"] {
            let unresolved = Notice::Unresolved {
                name: name.into(),
                error: "no such name".to_owned(),
            };
            desk.notices.send(unresolved).expect("the printer lives");
        }
        desk.stop();
        printer.print_until_stopped(Early::default());
        let text: String = desk.written.try_iter().collect();
        assert!(text.contains("Backend   a:1 (greeter, users)  "), "{text}");
        assert!(text.contains("Backend   b:1   "), "{text}");
    }

    #[test]
    fn an_endpoint_that_closes_mute_one_that_talks_noise_and_one_that_leaves_early_are_told_apart()
    {
        for (reason, opening, probe) in [
            (Reason::BackendClosed, None, Probe::ClosedMute),
            (
                Reason::BackendClosed,
                Some(Opening::Http2),
                Probe::ClosedEarly,
            ),
            (
                Reason::BackendNotGrpc(0),
                Some(Opening::Noise),
                Probe::NotGrpc,
            ),
            (Reason::BackendTls, Some(Opening::Tls), Probe::WantsTls),
        ] {
            let attempt = Attempt {
                backend: "a".into(),
                endpoint: "a:1".into(),
                tried: vec!["127.0.0.1:1".parse().unwrap()],
                elapsed: Duration::from_millis(1),
                failure: Some(reason),
                opening,
            };
            assert_eq!(probe_of(&attempt), probe, "{reason:?}");
        }
    }
}
