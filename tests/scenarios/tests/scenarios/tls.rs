//! Brokers that are reached by TLS: what works, and what is said of all the ways in which it does not. In virtual
//! time, over streams in memory.

use ottla::testing::{
    Builder, ClientCertificates, Cluster, Fault, Identity, ServerCertificate, TlsFault, TlsVersions,
};
use ottla::{Client, ClientBuilder, Error, ErrorKind, Pem, Record, Tls, Verify};
use ottla_scenarios::steps::{acked, batch, cluster, connect, free, secs, stored};
use ottla_scenarios::virtual_cluster::client;
use ottla_scenarios::wait::within;
use ottla_scenarios::warnings::{Warnings, listen};
use tokio::time::Instant;

type OfBroker = ottla::testing::Tls;

fn builder(brokers: i32, tls: OfBroker) -> Builder {
    Cluster::builder().brokers(brokers).tcp(false).topic("t", 2, 1).tls(tls)
}

fn cluster_with(tls: OfBroker) -> Cluster {
    builder(1, tls).start_on_current_runtime().expect("a cluster in memory starts")
}

/// TLS that believes the cluster's own authority.
fn tls(cluster: &Cluster) -> Tls {
    Tls::system().ca(Pem::text(cluster.ca_pem().expect("it speaks TLS")))
}

fn with_identity(tls: Tls, identity: Identity) -> Tls {
    tls.identity(Pem::text(identity.certificates), Pem::text(identity.key))
}

/// The error of a client that is told at once, and what it is about.
async fn refused(client: ClientBuilder, words: &[&str]) -> Error {
    let begun = Instant::now();
    let error = within("an error", client.connect()).await.err().expect("it is refused");
    assert!(begun.elapsed() < secs(1), "told after {:?}: {error}", begun.elapsed());
    for word in words {
        assert!(error.message().contains(word), "no '{word}' in: {error}");
    }
    error
}

/// Records go in and come back.
async fn works(client: &Client) {
    let producer = client.producer().build().unwrap();
    // More than a TLS record, and than is read at once.
    let large = vec![b'x'; 300_000];
    acked(&producer, Record::to("t").partition(0).value(&large)).await;
    acked(&producer, free().partition(0)).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let mut values = Vec::new();
    while values.len() < 2 {
        for record in &batch(&mut consumer).await {
            values.push(record.value().map_or(0, <[u8]>::len));
        }
    }
    assert_eq!(values, [300_000, 1]);
}

