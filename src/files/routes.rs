//! URLs below `/files`.

use std::sync::Arc;

use axum::Json as JsonReply;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::forms::{self, BulkUpload};
use super::replace::Replace;
use super::search;
use super::service::{Files, Permissions, base_name};
use super::watch;
use super::wire::{
    BulkDownload, BulkUploaded, FileInfo, InfoStyle, MoveRemainder, ReplaceRequest, ReplaceResult,
    UploadedFile, text,
};
use crate::endpoints;
use crate::error::{Error, ErrorKind, Result};
use crate::http::body::{
    Form, disposition, drain, ended_early, is_form, json_array, json_of, random_boundary,
};
use crate::http::client::Client;
use crate::http::extract::{Json, Query, collect, exactly_true, json};
use crate::http::range::{self, Selection, Validators};
use crate::http::reply::ErrorBody;
use crate::http::routes::Routes;

/// Largest body of a replace request, in bytes.
const REPLACE_BYTES: usize = 64 * 1024 * 1024;
/// Mode of new directories.
const FOLDER_MODE: &str = "0755";

pub(crate) fn router(files: Files) -> Routes {
    Routes::new()
        .routes(endpoints!(list, delete))
        .routes(endpoints!(info))
        .routes(endpoints!(download))
        .routes(endpoints!(bulk_download))
        .routes(endpoints!(upload))
        .routes(endpoints!(upload_v2))
        .routes(endpoints!(bulk_upload))
        .routes(endpoints!(create_folder))
        .routes(endpoints!(rename))
        .routes(endpoints!(set_permissions))
        .routes(endpoints!(replace))
        .merge(search::routes::router())
        .merge(watch::routes::router())
        .with_state(files)
}

#[derive(Debug, Deserialize, IntoParams)]
struct PathQuery {
    /// Absolute, or relative to the working directory.
    path: String,
}

#[derive(Debug, Deserialize, IntoParams)]
struct ListQuery {
    /// Directory; the working directory by default.
    path: Option<String>,
    /// Levels listed: 1, the default, is the entries of the directory itself.
    #[param(minimum = 1)]
    depth: Option<u64>,
}

