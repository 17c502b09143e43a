//! Clients that log in: every mechanism, every refusal, and sessions that end. In virtual time.

use std::fmt::{Debug, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ottla::testing::{ApiKey, Cluster, Fault, LoginFault};
use ottla::{
    BoxFuture, Client, ClientBuilder, Dialer, Endpoint, Error, ErrorKind, Pem, Record, Sasl, Tls,
    Transport,
};
use ottla_scenarios::steps::{acked, batch, cluster, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster::{client, client_with};
use ottla_scenarios::wait::{until, within};
use ottla_scenarios::warnings::{Warnings, listen};
use tokio::time::Instant;

type OfBroker = ottla::testing::Sasl;

const SECRET: &str = "hunter2-Zm9v";

fn of_broker() -> OfBroker {
    OfBroker::new().plain().scram_sha_256().scram_sha_512().user("alice", SECRET)
}

fn secured(brokers: i32, sasl: OfBroker, tls: bool) -> Cluster {
    let builder = Cluster::builder().brokers(brokers).tcp(false).topic("t", 3, 1).topic("u", 1, 1);
    let builder = builder.sasl(sasl);
    let builder = if tls { builder.tls(ottla::testing::Tls::new()) } else { builder };
    builder.start_on_current_runtime().expect("a cluster in memory starts")
}

fn logins(cluster: &Cluster) -> (u64, u64) {
    let stats = cluster.stats();
    let sum =
        |count: fn(&ottla::testing::BrokerStats) -> u64| stats.brokers.iter().map(count).sum();
    (sum(|b| b.logins_begun), sum(|b| b.logins_succeeded))
}

/// The error of a client that is told at once.
async fn refused(client: ClientBuilder) -> Error {
    let begun = Instant::now();
    let error = within("an error", client.connect()).await.err().expect("it is refused");
    assert!(begun.elapsed() < secs(1), "told after {:?}: {error}", begun.elapsed());
    error
}

async fn works(client: &Client) {
    let producer = client.producer().build().unwrap();
    acked(&producer, Record::to("t").partition(1).value("in")).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let got = batch(&mut consumer).await;
    assert_eq!(got.iter().next().unwrap().value(), Some(&b"in"[..]));
}

#[tokio::test(start_paused = true)]
async fn records_go_in_and_out_by_every_mechanism_with_tls_and_without() {
    for tls in [false, true] {
        for sasl in [
            Sasl::plain("alice", SECRET),
            Sasl::scram_sha_256("alice", SECRET),
            Sasl::scram_sha_512("alice", SECRET),
        ] {
            let cluster = secured(1, of_broker(), tls);
            let mut client = client(&cluster, 1).sasl(sasl);
            if let Some(ca) = cluster.ca_pem() {
                client = client.tls(Tls::system().ca(Pem::text(ca)));
            }
            works(&connect(client).await).await;
            let (begun, succeeded) = logins(&cluster);
            assert!(begun > 0 && begun == succeeded, "{begun} logins, {succeeded} of them good");
        }
    }
}

/// What other clients try again until each record has timed out.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_one_login_and_the_brokers_own_words() {
    for sasl in [
        Sasl::plain("alice", "wrong"),
        Sasl::scram_sha_256("alice", "wrong"),
        Sasl::scram_sha_512("nobody", SECRET),
    ] {
        let cluster = secured(1, of_broker(), false);
        let error = refused(client(&cluster, 1).sasl(sasl)).await;
        assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Authentication, Some(58)));
        assert!(error.is_fatal() && !error.is_retriable(), "{error:?}");
        assert!(error.message().contains("Authentication failed"), "{error}");
        assert_eq!(logins(&cluster).0, 1, "one login");
    }
}

