//! Patterns for base names, exactly as the original daemon reads them (Go's `path/filepath.Match`).
//!
//! Written out because no crate has this dialect: only `^` negates a class, there are no `{}` and no `**`, a leading
//! dot is nothing special, and what is malformed differs.

use crate::error::{Error, Result};

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// This character.
    Literal(char),
    /// `?`: any one character but `/`.
    Any,
    /// `*`: any run without `/`.
    Run,
    /// `[…]`: one character in one of the ranges, or in none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is malformed: a class without an end, an empty range, nothing after a backslash.
    pub(super) fn new(pattern: &str) -> Result<Self> {
        parse(pattern)
            .map(|tokens| Self { tokens })
            .ok_or_else(|| Error::invalid(format!("pattern is malformed: {pattern:?}")))
    }

    /// Whether the whole of `name` matches. A byte that is not UTF-8 counts as one character, U+FFFD.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to go on when a match fails: the last `*` takes one character more. Earlier ones need not be revisited.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            if self.tokens.get(token) == Some(&Token::Run) {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            match (self.tokens.get(token), next_char(&name[at..])) {
                (None, None) => return true,
                (Some(wanted), Some((found, width))) if wanted.takes(found) => {
                    token += 1;
                    at += width;
                    continue;
                }
                _ => {}
            }
            let Some((after_run, from)) = retry else { return false };
            let Some((_, width)) = next_char(&name[from..]).filter(|(found, _)| *found != '/') else {
                return false;
            };
            (token, at) = (after_run, from + width);
            retry = Some((token, at));
        }
    }
}

impl Token {
    fn takes(&self, found: char) -> bool {
        match self {
            Self::Literal(wanted) => *wanted == found,
            Self::Any => found != '/',
            Self::Run => false, // handled where runs are
            Self::Class { negated, ranges } => {
                found != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&found)) != *negated
            }
        }
    }
}

fn next_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((first.into(), 1));
    }
    let chunk = bytes[..bytes.len().min(4)].utf8_chunks().next()?.valid();
    Some(chunk.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |found| (found, found.len_utf8())))
}

fn parse(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        tokens.push(match next {
            '*' if tokens.last() == Some(&Token::Run) => continue,
            '*' => Token::Run,
            '?' => Token::Any,
            '\\' => Token::Literal(rest.next()?),
            '[' => class(&mut rest)?,
            other => Token::Literal(other),
        });
    }
    Some(tokens)
}

fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if rest.as_str().starts_with(']') && !ranges.is_empty() {
            rest.next();
            return Some(Token::Class { negated, ranges });
        }
        let low = bound(rest)?;
        let high = if rest.as_str().starts_with('-') {
            rest.next();
            bound(rest)?
        } else {
            low
        };
        ranges.push((low, high)); // an empty range such as z-a is legal and takes nothing
    }
}

fn bound(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name.as_bytes())
    }

    #[test]
    fn whole_names_match_with_case() {
        assert!(matches("a.txt", "a.txt"));
        assert!(!matches("a.txt", "A.txt") && !matches("a", "ab") && !matches("b", "ab"));
    }

    #[test]
    fn runs_take_dots_and_nothing_but_never_a_slash() {
        assert!(matches("*", ".hidden") && matches("*.txt", ".txt") && matches("a**c", "abc"));
        assert!(matches("*a*b*c", "xxaxbxbxc") && !matches("*a*b*c", "xxaxbxcx"));
        assert!(!matches("*", "a/b") && !matches("a?b", "a/b") && !matches("a/b", "ab"));
    }

    #[test]
    fn one_character_may_have_several_bytes_or_be_none_at_all() {
        assert!(matches("?", "é") && matches("[à-ü]x", "éx") && !matches("??", "é"));
        assert!(Glob::new("a?b").unwrap().matches(b"a\xffb"));
    }

    #[test]
    fn only_a_caret_negates_and_escapes_are_literal() {
        assert!(matches("[^a-c]", "d") && !matches("[^a-c]", "b"));
        assert!(matches("[!a]", "!") && matches("[!a]", "a") && !matches("[!a]", "b"));
        assert!(
            matches(r"\*", "*") && !matches(r"\*", "x") && matches(r"[\]\-]", "-") && matches(r"[\]]", "]")
        );
        assert!(matches("{a,b}", "{a,b}") && !matches("{a,b}", "a"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "\\", r"[\", "x[^"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        /// Against the plain recursive definition.
        #[test]
        fn backtracking_finds_what_recursion_finds(pattern in "[ab*?]{0,8}", name in "[ab/]{0,10}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.first(), name.first()) {
                    (None, None) => true,
                    (Some(b'*'), next) => plain(&pattern[1..], name)
                        || next.is_some_and(|next| *next != b'/' && plain(pattern, &name[1..])),
                    (Some(b'?'), Some(next)) => *next != b'/' && plain(&pattern[1..], &name[1..]),
                    (Some(wanted), Some(found)) => wanted == found && plain(&pattern[1..], &name[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
