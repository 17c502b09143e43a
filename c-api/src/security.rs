//! TLS and SASL: settings of a client.

use std::ffi::c_char;

use ottla::bindings::{CredentialsOptions, TlsOptions, TokenSource, argument_error, sasl_named};
use ottla::{Pem, Result, Sasl, Secret, Tls, Verify};

use crate::boundary::{lent, optional_text, text};
use crate::options::{Options, read};
use crate::properties::{ottla_property, pairs};
use crate::tokens::{ottla_token, ottla_token_provider, token};

/// How brokers are reached by TLS (1.2 or 1.3): start from `OTTLA_TLS_OPTIONS_INIT`. Null and 0 are always the
/// default.
///
/// Certificates and keys are PEM: the path of a file, or the text itself (with its -----BEGIN line). Files are read
/// when a client is made, and looked at again before a connection is made, at most every 10 s: certificates can be
/// renewed while a program runs. What is not good is `OTTLA_STATUS_CONFIG`, what a broker shows and is not trusted
/// `OTTLA_STATUS_TLS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_tls_options {
    /// Set by the macro.
    pub size: usize,
    /// Trusts the CAs in it, and no others. Default: those that the system trusts.
    pub ca: *const c_char,
    /// The certificate (and those between it and its CA) by which brokers know this client; needs `key`, and may be
    /// in one file with it: name it twice.
    pub certificate: *const c_char,
    /// The private key of `certificate`, not encrypted.
    pub key: *const c_char,
    /// The name that certificates must have, at every broker. Default: the host or address that was dialled.
    pub server_name: *const c_char,
    /// One of `ottla_verify`.
    pub verify: i32,
    /// 0: anything else is refused.
    pub reserved: i32,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_tls_options {
    fn reserved(&self) -> i64 {
        self.reserved.into()
    }
}

/// How much of a broker's certificate is checked.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_verify {
    /// `OTTLA_VERIFY_FULL`.
    OTTLA_VERIFY_DEFAULT = 0,
    /// That it leads to a trusted CA, and that it is for the name or address that was dialled.
    OTTLA_VERIFY_FULL = 1,
    /// That it leads to a trusted CA. Whoever has any certificate of that CA can pass for any broker.
    OTTLA_VERIFY_CHAIN = 2,
    /// Nothing: anybody on the way can read and change everything, passwords among it. Logged as a warning.
    OTTLA_VERIFY_NONE = 3,
}

/// How a client logs in: start from `OTTLA_SASL_OPTIONS_INIT`, then set `mechanism`, `user` and `password`. The
/// library has copies of its own, which it overwrites before it frees them; yours may be overwritten as soon as the
/// client is made. A password that a broker refuses is `OTTLA_STATUS_AUTHENTICATION`, with the broker's words.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_sasl_options {
    /// Set by the macro.
    pub size: usize,
    /// The user's name; with SCRAM printable ASCII.
    pub user: *const c_char,
    /// The password. It is shown nowhere.
    pub password: *const c_char,
    /// One of `ottla_sasl_mechanism`; there is no default.
    pub mechanism: i32,
    /// Other than 0: `user` and `password` are the id and the HMAC of a delegation token (SCRAM alone).
    pub delegation_token: i32,
    /// Where tokens come from (`OTTLA_SASL_OAUTHBEARER` alone, which has neither user nor password).
    pub oauth: *const ottla_oauth_options,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_sasl_options {
    fn reserved(&self) -> i64 {
        0
    }
}

/// SASL mechanisms.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_sasl_mechanism {
    /// PLAIN: name and password as they are. Use it with TLS: without, who listens has the password.
    OTTLA_SASL_PLAIN = 1,
    /// SCRAM-SHA-256: the password does not cross the network, and the broker has to show that it knows it.
    OTTLA_SASL_SCRAM_SHA_256 = 2,
    /// SCRAM-SHA-512: the same, with the longer hash.
    OTTLA_SASL_SCRAM_SHA_512 = 3,
    /// OAUTHBEARER: a token, from where `oauth` says. Use it with TLS: without, who listens has the token.
    OTTLA_SASL_OAUTHBEARER = 4,
}