/// A program that goes on with it all the same.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_refused_client_fails_at_once_and_brokers_are_asked_seldom() {
    let cluster = secured(3, of_broker(), false);
    let client = client(&cluster, 1).sasl(Sasl::scram_sha_256("alice", "wrong")).build().unwrap();
    let producer = client.producer().build().unwrap();
    let begun = Instant::now();
    let sent = within("space", producer.send(free())).await;
    let error = match sent {
        Err(error) => error,
        Ok(delivery) => within("an error", delivery).await.unwrap_err(),
    };
    assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.message().contains("Authentication failed"), "{error}");
    assert!(logins(&cluster).0 <= 3, "one at each broker: {}", logins(&cluster).0);
    for _ in 0..600 {
        let _ = producer.try_send(free());
        tokio::time::sleep(secs(1)).await;
    }
    // Three brokers, each after 1 s to 60 s: about every 30 s once that has grown.
    let after = logins(&cluster).0;
    assert!((6..=100).contains(&after), "{after} logins in ten minutes");
}

/// Credentials come to brokers one after the other.
#[tokio::test(start_paused = true)]
async fn what_one_broker_refuses_is_not_refused_by_all() {
    for seed in 0..6 {
        let cluster = secured(3, of_broker(), false);
        cluster.faults().on(Some(2), ApiKey::SASL_AUTHENTICATE, Fault::Error(58), 1_000);
        let client = connect(client(&cluster, seed).sasl(Sasl::plain("alice", SECRET))).await;
        let producer = client.producer().build().unwrap();
        for _ in 0..5 {
            acked(&producer, free()).await;
        }
    }
}

/// Who logged in a moment ago is not to fail for good because somebody changes passwords.
#[tokio::test(start_paused = true)]
async fn a_password_that_is_changed_and_changed_back_costs_no_record() {
    let cluster = secured(1, of_broker(), false);
    let client = connect(client(&cluster, 1).sasl(Sasl::scram_sha_512("alice", SECRET))).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    cluster.set_user("alice", "other").unwrap();
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::CutBeforeAppend, 1);
    let delivery = producer.send(free()).await.unwrap();
    until("a refusal", || logins(&cluster).0 > logins(&cluster).1).await;
    // Nobody knows where that one goes.
    let other = producer.send(Record::to("u").value("x")).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    cluster.set_user("alice", SECRET).unwrap();
    within("an ack", delivery).await.expect("it waits");
    within("an ack", other).await.expect("it waits");
    assert_eq!(client.stats().records_failed, 0);
}

/// What counts is when they were of use last, and not when a connection was opened by them.
#[tokio::test(start_paused = true)]
async fn credentials_that_are_in_use_are_trusted_however_long_ago_they_were_taken() {
    let cluster = secured(1, of_broker(), false);
    let client = connect(client(&cluster, 1).sasl(Sasl::scram_sha_512("alice", SECRET))).await;
    let producer = client.producer().build().unwrap();
    for _ in 0..60 {
        acked(&producer, free()).await;
        tokio::time::sleep(secs(60)).await;
    }
    assert_eq!(logins(&cluster), (1, 1), "an hour on one connection");
    cluster.set_user("alice", "other").unwrap();
    cluster.faults().on(None, ApiKey::PRODUCE, Fault::CutBeforeAppend, 1);
    let delivery = producer.send(free()).await.unwrap();
    until("a refusal", || logins(&cluster).0 > logins(&cluster).1).await;
    // Nobody knows where that one goes.
    let other = producer.send(Record::to("u").value("x")).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    cluster.set_user("alice", SECRET).unwrap();
    within("an ack", delivery).await.expect("it waits");
    within("an ack", other).await.expect("it waits");
}

#[tokio::test(start_paused = true)]
async fn the_wrong_listener_and_the_wrong_mechanism_are_said() {
    let of_scram = || OfBroker::new().scram_sha_256().user("alice", SECRET);
    let scram = secured(1, of_scram(), false);
    let error = refused(client(&scram, 1).sasl(Sasl::plain("alice", SECRET))).await;
    assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Authentication, Some(33)));
    let words = "PLAIN is not enabled on this listener; enabled: SCRAM-SHA-256";
    assert!(error.message().contains(words), "{error}");

    let plain = cluster(1, 1);
    let error = refused(client(&plain, 1).sasl(Sasl::plain("alice", SECRET))).await;
    assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Authentication, Some(34)));
    assert!(error.message().contains("this listener has no SASL"), "{error}");
    assert!(error.advice().contains("leave sasl out"), "{error}");

    // A listener with SASL answers ApiVersions to anybody, and cuts what comes then.
    let client = client(&scram, 2).build().unwrap();
    let producer = client.producer().delivery_timeout(secs(20)).build().unwrap();
    let delivery = within("space", producer.send(free())).await.unwrap();
    let error = within("an error", delivery).await.unwrap_err();
    assert!(error.message().contains("it may want SASL"), "{error}");
}

