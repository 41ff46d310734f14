//! Text of strangers, made safe to show: on one line, in reading order, with nothing hidden and nothing that a terminal
//! obeys.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with everything escaped that is not plainly visible: control characters (CR, LF, ESC, NUL, DEL, C1), marks
/// that turn the direction of reading, spaces of no width, line and paragraph separators, and the backslash itself.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The same, and no longer than `max` characters: what is cut off leaves a mark.
pub(crate) fn escape_short(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    push_short(&mut out, text, max);
    out
}

/// Writes the same behind what `out` holds already. How many characters that were.
pub(crate) fn push_short(out: &mut String, text: &str, max: usize) -> usize {
    // Nearly all text is of this kind, and one look without a branch for each byte tells.
    let plain = |plain, byte: &u8| plain & matches!(byte, b' '..=b'[' | b']'..=b'~');
    if text.len() <= max && text.as_bytes().iter().fold(true, plain) {
        out.push_str(text);
        return text.len();
    }
    let end = text.char_indices().nth(max).map(|(end, _)| end);
    let shown = escape(end.map_or(text, |end| &text[..end]));
    out.push_str(&shown);
    if end.is_some() {
        out.push('…');
    }
    shown.chars().count() + usize::from(end.is_some())
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || c == '\\'
        || matches!(
            c,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_a_reader_would_not_see_is_spelled_out() {
        for (text, shown) in [
            (
                "plain /pkg.Service/Method é 漢",
                "plain /pkg.Service/Method é 漢",
            ),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("\0", "\\u{0}"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            (
                "a\u{202e}b\u{2066}c\u{200f}",
                "a\\u{202e}b\\u{2066}c\\u{200f}",
            ),
            (
                "a\u{2028}b\u{feff}\u{200b}",
                "a\\u{2028}b\\u{feff}\\u{200b}",
            ),
            ("\\n", "\\\\n"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn nothing_that_is_controlled_by_a_stranger_survives_in_any_character() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            let shown = escape(&text);
            assert!(!shown.contains(char::is_control), "{:x}", u32::from(c));
            assert_eq!(shown.lines().count(), 1, "{:x}", u32::from(c));
        }
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(escape_short("abc", 3), "abc");
        assert_eq!(escape_short("abcd", 3), "abc…");
        assert_eq!(escape_short("\n\n", 1), "\\n…");
        assert_eq!(escape_short("漢字漢", 2), "漢字…");
    }

    #[test]
    fn what_is_written_behind_other_text_is_the_same_and_counted() {
        let all: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        for text in ["", "plain", "a\\b", "a~ b", "漢", "\u{7f}", "a\nb", &all] {
            for max in [0, 1, 3, 2_000] {
                let mut out = "before ".to_owned();
                let count = push_short(&mut out, text, max);
                let shown = out.strip_prefix("before ").expect("it stays");
                assert_eq!(shown, escape_short(text, max));
                assert_eq!(shown.chars().count(), count, "{text:?} {max}");
                if text.chars().count() <= max {
                    assert_eq!(shown, escape(text));
                }
            }
        }
    }
}
