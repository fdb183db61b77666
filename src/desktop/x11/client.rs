//! Whether the program that has the keyboard has read what it was sent.
//!
//! X has no answer to that. What there is: the program's process (X-Resource 1.2), and whether its threads sleep. A
//! program that is behind, because it is busy or the machine is, has a thread that runs or waits for a processor.

use std::collections::HashSet;

use x11rb::protocol::res::{self, ClientIdMask, ClientIdSpec};
use x11rb::protocol::xproto;

use super::{Failure, Wire};

const FOCUS_FOLLOWS_POINTER: u32 = 1; // PointerRoot

impl Wire {
    /// Process of the program that gets the keys; none when the server cannot tell.
    pub(crate) fn focused_process(&self) -> Result<Option<u32>, Failure> {
        let mut window = xproto::get_input_focus(&self.x)?.reply()?.focus;
        if window == FOCUS_FOLLOWS_POINTER {
            window = self.root;
            loop {
                match xproto::query_pointer(&self.x, window)?.reply()?.child {
                    x11rb::NONE => break,
                    child => window = child,
                }
            }
        }
        if window == x11rb::NONE || window == self.root || !self.has.res {
            return Ok(None);
        }
        let wanted = ClientIdSpec { client: window, mask: ClientIdMask::LOCAL_CLIENT_PID };
        let ids = res::query_client_ids(&self.x, &[wanted])?.reply()?.ids;
        Ok(ids.iter().find_map(|id| id.value.first()).copied().filter(|process| *process > 0))
    }
}

/// Threads of a process that have not been seen asleep; none of one that has gone or hides.
pub(crate) fn awake(process: u32) -> HashSet<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return HashSet::new() };
    let ids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|thread| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).unwrap_or_default();
        // The name before the state may have anything in it, also parentheses (proc_pid_stat(5)).
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R'))
    })
    .collect()
}
