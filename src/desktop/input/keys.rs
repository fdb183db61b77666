//! Names of keys and modifiers (contract `computer-use.md` 4.2), and the X symbols that they stand for.

use crate::desktop::x11::keymap::symbol_named;
use crate::error::{Error, Result};

/// What can be held while another key is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modifier {
    Ctrl,
    Alt,
    Shift,
    Cmd,
}

impl Modifier {
    /// The symbol of its left key.
    pub(super) fn symbol(self) -> u32 {
        match self {
            Self::Ctrl => 0xffe3,
            Self::Alt => 0xffe9,
            Self::Shift => 0xffe1,
            Self::Cmd => 0xffeb,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ctrl => "ctrl",
            Self::Alt => "alt",
            Self::Shift => "shift",
            Self::Cmd => "cmd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ctrl" | "control" => Self::Ctrl,
            "alt" | "option" => Self::Alt,
            "shift" => Self::Shift,
            "cmd" | "command" | "meta" | "super" | "win" | "windows" => Self::Cmd,
            _ => return None,
        })
    }

    /// The family of a key that is a modifier itself.
    fn of(symbol: u32) -> Option<Self> {
        Some(match symbol {
            0xffe3 | 0xffe4 => Self::Ctrl,
            0xffe9 | 0xffea => Self::Alt,
            0xffe1 | 0xffe2 => Self::Shift,
            0xffeb | 0xffec => Self::Cmd,
            _ => return None,
        })
    }
}

/// The symbol of a main key.
///
/// # Errors
/// Names the token as it was sent, and what to use instead.
pub(super) fn key(token: &str) -> Result<u32> {
    let refused = |hint: &str| Err(Error::invalid(format!("unknown key {token:?}: {hint}")));
    let mut characters = token.chars();
    match (characters.next(), characters.next()) {
        (None, _) => return Err(Error::invalid("empty key token")),
        (Some(' '), None) => return refused("use \"space\", or type"),
        (Some('\t'), None) => return refused("use \"tab\""),
        (Some('\n' | '\r'), None) => return refused("use \"enter\", or type"),
        (Some(character), None)
            if character.is_ascii_alphanumeric() || "`-=[]\\;',./".contains(character) =>
        {
            return Ok(character.to_ascii_lowercase().into());
        }
        (Some(character), None) => {
            if let Some(base) = unshifted(character) {
                return refused(&format!("press {base:?} with \"shift\", or type"));
            }
        }
        _ => {}
    }
    if !token.is_ascii() {
        return refused("keys have ASCII names; use type for other characters");
    }
    if token.chars().any(|c| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return refused(
            "names of keys have no blanks; use \"space\", \"tab\" or \"enter\" for the keys, or type",
        );
    }
    let name = normal(token);
    if let Some(safe) = safe_name(&name) {
        return refused(&format!("use {safe:?}"));
    }
    if let Some(symbol) = named(&name).or_else(|| symbol_named(token)) {
        return Ok(symbol);
    }
    refused(
        "known are letters, digits, punctuation, f1 to f24, names as \"enter\" and \"pageup\", and X keysym names",
    )
}

/// A modifier of a chord.
///
/// # Errors
/// Names the token as it was sent, and the four names.
pub(super) fn modifier(token: &str) -> Result<Modifier> {
    let name = normal(token);
    Modifier::named(&name).ok_or_else(|| {
        let sided = named(&name).is_some_and(|symbol| Modifier::of(symbol).is_some());
        let hint = if sided { "; sided modifiers work as main key only" } else { "" };
        Error::invalid(format!("unknown modifier {token:?}: known are ctrl, alt, shift and cmd{hint}"))
    })
}

/// The modifiers of a chord, none twice.
///
/// # Errors
/// Names the token that is unknown or there twice.
pub(super) fn modifiers<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Result<Vec<Modifier>> {
    let mut found = Vec::new();
    for token in tokens {
        let modifier = modifier(token)?;
        if found.contains(&modifier) {
            return Err(Error::invalid(format!("modifier {} is there twice, as {token:?}", modifier.name())));
        }
        found.push(modifier);
    }
    Ok(found)
}

