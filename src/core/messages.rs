//! What crosses between the control thread and a core: two enums, and nothing else is shared.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::Snapshot;
use crate::telemetry::Record;
use crate::upstream::Attempt;

/// How many reports may wait for whoever reads them; beyond it they are dropped, and records among them are counted.
pub(super) const REPORTS_MAX: usize = 8192;

/// What the control thread asks of a core. Obeyed between turns.
#[derive(Debug)]
pub enum Command {
    /// From now on these rules.
    Adopt(Arc<Snapshot>),
    /// Connect to every endpoint that has no connection, and report.
    Probe,
    /// Take no more connections, let open calls end, then stop. What has not ended after so long ends with UNAVAILABLE.
    Drain(Duration),
    /// Stop at once.
    Stop,
}

/// What a core tells the control thread, or whoever prints.
#[derive(Debug)]
pub enum Report {
    /// A call has ended.
    Record(Box<Record>),
    /// An attempt to connect to a backend has ended. In a box, like a record: the queue has room for thousands of the largest.
    Attempt(Box<Attempt>),
    /// This core now obeys the snapshot of that generation.
    Adopted {
        /// Which core.
        core: usize,
        /// Of which generation.
        generation: u64,
    },
    /// This core has closed everything.
    Stopped {
        /// Which core.
        core: usize,
        /// How many records found the channel full and were dropped.
        records_dropped: u64,
    },
    /// This core's thread has panicked; its connections are lost, its listeners are closed.
    Failed {
        /// Which core.
        core: usize,
    },
}
