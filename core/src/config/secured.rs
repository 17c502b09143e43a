//! TLS and SASL as the properties of other clients have them: a dozen names that only together are a setting. Values
//! are never repeated: they may be secrets.

use std::collections::BTreeMap;

use super::properties::Value;
use crate::security::jaas::{self, Jaas, Module};
use crate::security::{ClientCredentials, OAuth, Pem, Sasl, Secret, Tls, Verify};

/// By the name that the table has: how it was spelt, and the value.
pub(super) type Secured<'a> = BTreeMap<&'static str, (&'a str, &'a str)>;

/// A property, and why it is not taken.
type Complaint<'a> = (&'a str, String);

const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const CLIENT_ID: &str = "sasl.oauthbearer.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.secret";

/// Notes one of them. `row`: its name in the table.
pub(super) fn take<'a>(
    secured: &mut Secured<'a>,
    row: &'static str,
    name: &'a str,
    value: &'a str,
) -> Result<(), String> {
    // Names that say the same.
    let row = match row {
        "ssl.cafile" => "ssl.ca.location",
        "ssl.certfile" => "ssl.certificate.location",
        "ssl.keyfile" => "ssl.key.location",
        "sasl.mechanisms" => "sasl.mechanism",
        "sasl.plain.username" => "sasl.username",
        "sasl.plain.password" => "sasl.password",
        "sasl.oauthbearer.client.credentials.client.id" => CLIENT_ID,
        "sasl.oauthbearer.client.credentials.client.secret" => CLIENT_SECRET,
        row => row,
    };
    match secured.insert(row, (name, value)) {
        Some((by, other)) if other != value => Err(format!("'{by}' says something else")),
        _ => Ok(()),
    }
}

/// The settings that they are together.
pub(super) fn assemble<'a>(
    secured: &Secured<'a>,
) -> Result<Vec<(&'static str, Value)>, Complaint<'a>> {
    let Some((name, protocol)) = secured.get("security.protocol") else {
        // In plaintext they would be of no use, and nobody who wrote them meant that.
        return match secured.values().next() {
            Some((name, _)) => {
                Err((name, "set security.protocol: SSL, SASL_SSL or SASL_PLAINTEXT".to_owned()))
            }
            None => Ok(Vec::new()),
        };
    };
    let (by_tls, by_sasl) = match protocol.to_uppercase().as_str() {
        "PLAINTEXT" => (false, false),
        "SSL" => (true, false),
        "SASL_PLAINTEXT" => (false, true),
        "SASL_SSL" => (true, true),
        _ => {
            let words = "it is none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL";
            return Err((name, words.to_owned()));
        }
    };
    let mut settings = Vec::new();
    // What belongs to another protocol is left over from it, as with other clients.
    if by_tls {
        settings.push(("tls", Value::Tls(tls(secured)?)));
    }
    if by_sasl {
        settings.push(("sasl", Value::Sasl(sasl(secured, name)?)));
    }
    Ok(settings)
}

fn tls<'a>(secured: &Secured<'a>) -> Result<Tls, Complaint<'a>> {
    let mut tls = Tls::system();
    let file = |row: &str| secured.get(row).map(|(name, path)| (*name, Pem::file(*path)));
    // Properties files have a PEM in one line, with \\n for its ends.
    let text = |row: &str| {
        secured.get(row).map(|(name, pem)| (*name, Pem::text(pem.replace("\\n", "\n"))))
    };
    let one = |all: Vec<Option<(&'a str, Pem)>>| {
        let mut all = all.into_iter().flatten();
        match (all.next(), all.next()) {
            (Some(_), Some((name, _))) => Err((name, "another property names it, too".to_owned())),
            (first, _) => Ok(first),
        }
    };
    let ca = one(vec![
        // librdkafka's word for "look for it".
        file("ssl.ca.location").filter(|_| secured["ssl.ca.location"].1 != "probe"),
        text("ssl.ca.pem"),
        file("ssl.truststore.location"),
        text("ssl.truststore.certificates"),
    ])?;
    if let Some((_, ca)) = ca {
        tls = tls.ca(ca);
    }
    let certificate = one(vec![
        file("ssl.certificate.location"),
        text("ssl.certificate.pem"),
        file("ssl.keystore.location"),
        text("ssl.keystore.certificate.chain"),
    ])?;
    let key = one(vec![
        file("ssl.key.location"),
        text("ssl.key.pem"),
        file("ssl.keystore.location"),
        text("ssl.keystore.key"),
    ])?;
    match (certificate, key) {
        (Some((_, certificate)), Some((_, key))) => tls = tls.identity(certificate, key),
        (Some((name, _)), None) => return Err((name, "its key is missing".to_owned())),
        (None, Some((name, _))) => return Err((name, "its certificate is missing".to_owned())),
        (None, None) => {}
    }
    let mut verify = Verify::Full;
    if let Some((name, word)) = secured.get("ssl.endpoint.identification.algorithm") {
        match word.to_lowercase().as_str() {
            "https" => {}
            "none" => verify = Verify::Chain,
            _ => return Err((name, "it is https or none".to_owned())),
        }
    }
    if is_off(secured, "ssl.check.hostname")? {
        verify = Verify::Chain;
    }
    if is_off(secured, "enable.ssl.certificate.verification")? {
        verify = Verify::None;
    }
    Ok(tls.verify(verify))
}

fn is_off<'a>(secured: &Secured<'a>, row: &str) -> Result<bool, Complaint<'a>> {
    match secured.get(row) {
        None => Ok(false),
        Some((name, flag)) => match flag.to_lowercase().as_str() {
            "true" => Ok(false),
            "false" => Ok(true),
            _ => Err((name, "it is neither true nor false".to_owned())),
        },
    }
}

