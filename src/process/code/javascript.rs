//! How Node.js is started on a program: as `node -`, which reads it from standard input, so that it is a script with
//! `require`, and everything that this Node.js knows of modules.
//!
//! Programs expect `process.argv` to be the program that runs them and then their arguments. `node -` puts a `-` in
//! between. A Node.js that can take modules to load first (from 18.19 on) is given one that removes it; before an older
//! one's program, on its first line, stands a statement that does the same.

use std::ffi::OsString;

use super::node::Version;
use crate::supervisor::Command;

/// Removes the name of the program.
const FIX: &str = "process.argv.splice(1,1);";
/// As a module, which workers and forks of the program do not load again.
const FIX_MODULE: &str =
    "data:text/javascript,if(process.argv[1]==='-'){process.argv.splice(1,1);process.execArgv.length=0}";

/// `node` on the program that it is given on standard input, and what that is.
pub(super) fn command(version: Version, code: &str, argv: &[String]) -> (Command, String) {
    let has_import = version >= (18, 19);
    let options: &[&str] = if has_import { &["node", "--import", FIX_MODULE, "-"] } else { &["node", "-"] };
    let words = options.iter().map(OsString::from).chain(argv.iter().map(OsString::from));
    let program = if has_import { code.to_owned() } else { with_argv_fixed(code) };
    (Command::new(words), program)
}

/// The program with a statement in front of it, on its first line, that removes its name from `process.argv`.
pub(super) fn with_argv_fixed(code: &str) -> String {
    let (hash_bang, rest) = match code.strip_prefix("#!") {
        Some(rest) => rest.split_at(rest.find('\n').unwrap_or(rest.len())),
        None => ("", code),
    };
    let strict = if is_strict(rest) { "'use strict';" } else { "" };
    let comment = if hash_bang.is_empty() { "" } else { "//" };
    format!("{strict}{FIX}{comment}{hash_bang}{rest}")
}

/// Whether a program begins with the directive that makes it strict, which counts only as the first statement.
fn is_strict(code: &str) -> bool {
    let mut rest = code;
    loop {
        rest = rest.trim_start();
        rest = if let Some(comment) = rest.strip_prefix("//") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return rest.starts_with("'use strict'") || rest.starts_with("\"use strict\"");
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_strictness_stay_as_they_are() {
        assert_eq!(with_argv_fixed("a\nb"), format!("{FIX}a\nb"));
        assert_eq!(
            with_argv_fixed("#!/usr/bin/env node\n// x\n/* y */ 'use strict'\na"),
            format!("'use strict';{FIX}///usr/bin/env node\n// x\n/* y */ 'use strict'\na")
        );
        assert_eq!(with_argv_fixed("// 'use strict'"), format!("{FIX}// 'use strict'"));
    }
}
