//! JSON of the platform calls. The members, and which of them are there, are what the SDKs' generated clients validate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::service::{Sandbox, Wanted};

/// Stands for an organisation: clients want one to have an id.
const ORGANIZATION: &str = "stand-alone";

/// What a client wants of a sandbox. Members that are not listed are accepted; the log names those that ask for
/// something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateSandbox {
    /// Name that can be used instead of the id. Default: the id.
    name: Option<String>,
    /// Variables for later processes.
    env: Option<BTreeMap<String, String>>,
    /// The client's own notes.
    labels: Option<BTreeMap<String, String>>,
    /// Whether previews are meant for everyone; kept and told.
    public: Option<bool>,
    /// Region; kept and told.
    target: Option<String>,
    /// Minutes without use; kept and told.
    auto_stop_interval: Option<i32>,
    /// Minutes stopped; kept and told.
    auto_archive_interval: Option<i32>,
    /// Minutes stopped; 0 deletes when it is stopped, other values are kept and told.
    auto_delete_interval: Option<i32>,
    #[serde(flatten)]
    #[schema(ignore)]
    others: BTreeMap<String, serde_json::Value>,
}

impl From<CreateSandbox> for Wanted {
    fn from(body: CreateSandbox) -> Self {
        let others = body.others.into_iter().filter(|(_, value)| asks(value)).map(|(name, _)| name);
        Self {
            name: body.name,
            env: body.env.unwrap_or_default(),
            labels: body.labels.unwrap_or_default(),
            public: body.public.unwrap_or_default(),
            target: body.target,
            stop_interval: body.auto_stop_interval,
            archive_interval: body.auto_archive_interval,
            delete_interval: body.auto_delete_interval,
            beyond: others.collect(),
        }
    }
}

/// Whether a value is more than the default that SDKs send.
fn asks(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// The one sandbox.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sandbox)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxDto {
    /// The host's name, unless told otherwise.
    id: String,
    organization_id: &'static str,
    name: String,
    /// User that the daemon runs as.
    user: String,
    /// Variables given with the last create.
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    public: bool,
    network_block_all: bool,
    kvm: bool,
    target: String,
    /// CPUs of this machine or its cgroup.
    cpu: u64,
    gpu: u64,
    /// GiB of memory of this machine or its cgroup.
    memory: u64,
    /// GiB of the file system of `/`.
    disk: u64,
    /// `started`, `stopped` or, in the reply to its delete, `destroyed`.
    state: &'static str,
    desired_state: &'static str,
    auto_stop_interval: u32,
    auto_archive_interval: u32,
    auto_delete_interval: i32,
    created_at: String,
    updated_at: String,
    last_activity_at: String,
    daemon_version: String,
    /// Where the toolbox API of the sandbox is: `{toolboxProxyUrl}/{id}/…`.
    toolbox_proxy_url: String,
}

impl SandboxDto {
    /// `base` is the origin under which the client reached us.
    pub(super) fn new(sandbox: Sandbox, base: &str) -> Self {
        Self {
            id: sandbox.id,
            organization_id: ORGANIZATION,
            name: sandbox.name,
            user: sandbox.user,
            env: sandbox.env,
            labels: sandbox.labels,
            public: sandbox.public,
            network_block_all: false,
            kvm: false,
            target: sandbox.target,
            cpu: sandbox.resources.cpus,
            gpu: 0,
            memory: sandbox.resources.memory_gib,
            disk: sandbox.resources.disk_gib,
            state: sandbox.state.word(),
            desired_state: sandbox.state.word(),
            auto_stop_interval: sandbox.intervals.stop,
            auto_archive_interval: sandbox.intervals.archive,
            auto_delete_interval: sandbox.intervals.delete,
            created_at: format!("{:.3}", sandbox.created_at),
            updated_at: format!("{:.3}", sandbox.updated_at),
            last_activity_at: format!("{:.3}", sandbox.last_activity_at),
            daemon_version: format!("v{}", env!("CARGO_PKG_VERSION")),
            toolbox_proxy_url: toolbox(base),
        }
    }
}

/// No slash at the end: clients append one.
fn toolbox(base: &str) -> String {
    format!("{base}/toolbox")
}

/// Which sandboxes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Beginning of the id, in any case.
    pub(super) id: Option<String>,
    /// Beginning of the name, in any case.
    pub(super) name: Option<String>,
    /// JSON object of labels that it has.
    pub(super) labels: Option<String>,
    /// The public flag.
    pub(super) is_public: Option<bool>,
}

/// A page that says where the next one is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxList {
    pub(super) items: Vec<SandboxDto>,
    /// Always null: everything is on the first page.
    pub(super) next_cursor: Option<String>,
}

/// A numbered page, as older SDKs want it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SandboxPage {
    items: Vec<SandboxDto>,
    total: usize,
    page: usize,
    total_pages: usize,
}

impl SandboxPage {
    /// The first page.
    pub(super) fn new(items: Vec<SandboxDto>) -> Self {
        Self { total: items.len(), page: 1, total_pages: items.len(), items }
    }
}

/// All labels.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Labels {
    pub(super) labels: BTreeMap<String, String>,
}

/// A URL.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Url {
    url: String,
}

impl Url {
    /// Of the toolbox APIs.
    pub(super) fn of_toolbox(base: &str) -> Self {
        Self { url: toolbox(base) }
    }
}

/// Where what listens on a port can be reached.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PreviewUrl {
    sandbox_id: String,
    url: String,
    /// For the header `X-Daytona-Preview-Token`.
    token: String,
}

impl PreviewUrl {
    pub(super) fn new(sandbox: Sandbox, url: String, token: &str) -> Self {
        Self { sandbox_id: sandbox.id, url, token: token.to_owned() }
    }
}

/// Where what listens on a port can be reached for a while without a token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignedPreviewUrl {
    sandbox_id: String,
    port: u16,
    /// Part of the URL; ends it when it is expired.
    token: String,
    url: String,
}

impl SignedPreviewUrl {
    pub(super) fn new(sandbox: Sandbox, url: &str, port: u16, token: String) -> Self {
        let url = format!("{url}?DAYTONA_SANDBOX_AUTH_KEY={token}");
        Self { sandbox_id: sandbox.id, port, token, url }
    }
}

/// How long a signed preview URL lives.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct SignedPreviewQuery {
    /// Seconds, at most a day. Default: 60.
    pub(super) expires_in_seconds: Option<u32>,
}

/// What clients want to know of a platform; the members that only a dashboard reads are empty.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Configuration {
    version: &'static str,
    /// Where the toolbox APIs are, for SDKs that do not look at the sandbox.
    proxy_toolbox_url: String,
    proxy_template_url: String,
    default_snapshot: &'static str,
    dashboard_url: &'static str,
    environment: &'static str,
    max_auto_archive_interval: u32,
    #[serde(rename = "maintananceMode")]
    maintenance_mode: bool,
    linked_accounts_enabled: bool,
    announcements: BTreeMap<String, String>,
    oidc: Oidc,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Oidc {
    issuer: &'static str,
    client_id: &'static str,
    audience: &'static str,
    provider: &'static str,
}

impl Configuration {
    pub(super) fn new(base: &str, template: String) -> Self {
        Self {
            version: concat!("v", env!("CARGO_PKG_VERSION")),
            proxy_toolbox_url: toolbox(base),
            proxy_template_url: template,
            default_snapshot: "",
            dashboard_url: "",
            environment: "stand-alone",
            max_auto_archive_interval: 0,
            maintenance_mode: false,
            linked_accounts_enabled: false,
            announcements: BTreeMap::new(),
            oidc: Oidc::default(),
        }
    }
}
