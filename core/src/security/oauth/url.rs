//! Where a token endpoint is. What of a URL may be a secret (a query, a name before an `@`) is not shown.

use std::fmt;

use crate::config::Endpoint;
use crate::security::Secret;

/// An `http` or `https` URL.
#[derive(Clone)]
pub(super) struct Url {
    pub(super) is_tls: bool,
    pub(super) endpoint: Endpoint,
    /// With its query.
    target: Secret,
    /// As it was written, or 443 and 80.
    has_port: bool,
}

impl Url {
    /// The error says what is wrong, for a sentence that names the setting.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it is no http:// or https:// URL")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("it is no http:// or https:// URL"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        if authority.contains('@') {
            return Err("it has an '@': credentials do not belong there");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("its ']' is missing")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let number = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            port => {
                let port = port.and_then(|port| port.parse::<u16>().ok());
                Some(port.filter(|port| *port != 0).ok_or("its port is none of 1 to 65535")?)
            }
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) {
            return Err("its host is no name or address");
        }
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("it has characters that are to be written as %XX");
        }
        let usual = if is_tls { 443 } else { 80 };
        // In one allocation: no copy stays behind.
        let mut whole = Vec::with_capacity(target.len() + 1);
        if !target.starts_with('/') {
            whole.push(b'/');
        }
        whole.extend_from_slice(target.as_bytes());
        Ok(Self {
            is_tls,
            endpoint: Endpoint { host: host.to_owned(), port: number.unwrap_or(usual) },
            target: Secret::from(whole),
            has_port: number.is_some_and(|port| port != usual),
        })
    }

    /// For the request line.
    pub(super) fn target(&self) -> &str {
        std::str::from_utf8(self.target.expose()).unwrap_or_default()
    }

    /// For the header `Host`.
    pub(super) fn host(&self) -> String {
        let Endpoint { host, port } = &self.endpoint;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if self.has_port { format!("{host}:{port}") } else { host }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let path = self.target().split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.host())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_a_query_is_not_shown() {
        for (text, is_tls, host, port, target, shown) in [
            ("https://a.example/t", true, "a.example", 443, "/t", "https://a.example/t"),
            ("HTTP://a", false, "a", 80, "/", "http://a/"),
            ("http://a:80/x", false, "a", 80, "/x", "http://a/x"),
            ("https://a:8443?key=hunter2", true, "a", 8443, "/?key=hunter2", "https://a:8443/"),
            ("https://[::1]:1/a/b?c#d", true, "::1", 1, "/a/b?c", "https://[::1]:1/a/b"),
            ("https://[::1]/", true, "::1", 443, "/", "https://[::1]/"),
        ] {
            let url = Url::parse(text).unwrap();
            let Endpoint { host: read, port: at } = &url.endpoint;
            assert_eq!((url.is_tls, &**read, *at, url.target()), (is_tls, host, port, target));
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("Url({shown})"));
        }
    }

    #[test]
    fn what_is_none_is_said_without_it() {
        for (text, words) in [
            ("", "no http://"),
            ("hunter2", "no http://"),
            ("file:///hunter2", "no http://"),
            ("https://u:hunter2@a/", "'@'"),
            ("https:///x", "host"),
            ("https://a b/", "host"),
            ("https://a/hunter2 x", "%XX"),
            ("https://a/\r\nX: hunter2", "%XX"),
            ("https://a:0/", "port"),
            ("https://a:hunter2/", "port"),
            ("https://[::1/", "']'"),
            ("https://[::1]x/", "port"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