#[tokio::test(start_paused = true)]
async fn records_go_in_and_out_by_every_version_of_tls() {
    for versions in [TlsVersions::Both, TlsVersions::Only12, TlsVersions::Only13] {
        let cluster = cluster_with(OfBroker::new().versions(versions));
        works(&connect(client(&cluster, 1).tls(tls(&cluster))).await).await;
        assert!(cluster.stats().broker(1).unwrap().tls_handshakes_finished > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_knows_a_client_by_its_certificate() {
    for versions in [TlsVersions::Only12, TlsVersions::Only13] {
        let of_broker = OfBroker::new().client_certificates(ClientCertificates::Required);
        let cluster = cluster_with(of_broker.versions(versions));
        let identity = cluster.client_identity("alice").unwrap();
        let good = with_identity(tls(&cluster), identity);
        works(&connect(client(&cluster, 1).tls(good)).await).await;

        // With TLS 1.3 that shows only after the handshake.
        let error = refused(client(&cluster, 2).tls(tls(&cluster)), &["which has none"]).await;
        assert_eq!(error.kind(), ErrorKind::Tls, "{versions:?}: {error}");
        assert!(!error.is_retriable() && error.advice().contains("identity"), "{error}");

        let stranger = cluster_with(OfBroker::new()).client_identity("alice").unwrap();
        let other = with_identity(tls(&cluster), stranger);
        let error = refused(client(&cluster, 3).tls(other), &["refuses the certificate"]).await;
        assert_eq!(error.kind(), ErrorKind::Tls, "{versions:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_good_is_named_with_what_is_wrong_with_it() {
    for (certificate, words) in [
        (ServerCertificate::ByStranger, "leads to no CA in the PEM text"),
        (ServerCertificate::For("elsewhere.example".into()), "but for elsewhere.example"),
        (ServerCertificate::Expired, "expired"),
        (ServerCertificate::NotYetValid, "becomes valid in"),
        (ServerCertificate::CommonNameOnly, "no subject alternative name"),
    ] {
        let cluster = cluster_with(OfBroker::new().certificate(certificate));
        let error = refused(client(&cluster, 1).tls(tls(&cluster)), &["bootstrap ", words]).await;
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(!error.is_retriable() && !error.is_fatal(), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn how_much_is_verified_is_the_users_choice() {
    let elsewhere = || ServerCertificate::For("elsewhere.example".into());
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster_with(OfBroker::new().certificate(elsewhere()));
    works(&connect(client(&cluster, 1).tls(tls(&cluster).server_name("elsewhere.example"))).await)
        .await;
    connect(client(&cluster, 2).tls(tls(&cluster).verify(Verify::Chain))).await;
    assert!(warnings.with("not verified").is_empty(), "{}", warnings.text());

    let stranger = cluster_with(OfBroker::new().certificate(ServerCertificate::ByStranger));
    let chain = tls(&stranger).verify(Verify::Chain);
    refused(client(&stranger, 3).tls(chain), &["leads to no CA"]).await;
    let open = connect(client(&stranger, 4).tls(Tls::system().verify(Verify::None))).await;
    assert_eq!(open.stats().bad_stuff.tls_unverified, 1);
    assert_eq!(open.stats().bad_stuff.to_string(), "TLS unverified 1");
    assert_eq!(warnings.with("not verified").len(), 1, "{}", warnings.text());
}

/// A sentence each: nobody sees a size of 352,518,912 bytes.
#[tokio::test(start_paused = true)]
async fn the_wrong_listener_is_recognised_in_both_directions() {
    let secured = cluster_with(OfBroker::new());
    let error = refused(client(&secured, 1), &["the peer speaks TLS"]).await;
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    assert!(error.advice().contains("set tls"), "{error}");

    // It may be that a proxy stands before a broker that is down: so this is tried again for a while.
    let plain = cluster(1, 1);
    let trusting = Tls::system().verify(Verify::None);
    let connecting = client(&plain, 1).tls(trusting).connect_timeout(secs(5)).connect();
    let error = within("an error", connecting).await.err().expect("it speaks no TLS");
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.message().contains("may be a listener without TLS"), "{error}");
    assert!(error.advice().contains("leave tls out"), "{error}");
}

/// The set-up has one deadline for all its phases.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_ends_with_the_set_up() {
    let cluster = cluster_with(OfBroker::new());
    cluster.faults().on(Some(1), ottla::testing::ApiKey::METADATA, Fault::Tls(TlsFault::Stall), 1);
    let begun = Instant::now();
    let client = client(&cluster, 1).tls(tls(&cluster)).connect_timeout(secs(60));
    let client = connect(client).await;
    let took = begun.elapsed();
    assert!(took >= secs(10) && took < secs(16), "{took:?}");
    assert_eq!(client.stats().bad_stuff.timeouts, 1);
}

/// What was handed to TLS whole may be in the log: no record is there twice.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_under_tls_costs_no_record_and_doubles_none() {
    let cluster = cluster_with(OfBroker::new());
    let client = connect(client(&cluster, 1).tls(tls(&cluster))).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free().partition(0)).await;
    for fault in [Fault::CutAfterAppend, Fault::CutBeforeAppend] {
        cluster.faults().on(None, ottla::testing::ApiKey::PRODUCE, fault, 1);
        acked(&producer, free().partition(0)).await;
    }
    assert_eq!(stored(&cluster, 0).len(), 3);
}

/// Clients of one process share connections only if they would have opened them alike.
#[tokio::test(start_paused = true)]
async fn clients_that_trust_otherwise_have_connections_of_their_own() {
    let cluster = cluster_with(OfBroker::new());
    let base = client(&cluster, 1);
    let first = connect(base.clone().tls(tls(&cluster))).await;
    let again = connect(base.clone().tls(tls(&cluster))).await;
    assert_eq!(first.stats().connects, again.stats().connects);
    assert_eq!(cluster.stats().broker(1).unwrap().tls_handshakes_begun, 1, "they share it");
    let other = base.clone().tls(tls(&cluster).verify(Verify::Chain));
    let _other = connect(other).await;
    assert_eq!(cluster.stats().broker(1).unwrap().tls_handshakes_begun, 2);
    refused(base, &["speaks TLS"]).await;
}

/// Certificates are renewed while everything runs.
#[tokio::test(start_paused = true)]
async fn brokers_may_change_their_certificates_while_a_client_runs() {
    let cluster = builder(2, OfBroker::new()).start_on_current_runtime().unwrap();
    let client = connect(client(&cluster, 1).tls(tls(&cluster))).await;
    let producer = client.producer().build().unwrap();
    for round in 0..5 {
        cluster.rotate_certificates().unwrap();
        if round % 2 == 1 {
            cluster.faults().on(None, ottla::testing::ApiKey::PRODUCE, Fault::CutBeforeAppend, 1);
        }
        for partition in 0..2 {
            acked(&producer, free().partition(partition)).await;
        }
    }
    assert_eq!(client.stats().records_failed, 0);
}
