//! The keyboard map (XKB protocol 1.0): which key gives which symbol, and symbols lent to keys that have none.
//!
//! Every change of the map makes every client read it anew, so that any number of symbols is lent in one request. Only
//! the first group and its two plain levels are used: what needs AltGr or a dead key counts as missing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use x11rb::protocol::{xkb, xproto};
use xkeysym::Keysym;

use super::{Failure, Wire};

const CORE_KEYBOARD: u16 = 0x100; // XkbUseCoreKbd
/// The second of the types that every map has: two levels, chosen by Shift alone.
const TWO_LEVELS: u8 = 1;
/// Symbols that can be lent to one key.
pub(crate) const LEVELS: usize = 2;

/// A key, and the symbols that it has been lent.
pub(crate) type Loan = (u8, [u32; LEVELS]);

/// How a character is typed: a key, with Shift or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stroke {
    /// The key's code.
    pub(crate) code: u8,
    /// Whether Shift is held.
    pub(crate) shift: bool,
}

/// The map as it was when it was read.
#[derive(Debug, Clone)]
pub(crate) struct KeyMap {
    lowest: u8,
    highest: u8,
    first: u8,
    keys: Vec<Key>,
    types: Vec<Type>,
    locks: Locks,
}

/// What of a key is sent back as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    types: [u8; 4],
    group_info: u8,
    width: u8,
    symbols: Vec<u32>,
}

/// Which modifiers choose which level.
#[derive(Debug, Clone)]
struct Type {
    mask: u8,
    levels: Vec<(u8, u8)>,
}

/// The group and modifiers that are locked, as by a layout switch or Caps Lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Locks {
    group: u8,
    modifiers: u8,
}

impl Locks {
    /// The first group, and what does not change letters.
    pub(crate) fn plain(self) -> Self {
        Self {
            group: 0,
            modifiers: self.modifiers & !u8::try_from(u16::from(xproto::ModMask::LOCK)).unwrap_or(0),
        }
    }

    /// The first group, modifiers as they are.
    pub(crate) fn first_group(self) -> Self {
        Self { group: 0, ..self }
    }
}

impl Wire {
    /// Reads map and locks.
    pub(crate) fn key_map(&self) -> Result<KeyMap, Failure> {
        if !self.has.xkb {
            return Err(Failure::Refused("the XKB extension is missing".into()));
        }
        let parts = xkb::MapPart::KEY_TYPES | xkb::MapPart::KEY_SYMS;
        let none = xkb::MapPart::from(0_u16);
        let virtual_modifiers = xkb::VMod::from(0_u16);
        let map = xkb::get_map(
            &self.x,
            CORE_KEYBOARD,
            parts,
            none,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            virtual_modifiers,
            0,
            0,
            0,
            0,
            0,
            0,
        )?;
        let state = xkb::get_state(&self.x, CORE_KEYBOARD)?;
        let (map, state) = (map.reply()?, state.reply()?);
        let types = map.map.types_rtrn.unwrap_or_default().into_iter().map(|kind| Type {
            mask: modifiers(kind.mods_mask),
            levels: kind
                .map
                .iter()
                .filter(|entry| entry.active)
                .map(|entry| (modifiers(entry.mods_mask), entry.level))
                .collect(),
        });
        let keys = map.map.syms_rtrn.unwrap_or_default().into_iter().map(|key| Key {
            types: key.kt_index,
            group_info: key.group_info,
            width: key.width,
            symbols: key.syms,
        });
        Ok(KeyMap {
            lowest: map.min_key_code,
            highest: map.max_key_code,
            first: map.first_key_sym,
            keys: keys.collect(),
            types: types.collect(),
            locks: Locks { group: state.locked_group.into(), modifiers: modifiers(state.locked_mods) },
        })
    }

    /// Locks a group and modifiers.
    pub(crate) fn lock(&self, locks: Locks) -> Result<(), Failure> {
        let every = xproto::ModMask::from(0xff_u16);
        let wanted = xproto::ModMask::from(u16::from(locks.modifiers));
        let none = xproto::ModMask::from(0_u16);
        let group = xkb::Group::from(locks.group);
        xkb::latch_lock_state(&self.x, CORE_KEYBOARD, every, wanted, true, group, none, false, 0)?;
        Ok(())
    }

    /// Lends symbols to keys, in one request; the others stay as `map` has them.
    pub(crate) fn lend(&self, map: &KeyMap, loans: &[Loan]) -> Result<(), Failure> {
        let keys = loans.iter().map(|(code, symbols)| {
            let key =
                Key { types: [TWO_LEVELS, 0, 0, 0], group_info: 1, width: 2, symbols: symbols.to_vec() };
            (*code, key)
        });
        self.set_keys(map, keys.collect())
    }

    /// Gives keys back what they had before, in one request; not those that someone else has changed since.
    pub(crate) fn restore(&self, loans: &[(Arc<KeyMap>, Loan)]) -> Result<(), Failure> {
        let now = self.key_map()?;
        let ours =
            loans.iter().filter(|(_, (code, lent))| now.key(*code).is_some_and(|key| key.symbols == lent));
        let keys = ours.filter_map(|(before, (code, _))| Some((*code, before.key(*code)?.clone())));
        self.set_keys(&now, keys.collect())
    }