/// Whoever answers may be anybody.
#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_know_the_password_is_not_believed() {
    for (fault, words) in [
        (LoginFault::ScramIterations(4_095), "iterations"),
        (LoginFault::ScramIterations(1_000_000_000), "iterations"),
        (LoginFault::ScramForeignNonce, "nonce"),
        (LoginFault::ScramWrongSignature, "somebody else"),
        (LoginFault::ScramNoSignature, "somebody else"),
    ] {
        let cluster = secured(1, of_broker(), false);
        cluster.faults().on(None, ApiKey::SASL_AUTHENTICATE, Fault::Login(fault), 1);
        let error = refused(client(&cluster, 1).sasl(Sasl::scram_sha_256("alice", SECRET))).await;
        assert_eq!(error.kind(), ErrorKind::Authentication, "{fault:?}: {error}");
        assert!(error.message().contains(words), "{fault:?}: {error}");
    }
}

/// A broker that says nothing, or hangs up, in the middle of a login may do better next time.
#[tokio::test(start_paused = true)]
async fn a_login_without_an_answer_is_tried_again() {
    for fault in [Fault::CutBeforeAppend, Fault::BlackHole] {
        let cluster = secured(1, of_broker(), false);
        cluster.faults().on(None, ApiKey::SASL_AUTHENTICATE, fault, 1);
        let client = client(&cluster, 1).sasl(Sasl::scram_sha_256("alice", SECRET));
        let client = connect(client.connect_timeout(secs(50))).await;
        works(&client).await;
    }
}

/// KIP-368: brokers cut what goes on in a session that has ended.
#[tokio::test(start_paused = true)]
async fn sessions_are_renewed_under_load_without_an_error_or_a_doubt() {
    for sasl in [Sasl::plain("alice", SECRET), Sasl::scram_sha_512("alice", SECRET)] {
        let cluster = secured(2, of_broker().max_reauth(secs(20)), false);
        let client = connect(client(&cluster, 1).sasl(sasl)).await;
        let producer = client.producer().linger(ms(5)).build().unwrap();
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        let begun = Instant::now();
        let (mut sent, mut read) = (0u64, 0u64);
        while begun.elapsed() < secs(300) {
            for partition in 0..3 {
                let value = sent.to_string();
                let record = Record::to("t").partition(partition).value(&value);
                drop(producer.send(record).await.unwrap());
                sent += 1;
            }
            tokio::time::sleep(ms(200)).await;
            while let Ok(batch) = tokio::time::timeout(ms(1), consumer.next()).await {
                read += batch.expect("open").expect("no error").len() as u64;
            }
        }
        producer.flush().await.unwrap();
        while read < sent {
            read += batch(&mut consumer).await.len() as u64;
        }
        assert_eq!(read, sent);
        let stats = cluster.stats();
        let renewed: u64 = stats.brokers.iter().map(|b| b.reauthentications).sum();
        let expired: u64 = stats.brokers.iter().map(|b| b.sessions_expired).sum();
        // Two brokers, two connections each, every 17 s to 19 s.
        assert!((30..=120).contains(&renewed), "{renewed} renewals in five minutes");
        assert_eq!(expired, 0);
        let bad = client.stats().bad_stuff;
        assert_eq!(
            (bad.losses, bad.retries, bad.records_failed, bad.errors),
            (0, 0, 0, 0),
            "{bad}"
        );
    }
}

/// A session that is not renewed is over: a fresh connection takes its place, and nothing is lost with it.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_ends_in_a_fresh_connection() {
    let cluster = secured(1, of_broker().max_reauth(secs(20)), false);
    let client = connect(client(&cluster, 1).sasl(Sasl::plain("alice", SECRET))).await;
    let producer = client.producer().build().unwrap();
    let fault = Fault::Login(LoginFault::RefuseReauthentication);
    cluster.faults().on(None, ApiKey::SASL_AUTHENTICATE, fault, 2);
    let begun = Instant::now();
    while begun.elapsed() < secs(60) {
        acked(&producer, free()).await;
        tokio::time::sleep(ms(300)).await;
    }
    let stats = client.stats();
    assert_eq!((stats.records_failed, stats.bad_stuff.retries), (0, 0), "{}", stats.bad_stuff);
}