fn sasl<'a>(secured: &Secured<'a>, protocol: &'a str) -> Result<Sasl, Complaint<'a>> {
    // Java's default is Kerberos, which nobody means who gives none.
    let Some((name, mechanism)) = secured.get("sasl.mechanism") else {
        let words = "sasl.mechanism is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
        return Err((protocol, words.to_owned()));
    };
    let module = match *mechanism {
        "PLAIN" => Module::Plain,
        "SCRAM-SHA-256" | "SCRAM-SHA-512" => Module::Scram,
        "OAUTHBEARER" => return oauth(secured, name),
        _ => {
            let words =
                "of mechanisms PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER are offered yet";
            return Err((name, words.to_owned()));
        }
    };
    let (user, password, is_token) = match secured.get("sasl.jaas.config") {
        Some((by, config)) => {
            let read = jaas::parse(config).map_err(|why| (*by, why.to_owned()))?;
            if read.module != module {
                return Err((by, "its login module is not that of sasl.mechanism".to_owned()));
            }
            if let Some((also, _)) = secured.get("sasl.username").or(secured.get("sasl.password")) {
                return Err((also, "sasl.jaas.config has it, too".to_owned()));
            }
            (read.user, read.password, read.is_token)
        }
        None => {
            let (Some((_, user)), Some((_, password))) =
                (secured.get("sasl.username"), secured.get("sasl.password"))
            else {
                let words = "sasl.username and sasl.password are missing, or sasl.jaas.config";
                return Err((name, words.to_owned()));
            };
            ((*user).to_owned(), Secret::from(*password), false)
        }
    };
    let sasl = match *mechanism {
        "PLAIN" => Sasl::plain(user, password),
        "SCRAM-SHA-256" => Sasl::scram_sha_256(user, password),
        _ => Sasl::scram_sha_512(user, password),
    };
    Ok(if is_token { sasl.delegation_token() } else { sasl })
}

/// `name`: of the property that asks for OAUTHBEARER.
fn oauth<'a>(secured: &Secured<'a>, name: &'a str) -> Result<Sasl, Complaint<'a>> {
    let jaas = match secured.get("sasl.jaas.config") {
        Some((by, config)) => {
            let read = jaas::parse(config).map_err(|why| (*by, why.to_owned()))?;
            if read.module != Module::OAuthBearer {
                return Err((by, "its login module is not that of sasl.mechanism".to_owned()));
            }
            Some((*by, read))
        }
        None => None,
    };
    let Some((by_url, url)) = secured.get(URL) else {
        let words = format!("{URL} is missing; tokens of the program's own are no property");
        return Err((name, words));
    };
    let mut oauth = match url.strip_prefix("file:") {
        // As Java has it: the file of a token.
        Some(path) => OAuth::file(path.strip_prefix("//").unwrap_or(path)),
        None => credentials(secured, jaas.as_ref().map(|(_, jaas)| jaas), (*by_url, *url))?.into(),
    };
    let mut extensions = Vec::new();
    if let Some((by, list)) = secured.get("sasl.oauthbearer.extensions") {
        for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err((by, "it is written name=value,name=value".to_owned()));
            };
            extensions.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    extensions.extend(jaas.into_iter().flat_map(|(_, jaas)| jaas.extensions));
    for (name, value) in extensions {
        oauth = oauth.extension(name, value);
    }
    Ok(Sasl::oauth(oauth))
}

/// What is in the login module, or else in properties of its own.
fn credentials<'a>(
    secured: &Secured<'a>,
    jaas: Option<&Jaas>,
    (by_url, url): (&'a str, &'a str),
) -> Result<ClientCredentials, Complaint<'a>> {
    let own = |row: &str| secured.get(row).map(|(_, value)| (*value).to_owned());
    let user = jaas.map(|jaas| jaas.user.clone()).filter(|user| !user.is_empty());
    let password = jaas.map(|jaas| jaas.password.clone()).filter(|secret| !secret.is_empty());
    let id = user.or_else(|| own(CLIENT_ID));
    let secret = password.or_else(|| own(CLIENT_SECRET).map(Secret::from));
    let (Some(id), Some(secret)) = (id, secret) else {
        let words =
            format!("{CLIENT_ID} and {CLIENT_SECRET} are missing, or clientId and clientSecret");
        return Err((by_url, words));
    };
    let mut credentials = ClientCredentials::new(url, id, secret);
    let scope = jaas.and_then(|jaas| jaas.scope.clone());
    if let Some(scope) = scope.or_else(|| own("sasl.oauthbearer.scope")) {
        credentials = credentials.scope(scope);
    }
    if let Some((name, flag)) = secured.get("sasl.oauthbearer.header.urlencode") {
        match flag.to_lowercase().as_str() {
            "true" => credentials = credentials.encoded_header(),
            "false" => {}
            _ => return Err((name, "it is neither true nor false".to_owned())),
        }
    }
    let file = secured.get("https.ca.location").filter(|(_, path)| *path != "probe");
    match (file, secured.get("https.ca.pem")) {
        (Some(_), Some((name, _))) => {
            return Err((name, "another property names it, too".to_owned()));
        }
        (Some((_, path)), None) => credentials = credentials.ca(Pem::file(*path)),
        (None, Some((_, pem))) => credentials = credentials.ca(Pem::text(pem.replace("\\n", "\n"))),
        (None, None) => {}
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests;
