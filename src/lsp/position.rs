//! What a column counts (LSP 3.17, position encodings). Clients of ours always count UTF-16 units; every server must
//! be able to as well, but some choose for themselves.

/// What a server's columns count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    /// Bytes.
    Utf8,
    /// What LSP means when nothing is said.
    #[default]
    Utf16,
    /// Characters.
    Utf32,
}

impl Encoding {
    /// By the name in a server's capabilities.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "utf-8" => Self::Utf8,
            "utf-32" => Self::Utf32,
            _ => Self::Utf16,
        }
    }

    fn width(self, character: char) -> u32 {
        let width = match self {
            Self::Utf8 => character.len_utf8(),
            Self::Utf16 => character.len_utf16(),
            Self::Utf32 => 1,
        };
        width as u32
    }

    /// The column of `line`, counted this way, that is `column` when counted as `other`. Past the line's end it stays
    /// as far past; in the midst of a character it is that character's beginning.
    pub(super) fn column(self, line: &str, column: u32, other: Self) -> u32 {
        let (mut ours, mut theirs) = (0, 0);
        for character in line.chars() {
            let next = theirs + other.width(character);
            if next > column {
                return ours;
            }
            theirs = next;
            ours += self.width(character);
        }
        ours + (column - theirs)
    }
}

/// A line of a text, counted from 0, without its end.
pub(super) fn line(text: &str, number: u32) -> &str {
    let line = text.split('\n').nth(number as usize).unwrap_or_default();
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_counted_in_the_units_of_each_side() {
        let line = "aé世🙂b"; // UTF-8 1 2 3 4 1, UTF-16 1 1 1 2 1
        for (utf8, utf16, utf32) in
            [(0, 0, 0), (1, 1, 1), (3, 2, 2), (6, 3, 3), (10, 5, 4), (11, 6, 5), (13, 8, 7)]
        {
            assert_eq!(Encoding::Utf8.column(line, utf16, Encoding::Utf16), utf8);
            assert_eq!(Encoding::Utf16.column(line, utf8, Encoding::Utf8), utf16);
            assert_eq!(Encoding::Utf32.column(line, utf16, Encoding::Utf16), utf32);
        }
        assert_eq!(Encoding::Utf8.column(line, 4, Encoding::Utf16), 6, "in the midst of a pair");
    }

    #[test]
    fn lines_have_no_ends() {
        assert_eq!((line("a\r\nb", 0), line("a\r\nb", 1), line("a\r\nb", 2)), ("a", "b", ""));
    }
}
