//! From libgit2's errors to ours: the one place that sorts their causes (contract `git.md` 1.2).

use git2::{ErrorClass, ErrorCode};

use crate::error::{Error, ErrorKind};

/// Sorts what libgit2 says while `action`, a verb and its object as in "read the index".
///
/// What a code means can depend on the call: where it does, the caller looks first.
pub(super) fn failed(action: &str, error: git2::Error) -> Error {
    let kind = kind_of(error.code(), error.class(), error.message());
    let text = words(&error);
    let message = match kind {
        ErrorKind::GitMergeConflict => format!("{action}: there are unmerged files: {text}"),
        ErrorKind::GitDirtyWorktree => format!("{action}: uncommitted changes are in the way: {text}"),
        _ => format!("{action}: {text}"),
    };
    Error::new(kind, message).with_source(error)
}

/// For [`Result::map_err`]: [`failed`] with its action.
pub(super) fn failing(action: &str) -> impl Fn(git2::Error) -> Error + '_ {
    move |error| failed(action, error)
}

fn kind_of(code: ErrorCode, class: ErrorClass, message: &str) -> ErrorKind {
    match (code, class) {
        (ErrorCode::Auth, _) => ErrorKind::GitAuthFailed,
        (ErrorCode::Certificate | ErrorCode::Timeout | ErrorCode::Eof, _)
        | (_, ErrorClass::Net | ErrorClass::Ssl | ErrorClass::Http | ErrorClass::Ssh) => {
            ErrorKind::GitTransportFailed
        }
        (ErrorCode::NotFound, ErrorClass::Repository) => ErrorKind::GitRepoNotFound,
        (ErrorCode::UnbornBranch, _)
        | (
            ErrorCode::NotFound,
            ErrorClass::Reference | ErrorClass::Odb | ErrorClass::Object | ErrorClass::Tag,
        ) => ErrorKind::GitBranchNotFound,
        (
            ErrorCode::NotFound,
            ErrorClass::Config | ErrorClass::Index | ErrorClass::Tree | ErrorClass::Stash,
        ) => ErrorKind::NotFound,
        (ErrorCode::Exists, ErrorClass::Reference) => ErrorKind::GitBranchExists,
        (ErrorCode::Exists | ErrorCode::Locked | ErrorCode::Modified, _) => ErrorKind::Conflict,
        (ErrorCode::NotFastForward, _) => ErrorKind::GitPushRejected,
        (ErrorCode::Conflict | ErrorCode::Uncommitted | ErrorCode::IndexDirty, _) => {
            ErrorKind::GitDirtyWorktree
        }
        (ErrorCode::Unmerged | ErrorCode::MergeConflict, _) => ErrorKind::GitMergeConflict,
        (
            ErrorCode::BareRepo
            | ErrorCode::InvalidSpec
            | ErrorCode::Ambiguous
            | ErrorCode::Peel
            | ErrorCode::Directory,
            _,
        )
        | (ErrorCode::Invalid, ErrorClass::Reference | ErrorClass::Invalid | ErrorClass::Config) => {
            ErrorKind::InvalidInput
        }
        _ if message.ends_with("Permission denied") => ErrorKind::FileAccessDenied,
        _ => ErrorKind::Internal,
    }
}

/// libgit2's own words, in lower case and without a full stop.
pub(super) fn words(error: &git2::Error) -> String {
    let text = error.message().trim_end_matches(['.', '\n']);
    let mut letters = text.chars();
    let is_name = text.chars().nth(1).is_some_and(|second| second.is_uppercase()); // as HEAD, SHA
    match letters.next() {
        Some(first) if !is_name => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_sorted() {
        use {ErrorClass as Class, ErrorCode as Code};
        for (code, class, kind) in [
            (Code::Auth, Class::Http, ErrorKind::GitAuthFailed),
            (Code::Certificate, Class::Ssl, ErrorKind::GitTransportFailed),
            (Code::GenericError, Class::Net, ErrorKind::GitTransportFailed),
            (Code::NotFound, Class::Repository, ErrorKind::GitRepoNotFound),
            (Code::NotFound, Class::Reference, ErrorKind::GitBranchNotFound),
            (Code::NotFound, Class::Odb, ErrorKind::GitBranchNotFound),
            (Code::NotFound, Class::Index, ErrorKind::NotFound),
            (Code::UnbornBranch, Class::Reference, ErrorKind::GitBranchNotFound),
            (Code::Exists, Class::Reference, ErrorKind::GitBranchExists),
            (Code::NotFastForward, Class::Reference, ErrorKind::GitPushRejected),
            (Code::Conflict, Class::Checkout, ErrorKind::GitDirtyWorktree),
            (Code::Unmerged, Class::Index, ErrorKind::GitMergeConflict),
            (Code::BareRepo, Class::Repository, ErrorKind::InvalidInput),
            (Code::InvalidSpec, Class::Reference, ErrorKind::InvalidInput),
            (Code::Locked, Class::Os, ErrorKind::Conflict),
            (Code::GenericError, Class::Os, ErrorKind::Internal),
        ] {
            let error = failed("try", git2::Error::new(code, class, "It failed."));
            assert_eq!(error.kind(), kind, "{code:?} {class:?}");
            assert!(error.to_string().starts_with("try: ") && error.to_string().ends_with("it failed"));
        }
    }

    #[test]
    fn abbreviations_stay_as_they_are() {
        let error = git2::Error::from_str("HEAD is gone");
        assert_eq!(words(&error), "HEAD is gone");
    }
}
