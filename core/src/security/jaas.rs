//! `sasl.jaas.config`, in which Java's clients have their credentials: one login module, a flag, options, a
//! semicolon. Only what credentials come from is read. What is wrong is said without a word of it: it
//! holds the password.

use super::secret::Secret;

/// Longer than any with a password in it.
const MAX_BYTES: usize = 64 << 10;

/// The credentials of a login module.
#[derive(Debug)]
pub(crate) struct Jaas {
    pub(crate) module: Module,
    /// Of OAUTHBEARER the client's id and secret, which may be empty: they may be in other properties.
    pub(crate) user: String,
    pub(crate) password: Secret,
    /// They are those of a delegation token.
    pub(crate) is_token: bool,
    /// Of OAUTHBEARER.
    pub(crate) scope: Option<String>,
    pub(crate) extensions: Vec<(String, String)>,
}

/// Which mechanisms a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    Plain,
    Scram,
    OAuthBearer,
}

const QUOTED: &str = "a quote has no end";

/// Reads it; the error says what is wrong, for a sentence that names the property.
pub(crate) fn parse(text: &str) -> Result<Jaas, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("it is too long");
    }
    let mut words = words(text)?.into_iter();
    let module = match words.next().as_deref().and_then(|name| name.rsplit('.').next()) {
        Some("PlainLoginModule") => Module::Plain,
        Some("ScramLoginModule") => Module::Scram,
        Some("OAuthBearerLoginModule") => Module::OAuthBearer,
        Some(_) => {
            return Err("of login modules those for PLAIN, SCRAM and OAUTHBEARER are offered");
        }
        None => return Err("it is empty"),
    };
    let flag = words.next().unwrap_or_default().to_lowercase();
    if !["required", "requisite", "sufficient", "optional"].contains(&flag.as_str()) {
        return Err("behind the login module comes 'required'");
    }
    let (mut user, mut password, mut is_token) = (None, None, false);
    let (mut scope, mut extensions) = (None, Vec::new());
    let names = match module {
        Module::OAuthBearer => ("clientId", "clientSecret"),
        Module::Plain | Module::Scram => ("username", "password"),
    };
    while let Some(name) = words.next() {
        if words.next().as_deref() != Some("=") {
            return Err("its options are written name=\"value\"");
        }
        let value = words.next().ok_or("an option has no value")?;
        match name.as_str() {
            name if name == names.0 => user = Some(value),
            name if name == names.1 => password = Some(Secret::from(value)),
            "tokenauth" => is_token = value == "true",
            "scope" => scope = Some(value),
            name if module == Module::OAuthBearer && name.starts_with("unsecuredLogin") => {
                return Err("tokens that nobody has signed are not offered");
            }
            name if name.starts_with("extension_") => {
                extensions.push((name["extension_".len()..].to_owned(), value));
            }
            // Of other mechanisms, or of the broker's side.
            _ => {}
        }
    }
    if module == Module::OAuthBearer {
        let password = password.unwrap_or_else(|| Secret::from(""));
        let user = user.unwrap_or_default();
        return Ok(Jaas { module, user, password, is_token, scope, extensions });
    }
    match (user, password) {
        (Some(user), Some(password)) => {
            Ok(Jaas { module, user, password, is_token, scope, extensions })
        }
        _ => Err("it lacks username or password"),
    }
}

/// Words, quoted texts, and `=` as one of its own; up to the semicolon, behind which nothing may come.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ';' => {
                return match rest.all(char::is_whitespace) {
                    true => Ok(words),
                    false => Err("one login module is taken, and this has more"),
                };
            }
            '=' => words.push("=".into()),
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match rest.next().ok_or(QUOTED)? {
                        '\\' => word.push(match rest.next().ok_or(QUOTED)? {
                            'n' => '\n',
                            't' => '\t',
                            other => other,
                        }),
                        end if end == c => break,
                        other => word.push(other),
                    }
                }
                words.push(word);
            }
            c if c.is_whitespace() => {}
            c => {
                let mut word = String::from(c);
                let ends = |c: &char| c.is_whitespace() || matches!(c, '=' | ';' | '"' | '\'');
                while let Some(c) = rest.next_if(|c| !ends(c)) {
                    word.push(c);
                }
                words.push(word);
            }
        }
    }
    Err("it ends without a semicolon")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_read() {
        for (text, module, user, password, is_token) in [
            (
                "org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"alice\" password=\"a;b=c\\\"d\";",
                Module::Plain,
                "alice",
                "a;b=c\"d",
                false,
            ),
            (
                "org.apache.kafka.common.security.scram.ScramLoginModule   required\n  \
                 username='id'\n password = 'h m' tokenauth=\"true\" ;\n",
                Module::Scram,
                "id",
                "h m",
                true,
            ),
            (
                "PlainLoginModule REQUIRED serviceName=kafka password=secret username=bob;",
                Module::Plain,
                "bob",
                "secret",
                false,
            ),
        ] {
            let read = parse(text).unwrap();
            assert_eq!((read.module, &*read.user, read.is_token), (module, user, is_token));
            assert_eq!(read.password.expose(), password.as_bytes());
        }
    }

    #[test]
    fn a_clients_id_and_what_else_it_is_known_by_is_read() {
        let read = parse(
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
             clientId='me' clientSecret=\"a;b\" scope='x y' extension_logicalCluster=lkc-1;",
        );
        let read = read.unwrap();
        assert_eq!((read.module, &*read.user), (Module::OAuthBearer, "me"));
        assert_eq!(read.password.expose(), b"a;b");
        assert_eq!(read.scope.as_deref(), Some("x y"));
        assert_eq!(read.extensions, [("logicalCluster".to_owned(), "lkc-1".to_owned())]);
        let bare = parse("OAuthBearerLoginModule required ;").unwrap();
        assert!(bare.user.is_empty() && bare.password.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for (text, words) in [
            ("", "semicolon"),
            (";", "empty"),
            ("PlainLoginModule required username=\"hunter2\" password=\"hunter2\"", "semicolon"),
            ("PlainLoginModule required username=\"hunter2 password=hunter2;", "quote"),
            ("PlainLoginModule required password=\"hunter2\\", "quote"),
            ("PlainLoginModule username=hunter2 password=hunter2;", "required"),
            ("PlainLoginModule required username hunter2;", "name=\"value\""),
            ("PlainLoginModule required username=;", "no value"),
            ("PlainLoginModule required password=hunter2;", "lacks"),
            ("com.acme.Login required password=hunter2;", "SCRAM and OAUTHBEARER"),
            (
                "OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=hunter2;",
                "nobody has signed",
            ),
            ("PlainLoginModule required username=a password=b; x", "more"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert_eq!(parse(&"x".repeat(MAX_BYTES + 1)).unwrap_err(), "it is too long");
        let shown =
            format!("{:?}", parse("PlainLoginModule required username=a password=hunter2;"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[ -~\\n]{0,80}") {
            let _ = parse(&text);
            let _ = parse(&format!("PlainLoginModule required {text};"));
        }

        /// However it is quoted.
        #[test]
        fn a_password_comes_back(password in "\\PC{0,30}") {
            let quoted = password.replace('\\', "\\\\").replace('"', "\\\"");
            let read = parse(&format!("PlainLoginModule required username=u password=\"{quoted}\";"));
            let read = read.unwrap();
            prop_assert_eq!(read.password.expose(), password.as_bytes());
        }
    }
}
