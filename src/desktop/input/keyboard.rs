//! Typing and pressing keys.
//!
//! Text is typed with the keys that the live map has for it, alone or with Shift. Characters that it has no such key
//! for are lent to spare keys, as many at a time as there are, and the map is restored at the end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::hand::{Hand, HeldKey};
use super::keys::Modifier;
use crate::desktop::x11::keymap::{KeyMap, LEVELS, Loan, Locks, Stroke, symbol};
use crate::desktop::x11::selection::{Content, Selection};
use crate::desktop::x11::{Failure, Wire};
use crate::error::{Error, ErrorKind, Result};

/// Most characters of one request.
const CHARACTERS: usize = 100_000;
/// Longest time that one request may type.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Characters sent before we wait for the server: what it has not handed on yet, it keeps in memory.
const PIECE: usize = 200;
/// Longest wait for a program to take what is pasted.
const PASTE: Duration = Duration::from_secs(2);
/// Changes of the map from which on text counts as slow to type.
const OFTEN: usize = 10;

const RETURN: u32 = 0xff0d;
const TAB: u32 = 0xff09;
const KEYPAD: std::ops::RangeInclusive<u32> = 0xff80..=0xffbd;

/// Text that can be typed.
#[derive(Debug)]
pub(in crate::desktop) struct Text {
    symbols: Vec<Typed>,
    delay: Duration,
    /// The text itself, when it may be pasted.
    paste: Option<Paste>,
}

/// Another way than by keys.
#[derive(Debug)]
struct Paste {
    text: String,
    /// What makes the program paste.
    chord: (u32, Vec<Modifier>),
    /// Whether it is typed after all when that does not take long, and when no program takes it.
    or_type: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typed {
    Character(char),
    Key(u32),
}

impl Text {
    /// Checks all of it, so that text which cannot be typed is not typed in part. Line ends are Enter, `\r\n` once; Tab
    /// is a key only with `tabs`. `delay` is waited after each character.
    ///
    /// # Errors
    /// For control characters, more than 100,000 characters, and more than five minutes of waiting.
    pub(super) fn new(text: &str, delay: Duration, tabs: bool) -> Result<Self> {
        let mut symbols = Vec::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            symbols.push(match character {
                '\r' => {
                    characters.next_if_eq(&'\n');
                    Typed::Key(RETURN)
                }
                '\n' => Typed::Key(RETURN),
                '\t' if tabs => Typed::Key(TAB),
                '\u{2028}' | '\u{2029}' => return Err(unsupported("separator", character)),
                control if control.is_control() => return Err(unsupported("control character", control)),
                other => Typed::Character(other),
            });
        }
        if symbols.len() > CHARACTERS {
            let message = format!("text has {} characters: {CHARACTERS} at most", symbols.len());
            return Err(Error::invalid(message));
        }
        let count = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
        if delay.checked_mul(count).is_none_or(|time| time > LONGEST) {
            let limit = LONGEST.as_secs();
            return Err(Error::invalid(format!("text with this delay takes more than {limit} seconds")));
        }
        Ok(Self { symbols, delay, paste: None })
    }

    /// Pastes it with this chord instead of typing it; with `or_type` only when typing would take long.
    #[must_use]
    pub(super) fn pasted(self, text: String, chord: (u32, Vec<Modifier>), or_type: bool) -> Self {
        Self { paste: Some(Paste { text, chord, or_type }), ..self }
    }
}

fn unsupported(what: &str, character: char) -> Error {
    let hint = if character == '\t' { ": press the key \"tab\", or set tabs" } else { "" };
    Error::invalid(format!("unsupported {what} U+{:04X} in text{hint}", u32::from(character)))
}

/// A key with modifiers.
#[derive(Debug)]
pub(in crate::desktop) struct Chord {
    pub(super) symbol: u32,
    pub(super) modifiers: Vec<Modifier>,
    /// Time that the key is down.
    pub(super) hold: Duration,
}

/// Presses a key and keeps it down, or releases it.
#[derive(Debug)]
pub(in crate::desktop) struct Hold {
    /// As it was named.
    pub(super) name: String,
    pub(super) symbol: u32,
    pub(super) down: bool,
}

