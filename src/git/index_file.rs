//! git's index as it is on disk (gitformat-index(5), versions 2 to 4), read without libgit2.
//!
//! Status asks two things of it that libgit2 does not tell: what git knew of each file when it last looked, without a
//! checksum over all of it first, and which directories are as some tree has them (the cache tree).

use std::ops::Range;

/// Bytes of an entry before its flags' extension and its name.
const FIXED: usize = 62;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 20;
/// Directories in directories, at most, in the cache tree: as deep as a path can be.
const DEPTH: usize = 2048;

const FLAG_ASSUME_VALID: u16 = 0x8000;
const FLAG_EXTENDED: u16 = 0x4000;
const FLAG_STAGE: u16 = 0x3000;
const EXTENDED_SKIP_WORKTREE: u16 = 0x4000;
const EXTENDED_INTENT_TO_ADD: u16 = 0x2000;

/// SHA-1 of an object.
pub(super) type Hash = [u8; 20];

/// The parts of an index that matter here.
#[derive(Debug)]
pub(super) struct IndexFile {
    names: Vec<u8>,
    /// Sorted by the bytes of their names.
    pub(super) entries: Vec<Entry>,
    pub(super) cache: Option<CacheTree>,
}

/// A file of the index.
#[derive(Debug)]
pub(super) struct Entry {
    name: Range<u32>,
    /// Seconds and nanoseconds.
    pub(super) ctime: (u32, u32),
    /// Seconds and nanoseconds.
    pub(super) mtime: (u32, u32),
    pub(super) ino: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u32,
    pub(super) hash: Hash,
    /// Whether it takes part in an unfinished merge.
    pub(super) is_unmerged: bool,
    /// Whether the work tree need not have it, or not be looked at (sparse checkout, assume-unchanged).
    pub(super) is_left_out: bool,
    /// Whether only its name was added.
    pub(super) is_intent: bool,
}

/// A directory, and the tree that it is like.
#[derive(Debug, Default)]
pub(super) struct CacheTree {
    name: Vec<u8>,
    /// None when something in it has changed since it was a tree.
    pub(super) hash: Option<Hash>,
    children: Vec<CacheTree>,
}

impl CacheTree {
    /// A directory in this one.
    pub(super) fn child(&self, name: &[u8]) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

impl IndexFile {
    /// Reads an index; none when it is malformed or of a kind that is not known here.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let mut input = Input { data: data.get(..data.len().checked_sub(CHECKSUM)?)?, at: 0 };
        if input.take(4)? != b"DIRC" {
            return None;
        }
        let version = input.number()?;
        if !(2..=4).contains(&version) {
            return None;
        }
        let count = input.number()? as usize;
        let possible = count.min(data.len() / FIXED);
        let mut index = Self { names: Vec::new(), entries: Vec::with_capacity(possible), cache: None };
        for _ in 0..count {
            index.read_entry(&mut input, version)?;
        }
        while let Some(signature) = input.take(4) {
            let size = input.number()? as usize;
            let content = input.take(size)?;
            match signature {
                b"TREE" => index.cache = cache_tree(&mut Input { data: content, at: 0 }, 0),
                [b'A'..=b'Z', ..] => {}
                _ => return None, // must be understood: split and sparse indexes
            }
        }
        Some(index)
    }

    /// The path of an entry.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name.start as usize..entry.name.end as usize]
    }

    fn read_entry(&mut self, input: &mut Input<'_>, version: u32) -> Option<()> {
        let start = input.at;
        let mut numbers = [0; 10];
        for number in &mut numbers {
            *number = input.number()?;
        }
        let [ctime, ctime_nanos, mtime, mtime_nanos, _dev, ino, mode, uid, gid, size] = numbers;
        let hash = input.take(20)?.try_into().ok()?;
        let flags = input.short()?;
        let extended = if version >= 3 && flags & FLAG_EXTENDED != 0 { input.short()? } else { 0 };
        let begins = self.names.len();
        if version == 4 {
            let cut = input.varint()?;
            let last =
                self.entries.last().map_or(0..0, |last| last.name.start as usize..last.name.end as usize);
            let kept = last.len().checked_sub(cut)?;
            self.names.extend_from_within(last.start..last.start + kept);
        }
        self.names.extend_from_slice(input.text()?);
        if version < 4 {
            // Entries are padded with NUL bytes, one at least, to a multiple of eight.
            let length = input.at - start;
            input.take(length.next_multiple_of(8) - length)?;
        }
        self.entries.push(Entry {
            name: u32::try_from(begins).ok()?..u32::try_from(self.names.len()).ok()?,
            ctime: (ctime, ctime_nanos),
            mtime: (mtime, mtime_nanos),
            ino,
            mode,
            uid,
            gid,
            size,
            hash,
            is_unmerged: flags & FLAG_STAGE != 0,
            is_left_out: flags & FLAG_ASSUME_VALID != 0 || extended & EXTENDED_SKIP_WORKTREE != 0,
            is_intent: extended & EXTENDED_INTENT_TO_ADD != 0,
        });
        Some(())
    }
}

