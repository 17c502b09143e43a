//! TLS, with a client that knows nothing but rustls.

use std::io;
use std::sync::Arc;

use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use ottla_test_broker::{
    ApiKey, ClientCertificates, Cluster, Fault, FaultRule, Identity, ServerCertificate, Tls,
    TlsFault, TlsVersions,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Client, LONG, TOPIC, start};

/// What a client believes and shows.
pub(crate) fn config(ca: &str, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certificates = CertificateDer::pem_slice_iter(identity.certificates.as_bytes());
            let certificates = certificates.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(certificates, key).expect("an identity")
        }
    })
}

/// A handshake with whoever is to be `host`.
pub(crate) async fn connect<S>(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: S,
) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    timeout(LONG, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await?
}

async fn in_memory(
    cluster: &Cluster,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<DuplexStream>> {
    connect(config, "broker-1", cluster.connect_in_memory(1)?).await
}

fn trusting(cluster: &Cluster) -> Arc<ClientConfig> {
    config(&cluster.ca_pem().expect("TLS"), None)
}

async fn is_served<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> bool {
    client.ask(0, &ApiVersionsRequest::default()).await.is_ok()
}

/// What the broker proves itself with.
fn certificate<S>(stream: &TlsStream<S>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("certificates")[0].to_vec()
}

#[tokio::test(start_paused = true)]
async fn it_is_spoken_through_memory_and_in_virtual_time() {
    let cluster = start(|builder| builder.tls(Tls::new()).topic(TOPIC, 3, 1).brokers(2));
    let stream = cluster.dial_in_memory("broker-2", 9092).expect("a connection");
    let stream = connect(&trusting(&cluster), "broker-2", stream).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let mut client = Client::over(stream);
    let metadata = client.ask(12, &MetadataRequest::default()).await.expect("an answer");
    assert_eq!(metadata.brokers.len(), 2);
    let stats = cluster.stats();
    let of = |id| {
        let broker = stats.broker(id).expect("a broker");
        (broker.tls_handshakes_begun, broker.tls_handshakes_finished)
    };
    assert_eq!((of(1), of(2)), ((0, 0), (1, 1)));
}

#[tokio::test]
async fn it_is_spoken_over_tcp_by_address_and_as_localhost() {
    let cluster =
        Cluster::builder().tls(Tls::new().name("proxy.example")).start().expect("a cluster");
    let (host, port) = cluster.address(1).expect("an address");
    for name in [host.as_str(), "localhost", "proxy.example"] {
        let stream = TcpStream::connect((host.as_str(), port)).await.expect("a connection");
        let stream = connect(&trusting(&cluster), name, stream).await.expect(name);
        assert!(is_served(&mut Client::over(stream)).await, "{name}");
    }
    let stream = TcpStream::connect((host.as_str(), port)).await.expect("a connection");
    connect(&trusting(&cluster), "elsewhere.example", stream).await.expect_err("another name");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_moves_is_who_it_is_named() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    cluster.move_broker(1, "10.1.2.3", 9093).expect("a move");
    let dial = || cluster.dial_in_memory("10.1.2.3", 9093).expect("a connection");
    connect(&trusting(&cluster), "10.1.2.3", dial()).await.expect("its new address");
    connect(&trusting(&cluster), "broker-1", dial()).await.expect_err("its old one");
}

#[tokio::test(start_paused = true)]
async fn versions_are_as_described() {
    for (versions, spoken) in [
        (TlsVersions::Both, ProtocolVersion::TLSv1_3),
        (TlsVersions::Only13, ProtocolVersion::TLSv1_3),
        (TlsVersions::Only12, ProtocolVersion::TLSv1_2),
    ] {
        let cluster = start(|builder| builder.tls(Tls::new().versions(versions)));
        let stream = in_memory(&cluster, &trusting(&cluster)).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(spoken));
        assert!(is_served(&mut Client::over(stream)).await);
    }
}

