//! What lets a request in: the daemon's token, and what stands for it in links that its user hands on, which are
//! signatures of file URLs (contract `files.md` 15) and tokens of preview URLs.
//!
//! Who makes passes and who checks them share one [`Passes`]. Nothing is written down: a restart ends them all.
//! Secrets are compared in a time that depends on their lengths only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::Token;
use crate::error::{Error, ErrorKind, Result};

/// Version of the signature scheme, in front of every signature.
const VERSION: &str = "v1_";
/// Preview tokens that are valid at a time.
const PREVIEWS: usize = 10_000;

/// The passes of this run of the daemon; a cheap handle.
#[derive(Clone)]
pub struct Passes {
    state: Arc<Mutex<State>>,
    link: Arc<str>,
}

struct State {
    /// None lets everyone in.
    token: Option<Token>,
    signing_key: String,
    previews: HashMap<String, Preview>,
}

/// What a preview token opens.
struct Preview {
    port: u16,
    until: SystemTime,
}

impl Passes {
    /// A new signing key and a new link token; no token is wanted yet, and there are no preview tokens.
    pub fn new() -> Self {
        let state = State { token: None, signing_key: secret(), previews: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), link: secret().into() }
    }

    /// Wants `token` of everyone who has no other pass.
    pub fn require(&self, token: Token) {
        self.state().token = Some(token);
    }

    /// The key that signs file URLs; its bytes as they are.
    pub fn signing_key(&self) -> String {
        self.state().signing_key.clone()
    }

    /// Replaces the signing key, which ends every signed file URL; gives the new one.
    pub fn rotate_signing_key(&self) -> String {
        let key = secret();
        self.state().signing_key.clone_from(&key);
        key
    }

    /// Checks the signature of a file URL. `expires` is its text as sent, in seconds since 1970, `0` for never.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check_file(&self, method: &str, path: &str, expires: Option<&str>, signature: &str) -> Result<()> {
        let refused = |message| Err(Error::new(ErrorKind::Unauthorized, message));
        let Some(expires) = expires else { return refused("the signed URL has no expires") };
        let Ok(until) = expires.parse::<u64>() else {
            return refused("expires of the signed URL is not a number");
        };
        let wanted = signature_of(&self.signing_key(), &format!("v1:files:{method}:{path}:{expires}"));
        if !bool::from(wanted.as_bytes().ct_eq(signature.as_bytes())) {
            return refused("the signature of the URL is wrong");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if until != 0 && until <= now {
            return refused("the signed URL has expired");
        }
        Ok(())
    }

    /// The token that goes with preview links. It opens all that the daemon's own token does, so that this one stays
    /// with its owner.
    pub fn link_token(&self) -> &str {
        &self.link
    }

    /// A new token that opens `port` for as long as `lifetime`.
    ///
    /// # Errors
    /// When too many are valid.
    pub fn open_preview(&self, port: u16, lifetime: Duration) -> Result<String> {
        let now = SystemTime::now();
        let mut state = self.state();
        state.previews.retain(|_, preview| preview.until > now);
        if state.previews.len() >= PREVIEWS {
            let message = format!("{PREVIEWS} signed preview URLs are valid: expire some first");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let token = secret();
        state.previews.insert(token.clone(), Preview { port, until: now + lifetime });
        Ok(token)
    }

    /// What a browser's cookie holds for `port` after a visit with `pass`, which opens it: a preview token as it is, so
    /// that both end together; for what opens everything, a secret that opens this port only, until the daemon ends.
    pub fn for_cookie(&self, port: u16, pass: &str) -> String {
        if self.admits(pass) { self.cookie_of(port) } else { pass.to_owned() }
    }

    fn cookie_of(&self, port: u16) -> String {
        signature_of(&self.link, &format!("v1:cookie:{port}"))
    }

    /// Ends a preview token early.
    ///
    /// # Errors
    /// When there is no such token for `port`.
    pub fn expire_preview(&self, port: u16, token: &str) -> Result<()> {
        let mut state = self.state();
        match state.previews.get(token) {
            Some(preview) if preview.port == port => state.previews.remove(token),
            _ => return Err(Error::not_found(format!("no such signed preview URL of port {port}"))),
        };
        Ok(())
    }

    /// Whether no pass is wanted of anyone.
    pub fn admits_everyone(&self) -> bool {
        self.state().token.is_none()
    }

    /// Whether `shown` is enough for everything.
    pub fn admits(&self, shown: &str) -> bool {
        let state = self.state();
        let mut secrets = state.token.as_ref().map(Token::reveal).into_iter().chain([&*self.link]);
        secrets.any(|secret| secret.as_bytes().ct_eq(shown.as_bytes()).into())
    }

    /// Whether `shown` is enough for requests to `port`, or for everything when there is none.
    pub fn admits_to(&self, port: Option<u16>, shown: &str) -> bool {
        self.admits(shown) || port.is_some_and(|port| self.opens(port, shown))
    }

    fn opens(&self, port: u16, shown: &str) -> bool {
        if self.cookie_of(port).as_bytes().ct_eq(shown.as_bytes()).into() {
            return true;
        }
        let state = self.state();
        let preview = state.previews.get(shown);
        preview.is_some_and(|preview| preview.port == port && preview.until > SystemTime::now())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Passes {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Passes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passes(…)")
    }
}

/// 256 random bits as text that needs no escaping in a URL.
fn secret() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signature_of(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_that_sdks_make() {
        // Made by the Python SDK's compute_file_url_signature("key", "GET", "a b/ü", 0).
        assert_eq!(
            signature_of("key", "v1:files:GET:a b/ü:0"),
            "v1_UD69SIDF0RLm8QJtVJIGCE3IzV_AfIre3UVYcJJAqS4"
        );
    }

    #[test]
    fn a_signature_is_for_one_method_path_and_time() {
        let passes = Passes::new();
        let signed = |text: &str| signature_of(&passes.signing_key(), text);
        let good = signed("v1:files:GET:/a:0");
        let refusal = |method, path, expires, signature: &str| {
            passes.check_file(method, path, expires, signature).err().map(|error| error.to_string())
        };
        assert_eq!(refusal("GET", "/a", Some("0"), &good), None);
        let wrong = Some("the signature of the URL is wrong".to_owned());
        assert_eq!(refusal("POST", "/a", Some("0"), &good), wrong);
        assert_eq!(refusal("GET", "/b", Some("0"), &good), wrong);
        assert_eq!(refusal("GET", "/a", Some("1"), &good), wrong);
        assert_eq!(refusal("GET", "/a", None, &good).unwrap(), "the signed URL has no expires");
        let past = signed("v1:files:GET:/a:1000");
        assert_eq!(refusal("GET", "/a", Some("1000"), &past).unwrap(), "the signed URL has expired");
        let far = "18446744073709551615";
        assert_eq!(refusal("GET", "/a", Some(far), &signed(&format!("v1:files:GET:/a:{far}"))), None);
        passes.rotate_signing_key();
        assert_eq!(refusal("GET", "/a", Some("0"), &good), wrong);
    }

    #[test]
    fn a_preview_token_opens_its_port_until_it_expires() {
        let passes = Passes::new();
        passes.require(Token::new("owner").unwrap());
        let token = passes.open_preview(3000, Duration::from_secs(60)).unwrap();
        assert!(passes.admits_to(Some(3000), &token));
        assert!(!passes.admits_to(Some(3001), &token) && !passes.admits_to(None, &token));
        assert!(passes.expire_preview(3001, &token).is_err());
        passes.expire_preview(3000, &token).unwrap();
        assert!(!passes.admits_to(Some(3000), &token));
        let late = passes.open_preview(3000, Duration::ZERO).unwrap();
        assert!(!passes.admits_to(Some(3000), &late));
        let cookies = [passes.for_cookie(3000, "owner"), passes.for_cookie(3000, passes.link_token())];
        assert_eq!((&cookies[0], passes.for_cookie(3000, &late)), (&cookies[1], late.clone()));
        assert!(passes.admits_to(Some(3000), &cookies[0]) && !passes.admits_to(Some(3001), &cookies[0]));
        assert!(!passes.admits_to(None, &cookies[0]));
        assert!(passes.admits(passes.link_token()) && passes.admits("owner") && !passes.admits(&late));
    }
}
