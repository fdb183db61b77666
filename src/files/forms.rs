//! Multipart bodies of several files, in and out (contract `files.md` 6 to 9).

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::Method;

use super::service::Files;
use super::transfer::{Readable, UploadError};
use super::wire::Written;
use crate::error::{Error, Result};
use crate::http::body::{Form, Part, disposition, sure};
use crate::http::reply::ErrorBody;

/// Longest destination of a bulk upload, in bytes.
const PATH_BYTES: usize = 64 * 1024;
/// Most that is remembered of destinations, results and errors of one bulk upload, in bytes.
const MEMORY_BYTES: usize = 8 * 1024 * 1024;
/// What an entry of these costs beside its text, roughly.
const ENTRY_BYTES: usize = 64;

/// Writes the field `file` of a form to `path`; other fields are read over.
///
/// # Errors
/// When there is no such field, the form is not whole, or the file cannot be written. Nothing has changed then.
pub(super) async fn upload(files: &Files, path: &str, form: &mut Form<'_>) -> Result<()> {
    let mut upload = None;
    let read = async {
        while let Some(mut part) = form.next().await? {
            if part.name() == "file" && upload.is_none() {
                upload.insert(files.create(path).await?).fill(&mut part).await?;
            } else {
                part.skip().await?;
            }
        }
        Ok(())
    };
    let read: Result<()> = read.await;
    match (read, upload) {
        (Ok(()), Some(upload)) => {
            upload.commit().await?;
            Ok(())
        }
        (Ok(()), None) => Err(Error::invalid("the form has no field named file")),
        (Err(error), upload) => {
            if let Some(mut upload) = upload {
                upload.abort().await;
            }
            Err(error)
        }
    }
}

/// What became of a bulk upload.
#[derive(Debug, Default)]
pub(super) struct BulkUpload {
    /// Written, in order.
    pub(super) files: Vec<Written>,
    /// A line for each thing that went wrong.
    pub(super) errors: Vec<String>,
    paths: HashMap<String, String>,
    remembered: usize,
}

impl BulkUpload {
    /// Writes the files of a form one after the other, so that of several with one destination the last one counts.
    /// One that fails does not keep the others from being written.
    pub(super) async fn receive(files: &Files, form: &mut Form<'_>) -> Self {
        let mut upload = Self::default();
        loop {
            let part = match form.next().await {
                Ok(Some(part)) => part,
                Ok(None) => break,
                Err(error) => {
                    upload.fail(format!("reading part: {error}"));
                    break;
                }
            };
            if let Err(error) = upload.part(files, part).await {
                upload.fail(format!("reading part: {error}"));
                break;
            }
            if upload.remembered > MEMORY_BYTES {
                upload.fail("too many files in one request".to_owned());
                break;
            }
        }
        upload
    }

    /// One that could not even begin.
    pub(super) fn failed(error: &str) -> Self {
        Self { errors: vec![error.to_owned()], ..Self::default() }
    }

    /// Takes one part; fails when the form is not whole.
    async fn part(&mut self, files: &Files, part: Part<'_>) -> Result<()> {
        let name = part.name().to_owned();
        if let Some(index) = name.strip_suffix(".path") {
            match part.text(PATH_BYTES).await?.as_deref().map(str::trim) {
                Some("") => self.fail(format!("path[{}]: empty path", shown(index))),
                None => self.fail(format!("path[{}]: too long, or not UTF-8", shown(index))),
                Some(path) => {
                    self.remember(index.len() + path.len());
                    self.paths.insert(index.to_owned(), path.to_owned());
                }
            }
            Ok(())
        } else if let Some(index) = name.strip_suffix(".file") {
            match self.paths.get(index).cloned() {
                Some(path) => self.file(files, path, part).await,
                None => {
                    self.fail(format!("file[{}]: missing .path metadata", shown(index)));
                    part.skip().await
                }
            }
        } else {
            part.skip().await
        }
    }

    async fn file(&mut self, files: &Files, path: String, mut part: Part<'_>) -> Result<()> {
        let written = async {
            let mut upload = files.create(&path).await.map_err(UploadError::Write)?;
            upload.fill(&mut part).await?;
            upload.commit().await.map_err(UploadError::Write)
        };
        match written.await {
            Ok(bytes) => {
                self.remember(path.len());
                self.files.push(Written { path, bytes });
                Ok(())
            }
            Err(UploadError::Write(error)) => {
                self.fail(format!("{path}: {error}"));
                part.skip().await
            }
            Err(UploadError::Content(error)) => {
                self.fail(format!("{path}: write: {error}"));
                Err(error)
            }
        }
    }

    fn fail(&mut self, error: String) {
        self.remember(error.len());
        self.errors.push(error);
    }

    fn remember(&mut self, bytes: usize) {
        self.remembered += bytes + ENTRY_BYTES;
    }
}

/// `3` of `files[3]`.
fn shown(index: &str) -> &str {
    index.strip_prefix("files[").and_then(|index| index.strip_suffix(']')).unwrap_or(index)
}

/// The files at `paths` as parts of a form, in this order. A file that cannot be opened becomes an error part. One
/// that cannot be read to its end fails the stream: without its last boundary a form is known to be cut.
pub(super) fn download(
    files: Files,
    paths: Vec<String>,
    boundary: &str,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let start = format!("--{boundary}\r\n");
    let end = format!("--{boundary}--\r\n");
    stream::iter(paths)
        .then(move |path| {
            let (files, start) = (files.clone(), start.clone());
            async move {
                match files.open(&path).await {
                    Ok(file) => file_part(start, &path, &file).left_stream(),
                    Err(error) => sure([error_part(start, &path, &error)]).right_stream(),
                }
            }
        })
        .flatten()
        .chain(sure([end.into()]))
}

fn file_part(
    start: String,
    path: &str,
    file: &Readable,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let mut kind = mime_guess::from_path(path).first_or_octet_stream().to_string();
    if kind.starts_with("text/") {
        kind.push_str("; charset=utf-8");
    }
    let mut head = start.into_bytes();
    head.extend_from_slice(b"Content-Disposition: ");
    head.extend_from_slice(disposition("form-data; name=\"file\"", path).as_bytes());
    head.extend_from_slice(
        format!("\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n\r\n", file.size).as_bytes(),
    );
    sure([head.into()]).chain(file.read(0..file.size)).chain(sure([Bytes::from_static(b"\r\n")]))
}

fn error_part(start: String, path: &str, error: &Error) -> Bytes {
    let mut part = start.into_bytes();
    part.extend_from_slice(b"Content-Disposition: ");
    part.extend_from_slice(disposition("form-data; name=\"error\"", path).as_bytes());
    part.extend_from_slice(b"\r\nContent-Type: application/json; charset=utf-8\r\n\r\n");
    let body = ErrorBody::new(error, &Method::POST, path);
    part.extend(serde_json::to_vec(&body).expect("an envelope is plain JSON"));
    part.extend_from_slice(b"\r\n");
    part.into()
}