impl Hand<'_> {
    /// Brings text to the program that has the focus, in the way that was asked for.
    pub(super) async fn enter(&mut self, mut text: Text) -> Result<()> {
        match text.paste.take() {
            _ if text.symbols.is_empty() => Ok(()),
            Some(paste) if !paste.or_type => self.paste(paste).await,
            Some(paste) if self.takes_long(&text).await? => match self.paste(paste).await {
                Err(error) if error.kind() == ErrorKind::Unprocessable => self.type_text(text).await,
                done => done,
            },
            _ => self.type_text(text).await,
        }
    }

    /// Whether typing would change the map often.
    async fn takes_long(&self, text: &Text) -> Result<bool> {
        let map = self.run(Wire::key_map).await?;
        let known = map.characters(map.locks().plain());
        let characters = text.symbols.iter().filter_map(|typed| match typed {
            Typed::Character(character) if !known.contains_key(character) => Some(*character),
            _ => None,
        });
        let missing = characters.collect::<HashSet<_>>().len();
        Ok(missing > OFTEN * LEVELS * map.spare().count())
    }

    /// Puts text into the clipboard, presses a chord, waits until a program has taken it, and puts back what was there.
    async fn paste(&mut self, paste: Paste) -> Result<()> {
        let clipboard = Selection::Clipboard;
        // What another program does not hand over cannot be put back.
        let before = self.desktop.clipboard(clipboard, false).await.unwrap_or_default();
        let taken = self.desktop.set_clipboard(clipboard, Content::Text(paste.text)).await?;
        let (symbol, modifiers) = paste.chord;
        self.press(Chord { symbol, modifiers, hold: Duration::ZERO }).await?;
        let done = timeout(PASTE, taken.notified()).await;
        self.settle().await?; // a program that keeps a history of the clipboard may have been the first
        if let Some(before) = before {
            self.desktop.set_clipboard(clipboard, before).await?;
        }
        let refused =
            || Error::new(ErrorKind::Unprocessable, "no program has taken the text that was to be pasted");
        done.map_err(|_| refused())
    }

    async fn type_text(&mut self, text: Text) -> Result<()> {
        if text.symbols.is_empty() {
            return Ok(());
        }
        let map = self.run(Wire::key_map).await?;
        let locks = map.locks().plain();
        self.lock(&map, locks).await?;
        let shift = key_for(&map, Modifier::Shift.symbol(), locks)
            .ok_or_else(|| Error::internal("the keyboard map has no Shift key"))?;
        let shift = Shift { code: shift, held: self.held.keys.iter().any(|key| key.code == shift) };
        let known = map.characters(locks);
        let mut strokes: Vec<_> =
            text.symbols.into_iter().map(|typed| on(&map, &known, locks, typed)).collect();
        let spare: Vec<u8> = map.spare().collect();
        let mut rest = &mut strokes[..];
        let mut again = false;
        while !rest.is_empty() {
            let (symbols, count) = lendable(rest, spare.len() * LEVELS);
            if count == 0 {
                return Err(Error::internal("the keyboard map has no spare key for what it lacks"));
            }
            let (now, later) = rest.split_at_mut(count);
            if !symbols.is_empty() {
                if again {
                    self.settle().await?;
                }
                again = true;
                let lent = self.lend(&map, &spare, &symbols).await?;
                now.iter_mut().for_each(|stroke| stroke.resolve(&lent));
            }
            self.strike(now.iter().filter_map(On::stroke).collect(), shift, text.delay).await?;
            rest = later;
        }
        Ok(())
    }

    pub(super) async fn press(&mut self, chord: Chord) -> Result<()> {
        let Chord { symbol, modifiers, hold } = chord;
        let symbols: Vec<u32> = modifiers.iter().map(|modifier| modifier.symbol()).chain([symbol]).collect();
        let codes = self.codes(&symbols).await?;
        let (key, modifiers) = codes.split_last().expect("one code for each symbol");
        let key = *key;
        let down: Vec<u8> = modifiers
            .iter()
            .copied()
            .filter(|code| !self.held.keys.iter().any(|key| key.code == *code))
            .collect();
        let (press, release) = (down.clone(), down);
        if hold.is_zero() {
            self.run(move |wire| {
                press.iter().try_for_each(|code| wire.key(*code, true))?;
                wire.key(key, true)?;
                wire.key(key, false)?;
                release.iter().rev().try_for_each(|code| wire.key(*code, false))?;
                wire.sync()
            })
            .await?;
        } else {
            self.held.undo.keys.extend(press.iter().copied().chain([key])); // released when the action ends
            self.run(move |wire| {
                press.iter().try_for_each(|code| wire.key(*code, true))?;
                wire.key(key, true)?;
                wire.sync()
            })
            .await?;
            sleep(hold).await;
        }
        self.held.keys.retain(|held| held.code != key); // it has gone up now
        Ok(())
    }

    pub(super) async fn hold_key(&mut self, action: Hold) -> Result<()> {
        let Hold { name, symbol, down } = action;
        let held = self.held.keys.iter().position(|key| key.symbol == symbol);
        match (down, held) {
            (true, Some(_)) => Ok(()),
            (true, None) => {
                let code = self.codes(&[symbol]).await?[0];
                if self.held.keys.iter().any(|key| key.code == code) {
                    return Ok(());
                }
                let loan = self.held.undo.loans.iter().position(|(_, (lent, _))| *lent == code);
                let loan = loan.map(|at| self.held.undo.loans.remove(at)); // stays for as long as the key is down
                self.held.keys.push(HeldKey { name, symbol, code, loan });
                self.run(move |wire| {
                    wire.key(code, true)?;
                    wire.sync()
                })
                .await
            }
            (false, Some(at)) => {
                let key = self.held.keys.remove(at);
                self.held.undo.keys.push(key.code); // goes up when the action ends
                self.held.undo.loans.extend(key.loan);
                Ok(())
            }
            (false, None) => {
                self.run(move |wire| {
                    let map = wire.key_map()?;
                    if let Some(code) = key_for(&map, symbol, map.locks()) {
                        wire.key(code, false)?;
                    }
                    wire.sync()
                })
                .await
            }
        }
    }

    /// Holds modifiers until the action ends.
    pub(super) async fn press_modifiers(&mut self, modifiers: &[Modifier]) -> Result<()> {
        if modifiers.is_empty() {
            return Ok(());
        }
        let symbols: Vec<u32> = modifiers.iter().map(|modifier| modifier.symbol()).collect();
        let mut codes = self.codes(&symbols).await?;
        codes.retain(|code| !self.held.keys.iter().any(|key| key.code == *code));
        self.held.undo.keys.extend(&codes);
        self.run(move |wire| {
            codes.iter().try_for_each(|code| wire.key(*code, true))?;
            wire.sync()
        })
        .await
    }

    /// A key for each symbol, in the first group; what the map lacks is lent to spare keys until the action ends.
    async fn codes(&mut self, symbols: &[u32]) -> Result<Vec<u8>> {
        let map = self.run(Wire::key_map).await?;
        let locks = map.locks().first_group();
        self.lock(&map, locks).await?;
        let found: Vec<Option<u8>> = symbols.iter().map(|symbol| key_for(&map, *symbol, locks)).collect();
        let missing =
            symbols.iter().zip(&found).filter(|(_, code)| code.is_none()).map(|(symbol, _)| *symbol);
        // One key for each, whatever is held with it.
        let missing: Vec<u32> = missing.flat_map(|symbol| [symbol; LEVELS]).collect();
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        let spare: Vec<u8> = map.spare().collect();
        if missing.len() > spare.len() * LEVELS {
            return Err(Error::internal("the keyboard map has no spare key for what it lacks"));
        }
        let lent = self.lend(&map, &spare, &missing).await?;
        let codes = symbols.iter().zip(found).map(|(symbol, code)| code.unwrap_or_else(|| lent[symbol].code));
        Ok(codes.collect())
    }

    /// Changes what is locked, until the action ends.
    async fn lock(&mut self, map: &KeyMap, locks: Locks) -> Result<()> {
        let before = map.locks();
        if before == locks {
            return Ok(());
        }
        self.held.undo.locks = Some(before);
        self.run(move |wire| {
            wire.lock(locks)?;
            wire.sync()
        })
        .await
    }

    /// Lends symbols to spare keys until the action ends, two to each, and waits until programs have noticed.
    async fn lend(&mut self, before: &KeyMap, spare: &[u8], symbols: &[u32]) -> Result<HashMap<u32, Stroke>> {
        let before = Arc::new(before.clone());
        let loans: Vec<Loan> = spare
            .iter()
            .zip(symbols.chunks(LEVELS))
            .map(|(code, pair)| (*code, [pair[0], *pair.last().unwrap_or(&pair[0])]))
            .collect();
        for (code, symbols) in &loans {
            match self.held.undo.loans.iter_mut().find(|(_, (lent, _))| lent == code) {
                Some((_, loan)) => loan.1 = *symbols,
                None => self.held.undo.loans.push((Arc::clone(&before), (*code, *symbols))),
            }
        }
        let mut lent = HashMap::new();
        for (code, pair) in &loans {
            for (level, symbol) in pair.iter().enumerate() {
                lent.entry(*symbol).or_insert(Stroke { code: *code, shift: level > 0 });
            }
        }
        self.run(move |wire| {
            let now = wire.key_map()?;
            wire.lend(&now, &loans)
        })
        .await?;
        self.settle().await?;
        Ok(lent)
    }

    /// Types strokes, some at a time.
    async fn strike(&mut self, strokes: Vec<Stroke>, shift: Shift, delay: Duration) -> Result<()> {
        let size = if delay.is_zero() { PIECE } else { 1 };
        for piece in strokes.chunks(size) {
            let piece = piece.to_vec();
            self.run(move |wire| shift.strike(wire, &piece)).await?;
            if !delay.is_zero() {
                sleep(delay).await;
            }
        }
        Ok(())
    }
}