/// Seen on Kafka 4.3: a client without TLS reads these bytes as a size of 352,518,912.
#[tokio::test(start_paused = true)]
async fn who_speaks_no_tls_is_told_so_as_java_does() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    for words in [
        &[0, 0, 0, 18, 0, 18, 0, 0, 0, 0, 0, 1, 0, 8, b'o', b't', b't', b'l', b'a'][..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 2, 0, 0, 5],
    ] {
        let mut stream = cluster.connect_in_memory(1).expect("a connection");
        stream.write_all(words).await.expect("sent");
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an end").expect("an end");
        assert_eq!(answer, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50]);
    }
    let stats = cluster.stats();
    let broker = stats.broker(1).expect("a broker");
    assert_eq!((broker.tls_handshakes_begun, broker.tls_handshakes_finished), (3, 0));
    assert_eq!(stats.connections_open(), 0);
}

/// The other way round Kafka takes the first bytes for a size that is too large, and hangs up.
#[tokio::test(start_paused = true)]
async fn tls_to_a_broker_without_ends_the_stream() {
    let with = start(|builder| builder.tls(Tls::new()));
    let without = start(|builder| builder);
    let stream = without.connect_in_memory(1).expect("a connection");
    let error = connect(&trusting(&with), "broker-1", stream).await.expect_err("no handshake");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn certificates_can_be_wrong_in_every_way() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    let config = trusting(&cluster);
    for (certificate, words) in [
        (ServerCertificate::Expired, "Expired"),
        (ServerCertificate::NotYetValid, "NotValidYet"),
        (ServerCertificate::For("other.example".into()), "NotValidForName"),
        (ServerCertificate::CommonNameOnly, "NotValidForName"),
        (ServerCertificate::ByStranger, "UnknownIssuer"),
    ] {
        cluster.set_certificate(1, certificate.clone()).expect("a certificate");
        let error = in_memory(&cluster, &config).await.expect_err("no handshake");
        let told = error.get_ref().expect("a reason");
        assert!(format!("{told:?}").contains(words), "{certificate:?}: {told:?}");
    }
    let finished = cluster.stats().brokers[0].tls_handshakes_finished;
    assert_eq!(finished, 0, "the client refuses before the broker is done");
    cluster.set_certificate(1, ServerCertificate::Good).expect("a certificate");
    in_memory(&cluster, &config).await.expect("a handshake");
}