/// Entries of a directory, sorted by the bytes of their names, each directory before its own entries
#[utoipa::path(get, path = "/files", tag = "files", params(ListQuery),
    responses((status = 200, body = [FileInfo]), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn list(
    State(files): State<Files>,
    client: Client,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let style = InfoStyle::of(&client);
    let batches = files.list(query.path.as_deref().unwrap_or("."), query.depth.unwrap_or(1)).await?;
    let batches =
        batches.map(move |batch| Ok(batch?.iter().map(|entry| style.info(entry)).collect::<Vec<_>>()));
    Ok(json_of(json_array(batches).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
struct DeleteQuery {
    /// File, link or directory.
    path: String,
    /// Whether a directory may be deleted, with all that is in it. Only `true` switches this on.
    #[serde(default, deserialize_with = "exactly_true")]
    #[param(required = false)]
    recursive: bool,
}

/// Deletes a file, a link, or a directory with all that is in it
///
/// Refused for the root, mount points, the working directory and those above it. It stops when the client leaves.
#[utoipa::path(delete, path = "/files", tag = "files", params(DeleteQuery),
    responses((status = 204), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn delete(State(files): State<Files>, Query(query): Query<DeleteQuery>) -> Result<StatusCode> {
    files.delete(&query.path, query.recursive).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One file or directory
#[utoipa::path(get, path = "/files/info", tag = "files", params(PathQuery),
    responses((status = 200, body = FileInfo), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn info(
    State(files): State<Files>,
    client: Client,
    Query(query): Query<PathQuery>,
) -> Result<JsonReply<FileInfo>> {
    let entry = files.info(&query.path).await?;
    Ok(JsonReply(InfoStyle::of(&client).info(&entry)))
}

/// Content of a file, whole or in ranges (RFC 9110)
///
/// `If-Modified-Since`, `If-None-Match`, `If-Unmodified-Since`, `If-Match` and `If-Range` are honoured; the entity tag
/// is a weak one.
#[utoipa::path(method(get, head), path = "/files/download", tag = "files", params(PathQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, body = Vec<u8>, content_type = "application/octet-stream"), (status = 304),
        (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 412, body = ErrorBody), (status = 416, body = ErrorBody)))]
async fn download(
    State(files): State<Files>,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<PathQuery>,
) -> Result<Response> {
    let file = files.open(&query.path).await?;
    let etag = HeaderValue::try_from(format!("W/\"{}\"", file.version)).expect("numbers are plain ASCII");
    let validators = Validators { etag: etag.clone(), modified: file.modified };
    let selection = match range::select(&method, &headers, &validators, file.size) {
        Ok(selection) => selection,
        Err(reply) => return Ok(*reply),
    };
    let has_content = selection != Selection::NotModified;
    let mut reply = range::reply(selection, file.size, |range| file.read(range));
    let headers = reply.headers_mut();
    headers.insert(header::ETAG, etag);
    if let Some(modified) = file.modified {
        let date = HeaderValue::try_from(httpdate::fmt_http_date(modified)).expect("a date is plain ASCII");
        headers.insert(header::LAST_MODIFIED, date);
    }
    let mut fixed = |name, text| headers.insert(name, HeaderValue::from_static(text));
    fixed(header::EXPIRES, "0");
    fixed(header::CACHE_CONTROL, "must-revalidate");
    fixed(header::PRAGMA, "public");
    if has_content {
        fixed(header::ACCEPT_RANGES, "bytes");
        fixed(HeaderName::from_static("content-description"), "File Transfer");
        fixed(HeaderName::from_static("content-transfer-encoding"), "binary");
        headers.insert(header::CONTENT_DISPOSITION, disposition("attachment", &file.name.to_string_lossy()));
    }
    Ok(reply)
}

/// Contents of several files as a multipart form, errors included
///
/// Parts come in the order of the request and are named `file`, or `error` with an ErrorResponse as their content; the
/// path is their file name. The last boundary is missing when a file could not be read to its end.
#[utoipa::path(post, path = "/files/bulk-download", tag = "files", request_body = BulkDownload,
    responses((status = 200, body = Vec<u8>, content_type = "multipart/form-data"),
        (status = 400, body = ErrorBody)))]
async fn bulk_download(State(files): State<Files>, Json(request): Json<BulkDownload>) -> Result<Response> {
    if request.paths.is_empty() {
        return Err(Error::new(ErrorKind::InvalidBody, "paths must name at least one file"));
    }
    let boundary = random_boundary();
    let kind = format!("multipart/form-data; boundary={boundary}");
    let body = Body::from_stream(forms::download(files, request.paths, &boundary));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// Writes a file, given as the field `file` of a multipart form
///
/// Missing directories are created. The old content is there until the new one is complete.
#[utoipa::path(post, path = "/files/upload", tag = "files", params(PathQuery),
    request_body(content_type = "multipart/form-data", content = Vec<u8>),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn upload(
    State(files): State<Files>,
    headers: HeaderMap,
    Query(query): Query<PathQuery>,
    body: Body,
) -> Result<StatusCode> {
    let mut body = body.into_data_stream();
    let result = upload_form(&files, &query.path, &headers, &mut body).await;
    drain(&mut body, &headers).await;
    result.map(|()| StatusCode::OK)
}

/// Writes a file, given as the field `file` of a multipart form, or as the body itself with any other content type
///
/// Missing directories are created. The old content is there until the new one is complete.
#[utoipa::path(post, path = "/files/upload-v2", tag = "files", params(PathQuery),
    request_body(content_type = "application/octet-stream", content = Vec<u8>),
    responses((status = 200, body = UploadedFile), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody)))]
async fn upload_v2(
    State(files): State<Files>,
    headers: HeaderMap,
    Query(query): Query<PathQuery>,
    body: Body,
) -> Result<JsonReply<UploadedFile>> {
    let mut body = body.into_data_stream();
    let result = if is_form(&headers) {
        upload_form(&files, &query.path, &headers, &mut body).await
    } else {
        upload_raw(&files, &query.path, &mut body).await
    };
    drain(&mut body, &headers).await;
    result?;
    let path = files.absolute(&query.path).await?;
    Ok(JsonReply(UploadedFile {
        name: base_name(query.path.as_ref()).to_string_lossy().into_owned(),
        path: text(path.as_os_str().as_encoded_bytes()),
        kind: "file",
    }))
}

async fn upload_form(
    files: &Files,
    path: &str,
    headers: &HeaderMap,
    body: &mut BodyDataStream,
) -> Result<()> {
    forms::upload(files, path, &mut Form::new(headers, body)?).await
}

async fn upload_raw(files: &Files, path: &str, body: &mut BodyDataStream) -> Result<()> {
    let mut upload = files.create(path).await?;
    upload.fill(&mut body.map(|piece| piece.map_err(ended_early))).await?;
    upload.commit().await?;
    Ok(())
}