fn cache_tree(input: &mut Input<'_>, depth: usize) -> Option<CacheTree> {
    if depth > DEPTH {
        return None;
    }
    let name = input.text()?.to_vec();
    let entries: i64 = input.decimal(b' ')?;
    let count: i64 = input.decimal(b'\n')?;
    let hash = if entries >= 0 { Some(input.take(20)?.try_into().ok()?) } else { None };
    let children = (0..count).map(|_| cache_tree(input, depth + 1)).collect::<Option<_>>()?;
    Some(CacheTree { name, hash, children })
}

/// Bytes that are read one after the other.
struct Input<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.data.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// Up to a NUL byte, which is read too.
    fn text(&mut self) -> Option<&'a [u8]> {
        let length = memchr::memchr(0, self.data.get(self.at..)?)?;
        let text = self.take(length)?;
        self.at += 1;
        Some(text)
    }

    fn decimal(&mut self, end: u8) -> Option<i64> {
        let length = memchr::memchr(end, self.data.get(self.at..)?)?;
        let text = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    /// The encoding of offsets in packs.
    fn varint(&mut self) -> Option<usize> {
        let mut byte = self.take(1)?[0];
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = self.take(1)?[0];
            value = value.checked_add(1)?.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &[u8], flags: u16, extended: Option<u16>) -> Vec<u8> {
        let mut bytes: Vec<u8> = (1..=10_u32).flat_map(u32::to_be_bytes).collect();
        bytes.extend([7; 20]);
        bytes.extend((flags | extended.map_or(0, |_| FLAG_EXTENDED)).to_be_bytes());
        bytes.extend(extended.into_iter().flat_map(u16::to_be_bytes));
        bytes.extend(name);
        bytes.push(0);
        bytes
    }

    fn index(version: u32, entries: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
        let mut bytes =
            [b"DIRC".as_slice(), &version.to_be_bytes(), &(entries.len() as u32).to_be_bytes()].concat();
        for entry in entries {
            bytes.extend(entry);
            if version < 4 {
                bytes.resize(bytes.len() + entry.len().next_multiple_of(8) - entry.len(), 0);
            }
        }
        bytes.extend(rest);
        bytes.extend([0; CHECKSUM]);
        bytes
    }

    #[test]
    fn entries_and_the_cache_tree_are_read() {
        let tree = b"\x002 1\nAAAAAAAAAAAAAAAAAAAAdir\x00-1 0\n";
        let tree = [b"TREE".as_slice(), &(tree.len() as u32).to_be_bytes(), tree].concat();
        let entries = [
            entry(b"a", 0, None),
            entry(b"dir/longer name", 0x8000, None),
            entry(b"z", 0x2000, Some(0x2000)),
        ];
        let read = IndexFile::parse(&index(3, &entries, &tree)).unwrap();
        let names: Vec<&[u8]> = read.entries.iter().map(|entry| read.name(entry)).collect();
        assert_eq!(names, [b"a".as_slice(), b"dir/longer name", b"z"]);
        let [first, second, third] = &read.entries[..] else { panic!() };
        assert_eq!((first.ctime, first.mtime, first.ino, first.size), ((1, 2), (3, 4), 6, 10));
        assert!(second.is_left_out && third.is_unmerged && third.is_intent);
        let cache = read.cache.unwrap();
        assert_eq!(cache.hash, Some([b'A'; 20]));
        assert_eq!(cache.child(b"dir").unwrap().hash, None);
        assert!(cache.child(b"other").is_none());
    }

    #[test]
    fn names_of_version_4_share_their_beginning() {
        let entries = [entry(b"\x00dir/one", 0, None), entry(b"\x03two", 0, None), entry(b"\x07z", 0, None)];
        let read = IndexFile::parse(&index(4, &entries, b"")).unwrap();
        let names: Vec<&[u8]> = read.entries.iter().map(|entry| read.name(entry)).collect();
        assert_eq!(names, [b"dir/one".as_slice(), b"dir/two", b"z"]);
    }

    #[test]
    fn what_is_not_understood_is_left_to_others() {
        let split = [b"link".as_slice(), &0_u32.to_be_bytes()].concat();
        assert!(IndexFile::parse(&index(2, &[], &split)).is_none());
        assert!(IndexFile::parse(&index(5, &[], b"")).is_none());
        assert!(IndexFile::parse(b"DIRC").is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(version in 2_u32..5, mut bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..9) {
            let mut data = [b"DIRC".as_slice(), &version.to_be_bytes(), &count.to_be_bytes()].concat();
            data.append(&mut bytes);
            let _ = IndexFile::parse(&data);
        }
    }
}