/// A main key with modifiers, none of which it is itself.
///
/// # Errors
/// As of [`key`] and [`modifiers`].
pub(super) fn chord<'a>(
    token: &str,
    tokens: impl IntoIterator<Item = &'a str>,
) -> Result<(u32, Vec<Modifier>)> {
    let symbol = key(token)?;
    let held = modifiers(tokens)?;
    if let Some(own) = Modifier::of(symbol).filter(|own| held.contains(own)) {
        return Err(Error::invalid(format!("key {token:?} is the modifier {} itself", own.name())));
    }
    Ok((symbol, held))
}

/// A chord as one text: `ctrl+shift+t`.
///
/// # Errors
/// Begins with the text as it was sent.
pub(super) fn hotkey(text: &str) -> Result<(u32, Vec<Modifier>)> {
    let refused = |why: String| Error::invalid(format!("invalid hotkey {text:?}: {why}"));
    if text.trim().is_empty() {
        return Err(refused("it is empty".into()));
    }
    let tokens: Vec<&str> = text.split('+').map(str::trim).collect();
    for token in &tokens {
        if token.is_empty() {
            return Err(refused("empty key token; a plus is \"num_plus\" or \"shift+=\"".into()));
        }
        if token.contains(char::is_whitespace) {
            return Err(refused(format!("one chord at a time, without blanks inside of {token:?}")));
        }
    }
    let (last, before) = tokens.split_last().expect("split gives one at least");
    if let Some(main) =
        before.iter().find(|token| Modifier::named(&normal(token)).is_none() && key(token).is_ok())
        && named(&normal(main)).is_none_or(|symbol| Modifier::of(symbol).is_none())
    {
        return Err(refused(format!("{main:?} is no modifier, and only the last key may be none")));
    }
    chord(last, before.iter().copied()).map_err(|error| refused(error.to_string()))
}

fn normal(token: &str) -> String {
    token.to_ascii_lowercase().replace('-', "_")
}

/// The key of the US layout that gives a symbol with Shift.
fn unshifted(character: char) -> Option<char> {
    const SHIFTED: &str = "~!@#$%^&*()_+{}|:\"<>?";
    const BASES: &str = "`1234567890-=[]\\;',./";
    SHIFTED.chars().position(|shifted| shifted == character).and_then(|at| BASES.chars().nth(at))
}

/// What the contract has in place of names that mean something else to others.
fn safe_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "num*" => "num_asterisk",
        "num+" => "num_plus",
        "num_" => "num_minus",
        "num." => "num_decimal",
        "num/" => "num_slash",
        _ => return None,
    })
}