/// The key Shift, and whether it is down before and after.
#[derive(Debug, Clone, Copy)]
struct Shift {
    code: u8,
    held: bool,
}

impl Shift {
    fn strike(self, wire: &Wire, strokes: &[Stroke]) -> Result<(), Failure> {
        let mut down = self.held;
        for stroke in strokes {
            if stroke.shift != down {
                wire.key(self.code, stroke.shift)?;
                down = stroke.shift;
            }
            wire.key(stroke.code, true)?;
            wire.key(stroke.code, false)?;
        }
        if down != self.held {
            wire.key(self.code, self.held)?;
        }
        wire.sync()
    }
}

/// A typed character on its way to a key.
#[derive(Debug, Clone, Copy)]
enum On {
    Key(Stroke),
    Missing(u32),
}

impl On {
    fn resolve(&mut self, lent: &HashMap<u32, Stroke>) {
        if let Self::Missing(symbol) = self
            && let Some(stroke) = lent.get(symbol)
        {
            *self = Self::Key(*stroke);
        }
    }

    fn stroke(&self) -> Option<Stroke> {
        match self {
            Self::Key(stroke) => Some(*stroke),
            Self::Missing(_) => None,
        }
    }
}

fn on(map: &KeyMap, known: &HashMap<char, Stroke>, locks: Locks, typed: Typed) -> On {
    match typed {
        Typed::Character(character) => {
            known.get(&character).map_or(On::Missing(symbol(character)), |key| On::Key(*key))
        }
        Typed::Key(symbol) => key_for(map, symbol, locks)
            .map_or(On::Missing(symbol), |code| On::Key(Stroke { code, shift: false })),
    }
}

