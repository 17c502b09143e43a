//! What a TLS error means, in words, and what to do. Nearly all of them are mistakes in somebody's set-up, and what TLS
//! itself says of them ("UnknownIssuer", "alert 42") helps few.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as Rustls, InvalidMessage};

use super::{Tls, rustls_error};
use crate::error::{Error, ErrorKind};

const WRONG_CA: &str = "give the CA that has signed the brokers' certificates: tls ca; for a public \
                        one, update the system's";
const WRONG_NAME: &str = "let the brokers advertise a name that is in their certificate, or set \
                          server_name to one that is";
const NEW_CERTIFICATE: &str =
    "have the broker's certificate made anew, and look at the clocks of both machines";
const PLAINTEXT: &str = "leave tls out for this listener, or use the port of one with TLS";
const WANTS_IDENTITY: &str =
    "set the identity (certificate and key) that the broker knows this client by";
const OTHER_IDENTITY: &str = "use a certificate of a CA that the broker trusts \
                              (ssl.truststore.location there), which has not expired";
const LOOK_THERE: &str = "look at the broker's log, and at ssl.enabled.protocols and \
                          ssl.cipher.suites there";

/// The error of a handshake.
pub(super) fn handshake(tls: &Tls, peer: &str, e: &io::Error) -> Error {
    match rustls_error(e) {
        Some(e) => of(tls, peer, e),
        // Or something in front of a broker that is down, which passes.
        None if is_hang_up(e) => error(
            peer,
            "the peer hung up in the TLS handshake; it may be a listener without TLS",
            PLAINTEXT,
        )
        .passing(),
        None => Error::new(ErrorKind::Connect, format!("{peer}: in the TLS handshake: {e}")),
    }
}

/// The peer has ended TLS before it answered anything: with TLS 1.3 a client's certificate is refused only then. `None`
/// if it was not TLS that ended.
pub(crate) fn alerted(tls: &Tls, peer: &str, e: &io::Error) -> Option<Error> {
    rustls_error(e).map(|e| of(tls, peer, e))
}

/// What was wrong with a connection that has worked, for people.
pub(crate) fn cut_off(e: &io::Error) -> Option<String> {
    Some(match rustls_error(e)? {
        Rustls::AlertReceived(alert) => format!("the broker ended TLS: {}", alert_name(*alert)),
        e => format!("TLS is broken: {e}"),
    })
}

/// A listener without TLS takes the first bytes for the size of a frame, far too large, and closes with the others
/// unread: that is a reset.
fn is_hang_up(e: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        e.kind(),
        Kind::UnexpectedEof | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe
    )
}

fn error(peer: &str, words: impl std::fmt::Display, advice: &'static str) -> Error {
    Error::new(ErrorKind::Tls, format!("{peer}: {words}")).advise(advice)
}

fn of(tls: &Tls, peer: &str, e: &Rustls) -> Error {
    match e {
        Rustls::InvalidCertificate(e) => certificate(tls, peer, e),
        Rustls::AlertReceived(alert) => alert_of(tls, peer, *alert),
        Rustls::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::UnknownProtocolVersion,
        ) => error(peer, "the peer does not answer in TLS", PLAINTEXT),
        Rustls::PeerIncompatible(e) => {
            error(peer, format_args!("no way of TLS in common with the broker: {e:?}"), LOOK_THERE)
        }
        e => error(peer, format_args!("TLS failed: {e}"), LOOK_THERE),
    }
}

