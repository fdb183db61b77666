//! How Python is started on a program.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::supervisor::{Command, memory};

/// Runs the program, with charts; see there.
const RUN: &[u8] = include_bytes!("../../../assets/python/run.py");
/// Describes figures, once pyplot is there.
const CHARTS: &[u8] = include_bytes!("../../../assets/python/charts.py");
/// Between the three in the memory that Python reads. No Python source has it.
const SEPARATOR: &[u8] = b"\0";
/// Where Python finds the memory. It closes it before the program begins.
const PROGRAM: i32 = 3;
/// Where charts go; run.py has the same number.
const ARTIFACTS: i32 = 4;
/// Reads `RUN`, which leaves no name in `__main__`.
const BOOTSTRAP: &str = "(lambda f: (lambda p: exec(p[0], {'__name__': 'toolboxd', 'parts': p}))(\
                         (f.read(), f.close())[0].split(b'\\0', 2)))(open(3, 'rb'))";

/// Names of the interpreter, in the order of preference.
pub(super) const NAMES: [&str; 2] = ["python3", "python"];

/// `name` on the program `code`, which sends its charts to `artifacts`.
///
/// # Errors
/// When there is no memory for the program.
pub(super) fn command(
    name: &str,
    code: &str,
    argv: &[String],
    artifacts: Arc<OwnedFd>,
) -> io::Result<Command> {
    let program = memory("program", &[RUN, SEPARATOR, CHARTS, SEPARATOR, code.as_bytes()])?;
    let words = [name, "-u", "-c", BOOTSTRAP].map(OsString::from);
    let mut command = Command::new(words.into_iter().chain(argv.iter().map(OsString::from)));
    command.descriptors = vec![(PROGRAM, Arc::new(program)), (ARTIFACTS, artifacts)];
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_in_no_part() {
        assert!(!RUN.contains(&SEPARATOR[0]) && !CHARTS.contains(&SEPARATOR[0]));
    }
}