/// The symbol of a normalised name; numbers are those of X11's keysymdef.h.
fn named(name: &str) -> Option<u32> {
    if let Some(number) = name.strip_prefix('f').and_then(|number| number.parse::<u32>().ok()) {
        return (1..=24).contains(&number).then(|| 0xffbd + number);
    }
    if let Some(digit) = name.strip_prefix("num").filter(|digit| digit.len() == 1) {
        return digit.parse::<u32>().ok().map(|digit| 0xffb0 + digit);
    }
    Some(match name {
        "enter" | "return" => 0xff0d,
        "tab" => 0xff09,
        "escape" | "esc" => 0xff1b,
        "backspace" => 0xff08,
        "delete" | "del" => 0xffff,
        "space" | "spacebar" => 0x20,
        "insert" => 0xff63,
        "home" => 0xff50,
        "end" => 0xff57,
        "pageup" | "page_up" => 0xff55,
        "pagedown" | "page_down" => 0xff56,
        "left" => 0xff51,
        "up" => 0xff52,
        "right" => 0xff53,
        "down" => 0xff54,
        "capslock" => 0xffe5,
        "num_lock" => 0xff7f,
        "menu" => 0xff67,
        "num_plus" => 0xffab,
        "num_minus" => 0xffad,
        "num_asterisk" => 0xffaa,
        "num_slash" => 0xffaf,
        "num_decimal" => 0xffae,
        "num_enter" => 0xff8d,
        "num_equal" => 0xffbd,
        "lctrl" | "left_ctrl" | "left_control" => 0xffe3,
        "rctrl" | "right_ctrl" | "right_control" => 0xffe4,
        "lalt" | "left_alt" => 0xffe9,
        "ralt" | "right_alt" => 0xffea,
        "lshift" | "left_shift" => 0xffe1,
        "rshift" | "right_shift" => 0xffe2,
        "lcmd" | "left_cmd" | "left_command" => 0xffeb,
        "rcmd" | "right_cmd" | "right_command" => 0xffec,
        modifier => Modifier::named(modifier)?.symbol(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn names_are_compared_without_case_and_hyphen() {
        for (names, symbol) in [
            (&["a", "A"][..], 0x61),
            (&["enter", "Return", "ENTER"], 0xff0d),
            (&["pageup", "page_up", "Page-Up", "PageUp"], 0xff55),
            (&["f1", "F1"], 0xffbe),
            (&["f24"], 0xffd5),
            (&["num0"], 0xffb0),
            (&["num9"], 0xffb9),
            (&["num_minus", "num-minus"], 0xffad),
            (&["cmd", "Super", "win", "meta", "Super_L"], 0xffeb),
            (&["-"], 0x2d),
            (&["KP_Enter"], 0xff8d),
            (&["XF86AudioMute"], 0x1008_ff12),
            (&["menu"], 0xff67),
        ] {
            for name in names {
                assert_eq!(key(name).unwrap(), symbol, "{name}");
            }
        }
    }

    #[test]
    fn what_is_refused_names_the_token_and_a_way_out() {
        assert_eq!(refused(key("")), "empty key token");
        for (token, hint) in [
            (" ", "\"space\""),
            ("\t", "\"tab\""),
            ("\n", "\"enter\""),
            ("!", "'1' with"),
            ("\"", "'\\'' with"),
            ("_", "'-' with"),
            ("é", "use type"),
            ("näme", "use type"),
            ("num*", "num_asterisk"),
            ("num-", "num_minus"),
            ("FooBar", "known are"),
            ("f25", "known are"),
            ("f0", "known are"),
            ("page up", "no blanks"),
        ] {
            let message = refused(key(token));
            assert!(message.contains(&format!("{token:?}")) && message.contains(hint), "{message}");
        }
    }

    #[test]
    fn modifiers_have_four_names_and_come_once() {
        assert_eq!(modifiers(["Control", "option"]).unwrap(), [Modifier::Ctrl, Modifier::Alt]);
        for token in ["c", "hyper", "", "enter"] {
            assert!(refused(modifier(token)).contains("ctrl, alt, shift and cmd"));
        }
        assert!(refused(modifier("lshift")).contains("main key only"));
        assert!(refused(modifiers(["cmd", "meta"])).contains("twice"));
        assert!(refused(modifiers(["ctrl", "ctrl"])).contains("twice"));
        for key in ["shift", "lshift", "rshift", "Shift_L"] {
            assert!(refused(chord(key, ["shift"])).contains("itself"), "{key}");
        }
    }

    #[test]
    fn a_hotkey_is_one_chord() {
        assert_eq!(hotkey("ctrl+shift+t").unwrap(), (0x74, vec![Modifier::Ctrl, Modifier::Shift]));
        assert_eq!(hotkey(" ctrl + num_plus ").unwrap(), (0xffab, vec![Modifier::Ctrl]));
        assert_eq!(hotkey("shift").unwrap(), (0xffe1, vec![]));
        assert_eq!(hotkey("F5").unwrap(), (0xffc2, vec![]));
        for text in [
            "",
            "  ",
            "ctrl++c",
            "ctrl+ ",
            "ctrl+",
            "ctrl+k ctrl+c",
            "a+b",
            "ctrl+c+d",
            "lshift+a",
            "hyper+a",
        ] {
            assert!(refused(hotkey(text)).starts_with(&format!("invalid hotkey {text:?}: ")), "{text}");
        }
    }
}
