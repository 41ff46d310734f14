//! Colour: on a terminal, unless somebody does not want it.

use std::io::IsTerminal;

/// Whether escape sequences may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Text alone.
    Never,
    /// ANSI sequences for colour.
    Ansi,
}

/// What a piece of text is, for whoever sees colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Bad,
    Odd,
    Faint,
    Strong,
}

impl Color {
    /// For standard output, by <https://no-color.org>, `CLICOLOR_FORCE` and `TERM=dumb`.
    pub fn of_stdout() -> Self {
        Self::choose(std::io::stdout().is_terminal() && !dumb(), &set)
    }

    /// For standard error.
    pub fn of_stderr() -> Self {
        Self::choose(std::io::stderr().is_terminal() && !dumb(), &set)
    }

    fn choose(terminal: bool, set: &dyn Fn(&str) -> bool) -> Self {
        if set("NO_COLOR") {
            Self::Never
        } else if terminal || set("CLICOLOR_FORCE") {
            Self::Ansi
        } else {
            Self::Never
        }
    }

    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        format!("{}{text}{}", self.on(paint), self.off())
    }

    /// What begins text of that kind.
    pub(crate) const fn on(self, paint: Paint) -> &'static str {
        match (self, paint) {
            (Self::Never, _) => "",
            (Self::Ansi, Paint::Good) => "\x1b[32m",
            (Self::Ansi, Paint::Bad) => "\x1b[31m",
            (Self::Ansi, Paint::Odd) => "\x1b[33m",
            (Self::Ansi, Paint::Faint) => "\x1b[2m",
            (Self::Ansi, Paint::Strong) => "\x1b[1m",
        }
    }

    /// What ends it.
    pub(crate) const fn off(self) -> &'static str {
        match self {
            Self::Never => "",
            Self::Ansi => "\x1b[0m",
        }
    }
}

/// A terminal that knows no sequences.
fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The variable is there and is not empty, and is not the word for no.
fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_and_for_nobody_who_said_no() {
        for (terminal, variables, color) in [
            (true, &[][..], Color::Ansi),
            (false, &[], Color::Never),
            (true, &["NO_COLOR"], Color::Never),
            (false, &["CLICOLOR_FORCE"], Color::Ansi),
            (false, &["CLICOLOR_FORCE", "NO_COLOR"], Color::Never),
        ] {
            let chosen = Color::choose(terminal, &|name| variables.contains(&name));
            assert_eq!(chosen, color, "{terminal} {variables:?}");
        }
    }
}