/// Symbols that have to be lent for the beginning of `strokes`, `most` at most, and how far that goes.
fn lendable(strokes: &[On], most: usize) -> (Vec<u32>, usize) {
    let mut symbols = Vec::new();
    for (count, stroke) in strokes.iter().enumerate() {
        if let On::Missing(symbol) = stroke
            && !symbols.contains(symbol)
        {
            if symbols.len() == most {
                return (symbols, count);
            }
            symbols.push(*symbol);
        }
    }
    (symbols, strokes.len())
}

/// The key that gives a symbol with what is locked; else, but for the keypad's, the one that gives it with nothing.
fn key_for(map: &KeyMap, symbol: u32, locks: Locks) -> Option<u8> {
    map.plain(symbol, locks)
        .or_else(|| map.plain(symbol, Locks::default()).filter(|_| !KEYPAD.contains(&symbol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<Vec<Typed>> {
        Text::new(text, Duration::ZERO, false).map(|text| text.symbols)
    }

    #[test]
    fn line_ends_are_enter_once() {
        let enter = Typed::Key(RETURN);
        let [a, b] = ['a', 'b'].map(Typed::Character);
        assert_eq!(text("a\r\nb\n\r").unwrap(), [a, enter, b, enter, enter]);
        assert_eq!(Text::new("\t", Duration::ZERO, true).unwrap().symbols, [Typed::Key(TAB)]);
        assert_eq!(text("").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_typed_is_named() {
        for (bad, message) in [
            ("a\tb", "unsupported control character U+0009"),
            ("\u{1b}", "unsupported control character U+001B"),
            ("\u{85}", "unsupported control character U+0085"),
            ("\u{2028}", "unsupported separator U+2028"),
        ] {
            assert!(text(bad).unwrap_err().to_string().starts_with(message));
        }
        assert!(text(&"x".repeat(CHARACTERS)).is_ok());
        assert!(text(&"x".repeat(CHARACTERS + 1)).is_err());
        assert!(Text::new("xxx", Duration::from_secs(100), false).is_ok());
        assert!(Text::new("xxxx", Duration::from_secs(100), false).is_err());
        assert!(Text::new("xx", Duration::MAX, false).is_err());
    }

    #[test]
    fn a_batch_ends_where_spare_keys_run_out() {
        let strokes = [1, 2, 1, 3, 2].map(On::Missing);
        assert_eq!(lendable(&strokes, 2), (vec![1, 2], 3));
        assert_eq!(lendable(&strokes, 3), (vec![1, 2, 3], 5));
        assert_eq!(lendable(&strokes, 0), (vec![], 0));
    }
}
