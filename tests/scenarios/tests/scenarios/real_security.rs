//! TLS and SASL as real brokers have them: what the embedded broker is built after.

use std::collections::BTreeMap;

use ottla::{Client, ClientBuilder, Error, ErrorKind, NewTopic, Pem, Record, Sasl, Tls};
use ottla_scenarios::steps::{batch, ms, secs};
use ottla_scenarios::wait::within;
use ottla_test_kafka::{Cluster, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const PASSWORD: &str = "alice-secret";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
}

/// A certificate for 127.0.0.1, and its key.
fn issued(by: &Authority) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, by).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// One broker with a listener of each kind, whose sessions end.
fn kafka(ca: &Authority) -> Cluster {
    let (certificate, key) = issued(ca);
    // In one line, as properties files have it.
    let line = |pem: &str| pem.trim().replace(['\r', '\n'], "\\n").replace("\\n\\n", "\\n");
    let modules = "org.apache.kafka.common.security";
    let plain = format!("{modules}.plain.PlainLoginModule required user_alice=\"{PASSWORD}\";");
    let scram = format!("{modules}.scram.ScramLoginModule required;");
    let mut properties = BTreeMap::new();
    let mut put = |name: &str, value: &str| properties.insert(name.to_owned(), value.to_owned());
    put("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512");
    for listener in ["saslp", "sasltls"] {
        let put = &mut put;
        put(&format!("listener.name.{listener}.plain.sasl.jaas.config"), &plain);
        for hash in ["256", "512"] {
            put(&format!("listener.name.{listener}.scram-sha-{hash}.sasl.jaas.config"), &scram);
        }
        put(&format!("listener.name.{listener}.connections.max.reauth.ms"), "4000");
    }
    put("ssl.keystore.type", "PEM");
    put("ssl.keystore.certificate.chain", &line(&certificate));
    put("ssl.keystore.key", &line(&key));
    put("ssl.truststore.type", "PEM");
    put("ssl.truststore.certificates", &line(&ca.pem()));
    put("listener.name.mutual.ssl.client.auth", "required");
    let listeners = [("SASLP", "SASL_PLAINTEXT"), ("SASLTLS", "SASL_SSL"), ("MUTUAL", "SSL")];
    let format = [256, 512].map(|hash| {
        ["--add-scram".to_owned(), format!("SCRAM-SHA-{hash}=[name=alice,password={PASSWORD}]")]
    });
    let options = Options {
        brokers: 1,
        properties,
        format: format.concat(),
        listeners: listeners.map(|(name, protocol)| (name.into(), protocol.into())).into(),
        ..Options::default()
    };
    Cluster::start(options).expect("Kafka starts")
}

async fn refused(client: ClientBuilder, words: &str) -> Error {
    let error = within("an error", client.connect()).await.err().expect("it is refused");
    assert!(error.message().contains(words), "no '{words}' in: {error}");
    error
}

/// Records go in and out, until sessions have been renewed so many times.
async fn works(client: ClientBuilder, topic: &str, logins: u64) {
    let client =
        within("connect", client.connect()).await.unwrap_or_else(|e| panic!("{topic}: {e}"));
    within("a topic", client.admin().create_topic(NewTopic::new(topic, 1, 1))).await.unwrap();
    let producer = client.producer().build().unwrap();
    let mut consumer = client.consumer().topics([topic]).build().unwrap();
    let handshakes = || client.stats().requests.get("SaslHandshake").copied().unwrap_or_default();
    let (mut sent, mut read) = (0, 0);
    let enough = handshakes() + logins;
    while handshakes() < enough || sent < 10 {
        let value = format!("{sent}");
        let delivery = producer.send(Record::to(topic).value(&value)).await.unwrap();
        within("an ack", delivery).await.unwrap_or_else(|e| panic!("{topic}: {e}"));
        sent += 1;
        while let Ok(batch) = tokio::time::timeout(ms(20), consumer.next()).await {
            read += batch.expect("open").unwrap_or_else(|e| panic!("{topic}: {e}")).len();
        }
    }
    while read < sent {
        read += batch(&mut consumer).await.len();
    }
    let bad = client.stats().bad_stuff;
    // Of a topic this young a broker may not know yet that it leads it.
    assert_eq!((read, bad.losses, bad.records_failed), (sent, 0, 0), "{bad}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_brokers_take_every_way_to_log_in_and_say_what_is_wrong() {
    let ca = authority();
    let kafka = kafka(&ca);
    let at = |name: &str| Client::builder().bootstrap(kafka.listener(1, name).unwrap());
    let tls = || Tls::system().ca(Pem::text(ca.pem()));

    // Six logins more: each connection that is in use has renewed its session.
    works(at("SASLTLS").tls(tls()).sasl(Sasl::scram_sha_512("alice", PASSWORD)), "scram-tls", 6)
        .await;
    works(at("SASLTLS").tls(tls()).sasl(Sasl::plain("alice", PASSWORD)), "plain-tls", 0).await;
    works(at("SASLP").sasl(Sasl::scram_sha_256("alice", PASSWORD)), "scram", 0).await;
    works(at("SASLP").sasl(Sasl::plain("alice", PASSWORD)), "plain", 6).await;
    let (certificate, key) = issued(&ca);
    let known = tls().identity(Pem::text(certificate), Pem::text(key));
    works(at("MUTUAL").tls(known), "mutual", 0).await;

    for sasl in [Sasl::plain("alice", "wrong"), Sasl::scram_sha_512("alice", "wrong")] {
        let error = refused(at("SASLP").sasl(sasl), "Authentication failed").await;
        assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Authentication, Some(58)));
    }
    let plaintext = Client::builder().bootstrap(kafka.bootstrap());
    refused(plaintext.clone().sasl(Sasl::plain("alice", PASSWORD)), "has no SASL").await;

    let error = refused(at("MUTUAL").tls(tls()), "which has none").await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    let (certificate, key) = issued(&authority());
    let stranger = tls().identity(Pem::text(certificate), Pem::text(key));
    refused(at("MUTUAL").tls(stranger), "refuses the certificate of this client").await;
    let other = Tls::system().ca(Pem::text(authority().pem()));
    refused(at("MUTUAL").tls(other), "leads to no CA").await;
    refused(at("MUTUAL").tls(tls().server_name("elsewhere.example")), "127.0.0.1").await;
    refused(at("MUTUAL"), "speaks TLS").await;
    let error = refused(plaintext.tls(tls()).connect_timeout(secs(3)), "without TLS").await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");

    // A listener with SASL tells its versions to anybody.
    let client = at("SASLP").build().unwrap();
    let producer = client.producer().delivery_timeout(secs(20)).build().unwrap();
    let delivery = producer.send(Record::to("plain").value("x")).await.unwrap();
    let error = within("an error", delivery).await.unwrap_err();
    assert!(error.message().contains("may want SASL"), "{error}");
}
