//! Errors that point: a stable number, a sentence, the place with a caret, and what to type.
//!
//! Owns how a finding looks (annotate-snippets draws it, as rustc's do) and where texts lie: the file and the command line
//! stand one behind the other in one space of offsets, so that a finding needs no more than a range.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as DrawnLevel, Renderer, Snippet};

/// Everything that was found wrong, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it stops the start.
    pub level: Level,
    /// Stable: `E103` means the same in every version.
    pub number: &'static str,
    /// What is wrong.
    pub sentence: String,
    /// Where, in the space of [`Sources`]; `None` for what is missing.
    pub at: Option<Range<usize>>,
    /// A few words at the caret.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing starts.
    Error,
    /// Legal, and surely unwanted.
    Warning,
}

/// The texts that a configuration came from.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Source>);

/// One text.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name as an error shows it: the file's path, or `command line`.
    pub name: String,
    /// Itself.
    pub text: String,
}

impl Sources {
    /// One text, at offset zero.
    pub fn of(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self(vec![Source {
            name: name.into(),
            text: text.into(),
        }])
    }

    /// Adds a text behind the others; its offsets begin at [`Sources::end`] as it was before.
    pub fn push(&mut self, source: Source) {
        self.0.push(source);
    }

    /// Where the next text would begin.
    pub fn end(&self) -> usize {
        // One apart, so that the end of a text is not the beginning of the next.
        self.0.iter().map(|source| source.text.len() + 1).sum()
    }

    fn find(&self, at: &Range<usize>) -> Option<(&Source, Range<usize>)> {
        let mut base = 0;
        for source in &self.0 {
            let len = source.text.len();
            if at.start >= base && at.start <= base + len {
                let end = (at.end.max(at.start) - base).min(len);
                return Some((source, at.start - base..end));
            }
            base += len + 1;
        }
        None
    }
}

impl Findings {
    /// Whether anything stops the start.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Error)
    }

    /// All of them as text for a terminal, each with its place.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for finding in &self.0 {
            out.push_str(&renderer.render(&[finding.group(sources)]));
            out.push('\n');
        }
        out
    }

    pub(super) fn sort(&mut self) {
        self.0
            .sort_by_key(|finding| finding.at.as_ref().map_or(usize::MAX, |at| at.start));
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

impl Finding {
    pub(super) fn error(number: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            number,
            sentence: sentence.into(),
            at: None,
            label: String::new(),
            help: None,
        }
    }

    pub(super) fn warning(number: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(number, sentence)
        }
    }

    pub(super) fn at(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.at = Some(at);
        self.label = label.into();
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Something is missing, rather than wrong.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.number, "E104" | "E108" | "E112")
    }

    fn group<'a>(&'a self, sources: &'a Sources) -> Group<'a> {
        let level = match self.level {
            Level::Error => DrawnLevel::ERROR,
            Level::Warning => DrawnLevel::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(&self.sentence).id(self.number));
        if let Some((source, span)) = self.at.as_ref().and_then(|at| sources.find(at)) {
            let mut caret = AnnotationKind::Primary.span(span);
            if !self.label.is_empty() {
                caret = caret.label(&self.label);
            }
            group = group.element(
                Snippet::source(&source.text)
                    .path(&source.name)
                    .annotation(caret),
            );
        }
        if let Some(help) = &self.help {
            group = group.element(DrawnLevel::HELP.message(help));
        }
        group
    }
}

impl fmt::Display for Findings {
    /// Sentences alone, for a log that has no room for carets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{}: {}", finding.number, finding.sentence)?;
            if let Some(help) = &finding.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Findings {}