/// Where the tokens of OAUTHBEARER come from: start from `OTTLA_OAUTH_OPTIONS_INIT`, then set one of `token_endpoint`, `file`,
/// `token` and `provider`. One token is used for all connections, and another one is got before it ends. No token to be
/// had is `OTTLA_STATUS_CREDENTIALS`, with the words of where it should have come from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_oauth_options {
    /// Set by the macro.
    pub size: usize,
    /// The URL of a token endpoint, which gives tokens for the client's own id and secret (the grant `client_credentials` of RFC 6749). It
    /// is reached without a proxy, and redirects are refused.
    pub token_endpoint: *const c_char,
    /// The client's id there.
    pub client_id: *const c_char,
    /// Its secret: this or `client_secret_file`.
    pub client_secret: *const c_char,
    /// The path of a file that has its secret, which is read for each token.
    pub client_secret_file: *const c_char,
    /// What tokens are to be good for; several are separated by spaces. Default: as the endpoint has it.
    pub scope: *const c_char,
    /// Trusts the CAs in it at the endpoint, and no others: PEM as in `ottla_tls_options`, which do not count here. Default:
    /// those that the system trusts.
    pub ca: *const c_char,
    /// More fields of the request, such as `audience`; `param_count` of them.
    pub params: *const ottla_property,
    /// See `params`.
    pub param_count: usize,
    /// Other than 0: id and secret are sent in the body, not in the header `Authorization`.
    pub secret_in_body: i32,
    /// Other than 0: id and secret are percent-encoded in the header, as RFC 6749 has it.
    pub encoded_header: i32,
    /// The path of a file that has a token, and is read again before a login, at most every 10 s.
    pub file: *const c_char,
    /// A token that there is.
    pub token: *const ottla_token,
    /// The program's own code, by `ottla_token_provider_new`.
    pub provider: *const ottla_token_provider,
    /// SASL extensions that brokers are to have with each token (KIP-342), `extension_count` of them.
    pub extensions: *const ottla_property,
    /// See `extensions`.
    pub extension_count: usize,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_oauth_options {
    fn reserved(&self) -> i64 {
        0
    }
}

/// # Safety
/// `options` is null or as its `size` says, its strings null or valid.
pub(crate) unsafe fn tls(options: *const ottla_tls_options) -> Result<Option<Tls>> {
    // SAFETY: promised by the caller.
    let Some(o) = (unsafe { read(options, "tls") })? else { return Ok(None) };
    // SAFETY: promised by the caller.
    let pem = |pointer, name| unsafe { optional_text(pointer, name) }.map(|t| t.map(Pem::from));
    // SAFETY: promised by the caller.
    let server_name = unsafe { optional_text(o.server_name, "server_name") }?;
    let settings = TlsOptions {
        ca: pem(o.ca, "ca")?,
        certificate: pem(o.certificate, "certificate")?,
        key: pem(o.key, "key")?,
        server_name: server_name.map(str::to_owned),
        verify: match o.verify {
            0 => None,
            1 => Some(Verify::Full),
            2 => Some(Verify::Chain),
            3 => Some(Verify::None),
            other => {
                return Err(argument_error(format!("{other} is no member of ottla_verify")));
            }
        },
    };
    settings.tls().map(Some)
}

