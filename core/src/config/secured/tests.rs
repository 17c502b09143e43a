use super::super::foreign::Owner;
use super::super::properties::{Properties, Value, read};
use crate::security::{ClientCredentials, OAuth, Pem, Sasl, Tls, Verify};

fn of(properties: &[(&str, &str)]) -> Properties {
    properties.iter().copied().collect()
}

fn settings(properties: &[(&str, &str)]) -> Vec<(&'static str, Value)> {
    read(Owner::Client, &of(properties)).unwrap_or_else(|e| panic!("{properties:?}: {e}"))
}

fn refused(properties: &[(&str, &str)]) -> String {
    let error = read(Owner::Client, &of(properties)).expect_err("it is refused");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    error.message().to_owned()
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----";

#[test]
fn what_others_write_is_read_as_one_setting() {
    let tls = |tls: Tls| vec![("tls", Value::Tls(tls))];
    let sasl = |sasl: Sasl| vec![("sasl", Value::Sasl(sasl))];
    let in_lines = Pem::text(PEM.replace("\\n", "\n"));
    for (properties, expected) in [
        (&[("security.protocol", "PLAINTEXT")][..], vec![]),
        // Left over from another protocol.
        (&[("security.protocol", "plaintext"), ("sasl.username", "u")], vec![]),
        (&[("security.protocol", "ssl")], tls(Tls::system())),
        (&[("security.protocol", "SSL"), ("ssl.ca.location", "probe")], tls(Tls::system())),
        (
            &[("security.protocol", "SSL"), ("ssl_cafile", "a"), ("ssl_check_hostname", "False")],
            tls(Tls::system().ca("a").verify(Verify::Chain)),
        ),
        (
            &[
                ("security.protocol", "SSL"),
                ("ssl.ca.pem", PEM),
                ("ssl.certificate.location", "c"),
                ("ssl.key.location", "k"),
                ("ssl.endpoint.identification.algorithm", "none"),
            ],
            tls(Tls::system().ca(in_lines.clone()).identity("c", "k").verify(Verify::Chain)),
        ),
        (
            &[
                ("security.protocol", "SSL"),
                ("ssl.truststore.type", "PEM"),
                ("ssl.truststore.location", "t"),
                ("ssl.keystore.type", "PEM"),
                ("ssl.keystore.location", "k"),
                ("ssl.endpoint.identification.algorithm", "https"),
            ],
            tls(Tls::system().ca("t").identity("k", "k")),
        ),
        (
            &[("security.protocol", "SSL"), ("enable.ssl.certificate.verification", "false")],
            tls(Tls::system().verify(Verify::None)),
        ),
        (
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanisms", "SCRAM-SHA-256"),
                ("sasl.username", "u"),
                ("sasl.password", "p"),
            ],
            sasl(Sasl::scram_sha_256("u", "p")),
        ),
        (
            &[
                ("security_protocol", "SASL_PLAINTEXT"),
                ("sasl_mechanism", "PLAIN"),
                ("sasl_plain_username", "u"),
                ("sasl_plain_password", "p"),
            ],
            sasl(Sasl::plain("u", "p")),
        ),
        (
            &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                (
                    "sasl.jaas.config",
                    "x.ScramLoginModule required username=u password=\"p\" tokenauth=true;",
                ),
            ],
            vec![
                ("sasl", Value::Sasl(Sasl::scram_sha_512("u", "p").delegation_token())),
                ("tls", Value::Tls(Tls::system())),
            ],
        ),
        (
            // librdkafka's.
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanisms", "OAUTHBEARER"),
                ("sasl.oauthbearer.method", "oidc"),
                ("sasl.oauthbearer.token.endpoint.url", "https://idp/t"),
                ("sasl.oauthbearer.client.id", "me"),
                ("sasl.oauthbearer.client.secret", "s"),
                ("sasl.oauthbearer.scope", "a b"),
                ("sasl.oauthbearer.extensions", "logicalCluster=lkc-1, pool=p"),
                ("https.ca.location", "ca"),
            ],
            sasl(Sasl::oauth(
                OAuth::from(
                    ClientCredentials::new("https://idp/t", "me", "s").scope("a b").ca("ca"),
                )
                .extension("logicalCluster", "lkc-1")
                .extension("pool", "p"),
            )),
        ),
        (
            // Java's.
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "OAUTHBEARER"),
                (
                    "sasl.login.callback.handler.class",
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler",
                ),
                ("sasl.oauthbearer.token.endpoint.url", "https://idp/t"),
                ("sasl.oauthbearer.header.urlencode", "true"),
                (
                    "sasl.jaas.config",
                    "x.OAuthBearerLoginModule required clientId=me clientSecret=s scope=a \
                     extension_pool=p;",
                ),
            ],
            sasl(Sasl::oauth(
                OAuth::from(
                    ClientCredentials::new("https://idp/t", "me", "s").scope("a").encoded_header(),
                )
                .extension("pool", "p"),
            )),
        ),
        (
            &[
                ("security.protocol", "SASL_PLAINTEXT"),
                ("sasl.mechanism", "OAUTHBEARER"),
                ("sasl.oauthbearer.token.endpoint.url", "file:///var/run/token"),
                ("sasl.jaas.config", "x.OAuthBearerLoginModule required ;"),
            ],
            sasl(Sasl::oauth(OAuth::file("/var/run/token"))),
        ),
    ] {
        assert_eq!(settings(properties), expected, "{properties:?}");
    }
}

