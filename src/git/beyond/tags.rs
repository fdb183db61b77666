//! Tags: list, create, delete.

use git2::{ErrorCode, Oid, Repository, Tag};

use crate::error::{Error, ErrorKind, Result};
use crate::git::branches::{not_found, revision};
use crate::git::commit::identity;
use crate::git::failure::{failed, failing};
use crate::git::service::Git;

/// A tag.
#[derive(Debug)]
pub(super) struct TagInfo {
    pub(super) name: String,
    /// What it points at in the end.
    pub(super) hash: String,
    /// Of an annotated one.
    pub(super) message: Option<String>,
}

/// A tag to create.
#[derive(Debug)]
pub(super) struct TagOrder {
    pub(super) name: String,
    /// Any revision.
    pub(super) target: Option<String>,
    /// Makes it an annotated one.
    pub(super) message: Option<String>,
    /// Name and address of who tags; the configured ones by default.
    pub(super) tagger: Option<(String, String)>,
    /// Whether it may replace one of the same name.
    pub(super) force: bool,
}

impl Git {
    /// All tags, sorted by name.
    ///
    /// # Errors
    /// When there is no repository.
    pub(super) async fn tags(&self, path: &str) -> Result<Vec<TagInfo>> {
        self.read(path, |repository| {
            let mut found: Vec<(Oid, Vec<u8>)> = Vec::new();
            let listed = repository.tag_foreach(|id, name| {
                found.push((id, name.to_owned()));
                true
            });
            listed.map_err(failing("list tags"))?;
            let mut tags = found
                .into_iter()
                .map(|(id, name)| info(repository, id, &name))
                .collect::<Result<Vec<_>>>()?;
            tags.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(tags)
        })
        .await
    }

    /// Creates a tag; gives what it points at.
    ///
    /// # Errors
    /// When the name makes no sense or is taken, there is no such revision, or nobody is known to tag.
    pub(super) async fn create_tag(&self, path: &str, order: TagOrder) -> Result<Oid> {
        self.change(path, move |repository| {
            if order.name.starts_with('-') || !Tag::is_valid_name(&order.name) {
                return Err(Error::invalid(format!("invalid tag name: {:?}", order.name)));
            }
            let target = revision(repository, order.target.as_deref().unwrap_or("HEAD"))?;
            let object = target.as_object();
            let made = match &order.message {
                Some(message) => {
                    let tagger = match &order.tagger {
                        Some((name, email)) => identity(name, email)?,
                        None => repository.signature().map_err(|error| {
                            Error::invalid(
                                "tagger and email are required: user.name and user.email are not set",
                            )
                            .with_source(error)
                        })?,
                    };
                    repository.tag(&order.name, object, &tagger, message, order.force)
                }
                None => repository.tag_lightweight(&order.name, object, order.force),
            };
            made.map_err(|error| match error.code() {
                ErrorCode::Exists => {
                    let text = format!("a tag named {} already exists", order.name);
                    Error::new(ErrorKind::Conflict, text).with_source(error)
                }
                _ => failed(&format!("create tag {}", order.name), error),
            })?;
            Ok(target.id())
        })
        .await
    }

    /// Deletes a tag.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn delete_tag(&self, path: &str, name: String) -> Result<()> {
        self.change(path, move |repository| {
            repository.tag_delete(&name).map_err(|error| match error.code() {
                ErrorCode::NotFound | ErrorCode::InvalidSpec => not_found(&name).with_source(error),
                _ => failed(&format!("delete tag {name}"), error),
            })
        })
        .await
    }
}

fn info(repository: &Repository, id: Oid, name: &[u8]) -> Result<TagInfo> {
    let failing = failing("read a tag");
    let short = name.strip_prefix(b"refs/tags/").unwrap_or(name);
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (target, message) = match repository.find_tag(id) {
        Ok(tag) => {
            (tag.peel().map_err(&failing)?.id(), Some(tag.message_bytes().map(lossy).unwrap_or_default()))
        }
        Err(_) => (id, None), // a lightweight one
    };
    Ok(TagInfo { name: lossy(short), hash: target.to_string(), message })
}
