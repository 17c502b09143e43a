//! Clients that log in by a token: where it comes from, how it is kept fresh, and what is told when there is none. In
//! virtual time.

use std::fmt::{Debug, Write};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ottla::testing::{BearerLogin, BearerToken, Cluster, TokenEndpoint, TokenReply};
use ottla::{
    BoxFuture, Client, ClientBuilder, ClientCredentials, Dialer, Endpoint, Error, ErrorKind, OAuth,
    Pem, Record, Sasl, Token, Transport,
};
use ottla_scenarios::steps::{acked, batch, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster::client_with;
use ottla_scenarios::wait::within;
use ottla_scenarios::warnings::{Warnings, listen};
use tokio::time::Instant;

use crate::login::Everything;

type OfBroker = ottla::testing::Sasl;

const SECRET: &str = "hunter2-Zm9v";

/// The brokers of a cluster, and a token endpoint at the host `idp`.
struct Network(ottla::testing::Dialer, TokenEndpoint);

impl Dialer for Network {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let stream = match to.host.as_str() {
                "idp" => self.1.connect()?,
                host => self.0.dial(host, to.port)?,
            };
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}

fn cluster_of(sasl: OfBroker) -> Cluster {
    let builder = Cluster::builder().brokers(2).tcp(false).topic("t", 3, 1).sasl(sasl);
    builder.start_on_current_runtime().expect("a cluster in memory starts")
}

/// A cluster that takes the tokens of an endpoint.
fn set_up() -> (Cluster, TokenEndpoint) {
    let endpoint = TokenEndpoint::new().client("me", SECRET);
    (cluster_of(OfBroker::new().tokens(endpoint.judge())), endpoint)
}

fn client(cluster: &Cluster, endpoint: &TokenEndpoint, seed: u64) -> ClientBuilder {
    let network = Arc::new(Network(cluster.dialer(), endpoint.clone()));
    client_with(cluster, seed, |environment| environment.dialer(network))
}

fn credentials(secret: &str) -> ClientCredentials {
    ClientCredentials::new("http://idp/oauth2/token?tenant=x", "me", secret).scope("kafka")
}

fn logins(cluster: &Cluster) -> u64 {
    cluster.stats().brokers.iter().map(|b| b.logins_begun).sum()
}

async fn works(client: &Client) {
    let producer = client.producer().build().unwrap();
    acked(&producer, Record::to("t").partition(1).value("in")).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let got = batch(&mut consumer).await;
    assert_eq!(got.iter().next().unwrap().value(), Some(&b"in"[..]));
}

/// The error of a client that is told at once.
async fn refused(client: ClientBuilder) -> Error {
    let begun = Instant::now();
    let error = within("an error", client.connect()).await.err().expect("it is refused");
    assert!(begun.elapsed() < secs(1), "told after {:?}: {error}", begun.elapsed());
    error
}

#[tokio::test(start_paused = true)]
async fn records_go_in_and_out_with_tokens_from_everywhere() {
    let (cluster, endpoint) = set_up();
    let bearer = |principal: &str| BearerLogin { principal: principal.into(), lifetime: None };
    cluster.add_token("a.b.c", bearer("alice")).unwrap();
    let path = std::env::temp_dir().join(format!("ottla-oauth-{}", std::process::id()));
    std::fs::write(&path, "a.b.c\n").unwrap();
    let encoded = credentials(SECRET).encoded_header();
    for (seed, source) in [
        OAuth::from(credentials(SECRET)),
        OAuth::from(credentials(SECRET).secret_in_body()),
        OAuth::from(encoded.param("audience", "kafka")),
        OAuth::from(Token::new("a.b.c").expires_in(secs(3_600))),
        OAuth::file(&path),
        OAuth::provider(|| async { Ok(Token::new("a.b.c")) }),
    ]
    .into_iter()
    .enumerate()
    {
        let client = client(&cluster, &endpoint, seed as u64).sasl(Sasl::oauth(source));
        works(&connect(client).await).await;
    }
    std::fs::remove_file(&path).unwrap();
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 3, "one for each client");
    assert!(requests[0].head.starts_with("POST /oauth2/token?tenant=x HTTP/1.1\r\nHost: idp\r\n"));
    assert!(requests[0].body.contains("scope=kafka"), "{}", requests[0].body);
    assert!(requests[2].body.contains("audience=kafka"), "{}", requests[2].body);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_by_tls_is_believed_if_its_ca_is() {
    let endpoint = TokenEndpoint::new().client("me", SECRET).tls("idp").unwrap();
    let cluster = cluster_of(OfBroker::new().tokens(endpoint.judge()));
    let credentials = || ClientCredentials::new("https://idp/t", "me", SECRET);
    let good = credentials().ca(Pem::text(endpoint.ca_pem().unwrap()));
    works(&connect(client(&cluster, &endpoint, 1).sasl(Sasl::oauth(good))).await).await;

    let other = TokenEndpoint::new().tls("idp").unwrap().ca_pem().unwrap();
    let bad = credentials().ca(Pem::text(other));
    let error = refused(client(&cluster, &endpoint, 2).sasl(Sasl::oauth(bad))).await;
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
    assert!(
        error.message().contains("token endpoint https://idp/t: the server's certificate"),
        "{error}"
    );
}

/// It is renewed while a client runs, as those of brokers are.
#[tokio::test(start_paused = true)]
async fn the_ca_of_an_endpoint_that_is_renewed_is_taken_and_told_of() {
    let everything = Everything::default();
    let _listening = listen(everything.clone());
    let said = |words: &str| {
        let said = everything.0.lock().unwrap();
        said.lines().any(|line| line.contains(words) && line.contains("the token endpoint"))
    };
    let endpoint = TokenEndpoint::new().client("me", SECRET).tls("idp").unwrap();
    endpoint.set_life(secs(60));
    let cluster = cluster_of(OfBroker::new().tokens(endpoint.judge()));
    let path = std::env::temp_dir().join(format!("ottla-ca-{}.pem", std::process::id()));
    let ca = endpoint.ca_pem().unwrap();
    std::fs::write(&path, &ca).unwrap();
    let credentials = ClientCredentials::new("https://idp/t", "me", SECRET).ca(path.as_path());
    let sasl = Sasl::oauth(credentials);
    let client = connect(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    std::fs::write(&path, "half of it").unwrap();
    tokio::time::sleep(secs(120)).await;
    assert!(said("certificates have changed and are of no use"));
    let other = TokenEndpoint::new().tls("idp").unwrap().ca_pem().unwrap();
    std::fs::write(&path, format!("{ca}{other}")).unwrap();
    tokio::time::sleep(secs(120)).await;
    std::fs::remove_file(&path).unwrap();
    assert!(said("certificates have changed; new connections use the new ones"));
    works(&client).await;
}

/// Brokers end a session with its token: each is replaced in time, by one request for all connections.
#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_under_load_without_an_error_or_a_doubt() {
    let (cluster, endpoint) = set_up();
    endpoint.set_life(secs(60));
    endpoint.then(TokenReply::After(ms(200)));
    let sasl = Sasl::oauth(credentials(SECRET));
    let client = connect(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    let producer = client.producer().linger(ms(5)).build().unwrap();
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    endpoint.always(TokenReply::After(ms(700)));
    let begun = Instant::now();
    let (mut sent, mut read) = (0u64, 0u64);
    while begun.elapsed() < secs(600) {
        for partition in 0..3 {
            drop(producer.send(free().partition(partition)).await.unwrap());
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
    let stats = cluster.stats();
    let renewed: u64 = stats.brokers.iter().map(|b| b.reauthentications).sum();
    let expired: u64 = stats.brokers.iter().map(|b| b.sessions_expired).sum();
    assert!((30..=120).contains(&renewed), "{renewed} renewals in ten minutes");
    assert_eq!(expired, 0);
    let asked = endpoint.asked();
    assert!((10..=24).contains(&asked), "{asked} tokens in ten minutes");
    let bad = client.stats().bad_stuff;
    assert_eq!((bad.losses, bad.retries, bad.records_failed, bad.errors), (0, 0, 0, 0), "{bad}");
}

/// A provider that takes its time holds up no record: a session has some left when its renewal begins.
#[tokio::test(start_paused = true)]
async fn requests_go_on_while_a_token_is_asked_for() {
    for seed in 0..6 {
        let endpoint = TokenEndpoint::new().client("me", SECRET);
        endpoint.set_life(secs(100));
        endpoint.always(TokenReply::After(secs(1)));
        let cluster = cluster_of(OfBroker::new().tokens(endpoint.judge()).max_reauth(secs(40)));
        let sasl = Sasl::oauth(credentials(SECRET));
        let client = connect(client(&cluster, &endpoint, seed).sasl(sasl)).await;
        let producer = client.producer().build().unwrap();
        acked(&producer, free()).await;
        let begun = Instant::now();
        while begun.elapsed() < secs(300) {
            let sent = Instant::now();
            acked(&producer, free()).await;
            assert!(sent.elapsed() < ms(700), "seed {seed}: {:?}", sent.elapsed());
            tokio::time::sleep(ms(50)).await;
        }
        let renewed: u64 = cluster.stats().brokers.iter().map(|b| b.reauthentications).sum();
        assert!(renewed >= 7, "seed {seed}: {renewed}");
    }
}

/// While the provider is down the token that there is goes on, and no broker is blamed.
#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_costs_nothing_while_the_token_is_good() {
    let (cluster, endpoint) = set_up();
    let sasl = Sasl::oauth(credentials(SECRET));
    let client = connect(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    let producer = client.producer().build().unwrap();
    endpoint.always(TokenReply::Status(503, String::new()));
    let begun = Instant::now();
    while begun.elapsed() < secs(3_300) {
        acked(&producer, free()).await;
        tokio::time::sleep(secs(10)).await;
    }
    let asked = endpoint.asked();
    endpoint.always(None);
    while begun.elapsed() < secs(7_200) {
        acked(&producer, free()).await;
        tokio::time::sleep(secs(10)).await;
    }
    assert!((3..=200).contains(&asked), "{asked} requests to who is down");
    assert_eq!(client.stats().records_failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_one_request_and_the_endpoints_own_words() {
    let (cluster, endpoint) = set_up();
    let sasl = Sasl::oauth(credentials("wrong"));
    let error = refused(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
    assert!(!error.is_retriable(), "{error:?}");
    let words =
        "token endpoint http://idp/oauth2/token: it answers 401: invalid_client (who is that?)";
    assert!(error.message().contains(words), "{error}");
    assert_eq!((endpoint.asked(), logins(&cluster)), (1, 0));
}

/// It may start later than its clients do.
#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_there_yet_is_waited_for() {
    for reply in [
        TokenReply::Refuse,
        TokenReply::HangUp,
        TokenReply::Silence,
        TokenReply::Status(503, String::new()),
        TokenReply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{".to_vec()),
    ] {
        let (cluster, endpoint) = set_up();
        endpoint.always(reply.clone());
        let builder = client(&cluster, &endpoint, 1).sasl(Sasl::oauth(credentials(SECRET)));
        let early = builder.clone().connect_timeout(secs(20)).connect();
        let error = early.await.err().expect("there is no token");
        assert!(error.message().contains("token endpoint http://idp/"), "{reply:?}: {error}");
        assert_eq!(logins(&cluster), 0, "{reply:?}: no broker was asked");
        assert!(endpoint.asked() <= 12, "{reply:?}: {}", endpoint.asked());

        let connecting = tokio::spawn(builder.connect_timeout(secs(120)).connect());
        tokio::time::sleep(secs(15)).await;
        endpoint.always(None);
        works(&within("a client", connecting).await.unwrap().unwrap()).await;
    }
}

/// A redirect would take the secret elsewhere.
#[tokio::test(start_paused = true)]
async fn what_is_no_token_is_said() {
    for (reply, words) in [
        (
            TokenReply::Raw(b"HTTP/1.1 302 x\r\nLocation: http://evil/\r\n\r\n".to_vec()),
            "a redirect (302), which is not followed",
        ),
        (TokenReply::Status(400, "{\"error\":\"invalid_scope\"}".into()), "400: invalid_scope"),
    ] {
        let (cluster, endpoint) = set_up();
        endpoint.always(reply);
        let sasl = Sasl::oauth(credentials(SECRET));
        let error = refused(client(&cluster, &endpoint, 1).sasl(sasl)).await;
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert_eq!(endpoint.asked(), 1);
    }
}

/// What is between this client and its endpoint may have had a moment of its own; a wrong URL has the same answers.
#[tokio::test(start_paused = true)]
async fn a_strange_answer_is_tried_again_and_told() {
    for (reply, words) in [
        (TokenReply::Status(200, "<html>".into()), "not JSON"),
        (TokenReply::Status(404, "nothing".into()), "it answers 404"),
    ] {
        let (cluster, endpoint) = set_up();
        endpoint.then(reply.clone());
        let sasl = Sasl::oauth(credentials(SECRET));
        works(&connect(client(&cluster, &endpoint, 1).sasl(sasl.clone())).await).await;
        assert_eq!(endpoint.asked(), 2);

        let (cluster, endpoint) = set_up();
        endpoint.always(reply);
        let client = client(&cluster, &endpoint, 2).sasl(sasl);
        let error = within("an error", client.connect()).await.err().expect("there is none");
        assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!((2..=6).contains(&endpoint.asked()), "{}", endpoint.asked());
    }
}

/// The broker says so in JSON, with the code of success.
#[tokio::test(start_paused = true)]
async fn a_token_that_brokers_refuse_is_one_login_and_their_words() {
    let (cluster, endpoint) = set_up();
    let sasl = Sasl::oauth(Token::new("of.somebody.else"));
    let error = refused(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    assert_eq!((error.kind(), error.broker_code()), (ErrorKind::Authentication, Some(58)));
    assert!(error.is_fatal() && !error.is_retriable(), "{error:?}");
    assert!(error.message().contains("the token is refused: invalid_token"), "{error}");
    assert!(logins(&cluster) <= 2, "one at each address: {}", logins(&cluster));

    let plain = cluster_of(OfBroker::new().plain().user("a", "b"));
    let sasl = Sasl::oauth(Token::new("a"));
    let error = refused(client(&plain, &endpoint, 2).sasl(sasl)).await;
    assert!(error.message().contains("OAUTHBEARER is not enabled"), "{error}");
}

/// Tokens that were good a while ago are taken for good, and others are asked for.
#[tokio::test(start_paused = true)]
async fn tokens_that_are_revoked_cost_no_record() {
    let (cluster, endpoint) = set_up();
    let sasl = Sasl::oauth(credentials(SECRET));
    let client = connect(client(&cluster, &endpoint, 1).sasl(sasl)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    tokio::time::sleep(secs(300)).await;
    endpoint.revoke();
    for broker in 1..=2 {
        cluster.cut_connections(broker).unwrap();
    }
    for _ in 0..5 {
        acked(&producer, free()).await;
    }
    assert_eq!(endpoint.asked(), 2);
    assert_eq!(client.stats().records_failed, 0);
}

#[tokio::test(start_paused = true)]
async fn brokers_have_the_extensions() {
    let judge = |token: &BearerToken<'_>| {
        let of: Vec<_> = token.extensions.iter().map(|(n, v)| format!("{n}={v}")).collect();
        (of == ["pool=p", "logicalCluster=lkc-1"])
            .then(|| BearerLogin { principal: "alice".into(), lifetime: None })
    };
    let cluster = cluster_of(OfBroker::new().tokens(judge));
    let source = OAuth::provider(|| async { Ok(Token::new("t").extension("pool", "p")) });
    let sasl = Sasl::oauth(source.extension("logicalCluster", "lkc-1"));
    let client = client(&cluster, &TokenEndpoint::new(), 1);
    works(&connect(client.clone().sasl(sasl)).await).await;
    let error = client.sasl(Sasl::oauth(OAuth::from(Token::new("t")).extension("a1", SECRET)));
    let error = error.build().err().expect("no such name");
    assert!(!error.to_string().contains(SECRET), "{error}");
}

/// A canary: whatever goes wrong, secrets and tokens are in no error, no log line and nothing that can be printed.
#[tokio::test(start_paused = true)]
async fn secrets_and_tokens_are_shown_nowhere() {
    let everything = Everything::default();
    let _listening = listen(everything.clone());
    let mut shown = String::new();
    let mut show = |what: &dyn Debug| writeln!(shown, "{what:?} {what:#?}").unwrap();
    let token = format!("{SECRET}.tok");
    for reply in [
        None,
        Some(TokenReply::Status(
            401,
            format!("{{\"error\":\"x\",\"error_description\":\"{SECRET}\"}}"),
        )),
        Some(TokenReply::Status(200, format!("{{\"access_token\":\"{SECRET} \"}}"))),
        Some(TokenReply::Status(200, format!("{{\"access_token\":\"{token}\"}}"))),
        Some(TokenReply::Raw(format!("HTTP/1.1 {SECRET}\r\n\r\n").into_bytes())),
    ] {
        let (cluster, endpoint) = set_up();
        endpoint.always(reply);
        for sasl in [
            Sasl::oauth(credentials(SECRET).param("p", SECRET)),
            Sasl::oauth(credentials(SECRET).secret_in_body()),
            Sasl::oauth(ClientCredentials::new(format!("http://u:{SECRET}@idp/"), "me", SECRET)),
            Sasl::oauth(ClientCredentials::new(format!("http://idp/?k={SECRET}"), "me", SECRET)),
            Sasl::oauth(Token::new(token.clone()).extension("e", SECRET)),
            Sasl::oauth(Token::new(format!("{SECRET} "))),
        ] {
            show(&sasl);
            match client(&cluster, &endpoint, 1).sasl(sasl).connect_timeout(secs(5)).connect().await
            {
                Ok(client) => {
                    works(&client).await;
                    show(&client.stats());
                    show(&client.cluster());
                }
                Err(error) => {
                    show(&error);
                    show(&error.to_string());
                }
            }
        }
    }
    let said = everything.0.lock().unwrap();
    assert!(said.contains("bootstrap") && shown.contains("client_id"), "something was said");
    for text in [&*shown, &*said] {
        let found = [SECRET, &SECRET[..8], "aHVudGVyMi"].iter().find_map(|part| text.find(part));
        let around = found.map(|at| &text[at.saturating_sub(200)..(at + 100).min(text.len())]);
        assert_eq!(around, None);
    }
}

/// A client's secret in the clear.
#[tokio::test(start_paused = true)]
async fn an_endpoint_without_tls_is_warned_of() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let (cluster, endpoint) = set_up();
    let near = ClientCredentials::new("http://127.0.0.1:1/", "me", SECRET);
    let _near = client(&cluster, &endpoint, 1).sasl(Sasl::oauth(near)).build().unwrap();
    assert!(warnings.with("use https").is_empty(), "{}", warnings.text());
    let far = client(&cluster, &endpoint, 2).sasl(Sasl::oauth(credentials(SECRET)));
    let _far = far.build().unwrap();
    assert_eq!(warnings.with("use https").len(), 1, "{}", warnings.text());
}

/// Whoever waits for a provider keeps no broker from being dialled for longer than a part of the set-up.
#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_ends_with_the_set_up() {
    let (cluster, endpoint) = set_up();
    endpoint.then(TokenReply::Silence);
    let begun = Instant::now();
    let sasl = Sasl::oauth(credentials(SECRET));
    let client = client(&cluster, &endpoint, 1).sasl(sasl).connect_timeout(secs(60));
    works(&connect(client).await).await;
    let took = begun.elapsed();
    assert!((secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
}