/// A request that waits for a login was not sent: it says nothing of how well the broker is.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_login_in_vain_is_no_fault_of_the_broker() {
    let cluster = secured(2, of_broker().max_reauth(secs(30)), false);
    let client = client(&cluster, 1).sasl(Sasl::plain("alice", SECRET)).request_timeout(ms(500));
    let client = connect(client).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    cluster.faults().on(None, ApiKey::SASL_AUTHENTICATE, Fault::DelayResponse(secs(9)), 1_000);
    let begun = Instant::now();
    while begun.elapsed() < secs(100) {
        for partition in 0..3 {
            drop(producer.send(free().partition(partition)).await.unwrap());
        }
        tokio::time::sleep(ms(200)).await;
    }
    producer.flush().await.unwrap();
    let stats = client.stats();
    let ejections: u64 = stats.brokers.values().map(|broker| broker.ejections).sum();
    assert_eq!((ejections, stats.records_failed), (0, 0), "{}", stats.bad_stuff);
    let renewed: u64 = cluster.stats().brokers.iter().map(|b| b.reauthentications).sum();
    assert!(renewed > 2, "there were logins");
}

/// Counts how many streams there are that have not been shut down by this side before they were dropped.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<(usize, usize)>>);

struct Watched {
    inner: Box<dyn Transport>,
    is_shut: bool,
    ends: Ends,
}

impl Transport for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut ends = self.ends.0.lock().unwrap();
        ends.0 += 1;
        ends.1 += usize::from(!self.is_shut);
    }
}

impl tokio::io::AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.is_shut = true;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// With TLS that is what tells the peer that nothing was cut off.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_needs_ends_in_order_in_the_middle_of_a_login() {
    struct Watching(ottla::testing::Dialer, Ends);
    impl Dialer for Watching {
        fn dial<'a>(
            &'a self,
            to: &'a Endpoint,
        ) -> BoxFuture<'a, std::io::Result<Box<dyn Transport>>> {
            let stream = self.0.dial(&to.host, to.port);
            let ends = self.1.clone();
            Box::pin(async move {
                let inner: Box<dyn Transport> = Box::new(stream?);
                Ok(Box::new(Watched { inner, is_shut: false, ends }) as Box<dyn Transport>)
            })
        }
    }
    let cluster = secured(1, of_broker().max_reauth(secs(20)), false);
    let ends = Ends::default();
    let dialer = Arc::new(Watching(cluster.dialer(), ends.clone()));
    let client = client_with(&cluster, 1, |environment| environment.dialer(dialer));
    let client = connect(client.sasl(Sasl::plain("alice", SECRET))).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    let begun = logins(&cluster).0;
    cluster.faults().on(None, ApiKey::SASL_AUTHENTICATE, Fault::DelayResponse(secs(4)), 10);
    until("a login anew", || logins(&cluster).0 > begun).await;
    drop((producer, client));
    tokio::time::sleep(secs(60)).await;
    let (all, cut) = *ends.0.lock().unwrap();
    assert!(all >= 1 && cut == 0, "{cut} of {all} were dropped");
}

