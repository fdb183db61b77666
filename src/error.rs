//! The one error type: what went wrong, told to the client in one sentence, sorted by what a client can do about it.
//!
//! Knows nothing of HTTP; `http/reply.rs` turns a kind into a status. What the user's own command did (exit 1,
//! signal 9) is a result, never an error.

use std::io;
use std::path::Path;

/// Shorthand for results whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with a sentence for the client and, where there is one, the cause for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    details: serde_json::Map<String, serde_json::Value>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal,)*) => {
        /// What the caller can do about a failure; each kind is one `code` on the wire (contract `core.md` 3).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorKind { $($(#[$doc])* $kind,)* }

        impl ErrorKind {
            /// The `code` on the wire.
            pub const fn code(self) -> &'static str {
                match self { $(ErrorKind::$kind => $code,)* }
            }
        }
    };
}

kinds! {
    /// A parameter is missing or makes no sense.
    InvalidInput = "BAD_REQUEST",
    /// The body is not what the endpoint reads.
    InvalidBody = "INVALID_REQUEST_BODY",
    /// The token is missing or wrong.
    Unauthorized = "UNAUTHORIZED",
    /// The caller is known and may not do this.
    Forbidden = "FORBIDDEN",
    /// The route or the thing it names does not exist.
    NotFound = "NOT_FOUND",
    /// The thing exists already, or is in a state that forbids this.
    Conflict = "CONFLICT",
    /// A limit on time was reached.
    Timeout = "REQUEST_TIMEOUT",
    /// The thing existed and will not come back.
    Gone = "GONE",
    /// A condition that the request made does not hold.
    PreconditionFailed = "PRECONDITION_FAILED",
    /// The content has no such range.
    RangeNotSatisfiable = "RANGE_NOT_SATISFIABLE",
    /// The body is larger than the endpoint takes.
    TooLarge = "PAYLOAD_TOO_LARGE",
    /// Understood, and refused by the thing it was meant for.
    Unprocessable = "UNPROCESSABLE_ENTITY",
    /// Has no meaning for this daemon as it runs here.
    Unsupported = "NOT_IMPLEMENTED",
    /// What was asked upstream did not answer properly.
    BadGateway = "BAD_GATEWAY",
    /// Something that is needed is missing or not running.
    Unavailable = "SERVICE_UNAVAILABLE",
    /// Our fault, or the machine's.
    Internal = "INTERNAL_SERVER_ERROR",
    /// No such file or directory.
    FileNotFound = "FILE_NOT_FOUND",
    /// The operating system denies access to the file.
    FileAccessDenied = "FILE_ACCESS_DENIED",
    /// The path cannot name what the endpoint needs.
    InvalidFilePath = "INVALID_FILE_PATH",
    /// Reading failed midway.
    FileReadFailed = "FILE_READ_FAILED",
    /// A command ran longer than its time limit.
    ExecutionTimeout = "PROCESS_EXECUTION_TIMEOUT",
    /// No such process.
    ProcessNotFound = "PROCESS_NOT_FOUND",
    /// The session's shell has ended.
    SessionEnded = "SESSION_ENDED",
    /// The language server was not started, or has ended.
    LspNotInitialized = "LSP_SERVER_NOT_INITIALIZED",
    /// The command has completed and takes no more input.
    CommandCompleted = "COMMAND_ALREADY_COMPLETED",
    /// A remote wants credentials, or other ones.
    GitAuthFailed = "GIT_AUTH_FAILED",
    /// No repository is there, here or at the remote.
    GitRepoNotFound = "GIT_REPO_NOT_FOUND",
    /// No such branch, tag, commit or upstream.
    GitBranchNotFound = "GIT_BRANCH_NOT_FOUND",
    /// A branch has this name already.
    GitBranchExists = "GIT_BRANCH_EXISTS",
    /// The remote has what a push would take away.
    GitPushRejected = "GIT_PUSH_REJECTED",
    /// Uncommitted changes are in the way.
    GitDirtyWorktree = "GIT_DIRTY_WORKTREE",
    /// Something has to be merged first.
    GitMergeConflict = "GIT_MERGE_CONFLICT",
    /// The remote's rules refuse a push.
    GitRemoteRejected = "GIT_REMOTE_REJECTED",
    /// The remote cannot be reached or breaks off.
    GitTransportFailed = "GIT_TRANSPORT_FAILED",
}