    fn set_keys(&self, map: &KeyMap, changed: Vec<(u8, Key)>) -> Result<(), Failure> {
        let codes = changed.iter().map(|(code, _)| *code);
        let (Some(first), Some(last)) = (codes.clone().min(), codes.max()) else { return Ok(()) };
        let mut changed: HashMap<u8, Key> = changed.into_iter().collect();
        let keys: Vec<_> = (first..=last)
            .filter_map(|code| changed.remove(&code).or_else(|| map.key(code).cloned()))
            .map(|key| xkb::KeySymMap {
                kt_index: key.types,
                group_info: key.group_info,
                width: key.width,
                syms: key.symbols,
            })
            .collect();
        let total = keys.iter().map(|key| key.syms.len()).sum::<usize>();
        let total =
            u16::try_from(total).map_err(|_| Failure::Refused("the keyboard map is too large".into()))?;
        let count = keys.len() as u8; // at most 255 keys
        let values = xkb::SetMapAux::new().syms(keys);
        let flags = xkb::SetMapFlags::from(0_u16);
        let none = xkb::VMod::from(0_u16);
        let (lowest, highest) = (map.lowest, map.highest);
        let set = xkb::set_map(
            &self.x,
            CORE_KEYBOARD,
            flags,
            lowest,
            highest,
            0,
            0,
            first,
            count,
            total,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            none,
            &values,
        )?;
        self.check(set)?;
        Ok(())
    }
}

fn modifiers(mask: impl Into<u16>) -> u8 {
    (mask.into() & 0xff) as u8
}

impl KeyMap {
    /// What was locked when the map was read.
    pub(crate) fn locks(&self) -> Locks {
        self.locks
    }

    /// Keys without any symbol, which may be lent some.
    pub(crate) fn spare(&self) -> impl Iterator<Item = u8> + '_ {
        self.each().filter(|(_, key)| key.symbols.iter().all(|symbol| *symbol == 0)).map(|(code, _)| code)
    }

    /// The key that gives `symbol` while `locks` are locked and nothing is held.
    pub(crate) fn plain(&self, symbol: u32, locks: Locks) -> Option<u8> {
        self.each().find(|(_, key)| self.symbol(key, locks.modifiers) == Some(symbol)).map(|(code, _)| code)
    }

    /// Every character that a key gives alone or with Shift, while `locks` are locked.
    pub(crate) fn characters(&self, locks: Locks) -> HashMap<char, Stroke> {
        let shift_mask = modifiers(xproto::ModMask::SHIFT);
        let mut found = HashMap::new();
        for shift in [false, true] {
            let held = locks.modifiers | if shift { shift_mask } else { 0 };
            for (code, key) in self.each() {
                let character = self.symbol(key, held).and_then(character);
                if let Some(Entry::Vacant(free)) = character.map(|character| found.entry(character)) {
                    free.insert(Stroke { code, shift });
                }
            }
        }
        found
    }

    fn each(&self) -> impl Iterator<Item = (u8, &Key)> {
        (self.first..=u8::MAX).zip(&self.keys)
    }

    fn key(&self, code: u8) -> Option<&Key> {
        self.keys.get(usize::from(code.checked_sub(self.first)?))
    }

    /// What a key gives in the first group while these modifiers are in effect.
    fn symbol(&self, key: &Key, held: u8) -> Option<u32> {
        let groups = key.group_info & 0xf;
        let kind = self.types.get(usize::from(key.types[0])).filter(|_| groups > 0)?;
        let held = held & kind.mask;
        let level = kind.levels.iter().find(|(wanted, _)| *wanted == held).map_or(0, |(_, level)| *level);
        key.symbols[..key.symbols.len().min(key.width.into())]
            .get(usize::from(level))
            .copied()
            .filter(|s| *s != 0)
    }
}

/// The character that a symbol types; none for the keypad's, which depend on more than Shift.
fn character(symbol: u32) -> Option<char> {
    let symbol = Keysym::new(symbol);
    symbol.key_char().filter(|character| !character.is_control() && !symbol.is_keypad_key())
}

/// The symbol that types a character, whichever it is.
pub(crate) fn symbol(character: char) -> u32 {
    match u32::from(character) {
        latin @ (0x20..=0x7e | 0xa0..=0xff) => latin,
        other => 0x0100_0000 | other,
    }
}

/// The symbol of this name, as in X11's keysymdef.h and XF86keysym.h without their prefix: `Return`, `XF86AudioMute`.
pub(crate) fn symbol_named(wanted: &str) -> Option<u32> {
    // What has names: Latin and other alphabets, function and modifier keys, media keys.
    let ranges = [0x20..=0xffff_u32, 0x1000_0000..=0x1000_ffff, 0x1008_0000..=0x1008_ffff];
    ranges.into_iter().flatten().find(|symbol| {
        Keysym::new(*symbol).name().is_some_and(|name| match name.strip_prefix("XK_") {
            Some(name) => name == wanted,
            None => name
                .split_once("XK_")
                .is_some_and(|(vendor, name)| wanted.strip_prefix(vendor).is_some_and(|rest| rest == name)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_have_the_names_of_the_headers() {
        assert_eq!(symbol_named("Return"), Some(0xff0d));
        assert_eq!(symbol_named("KP_Enter"), Some(0xff8d));
        assert_eq!(symbol_named("ISO_Level3_Shift"), Some(0xfe03));
        assert_eq!(symbol_named("XF86AudioMute"), Some(0x1008_ff12));
        assert_eq!(symbol_named("eacute"), Some(0xe9));
        assert_eq!(symbol_named("AudioMute"), None);
        assert_eq!(symbol_named("NoSuchKey"), None);
    }

    #[test]
    fn every_character_has_a_symbol_that_gives_it_back() {
        for character in ['a', 'é', '€', 'ж', '世', '🙂', '\u{301}', '\u{10ffff}'] {
            assert_eq!(Keysym::new(symbol(character)).key_char(), Some(character));
        }
    }
}