/// Everything that is said at all, at every level.
#[derive(Clone, Default)]
pub(crate) struct Everything(pub(crate) Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Fields(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Fields(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = self.0.lock().unwrap();
        event.record(&mut Fields(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A canary: whatever goes wrong, the password is in no error, no log line and nothing that can be printed.
#[tokio::test(start_paused = true)]
async fn a_password_is_shown_nowhere() {
    let everything = Everything::default();
    let _listening = listen(everything.clone());
    let mut shown = String::new();
    let mut show = |what: &dyn Debug| writeln!(shown, "{what:?} {what:#?}").unwrap();
    let key = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n");
    let tls = Tls::system().identity(Pem::text(key.clone()), Pem::text(key));
    show(&tls);
    let cluster = secured(1, of_broker().max_reauth(secs(5)), false);
    let other = secured(1, OfBroker::new().plain().user("alice", "other"), false);
    for sasl in [
        Sasl::plain("alice", SECRET),
        Sasl::scram_sha_256("alice", SECRET),
        Sasl::scram_sha_512("bob", SECRET),
        Sasl::plain("alice", format!("{SECRET}\0")),
        Sasl::scram_sha_256("ü", SECRET),
    ] {
        show(&sasl);
        for cluster in [&cluster, &other] {
            let client = client(cluster, 1).sasl(sasl.clone());
            match client.clone().connect().await {
                Ok(client) => {
                    works(&client).await;
                    tokio::time::sleep(secs(6)).await;
                    works(&client).await;
                    show(&client.stats());
                    show(&client.cluster());
                }
                Err(error) => {
                    show(&error);
                    show(&error.to_string());
                }
            }
            show(&client.tls(tls.clone()).build().err());
        }
    }
    let properties = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.jaas.config", &*format!("PlainLoginModule required password={SECRET};")),
        ("sasl.pasword", SECRET),
        ("ssl.key.password", SECRET),
    ];
    show(&Client::builder().from_properties(properties).build().err());
    for list in [format!("u:{SECRET}@h:1"), format!("sasl://u:{SECRET},x@h:1")] {
        let error = Client::builder().bootstrap(list).build().err().expect("no place for it");
        assert!(error.advice().contains("sasl"), "{error}");
        show(&error.to_string());
    }
    let said = everything.0.lock().unwrap();
    assert!(said.contains("bootstrap") && shown.contains("alice"), "something was said");
    let parts = [SECRET, &SECRET[..8], "aHVudGVyMi"];
    for text in [&*shown, &*said] {
        let found = parts.iter().find_map(|part| text.find(part));
        let around = found.map(|at| &text[at.saturating_sub(200)..(at + 100).min(text.len())]);
        assert_eq!(around, None);
    }
}

/// PLAIN without TLS is the password in the clear.
#[tokio::test(start_paused = true)]
async fn a_password_in_the_clear_is_warned_of() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = secured(1, of_broker(), false);
    let builder = || client(&cluster, 1).bootstrap("broker.example:9092");
    let _scram = builder().sasl(Sasl::scram_sha_256("alice", SECRET)).build().unwrap();
    let _tls = builder().sasl(Sasl::plain("alice", SECRET)).tls(trusting()).build().unwrap();
    let near = builder().bootstrap("localhost:1,127.0.0.1:2,[::1]:3");
    let _near = near.sasl(Sasl::plain("alice", SECRET)).build().unwrap();
    assert!(warnings.with("as it is").is_empty(), "{}", warnings.text());
    let _plain = builder().sasl(Sasl::plain("alice", SECRET)).build().unwrap();
    assert_eq!(warnings.with("as it is").len(), 1, "{}", warnings.text());
}

/// A bootstrap list of this machine may lead to brokers that are not on it.
#[tokio::test(start_paused = true)]
async fn a_password_in_the_clear_is_warned_of_wherever_the_brokers_say_they_are() {
    struct Tunnel(ottla::testing::Dialer);
    impl Dialer for Tunnel {
        fn dial<'a>(
            &'a self,
            to: &'a Endpoint,
        ) -> BoxFuture<'a, std::io::Result<Box<dyn Transport>>> {
            let host = if to.host == "localhost" { "broker-1" } else { &to.host };
            let stream = self.0.dial(host, to.port);
            Box::pin(async move { Ok(Box::new(stream?) as Box<dyn Transport>) })
        }
    }
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = secured(3, of_broker(), false);
    let dialer = Arc::new(Tunnel(cluster.dialer()));
    let client = client_with(&cluster, 1, |environment| environment.dialer(dialer));
    let client = client.bootstrap("localhost:9092").sasl(Sasl::plain("alice", SECRET));
    let client = connect(client).await;
    assert!(warnings.with("as it is").is_empty(), "{}", warnings.text());
    let producer = client.producer().build().unwrap();
    for partition in 0..3 {
        acked(&producer, free().partition(partition)).await;
    }
    assert_eq!(warnings.with("as it is").len(), 1, "{}", warnings.text());
}

fn trusting() -> Tls {
    Tls::system().verify(ottla::Verify::None)
}
