//! TLS for connections that the daemon opens: rustls with ring, and whom it trusts.

use rustls::{ClientConfig, RootCertStore};

/// Trusts the system's certificate authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else the usual places); in an image
/// that has none, Mozilla's, as they were when this was built. Blocks for file reads.
pub fn client_config() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has what these versions need")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
