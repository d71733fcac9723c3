//! One TLS implementation for the whole process.

/// rustls asks for a provider before the first client is made, and panics without one. Called
/// wherever clients are made; only the first call does anything. `ring` needs no second C toolchain
/// to build, as the other provider would.
pub fn choose_provider() {
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
}