impl Error {
    /// `message` is for the client: lower case, no full stop, names the thing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, details: serde_json::Map::new() }
    }

    /// The cause, for the log only.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A member that the reply's envelope gets beside its own, as `errors` of a bulk upload.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The members that the envelope gets beside its own.
    pub fn details(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.details
    }

    /// A parameter is missing or makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// The thing that `message` names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Our fault: `message` says what was being done.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// As [`Error::io`] for a file that is read: what is left over is [`ErrorKind::FileReadFailed`].
    pub fn read(action: &str, path: &Path, error: io::Error) -> Self {
        let text = os_text(&error);
        match Self::io(action, path, error) {
            Self { kind: ErrorKind::Internal, source, details, .. } => Self {
                kind: ErrorKind::FileReadFailed,
                message: format!("{action}: {text}"),
                source,
                details,
            },
            sorted => sorted,
        }
    }

    /// Sorts what the operating system said about `path` into the kinds of contract `files.md` 1.5; `action` is a
    /// verb, as in "read".
    pub fn io(action: &str, path: &Path, error: io::Error) -> Self {
        use rustix::io::Errno;
        let shown = path.display();
        let kind = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => ErrorKind::FileNotFound,
            Some(Errno::ACCESS | Errno::PERM) => ErrorKind::FileAccessDenied,
            // Busy are mount points; a device is missing behind special files.
            Some(
                Errno::NOTDIR
                | Errno::ISDIR
                | Errno::NAMETOOLONG
                | Errno::LOOP
                | Errno::INVAL
                | Errno::ILSEQ
                | Errno::BUSY
                | Errno::NXIO
                | Errno::NODEV,
            ) => ErrorKind::InvalidFilePath,
            Some(Errno::EXIST | Errno::NOTEMPTY) => ErrorKind::Conflict,
            // NUL bytes are refused before the system is asked; so is what is no regular file.
            None if error.kind() == io::ErrorKind::InvalidInput => ErrorKind::InvalidFilePath,
            _ => ErrorKind::Internal,
        };
        let message = match kind {
            ErrorKind::FileNotFound => format!("file not found: {shown}"),
            ErrorKind::FileAccessDenied => format!("permission denied: {shown}"),
            ErrorKind::InvalidFilePath => format!("invalid file path: {}: {shown}", os_text(&error)),
            _ => format!("{action} {shown}: {}", os_text(&error)),
        };
        Self::new(kind, message).with_source(error)
    }
}

/// The operating system's own words, in lower case and without the number that Rust adds.
pub fn os_text(error: &io::Error) -> String {
    if let Some(words) = error.raw_os_error().and_then(usual_words) {
        return words.to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What most programs on Linux say, glibc's and Go's, where musl has words of its own.
fn usual_words(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::EIO => "input/output error",
        libc::ECHILD => "no child processes",
        libc::ENOMEM => "cannot allocate memory",
        libc::EBUSY => "device or resource busy",
        libc::EXDEV => "invalid cross-device link",
        libc::EMFILE => "too many open files",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::ESPIPE => "illegal seek",
        libc::ERANGE => "numerical result out of range",
        libc::EDEADLK => "resource deadlock avoided",
        libc::ENAMETOOLONG => "file name too long",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EOVERFLOW => "value too large for defined data type",
        libc::ELIBBAD => "accessing a corrupted shared library",
        libc::EILSEQ => "invalid or incomplete multibyte or wide character",
        libc::ENOTSOCK => "socket operation on non-socket",
        libc::EMSGSIZE => "message too long",
        libc::EOPNOTSUPP => "operation not supported",
        libc::EADDRINUSE => "address already in use",
        libc::EADDRNOTAVAIL => "cannot assign requested address",
        libc::ENETUNREACH => "network is unreachable",
        libc::ENETRESET => "network dropped connection on reset",
        libc::ECONNABORTED => "software caused connection abort",
        libc::ENOTCONN => "transport endpoint is not connected",
        libc::ESHUTDOWN => "cannot send after transport endpoint shutdown",
        libc::ETIMEDOUT => "connection timed out",
        libc::EHOSTUNREACH => "no route to host",
        libc::EUCLEAN => "structure needs cleaning",
        libc::EDQUOT => "disk quota exceeded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_a_cause_are_the_same_with_every_libc() {
        for (number, words) in [
            (libc::ENAMETOOLONG, "file name too long"),
            (libc::EBUSY, "device or resource busy"),
            (libc::ENOENT, "no such file or directory"),
            (libc::ENOTEMPTY, "directory not empty"),
        ] {
            assert_eq!(os_text(&io::Error::from_raw_os_error(number)), words);
        }
    }

    #[test]
    fn causes_are_sorted_and_the_path_is_named() {
        let error = Error::io("read", Path::new("/no/such"), io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.kind(), ErrorKind::FileNotFound);
        assert_eq!(error.to_string(), "file not found: /no/such");
        let error = Error::io("write", Path::new("/full"), io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.to_string(), "write /full: no space left on device");
    }
}