#[test]
fn what_is_incomplete_or_not_offered_is_said_without_its_value() {
    let ssl = ("security.protocol", "SSL");
    let sasl = ("security.protocol", "SASL_SSL");
    let (plain, user) = (("sasl.mechanism", "PLAIN"), ("sasl.username", "hunter2"));
    let jaas = ("sasl.jaas.config", "PlainLoginModule required username=a password=hunter2;");
    let bearer = ("sasl.mechanism", "OAUTHBEARER");
    let url = ("sasl.oauthbearer.token.endpoint.url", "https://idp/hunter2");
    let id = ("sasl.oauthbearer.client.id", "hunter2");
    let secret = ("sasl.oauthbearer.client.secret", "hunter2");
    for (properties, words) in [
        (&[("ssl.ca.location", "hunter2")][..], "'ssl.ca.location' (set security.protocol"),
        (&[user], "'sasl.username' (set security.protocol"),
        (&[("security.protocol", "hunter2")], "none of PLAINTEXT, SSL"),
        (&[ssl, ("ssl.certificate.location", "hunter2")], "its key is missing"),
        (&[ssl, ("ssl.key.pem", "hunter2")], "its certificate is missing"),
        (&[ssl, ("ssl.ca.location", "a"), ("ssl.ca.pem", "hunter2")], "'ssl.ca.pem' (another"),
        (&[ssl, ("ssl.ca.location", "a"), ("ssl.cafile", "hunter2")], "says something else"),
        (&[ssl, ("ssl.truststore.type", "JKS")], "openssl pkcs12"),
        (&[ssl, ("ssl.key.password", "hunter2")], "openssl pkey"),
        (&[ssl, ("ssl.cipher.suites", "hunter2")], "TLS is 1.2 or 1.3"),
        (&[ssl, ("ssl.endpoint.identification.algorithm", "x")], "https or none"),
        (&[ssl, ("enable.ssl.certificate.verification", "no")], "neither true nor false"),
        (&[sasl], "'security.protocol' (sasl.mechanism is missing"),
        (&[sasl, ("sasl.mechanism", "GSSAPI")], "and OAUTHBEARER are offered yet"),
        (&[sasl, plain, user], "sasl.password are missing"),
        (&[sasl, plain, jaas, user], "'sasl.username' (sasl.jaas.config has it"),
        (&[sasl, ("sasl.mechanism", "SCRAM-SHA-256"), jaas], "is not that of sasl.mechanism"),
        (&[sasl, plain, ("sasl.jaas.config", "password=hunter2")], "'sasl.jaas.config' ("),
        (&[sasl, ("sasl.kerberos.keytab", "hunter2")], "and OAUTHBEARER are offered yet"),
        (&[sasl, bearer], "sasl.oauthbearer.token.endpoint.url is missing"),
        (&[sasl, bearer, url], "client.id and sasl.oauthbearer.client.secret are missing"),
        (&[sasl, bearer, url, id], "client.id and sasl.oauthbearer.client.secret are missing"),
        (&[sasl, bearer, url, jaas], "is not that of sasl.mechanism"),
        (&[sasl, bearer, ("sasl.oauthbearer.method", "default")], "given by the program"),
        (&[sasl, bearer, ("sasl.oauthbearer.config", "hunter2")], "given by the program"),
        (&[sasl, bearer, ("sasl.login.callback.handler.class", "hunter2")], "given by the program"),
        (
            &[sasl, bearer, url, id, secret, ("sasl.oauthbearer.extensions", "hunter2")],
            "name=value",
        ),
        (
            &[
                sasl,
                bearer,
                url,
                id,
                secret,
                ("https.ca.location", "a"),
                ("https.ca.pem", "hunter2"),
            ],
            "names it, too",
        ),
    ] {
        let message = refused(properties);
        assert!(message.contains(words), "{properties:?}: {message}");
    }
}

/// A binding that reads properties by itself must not drop them: it would connect in plaintext.
#[test]
fn plain_values_say_that_there_are_any_and_nothing_of_them() {
    use crate::bindings::Plain;
    let plain = |properties: &[(&str, &str)]| {
        super::super::properties::plain_settings(Owner::Client, &of(properties)).unwrap()
    };
    let (mechanism, user) = (("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "hunter2"));
    let all =
        plain(&[("security.protocol", "SASL_SSL"), mechanism, user, ("sasl.password", "hunter2")]);
    let word = Plain::Text("SCRAM-SHA-256".into());
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("sasl", word), ("tls", Plain::Flag(true))]);
    assert_eq!(plain(&[("security.protocol", "SSL")]).len(), 1);
    assert!(plain(&[("security.protocol", "PLAINTEXT")]).is_empty());
}
