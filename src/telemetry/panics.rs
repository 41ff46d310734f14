//! Panics: caught in one way, told in one line.
//!
//! Owns the catching and the words. What is lost by a panic is the business of whoever catches it.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::thread;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does something that may panic. `None`: it did, and has been told by the hook. What it was working on cannot be trusted.
pub fn contained<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}

/// The same for a question that is answered by a panic: the hook says nothing of it.
pub fn quietly<T>(question: impl FnOnce() -> T) -> Option<T> {
    let before = QUIET.replace(true);
    let answer = contained(question);
    QUIET.set(before);
    answer
}

/// Has every panic told in one line of the log: what and where, and no backtrace. The main thread's is also told as ever,
/// for the process ends with it.
pub fn tell_in_the_log() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if QUIET.get() {
            return;
        }
        let thread = thread::current();
        let name = thread.name().unwrap_or("a thread without a name");
        log::error!("{}", line(name, info));
        if name == "main" {
            before(info);
        }
    }));
}

fn line(thread: &str, info: &PanicHookInfo<'_>) -> String {
    // A message may be a whole report; its first line names it.
    let what = info.payload_as_str().unwrap_or("without a word");
    let what = what.lines().next().unwrap_or_default();
    match info.location() {
        Some(place) => format!(
            "panic in {thread} at {}:{}: {what}",
            place.file(),
            place.line()
        ),
        None => format!("panic in {thread}: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_what_was_asked_quietly_is_not_told() {
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(quietly(|| QUIET.get()), Some(true));
        assert_eq!(quietly(|| panic!("unheard")), None::<()>);
        assert!(!QUIET.get(), "a panic is told again");
    }
}
