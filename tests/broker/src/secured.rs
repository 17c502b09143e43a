//! TLS, logins and rights of a cluster in words and pairs, as programs of other languages describe them.

use std::fmt;
use std::io;

use crate::acl::{Acls, Allowed};
use crate::builder::Builder;
use crate::sasl::Sasl;
use crate::tls::{ClientCertificates, Tls};

/// How a cluster is secured; by default it is not.
#[derive(Clone, Default)]
pub struct Secured {
    /// Brokers speak TLS.
    pub tls: bool,
    /// With TLS: nobody is served without a certificate of his own.
    pub client_certificates: bool,
    /// Users of PLAIN and SCRAM, and their passwords. With any, clients have to log in.
    pub users: Vec<(String, String)>,
    /// The mechanisms that brokers take, as in `sasl.enabled.mechanisms`; none: PLAIN, and SCRAM with both hashes. The tokens
    /// of OAUTHBEARER are added to the cluster.
    pub mechanisms: Vec<String>,
    /// Principals, and what each may do: "write orders", "read log-*". With any, nobody may do anything else.
    pub acls: Vec<(String, String)>,
}

/// Passwords are not told.
impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users: Vec<_> = self.users.iter().map(|(name, _)| name).collect();
        f.debug_struct("Secured")
            .field("tls", &self.tls)
            .field("client_certificates", &self.client_certificates)
            .field("users", &users)
            .field("mechanisms", &self.mechanisms)
            .field("acls", &self.acls)
            .finish()
    }
}

fn wrong(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

/// All that users with passwords log in by.
const OF_USERS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Secured {
    /// The cluster, secured.
    ///
    /// # Errors
    /// `InvalidInput` for a mechanism or a right that there is not, and for what means nothing on its own.
    pub fn apply(self, mut builder: Builder) -> io::Result<Builder> {
        if self.client_certificates && !self.tls {
            return Err(wrong("client certificates need TLS".to_owned()));
        }
        if self.tls {
            let clients = match self.client_certificates {
                true => ClientCertificates::Required,
                false => ClientCertificates::None,
            };
            builder = builder.tls(Tls::new().client_certificates(clients));
        }
        if !self.users.is_empty() || !self.mechanisms.is_empty() {
            let mut sasl = Sasl::new();
            let given = self.mechanisms.iter().map(String::as_str);
            let all: Vec<&str> =
                if self.mechanisms.is_empty() { OF_USERS.to_vec() } else { given.collect() };
            for name in all {
                sasl = sasl.mechanism(name).ok_or_else(|| {
                    wrong(format!(
                        "'{name}' is no mechanism here; there are {} and OAUTHBEARER",
                        OF_USERS.join(", ")
                    ))
                })?;
            }
            for (name, password) in self.users {
                sasl = sasl.user(name, password);
            }
            builder = builder.sasl(sasl);
        }
        if !self.acls.is_empty() {
            let mut acls = Acls::new();
            for (principal, right) in self.acls {
                let allowed = allowed(&right).ok_or_else(|| {
                    wrong(format!(
                        "'{right}' is no right; it is 'everything', 'idempotent_write', 'create_topics', or read, \
                         write, describe, create, alter, delete, group or transactional_id with a name, as in \
                         'write orders'"
                    ))
                })?;
                acls = acls.allow(principal, allowed);
            }
            builder = builder.acls(acls);
        }
        Ok(builder)
    }
}

fn allowed(right: &str) -> Option<Allowed> {
    let allowed = Allowed::new();
    Some(match right.split_once(' ') {
        None => match right {
            "everything" => Allowed::everything(),
            "idempotent_write" => allowed.idempotent_write(),
            "create_topics" => allowed.create_topics(),
            _ => return None,
        },
        Some((_, "")) => return None,
        Some(("read", name)) => allowed.read(name),
        Some(("write", name)) => allowed.write(name),
        Some(("describe", name)) => allowed.describe(name),
        Some(("create", name)) => allowed.create(name),
        Some(("alter", name)) => allowed.alter(name),
        Some(("delete", name)) => allowed.delete(name),
        Some(("group", name)) => allowed.group(name),
        Some(("transactional_id", name)) => allowed.transactional_id(name),
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_their_words() {
        assert_eq!(allowed("write orders"), Some(Allowed::new().write("orders")));
        assert_eq!(allowed("read log-*"), Some(Allowed::new().read("log-*")));
        assert_eq!(allowed("describe t"), Some(Allowed::new().describe("t")));
        assert_eq!(allowed("everything"), Some(Allowed::everything()));
        for wrong in ["", "write", "write ", "Write orders", "everything t"] {
            assert_eq!(allowed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_described_is_what_there_is() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let secured = Secured {
            tls: true,
            client_certificates: false,
            users: vec![pair("alice", "secret")],
            mechanisms: vec!["PLAIN".to_owned()],
            acls: vec![pair("alice", "write orders"), pair("alice", "read log-*")],
        };
        let builder = secured.apply(Builder::default()).unwrap();
        let wanted = Builder::default()
            .tls(Tls::new())
            .sasl(Sasl::new().plain().user("alice", "secret"))
            .acls(Acls::new().allow("alice", Allowed::new().write("orders").read("log-*")));
        assert_eq!(format!("{builder:?}"), format!("{wanted:?}"));
        let open = Secured::default().apply(Builder::default()).unwrap();
        assert_eq!(format!("{open:?}"), format!("{:?}", Builder::default()));
    }

    #[test]
    fn what_there_is_not_is_refused_and_passwords_are_not_told() {
        let pair = |a: &str, b: &str| vec![(a.to_owned(), b.to_owned())];
        for (secured, words) in [
            (Secured { client_certificates: true, ..Secured::default() }, "need TLS"),
            (Secured { mechanisms: vec!["GSSAPI".into()], ..Secured::default() }, "'GSSAPI'"),
            (Secured { acls: pair("alice", "sing t"), ..Secured::default() }, "'sing t'"),
        ] {
            let error = secured.apply(Builder::default()).expect_err("it is refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(words), "{error}");
        }
        let secured = Secured { users: pair("alice", "hunter2"), ..Secured::default() };
        let shown = format!("{secured:?}");
        assert!(shown.contains("alice") && !shown.contains("hunter2"), "{shown}");
    }
}