fn certificate(tls: &Tls, peer: &str, e: &CertificateError) -> Error {
    let its = |words: String| format!("the broker's certificate {words}");
    let (words, advice) = match e {
        // Another CA of the same name, or the same one with a new key, has made it.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let trusted = match &tls.ca {
                Some(ca) if ca.is_file() => format!("in {ca:?}"),
                Some(_) => "in the PEM text that was given".to_owned(),
                None => "among those that the system trusts".to_owned(),
            };
            (its(format!("leads to no CA {trusted}")), WRONG_CA)
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let words = if presented.is_empty() {
                format!(
                    "is not for '{expected}': it has no subject alternative name (a common name \
                     is not looked at)"
                )
            } else {
                let shown: Vec<_> =
                    presented.iter().take(8).map(|name| alternative(name)).collect();
                format!("is not for '{expected}' but for {}", shown.join(", "))
            };
            (its(words), WRONG_NAME)
        }
        CertificateError::NotValidForName => {
            (its("is not for the name that was dialled".into()), WRONG_NAME)
        }
        CertificateError::ExpiredContext { time, not_after } => {
            let ago = time.as_secs().saturating_sub(not_after.as_secs());
            (its(format!("expired {} ago", days(ago))), NEW_CERTIFICATE)
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let early = not_before.as_secs().saturating_sub(time.as_secs());
            (its(format!("becomes valid in {}", days(early))), NEW_CERTIFICATE)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            its("is not one for servers (extended key usage)".into()),
            "have it made anew with serverAuth",
        ),
        CertificateError::Revoked => (its("is revoked".into()), NEW_CERTIFICATE),
        CertificateError::BadEncoding => {
            (its("cannot be read".into()), "have it made anew, as X.509 version 3")
        }
        CertificateError::Other(e) => {
            // webpki's own names, which rustls has no variant for.
            let name = format!("{:?}", e.0);
            if name.contains("UnsupportedCertVersion") {
                (its("is of X.509 version 1".into()), "have it made anew, as X.509 version 3")
            } else if name.contains("CaUsedAsEndEntity") {
                (
                    its("is that of a CA itself (CA:TRUE)".into()),
                    "have one made for the broker, signed by that CA",
                )
            } else {
                (its(format!("is refused: {name}")), NEW_CERTIFICATE)
            }
        }
        e => (its(format!("is refused: {e:?}")), NEW_CERTIFICATE),
    };
    error(peer, words, advice)
}

/// As rustls shows it: `DnsName("a")`, `IpAddress(127.0.0.1)`; or as it is.
fn alternative(shown: &str) -> String {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let inner = inner.unwrap_or(shown).trim_matches('"');
    inner.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn days(seconds: u64) -> String {
    match seconds {
        0..=7_199 => format!("{} minutes", seconds / 60),
        7_200..=172_799 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn alert_of(tls: &Tls, peer: &str, alert: AlertDescription) -> Error {
    use AlertDescription as A;
    let name = alert_name(alert);
    let of_identity = matches!(
        alert,
        A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::CertificateRequired
    );
    match alert {
        _ if of_identity && !tls.has_identity() => error(
            peer,
            format_args!("the broker wants a certificate of this client, which has none ({name})"),
            WANTS_IDENTITY,
        ),
        A::CertificateRequired => error(
            peer,
            format_args!("the broker got no certificate of this client that it could use ({name})"),
            OTHER_IDENTITY,
        ),
        _ if of_identity => error(
            peer,
            format_args!("the broker refuses the certificate of this client ({name})"),
            OTHER_IDENTITY,
        ),
        A::UnrecognisedName => {
            error(peer, "the broker has no certificate for the name that was asked for", WRONG_NAME)
        }
        _ => error(peer, format_args!("the broker ended TLS ({name})"), LOOK_THERE),
    }
}

fn alert_name(alert: AlertDescription) -> String {
    format!("alert {alert:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(e: Rustls) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, e)
    }

    /// Kafka ends TLS with this alert, whether it got no certificate or one it does not trust.
    #[test]
    fn an_alert_says_whose_certificate_is_meant() {
        let with = Tls::system().identity("a", "b");
        let alert = |alert| io(Rustls::AlertReceived(alert));
        for (tls, e, words) in [
            (&Tls::system(), alert(AlertDescription::BadCertificate), "which has none"),
            (&Tls::system(), alert(AlertDescription::CertificateRequired), "which has none"),
            (&with, alert(AlertDescription::UnknownCA), "refuses the certificate of this client"),
            (&with, alert(AlertDescription::CertificateRequired), "got no certificate"),
            (
                &with,
                alert(AlertDescription::HandshakeFailure),
                "ended TLS (alert HandshakeFailure)",
            ),
        ] {
            let told = alerted(tls, "broker 1", &e).expect("it is of TLS");
            assert_eq!(told.kind(), ErrorKind::Tls);
            assert!(told.message().starts_with("broker 1: ") && told.message().contains(words));
            assert!(!told.is_retriable(), "it is final");
        }
        assert!(alerted(&with, "b", &io::ErrorKind::UnexpectedEof.into()).is_none());
    }

    #[test]
    fn times_are_told_in_their_unit() {
        assert_eq!(
            [days(119), days(7_200), days(3 * 86_400)],
            ["1 minutes", "2 hours", "3 days"].map(String::from)
        );
    }

    #[test]
    fn names_of_a_certificate_are_told_as_people_write_them() {
        assert_eq!(alternative("DnsName(\"a.example\")"), "a.example");
        assert_eq!(alternative("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(alternative("a\u{7}b"), "ab");
    }
}
