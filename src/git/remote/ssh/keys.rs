//! Keys that the user has, tried one after the other.

use std::path::PathBuf;
use std::sync::Arc;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, load_secret_key};

/// Keys in `~/.ssh` that are tried, in this order.
const KEY_FILES: &[&str] = &["id_ed25519", "id_ecdsa", "id_rsa"];
/// Keys of an agent that are tried; servers end the connection after a few.
const AGENT_KEYS: usize = 12;

/// Which hash RSA keys sign with: the server's best, or a good one when it does not tell.
async fn rsa_hash(handle: &Handle<impl Handler>, is_rsa: bool) -> Option<HashAlg> {
    if !is_rsa {
        return None;
    }
    handle.best_supported_rsa_hash().await.ok().flatten().unwrap_or(Some(HashAlg::Sha512))
}

/// Those of an agent; true when one is taken. What was tried is added to `tried`, in words.
pub(super) async fn from_agent(
    handle: &mut Handle<impl Handler>,
    user: &str,
    socket: Option<PathBuf>,
    tried: &mut Vec<String>,
) -> bool {
    let Some(socket) = socket else { return false };
    let agent = async {
        let mut agent = AgentClient::connect_uds(&socket).await?;
        if let Some(binding) = handle.agent_session_binding() {
            let _ = agent.bind_session(binding, false).await; // older agents do not know it, and need not
        }
        let identities = agent.request_identities().await?;
        Ok::<_, russh::keys::Error>((agent, identities))
    };
    let (mut agent, identities) = match agent.await {
        Ok(found) => found,
        Err(error) => {
            tried.push(format!("the agent at {} does not answer: {error}", socket.display()));
            return false;
        }
    };
    for identity in identities.into_iter().take(AGENT_KEYS) {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        let hash = rsa_hash(handle, key.algorithm().is_rsa()).await;
        let print = key.fingerprint(HashAlg::Sha256);
        match handle.authenticate_publickey_with(user, key, hash, &mut agent).await {
            Ok(AuthResult::Success) => return true,
            Ok(AuthResult::Failure { .. }) => tried.push(format!("the agent's key {print} was refused")),
            Err(error) => tried.push(format!("the agent does not sign with {print}: {error}")),
        }
        if handle.is_closed() {
            return false;
        }
    }
    false
}

/// Those in a directory, as [`from_agent`].
pub(super) async fn from_files(
    handle: &mut Handle<impl Handler>,
    user: &str,
    directory: PathBuf,
    tried: &mut Vec<String>,
) -> bool {
    for name in KEY_FILES {
        let path = directory.join(name);
        if handle.is_closed() || !path.exists() {
            continue;
        }
        // Blocks: see `Operation::wait`.
        let key = match load_secret_key(&path, None) {
            Ok(key) => Arc::new(key),
            Err(error) => {
                let why = match error {
                    russh::keys::Error::KeyIsEncrypted => "has a passphrase: add it to an agent".to_owned(),
                    other => format!("cannot be used: {other}"),
                };
                tried.push(format!("~/.ssh/{name} {why}"));
                continue;
            }
        };
        let hash = rsa_hash(handle, key.algorithm().is_rsa()).await;
        match handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await {
            Ok(AuthResult::Success) => return true,
            Ok(AuthResult::Failure { .. }) => tried.push(format!("~/.ssh/{name} was refused")),
            Err(error) => tried.push(format!("~/.ssh/{name}: {error}")),
        }
    }
    false
}