/// # Safety
/// `options` is null or as its `size` says, its strings null or valid.
pub(crate) unsafe fn sasl(options: *const ottla_sasl_options) -> Result<Option<Sasl>> {
    // SAFETY: promised by the caller.
    let Some(o) = (unsafe { read(options, "sasl") })? else { return Ok(None) };
    let mechanism = match o.mechanism {
        1 => "PLAIN",
        2 => "SCRAM-SHA-256",
        3 => "SCRAM-SHA-512",
        4 => {
            if !o.user.is_null() || !o.password.is_null() || o.delegation_token != 0 {
                return Err(argument_error("OAUTHBEARER has neither user nor password, but oauth"));
            }
            // SAFETY: promised by the caller.
            return unsafe { oauth(o.oauth) }.map(Some);
        }
        other => {
            let words = format!("{other} is no member of ottla_sasl_mechanism");
            return Err(argument_error(words));
        }
    };
    if !o.oauth.is_null() {
        return Err(argument_error("oauth is of OTTLA_SASL_OAUTHBEARER alone"));
    }
    // SAFETY: promised by the caller.
    let (user, password) = unsafe { (text(o.user, "user")?, text(o.password, "password")?) };
    sasl_named(mechanism, user, Secret::from(password), o.delegation_token != 0).map(Some)
}

/// # Safety
/// `options` is null or as its `size` says, its strings null or valid.
unsafe fn oauth(options: *const ottla_oauth_options) -> Result<Sasl> {
    // SAFETY: promised by the caller.
    let o = unsafe { read(options, "oauth") }?.ok_or_else(|| argument_error("oauth is null"))?;
    // SAFETY: promised by the caller.
    let words = |pointer, name| unsafe { optional_text(pointer, name) };
    let owned = |list: Vec<(&str, &str)>| -> Vec<(String, String)> {
        list.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let mut sources = Vec::new();
    if let Some(url) = words(o.token_endpoint, "token_endpoint")? {
        // SAFETY: promised by the caller.
        let (id, params) =
            unsafe { (text(o.client_id, "client_id")?, pairs(o.params, o.param_count, "params")?) };
        sources.push(TokenSource::Credentials(CredentialsOptions {
            url: Secret::from(url),
            client_id: id.to_owned(),
            client_secret: words(o.client_secret, "client_secret")?.map(Secret::from),
            client_secret_file: words(o.client_secret_file, "client_secret_file")?.map(Into::into),
            scope: words(o.scope, "scope")?.map(str::to_owned),
            params: params
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
            secret_in_body: o.secret_in_body != 0,
            encoded_header: o.encoded_header != 0,
            ca: words(o.ca, "ca")?.map(Pem::from),
        }));
    }
    // Taken and ignored they would be missed where somebody relies on them.
    let alone = [
        ("client_id", !o.client_id.is_null()),
        ("client_secret", !o.client_secret.is_null()),
        ("client_secret_file", !o.client_secret_file.is_null()),
        ("scope", !o.scope.is_null()),
        ("params", o.param_count > 0),
        ("secret_in_body", o.secret_in_body != 0),
        ("encoded_header", o.encoded_header != 0),
        ("ca", !o.ca.is_null()),
    ];
    if sources.is_empty()
        && let Some((name, _)) = alone.iter().find(|(_, set)| *set)
    {
        return Err(argument_error(format!("{name} is of token_endpoint alone, which is null")));
    }
    if let Some(path) = words(o.file, "file")? {
        sources.push(TokenSource::File(path.into()));
    }
    // SAFETY: promised by the caller.
    sources.extend(unsafe { token(o.token) }?.map(TokenSource::Fixed));
    if !o.provider.is_null() {
        // SAFETY: promised by the caller.
        let provider = unsafe { lent(o.provider, "provider") }?;
        sources.push(TokenSource::Host(provider.oauth()?));
    }
    // SAFETY: promised by the caller.
    let extensions = unsafe { pairs(o.extensions, o.extension_count, "extensions") }?;
    let mut sources = sources.into_iter();
    match (sources.next(), sources.next()) {
        (Some(source), None) => source.sasl(owned(extensions)),
        _ => {
            let words = "oauth needs one of token_endpoint, file, token and provider";
            Err(argument_error(words))
        }
    }
}
