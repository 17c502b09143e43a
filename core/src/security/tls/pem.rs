//! Certificates and keys as people have them: in a file, or as text. What is no PEM is named, with the command that
//! makes PEM of it: a key store of Java has nothing in it that a PEM reader would find, and says nothing of it.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::security::identity::Feed;
use crate::security::place::{self, shown};
use crate::security::secret::Secret;

/// More than any list of CAs has: Mozilla's takes 220 KB.
const MAX_BYTES: u64 = 16 << 20;

/// Certificates or a private key, in PEM.
#[derive(Clone)]
pub struct Pem(Place);

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Text(Secret),
}

impl Pem {
    /// A file. It is read again when it changes.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Place::File(path.into()))
    }

    /// The text itself, with its `-----BEGIN` lines.
    pub fn text(text: impl Into<Secret>) -> Self {
        Self(Place::Text(text.into()))
    }

    /// How errors call it.
    pub(super) fn name(&self, what: &str) -> String {
        match &self.0 {
            Place::File(path) => format!("{what} {}", shown(path)),
            Place::Text(_) => what.to_owned(),
        }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.0, Place::File(_))
    }

    pub(super) fn feed(&self, name: &'static str, feed: &mut Feed) {
        match &self.0 {
            Place::File(path) => {
                feed.field(name, b"file");
                feed.field(name, path.as_os_str().as_encoded_bytes());
            }
            Place::Text(text) => {
                feed.field(name, b"text");
                feed.field(name, text.expose());
            }
        }
    }

    /// What is there now; `what` names it in errors.
    pub(super) fn read(&self, what: &'static str) -> Result<Content> {
        let bytes = match &self.0 {
            Place::Text(text) => Zeroizing::new(text.expose().to_vec()),
            Place::File(path) => {
                let refuse = |words: &dyn fmt::Display| {
                    Error::config(format!("{}: {words}", self.name(what)))
                };
                let found = std::fs::metadata(path).map_err(|e| refuse(&e))?;
                // To open a pipe waits for who writes to it, and what was read once is not there again.
                if !found.is_file() {
                    return Err(refuse(&"it is no file, but a folder, a pipe or a device"));
                }
                let size = found.len();
                if size > MAX_BYTES {
                    return Err(refuse(&format_args!("{size} bytes are too many")));
                }
                Zeroizing::new(std::fs::read(path).map_err(|e| refuse(&e))?)
            }
        };
        Ok(Content { name: self.name(what), bytes })
    }
}

/// A text with a `-----BEGIN` line is the PEM itself; any other is a path.
impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        if text.contains("-----BEGIN") { Self::text(text) } else { Self::file(text) }
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        if text.contains("-----BEGIN") { Self::text(text) } else { Self::file(text) }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => place::debug(path, f),
            Place::Text(text) => text.fmt(f),
        }
    }
}

/// The bytes of a PEM, and how errors call it.
pub(super) struct Content {
    name: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One certificate or more.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let found: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&self.bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.nothing("certificate")),
            // Not in the words of the reader: it repeats what it has read, which may be a key.
            Err(_) => Err(Error::config(format!(
                "{}: it is damaged: a line that begins or ends a section is missing, is no line of its own, or there \
                 is no base64 between them",
                self.name
            ))),
        }
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>> {
        let has =
            |words: &str| self.bytes.windows(words.len()).any(|window| window == words.as_bytes());
        if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
            return Err(Error::config(format!("{}: the key is encrypted", self.name)).advise(
                "decrypt it (openssl pkey -in KEY -out PLAIN), and let only this program read it",
            ));
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| self.nothing("private key"))
    }

    fn nothing(&self, what: &str) -> Error {
        let name = &self.name;
        match self.bytes.first_chunk::<4>() {
            // A key store of Java before 9, and its older twin.
            Some([0xfe, 0xed, 0xfe, 0xed] | [0xce, 0xce, 0xce, 0xce]) => {
                Error::config(format!("{name}: it is a key store of Java (JKS), not PEM")).advise(
                    "convert it: keytool -importkeystore -srckeystore STORE -destkeystore STORE.p12 \
                     -deststoretype PKCS12, then openssl pkcs12 -in STORE.p12 -nodes -out STORE.pem",
                )
            }
            // A sequence of DER.
            Some([0x30, 0x82 | 0x83 | 0x80, ..]) => {
                Error::config(format!("{name}: it is binary (PKCS#12 or DER), not PEM")).advise(
                    "convert it: openssl pkcs12 -in FILE -nodes -out FILE.pem, or for a single \
                     certificate openssl x509 -inform DER -in FILE -out FILE.pem",
                )
            }
            _ => Error::config(format!("{name}: there is no {what} in it"))
                .advise("give a PEM file, or PEM text with its -----BEGIN line"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn text(text: &str) -> Content {
        Pem::text(text).read("ca").unwrap()
    }

    #[test]
    fn what_is_no_pem_is_named_with_the_way_to_make_it_one() {
        for (bytes, words, advice) in [
            (vec![0xfe, 0xed, 0xfe, 0xed, 0, 0], "JKS", "keytool"),
            (vec![0x30, 0x82, 1, 2], "PKCS#12", "openssl pkcs12"),
            (b"hello".to_vec(), "no certificate", "-----BEGIN"),
            (vec![], "no certificate", "-----BEGIN"),
        ] {
            let content = Pem::text(bytes).read("ca").unwrap();
            let error = content.certificates().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.message().contains(words), "{error}");
            assert!(error.advice().contains(advice), "{error}");
        }
    }

    #[test]
    fn an_encrypted_key_is_refused_with_the_command_that_decrypts_it() {
        for key in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        ] {
            let error = text(key).key().unwrap_err();
            assert!(error.message().contains("encrypted") && error.advice().contains("pkey"));
        }
        assert!(text("x").key().unwrap_err().message().contains("no private key"));
    }

    #[test]
    fn a_missing_file_is_named_and_a_text_never_shown() {
        let error = Pem::from("/no/such/ca.pem").read("ca").err().unwrap();
        assert!(error.message().contains("ca '/no/such/ca.pem'"), "{error}");
        let pem = Pem::from("-----BEGIN PRIVATE KEY-----\nhunter2");
        assert_eq!(format!("{pem:?}"), "***");
        let error = pem.read("key").unwrap().key().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(format!("{:?}", Pem::from("a.pem")), "\"a.pem\"");
    }
}
