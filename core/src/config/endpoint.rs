//! Where brokers are: `host:port`, and lists of them.

use crate::error::{Error, Result};

/// A host and port of the bootstrap list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Host name or IP literal, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// A broker's, as answers name it; `None` if nobody can be dialled there.
    pub(crate) fn of_broker(host: &str, port: i32) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl Endpoint {
    /// Whether nobody can listen on the way there.
    pub(crate) fn is_loopback(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        ip.map_or(self.host == "localhost", |ip| ip.is_loopback())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads "host:port,host:port"; the port may be left out (9092).
pub(crate) fn parse_bootstrap(list: &str) -> Result<Vec<Endpoint>> {
    // Nothing of it is repeated: what stands before it may be a password, and have a comma.
    if list.contains('@') {
        return Err(Error::config("bootstrap has an '@': credentials do not belong there")
            .advise("give them by sasl, and here host:port alone"));
    }
    let mut out = Vec::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        if part.contains("://") {
            return Err(Error::config(format!(
                "bootstrap '{part}' is a URL; write host:port without a scheme"
            )));
        }
        let (host, port) = if let Some(rest) = part.strip_prefix('[') {
            match rest.split_once(']') {
                Some((host, "")) => (host, "9092"),
                Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
                None => return Err(Error::config(format!("bootstrap '{part}': ']' is missing"))),
            }
        } else if part.matches(':').count() > 1 {
            return Err(bare_ipv6(part));
        } else {
            part.split_once(':').unwrap_or((part, "9092"))
        };
        let port = match port.parse::<u16>() {
            Ok(p) if p != 0 => p,
            _ => {
                return Err(Error::config(format!(
                    "bootstrap '{part}': '{port}' is not a port (1-65535)"
                )));
            }
        };
        if host.is_empty() {
            return Err(Error::config(format!("bootstrap '{part}': the host is empty")));
        }
        let endpoint = Endpoint { host: host.to_owned(), port };
        if !out.contains(&endpoint) {
            out.push(endpoint);
        }
    }
    if out.is_empty() {
        return Err(Error::config("bootstrap is empty; give at least one host:port"));
    }
    Ok(out)
}

/// An IPv6 address without brackets: nobody can tell where it ends and the port begins. Shows what to
/// write.
fn bare_ipv6(part: &str) -> Error {
    let is_address = |host: &str| host.parse::<std::net::Ipv6Addr>().is_ok();
    // Group or port? Few write a group of an address as a number of five digits or 9092.
    let split = part
        .rsplit_once(':')
        .filter(|(host, port)| is_address(host) && port.len() >= 4 && port.parse::<u16>().is_ok());
    let meant = match split {
        Some((host, port)) => format!("; write '[{host}]:{port}'"),
        None if is_address(part) => format!("; write '[{part}]:9092'"),
        None => String::new(),
    };
    Error::config(format!("bootstrap '{part}': an IPv6 address is written in brackets{meant}"))
}