/// Writes several files, given as pairs of fields `files[i].path` and `files[i].file`
///
/// A path must come before its file. One failure does not keep the other files from being written: the error then has
/// `errors`, a list of strings, and `files`, those that were written.
#[utoipa::path(post, path = "/files/bulk-upload", tag = "files",
    request_body(content_type = "multipart/form-data", content = Vec<u8>),
    responses((status = 200, body = BulkUploaded), (status = 400, body = ErrorBody)))]
async fn bulk_upload(
    State(files): State<Files>,
    headers: HeaderMap,
    body: Body,
) -> Result<JsonReply<BulkUploaded>> {
    let mut body = body.into_data_stream();
    let (kind, upload) = match Form::new(&headers, &mut body) {
        Ok(mut form) => (ErrorKind::InvalidInput, BulkUpload::receive(&files, &mut form).await),
        Err(_) => (ErrorKind::InvalidBody, BulkUpload::failed("invalid multipart form")),
    };
    drain(&mut body, &headers).await;
    if upload.errors.is_empty() {
        return Ok(JsonReply(BulkUploaded { files: upload.files }));
    }
    let files = serde_json::to_value(&upload.files).expect("wire types are plain JSON");
    let error = Error::new(kind, upload.errors.join("; "));
    Err(error.with_detail("errors", upload.errors).with_detail("files", files))
}

#[derive(Debug, Deserialize, IntoParams)]
struct FolderQuery {
    /// Directory to create.
    path: String,
    /// Octal digits, up to 7777, not changed by the umask. Default 0755.
    mode: Option<String>,
}

/// Creates a directory, and with mode 0755 those missing above it; one that exists is left as it is
#[utoipa::path(post, path = "/files/folder", tag = "files", params(FolderQuery),
    responses((status = 201), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn create_folder(State(files): State<Files>, Query(query): Query<FolderQuery>) -> Result<StatusCode> {
    files.create_folder(&query.path, query.mode.as_deref().unwrap_or(FOLDER_MODE)).await?;
    Ok(StatusCode::CREATED)
}

#[derive(Debug, Deserialize, IntoParams)]
struct MoveQuery {
    /// File, link or directory.
    source: String,
    /// Its new path, where nothing may be yet.
    destination: String,
}

/// Moves a file, link or directory, across file systems too; never replaces anything
///
/// The body is empty, unless a source on another file system was copied and could not be removed entirely.
#[utoipa::path(post, path = "/files/move", tag = "files", params(MoveQuery),
    responses((status = 200, body = Option<MoveRemainder>), (status = 400, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn rename(State(files): State<Files>, Query(query): Query<MoveQuery>) -> Result<Response> {
    Ok(match files.rename(&query.source, &query.destination).await? {
        None => StatusCode::OK.into_response(),
        Some(error) => {
            let message = "file copied, but the source could not be deleted";
            JsonReply(MoveRemainder { message, error }).into_response()
        }
    })
}

#[derive(Debug, Deserialize, IntoParams)]
struct PermissionsQuery {
    /// File or directory; links are followed.
    path: String,
    /// Octal digits, up to 7777.
    mode: Option<String>,
    /// User id or name.
    owner: Option<String>,
    /// Group id or name.
    group: Option<String>,
}

/// Changes mode, owner and group; all of it is checked before any is changed
#[utoipa::path(post, path = "/files/permissions", tag = "files", params(PermissionsQuery),
    responses((status = 200), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn set_permissions(
    State(files): State<Files>,
    Query(query): Query<PermissionsQuery>,
) -> Result<StatusCode> {
    let permissions = Permissions { mode: query.mode, owner: query.owner, group: query.group };
    files.set_permissions(&query.path, permissions).await?;
    Ok(StatusCode::OK)
}

/// Replaces text in files, literally and everywhere; a file without it is left alone
#[utoipa::path(post, path = "/files/replace", tag = "files", request_body = ReplaceRequest,
    responses((status = 200, body = [ReplaceResult]), (status = 400, body = ErrorBody)))]
async fn replace(State(files): State<Files>, body: Body) -> Result<JsonReply<Vec<ReplaceResult>>> {
    let request: ReplaceRequest = json(&collect(body, REPLACE_BYTES).await?)?;
    let replace = Arc::new(Replace::new(&request.pattern, request.new_value)?);
    let mut results = Vec::with_capacity(request.files.len());
    for file in request.files {
        let error = files.replace(&file, &replace).await.err().map(|error| error.to_string());
        results.push(ReplaceResult { file, success: error.is_none(), error });
    }
    Ok(JsonReply(results))
}
