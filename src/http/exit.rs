//! The ends of processes in replies.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::output::tail;
use crate::error::{Error, ErrorKind};
use crate::supervisor::{Cause, Exit, ExitStatus, OutputLog};

/// Of a command that timed out, this much of the end of its output is in the error, when it is asked for.
const PARTIAL_BYTES: u64 = 64 * 1024;

/// The exit code as replies tell it: -1 for a process that a signal ended.
pub fn exit_code(exit: Exit) -> i32 {
    match exit.status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(_) => -1,
    }
}

/// The error for a process that reached its time limit; with `detail` it has the last output as `partialOutput`.
pub async fn timed_out(output: &OutputLog, detail: bool) -> Error {
    let error = Error::new(ErrorKind::ExecutionTimeout, "command execution timeout");
    if !detail {
        return error;
    }
    error.with_detail("partialOutput", tail(output, output.end().saturating_sub(PARTIAL_BYTES)).await)
}

/// How a process ended and what it used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// `exited`, `signalled`, `timedOut`, `memoryLimit` or `stopped`.
    cause: &'static str,
    /// Name of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    /// Milliseconds from start to exit.
    run_time_ms: u64,
    /// Milliseconds of CPU time, with the children that it waited for.
    cpu_time_ms: u64,
    /// Largest resident set of it or of one such child.
    peak_memory_bytes: u64,
    /// Bytes that it printed.
    output_bytes: u64,
    /// Bytes of those that were dropped from the middle.
    dropped_bytes: u64,
}

impl ExitRecord {
    /// Of a process that printed `output_bytes`, of which `dropped_bytes` were not kept.
    pub fn new(exit: Exit, output_bytes: u64, dropped_bytes: u64) -> Self {
        let signal = exit.status.signal_name();
        let cause = match exit.cause {
            Cause::TimeLimit => "timedOut",
            Cause::MemoryLimit => "memoryLimit",
            Cause::Stopped => "stopped",
            Cause::Itself if signal.is_some() => "signalled",
            Cause::Itself => "exited",
        };
        Self {
            cause,
            signal,
            run_time_ms: millis(exit.run_time),
            cpu_time_ms: millis(exit.cpu_time),
            peak_memory_bytes: exit.peak_memory_bytes,
            output_bytes,
            dropped_bytes,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