#[tokio::test(start_paused = true)]
async fn a_given_certificate_is_used_and_a_wrong_one_told_at_the_start() {
    let maker = start(|builder| builder.tls(Tls::new()));
    let identity = maker.client_identity("broker-1").expect("an identity");
    let given = identity.clone();
    let cluster = start(|builder| builder.tls(Tls::with_identity(given)));
    // Made for a client, it is no good to a client; but it is what the broker has.
    let error = in_memory(&cluster, &trusting(&maker)).await.expect_err("no handshake");
    assert!(format!("{:?}", error.get_ref()).contains("InvalidPurpose"), "{error:?}");

    let other = maker.client_identity("other").expect("an identity");
    for (certificates, key) in [
        ("", identity.key.as_str()),
        (identity.certificates.as_str(), ""),
        (identity.certificates.as_str(), other.key.as_str()),
    ] {
        let wrong = Identity { certificates: certificates.into(), key: key.into() };
        let built = Cluster::builder().tcp(false).tls(Tls::with_identity(wrong));
        let error = built.start_on_current_runtime().expect_err("a wrong identity");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_under_open_connections() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    let old = trusting(&cluster);
    let first = in_memory(&cluster, &old).await.expect("a handshake");
    let first_certificate = certificate(&first);
    let mut first = Client::over(first);
    cluster.rotate_certificates().expect("TLS");
    assert!(is_served(&mut first).await);
    // Without what it kept of the first, which would resume that session.
    let second = in_memory(&cluster, &trusting(&cluster)).await.expect("a handshake");
    assert_ne!(certificate(&second), first_certificate);

    cluster.replace_authority().expect("TLS");
    assert!(is_served(&mut first).await);
    in_memory(&cluster, &trusting(&cluster)).await.expect("the new authority");
    in_memory(&cluster, &old).await.expect_err("the old authority");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_resumed_until_certificates_change() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    let config = trusting(&cluster);
    let visit = || async {
        let mut client = Client::over(in_memory(&cluster, &config).await.expect("a handshake"));
        // Tickets come behind the handshake.
        assert!(is_served(&mut client).await);
        cluster.stats().brokers[0].tls_handshakes_resumed
    };
    assert_eq!(visit().await, 0);
    assert_eq!(visit().await, 1);
    cluster.rotate_certificates().expect("TLS");
    assert_eq!(visit().await, 1);
}

#[tokio::test(start_paused = true)]
async fn client_certificates_are_looked_at() {
    let stranger = start(|builder| builder.tls(Tls::new()));
    let stranger_ca = stranger.ca_pem().expect("TLS");
    // (wanted, who shows what, whether it is served)
    use ClientCertificates::{None as Nobody, Requested, Required};
    for (wanted, shown, served) in [
        (Nobody, "nothing", true),
        (Nobody, "stranger's", true),
        (Requested, "nothing", true),
        (Requested, "own", true),
        (Requested, "stranger's", false),
        (Required, "nothing", false),
        (Required, "own", true),
        (Required, "stranger's", false),
        (Required, "known stranger's", true),
    ] {
        let tls = Tls::new().client_certificates(wanted);
        let tls = match shown {
            "known stranger's" => tls.client_authorities(&stranger_ca),
            _ => tls,
        };
        let cluster = start(|builder| builder.tls(tls));
        let identity = match shown {
            "nothing" => None,
            "own" => Some(cluster.client_identity("alice").expect("an identity")),
            _ => Some(stranger.client_identity("alice").expect("an identity")),
        };
        let config = config(&cluster.ca_pem().expect("TLS"), identity.as_ref());
        // With TLS 1.3 a client is done before the broker has seen its certificate.
        let stream = in_memory(&cluster, &config).await.expect("a handshake");
        assert_eq!(is_served(&mut Client::over(stream)).await, served, "{wanted:?}, {shown}");
        let finished = cluster.stats().brokers[0].tls_handshakes_finished;
        assert_eq!(finished, u64::from(served), "{wanted:?}, {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn handshakes_can_stall_and_be_cut() {
    let cluster = start(|builder| builder.tls(Tls::new()).brokers(2));
    let config = trusting(&cluster);
    let faults = cluster.faults();
    faults.inject(FaultRule::new(Fault::Tls(TlsFault::Stall)).broker(2));
    faults.inject(FaultRule::new(Fault::Tls(TlsFault::Stall)).broker(1));
    let error = in_memory(&cluster, &config).await.expect_err("no handshake");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    faults.inject(FaultRule::new(Fault::Tls(TlsFault::Cut)).broker(1));
    let error = in_memory(&cluster, &config).await.expect_err("no handshake");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    in_memory(&cluster, &config).await.expect("a handshake");
    assert_eq!(faults.fired(), 2);
}

/// Kafka says goodbye when it hangs up, as TLS wants it; a network that cuts cannot.
#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_up_says_so_and_a_cut_does_not() {
    let cluster = start(|builder| builder.tls(Tls::new()));
    let config = trusting(&cluster);
    let mut stream = in_memory(&cluster, &config).await.expect("a handshake");
    // An api that nobody knows.
    stream.write_all(&[0, 0, 0, 10, 0, 99, 0, 0, 0, 0, 0, 1, 0, 0]).await.expect("sent");
    let read = timeout(LONG, stream.read(&mut [0; 1])).await.expect("an end");
    assert_eq!(read.expect("an orderly end"), 0);

    cluster.faults().on(1, ApiKey::API_VERSIONS, Fault::CutBeforeAppend, 1);
    let mut client = Client::over(in_memory(&cluster, &config).await.expect("a handshake"));
    let error = client.ask(0, &ApiVersionsRequest::default()).await.expect_err("a cut");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn what_needs_tls_says_so() {
    let cluster = start(|builder| builder);
    assert_eq!(cluster.ca_pem(), None);
    for error in [
        cluster.client_identity("alice").map(drop),
        cluster.rotate_certificates(),
        cluster.replace_authority(),
        cluster.set_certificate(1, ServerCertificate::Good),
        cluster.set_user("alice", "secret"),
    ] {
        let error = error.expect_err("no TLS, no SASL");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("Builder::"), "{error}");
    }
    let tls = start(|builder| builder.tls(Tls::new()));
    let error = tls.set_certificate(2, ServerCertificate::Good).expect_err("no such broker");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
