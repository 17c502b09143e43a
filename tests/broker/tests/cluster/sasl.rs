//! Logins: what Kafka's `SaslServerAuthenticator` answers, step by step.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{
    ApiKey, BearerLogin, Cluster, Fault, FaultRule, LoginFault, Sasl, Tls, error_code,
};
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::time::{Instant, sleep};

use crate::client::{Client, TOPIC, batch, start};
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);

fn sasl() -> Sasl {
    Sasl::new()
        .plain()
        .scram_sha_256()
        .scram_sha_512()
        .user("alice", "secret")
        .user("b,o=b", "pässword")
        .token("good-token", "carol", None)
}

fn cluster(sasl: Sasl) -> Cluster {
    start(|builder| builder.sasl(sasl).topic(TOPIC, 1, 1))
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    version: i16,
    mechanism: &str,
) -> io::Result<SaslHandshakeResponse> {
    let mechanism = StrBytes::from_string(mechanism.to_owned());
    client.ask(version, &SaslHandshakeRequest::default().with_mechanism(mechanism)).await
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    token: &[u8],
) -> io::Result<SaslAuthenticateResponse> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(token.to_vec().into());
    client.ask(2, &request).await
}

fn plain(user: &str, password: &str) -> Vec<u8> {
    format!("\0{user}\0{password}").into_bytes()
}

fn bearer(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

/// Handshake and one token.
async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    mechanism: &str,
    token: &[u8],
) -> io::Result<SaslAuthenticateResponse> {
    assert_eq!(handshake(client, 1, mechanism).await?.error_code, 0);
    authenticate(client, token).await
}

async fn is_served<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> bool {
    client.ask(12, &MetadataRequest::default()).await.is_ok()
}

/// A SCRAM client that looks at everything it is told.
struct Scram<'a> {
    mechanism: &'a str,
    user: &'a str,
    password: &'a str,
}

impl Scram<'_> {
    async fn log_in(
        &self,
        client: &mut Client,
    ) -> io::Result<Result<SaslAuthenticateResponse, SaslAuthenticateResponse>> {
        let long = self.mechanism == "SCRAM-SHA-512";
        let hash = if long { &digest::SHA512 } else { &digest::SHA256 };
        let algorithm = if long { hmac::HMAC_SHA512 } else { hmac::HMAC_SHA256 };
        let rounds = if long { pbkdf2::PBKDF2_HMAC_SHA512 } else { pbkdf2::PBKDF2_HMAC_SHA256 };
        let sign = |key: &[u8], text: &[u8]| {
            hmac::sign(&hmac::Key::new(algorithm, key), text).as_ref().to_vec()
        };

        assert_eq!(handshake(client, 1, self.mechanism).await?.error_code, 0);
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r=clientnonce");
        let first = authenticate(client, format!("n,,{bare}").as_bytes()).await?;
        if first.error_code != 0 {
            return Ok(Err(first));
        }
        assert_eq!(first.session_lifetime_ms, 0, "not logged in yet");
        let server_first = String::from_utf8(first.auth_bytes.to_vec()).expect("text");
        let parts: Vec<&str> = server_first.split(',').collect();
        let nonce = parts[0].strip_prefix("r=").expect("a nonce");
        assert!(nonce.len() > "clientnonce".len() && nonce.starts_with("clientnonce"), "{nonce}");
        let salt = STANDARD.decode(parts[1].strip_prefix("s=").expect("a salt")).expect("base64");
        let count: u32 = parts[2].strip_prefix("i=").expect("rounds").parse().expect("a number");
        let mut salted = vec![0; hash.output_len()];
        let count = count.try_into().expect("rounds");
        pbkdf2::derive(rounds, count, &salt, self.password.as_bytes(), &mut salted);

        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{bare},{server_first},{without_proof}");
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(hash, &client_key);
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let last = format!("{without_proof},p={}", STANDARD.encode(proof));
        let answer = authenticate(client, last.as_bytes()).await?;
        if answer.error_code != 0 {
            return Ok(Err(answer));
        }
        let proof = sign(&sign(&salted, b"Server Key"), signed.as_bytes());
        assert_eq!(answer.auth_bytes, format!("v={}", STANDARD.encode(proof)));
        Ok(Ok(answer))
    }
}

fn logins(cluster: &Cluster) -> (u64, u64, u64) {
    let stats = cluster.stats();
    let broker = stats.broker(1).expect("a broker");
    (broker.logins_begun, broker.logins_succeeded, broker.logins_refused)
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_lets_in_who_knows_the_secret() {
    let cluster = cluster(sasl());
    let mut client = Client::new(&cluster, 1);
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("an answer");
    assert_eq!((told.error_code, told.session_lifetime_ms), (0, 0));
    assert!(told.auth_bytes.is_empty());
    assert_eq!(client.produce(0, -1, &batch(1)).await.expect("an answer").error_code, 0);

    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for (user, password) in [("alice", "secret"), ("b,o=b", "pässword")] {
            let mut client = Client::new(&cluster, 1);
            let scram = Scram { mechanism, user, password };
            scram.log_in(&mut client).await.expect("an answer").expect("a login");
            assert!(is_served(&mut client).await, "{mechanism} {user}");
        }
    }
    let mut client = Client::new(&cluster, 1);
    let told = log_in(&mut client, "OAUTHBEARER", &bearer("good-token")).await.expect("an answer");
    assert_eq!((told.error_code, told.session_lifetime_ms), (0, 0));
    assert!(is_served(&mut client).await);
    assert_eq!(logins(&cluster), (6, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_is_refused_in_kafkas_words_and_cut() {
    let cluster = cluster(sasl());
    let generic = |mechanism: &str| {
        format!(
            "Authentication failed during authentication due to invalid credentials with SASL \
             mechanism {mechanism}"
        )
    };
    for (mechanism, token, words) in [
        ("PLAIN", plain("alice", "wrong"), "Authentication failed: Invalid username or password"),
        ("PLAIN", plain("nobody", "secret"), "Authentication failed: Invalid username or password"),
        ("PLAIN", b"nonsense".to_vec(), generic("PLAIN").as_str()),
        ("SCRAM-SHA-256", b"n,,n=nobody,r=abc".to_vec(), generic("SCRAM-SHA-256").as_str()),
        ("SCRAM-SHA-512", b"nonsense".to_vec(), generic("SCRAM-SHA-512").as_str()),
        ("OAUTHBEARER", b"nonsense".to_vec(), generic("OAUTHBEARER").as_str()),
    ] {
        let mut client = Client::new(&cluster, 1);
        let begun = Instant::now();
        let told = log_in(&mut client, mechanism, &token).await.expect("an answer");
        assert_eq!(told.error_code, error_code::SASL_AUTHENTICATION_FAILED, "{mechanism}");
        assert_eq!(told.error_message.as_deref(), Some(words), "{mechanism}");
        // connection.failed.authentication.delay.ms
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        client.closed().await;
    }
    let wrong = Scram { mechanism: "SCRAM-SHA-256", user: "alice", password: "wrong" };
    let mut client = Client::new(&cluster, 1);
    let told = wrong.log_in(&mut client).await.expect("an answer").expect_err("a refusal");
    assert_eq!(told.error_message.as_deref(), Some(generic("SCRAM-SHA-256").as_str()));
    client.closed().await;
    assert_eq!(logins(&cluster), (7, 0, 7));
}

/// Seen on Kafka 4.3: the refusal is no error at first.
#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_refused_in_two_steps() {
    let cluster = cluster(sasl());
    let mut client = Client::new(&cluster, 1);
    let told = log_in(&mut client, "OAUTHBEARER", &bearer("bad-token")).await.expect("an answer");
    assert_eq!((told.error_code, told.session_lifetime_ms), (0, 0));
    assert_eq!(told.auth_bytes, &b"{\"status\":\"invalid_token\"}"[..]);
    let told = authenticate(&mut client, b"\x01").await.expect("an answer");
    assert_eq!(told.error_code, error_code::SASL_AUTHENTICATION_FAILED);
    assert_eq!(told.error_message.as_deref(), Some("{\"status\":\"invalid_token\"}"));
    client.closed().await;
    assert_eq!(logins(&cluster), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_mechanism_is_told_what_there_is() {
    let cluster = cluster(Sasl::new().plain().scram_sha_256());
    for mechanism in ["SCRAM-SHA-512", "GSSAPI", "plain", ""] {
        let mut client = Client::new(&cluster, 1);
        let told = handshake(&mut client, 1, mechanism).await.expect("an answer");
        assert_eq!(told.error_code, error_code::UNSUPPORTED_SASL_MECHANISM);
        let names: Vec<&str> = told.mechanisms.iter().map(StrBytes::as_str).collect();
        assert_eq!(names, ["PLAIN", "SCRAM-SHA-256"]);
        client.closed().await;
    }
    assert_eq!(logins(&cluster), (4, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn before_a_login_there_are_versions_and_nothing_else() {
    let cluster = cluster(sasl());
    let versions = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    // Cut without an answer, as the first request and after ApiVersions.
    for asked in [false, true] {
        let mut client = Client::new(&cluster, 1);
        if asked {
            let told = client.ask(3, &versions).await.expect("an answer");
            assert_eq!(told.error_code, 0);
            let has = |api: ApiKey| told.api_keys.iter().any(|one| one.api_key == api.0);
            assert!(has(ApiKey::SASL_HANDSHAKE) && has(ApiKey::SASL_AUTHENTICATE));
        }
        client.send(12, &MetadataRequest::default()).await.expect("sent");
        client.closed().await;
    }
    // A second ApiVersions is one too many, unless the first was in a version that nobody knows.
    let mut client = Client::new(&cluster, 1);
    client.ask(3, &versions).await.expect("an answer");
    client.send(3, &versions).await.expect("sent");
    client.closed().await;
    let mut client = Client::new(&cluster, 1);
    client.send_raw(18, 99, 2, &[]).await.expect("sent");
    client.receive().await.expect("an answer");
    client.ask(3, &versions).await.expect("an answer");
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("an answer");
    assert_eq!(told.error_code, 0);
    // Afterwards as often as anybody likes.
    client.ask(3, &versions).await.expect("an answer");
    client.ask(3, &versions).await.expect("an answer");
    assert_eq!(logins(&cluster), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn within_a_login_another_request_is_answered_and_cut() {
    let cluster = cluster(sasl());
    let mut client = Client::new(&cluster, 1);
    handshake(&mut client, 1, "PLAIN").await.expect("an answer");
    let told = handshake(&mut client, 1, "PLAIN").await.expect("an answer");
    assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
    client.closed().await;

    let mut client = Client::new(&cluster, 1);
    handshake(&mut client, 1, "PLAIN").await.expect("an answer");
    let told = client.produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
    client.closed().await;
    assert_eq!(cluster.stats().brokers[0].produce_records, 0);
    assert_eq!(logins(&cluster), (2, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_logs_in_and_after_a_login_it_is_the_wrong_time() {
    let open = start(|builder| builder);
    let closed = cluster(sasl());
    let mut anybody = Client::new(&open, 1);
    let mut alice = Client::new(&closed, 1);
    log_in(&mut alice, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    for client in [&mut anybody, &mut alice] {
        let told = handshake(client, 1, "PLAIN").await.expect("an answer");
        assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
        assert!(told.mechanisms.is_empty());
        let told = authenticate(client, b"token").await.expect("an answer");
        assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
        assert!(is_served(client).await, "nobody is cut for it");
    }
}

/// Clients from before Kafka 1.0: tokens come without a request around them.
#[tokio::test(start_paused = true)]
async fn bare_tokens_are_taken_after_an_old_handshake() {
    let cluster = cluster(sasl());
    let mut client = Client::new(&cluster, 1);
    assert_eq!(handshake(&mut client, 0, "PLAIN").await.expect("an answer").error_code, 0);
    client.send_frame(&plain("alice", "secret")).await.expect("sent");
    assert!(client.receive().await.expect("an empty token").is_empty());
    assert!(is_served(&mut client).await);

    let mut client = Client::new(&cluster, 1);
    handshake(&mut client, 0, "PLAIN").await.expect("an answer");
    client.send_frame(&plain("alice", "wrong")).await.expect("sent");
    client.closed().await;
    assert_eq!(logins(&cluster), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_is_cut_at_its_next_request() {
    let cluster = cluster(sasl().max_reauth(10 * SECOND));
    let mut client = Client::new(&cluster, 1);
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    assert_eq!(told.session_lifetime_ms, 10_000);
    sleep(10 * SECOND - Duration::from_millis(1)).await;
    assert!(is_served(&mut client).await);
    client.silent_for(5 * SECOND).await;
    client.send(12, &MetadataRequest::default()).await.expect("sent");
    client.closed().await;
    assert_eq!(cluster.stats().brokers[0].sessions_expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_is_renewed_also_when_it_is_late() {
    let cluster = cluster(sasl().max_reauth(10 * SECOND));
    let mut client = Client::new(&cluster, 1);
    log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    for pause in [5 * SECOND, 20 * SECOND] {
        sleep(pause).await;
        let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
        assert_eq!((told.error_code, told.session_lifetime_ms), (0, 10_000));
        sleep(9 * SECOND).await;
        assert!(is_served(&mut client).await);
    }
    let stats = cluster.stats();
    assert_eq!(logins(&cluster), (3, 3, 0));
    assert_eq!(stats.brokers[0].reauthentications, 2);
    assert_eq!(stats.connections_accepted(), 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_are_no_closer_than_a_second() {
    let cluster = cluster(sasl().max_reauth(10 * SECOND));
    let mut client = Client::new(&cluster, 1);
    // The first login is none.
    for _ in 0..2 {
        let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
        assert_eq!(told.error_code, 0);
    }
    let told = handshake(&mut client, 1, "PLAIN").await.expect("an answer");
    assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
    assert!(is_served(&mut client).await, "nobody is cut for it");
    sleep(SECOND).await;
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    assert_eq!(told.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_changes_neither_mechanism_nor_principal_and_has_nothing_between() {
    let cluster = cluster(sasl().user("dave", "secret").max_reauth(10 * SECOND));
    let alice = async || {
        let mut client = Client::new(&cluster, 1);
        log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
        client
    };
    // Another mechanism is taken, and the next request is not.
    let mut client = alice().await;
    let told = handshake(&mut client, 1, "SCRAM-SHA-256").await.expect("an answer");
    assert_eq!(told.error_code, 0);
    let token = SaslAuthenticateRequest::default().with_auth_bytes(b"n,,n=alice,r=a"[..].into());
    client.send(2, &token).await.expect("sent");
    client.closed().await;

    let mut client = alice().await;
    let told = log_in(&mut client, "PLAIN", &plain("dave", "secret")).await.expect("an answer");
    assert_eq!(told.error_code, error_code::SASL_AUTHENTICATION_FAILED);
    let words = "Cannot change principals during re-authentication from User.alice: User.dave";
    assert_eq!(told.error_message.as_deref(), Some(words));
    client.closed().await;

    let mut client = alice().await;
    let told = log_in(&mut client, "PLAIN", b"nonsense").await.expect("an answer");
    let words = "Authentication failed during re-authentication due to invalid credentials with SASL \
                 mechanism PLAIN";
    assert_eq!(told.error_message.as_deref(), Some(words));
    client.closed().await;

    let mut client = alice().await;
    handshake(&mut client, 1, "PLAIN").await.expect("an answer");
    let told = client.produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!(told.error_code, error_code::ILLEGAL_SASL_STATE);
    client.closed().await;
    assert_eq!(logins(&cluster), (8, 4, 4));
}

/// Seen on Kafka 3.9 and 4.3: whatever `connections.max.reauth.ms` is.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_ends_the_session() {
    for (max, lifetime_ms) in [(None, 60_000), (Some(10), 10_000), (Some(600), 60_000)] {
        let sasl = Sasl::new().token("short", "carol", Some(60 * SECOND));
        let sasl = match max {
            Some(max) => sasl.max_reauth(max * SECOND),
            None => sasl,
        };
        let cluster = cluster(sasl);
        let mut client = Client::new(&cluster, 1);
        let told = log_in(&mut client, "OAUTHBEARER", &bearer("short")).await.expect("a login");
        assert_eq!(told.session_lifetime_ms, lifetime_ms, "{max:?}");
        sleep(61 * SECOND).await;
        let told = log_in(&mut client, "OAUTHBEARER", &bearer("short")).await.expect("an answer");
        assert_eq!(told.auth_bytes, &b"{\"status\":\"invalid_token\"}"[..], "its time is over");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_judged_by_whom_the_test_says() {
    let cluster = cluster(Sasl::new().token("listed", "carol", None).tokens(|shown| {
        let tenant = shown.extensions.iter().find(|(name, _)| name == "tenant");
        let (_, tenant) = tenant?;
        let principal = shown.token.strip_prefix("of-")?;
        let principal = format!("{principal}@{tenant}");
        Some(BearerLogin { principal, lifetime: Some(5 * SECOND) })
    }));
    for (token, right) in [
        ("listed\x01x=y", true),
        ("of-dave\x01tenant=t", true),
        ("of-dave", false),
        ("by-dave\x01tenant=t", false),
    ] {
        let mut client = Client::new(&cluster, 1);
        let told = log_in(&mut client, "OAUTHBEARER", &bearer(token)).await.expect("an answer");
        assert_eq!(told.auth_bytes.is_empty(), right, "{token:?}");
        if right && token != "listed\x01x=y" {
            assert_eq!(told.session_lifetime_ms, 5000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn users_and_tokens_come_and_go() {
    let cluster = cluster(sasl());
    let code = async |mechanism: &str, token: &[u8]| {
        let mut client = Client::new(&cluster, 1);
        let told = log_in(&mut client, mechanism, token).await.expect("an answer");
        told.error_code == 0 && told.auth_bytes.is_empty()
    };
    assert!(code("PLAIN", &plain("alice", "secret")).await);
    cluster.set_user("alice", "other").expect("SASL");
    assert!(!code("PLAIN", &plain("alice", "secret")).await);
    assert!(code("PLAIN", &plain("alice", "other")).await);
    let scram = Scram { mechanism: "SCRAM-SHA-512", user: "alice", password: "other" };
    scram.log_in(&mut Client::new(&cluster, 1)).await.expect("an answer").expect("a login");
    assert!(cluster.remove_user("alice").expect("SASL"));
    assert!(!cluster.remove_user("alice").expect("SASL"));
    assert!(!code("PLAIN", &plain("alice", "other")).await);

    assert!(!code("OAUTHBEARER", &bearer("new")).await);
    let login = BearerLogin { principal: "erin".into(), lifetime: Some(SECOND) };
    cluster.add_token("new", login).expect("SASL");
    assert!(code("OAUTHBEARER", &bearer("new")).await);
    sleep(SECOND).await;
    assert!(!code("OAUTHBEARER", &bearer("new")).await);
    assert!(cluster.remove_token("good-token").expect("SASL"));
    assert!(!code("OAUTHBEARER", &bearer("good-token")).await);
}

#[tokio::test(start_paused = true)]
async fn logins_go_wrong_as_the_script_says() {
    let cluster = cluster(sasl().max_reauth(10 * SECOND));
    let faults = cluster.faults();
    let scram = Scram { mechanism: "SCRAM-SHA-256", user: "alice", password: "secret" };
    let server_first = async || {
        let mut client = Client::new(&cluster, 1);
        let told = log_in(&mut client, "SCRAM-SHA-256", b"n,,n=alice,r=clientnonce").await;
        String::from_utf8(told.expect("an answer").auth_bytes.to_vec()).expect("text")
    };
    faults.inject(FaultRule::new(Fault::Login(LoginFault::ScramIterations(70_000))));
    assert!(server_first().await.ends_with(",i=70000"));
    faults.inject(FaultRule::new(Fault::Login(LoginFault::ScramForeignNonce)));
    assert!(!server_first().await.starts_with("r=clientnonce"));
    assert!(server_first().await.starts_with("r=clientnonce"), "once");

    // A login that is no renewal does not count.
    faults.inject(FaultRule::new(Fault::Login(LoginFault::RefuseReauthentication)));
    let mut client = Client::new(&cluster, 1);
    scram.log_in(&mut client).await.expect("an answer").expect("a login");
    let told = scram.log_in(&mut client).await.expect("an answer").expect_err("a refusal");
    assert_eq!(told.error_code, error_code::SASL_AUTHENTICATION_FAILED);
    client.closed().await;

    // What other requests suffer, these do.
    faults.on(1, ApiKey::SASL_AUTHENTICATE, Fault::CutAfterAppend, 1);
    let mut client = Client::new(&cluster, 1);
    log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect_err("a cut");
    faults.on(1, ApiKey::SASL_HANDSHAKE, Fault::BlackHole, 1);
    let mut client = Client::new(&cluster, 1);
    let told = handshake(&mut client, 1, "PLAIN").await.expect_err("silence");
    assert_eq!(told.kind(), io::ErrorKind::TimedOut);
    faults.on(1, ApiKey::SASL_AUTHENTICATE, Fault::Error(58), 1);
    let mut client = Client::new(&cluster, 1);
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("an answer");
    assert_eq!(told.error_code, 58);
    client.closed().await;
}

/// Whatever comes instead of a token, or in the middle of a handshake: its own connection ends, and no other.
#[tokio::test(start_paused = true)]
async fn nonsense_harms_only_its_connection() {
    let cluster = cluster(sasl());
    let words: [&[u8]; 9] = [
        b"",
        &[0; 1000],
        &[0xff; 1000],
        b"n,,n=alice,r=",
        b"n,,n=alice,r=a,",
        b"n,a==,n=alice,r=a",
        b"n,,\x01auth=\x01\x01",
        b"n,,\x01\x01\x01\x01\x01",
        b"c=biws,r=a,p=",
    ];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] {
        for words in words {
            let mut wrapped = Client::new(&cluster, 1);
            let told = log_in(&mut wrapped, mechanism, words).await.expect("an answer");
            assert_eq!(told.error_code, 58, "{mechanism} {words:?}");
            wrapped.closed().await;
            let mut raw = Client::new(&cluster, 1);
            handshake(&mut raw, 0, mechanism).await.expect("an answer");
            raw.send_frame(words).await.expect("sent");
            raw.closed().await;
        }
        let mut long = Client::new(&cluster, 1);
        handshake(&mut long, 1, mechanism).await.expect("an answer");
        // A token that claims to be longer than its request.
        long.send_raw(36, 1, 1, &[0x7f, 0xff, 0xff, 0xff, 1]).await.expect("sent");
        long.closed().await;
    }
    let mut client = Client::new(&cluster, 1);
    log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    assert_eq!(cluster.stats().connections_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_spoken_within_tls() {
    let cluster = start(|builder| builder.sasl(sasl()).tls(Tls::new()));
    let config = tls::config(&cluster.ca_pem().expect("TLS"), None);
    let stream: DuplexStream = cluster.connect_in_memory(1).expect("a connection");
    let stream = tls::connect(&config, "broker-1", stream).await.expect("a handshake");
    let mut client = Client::over(stream);
    let told = log_in(&mut client, "PLAIN", &plain("alice", "secret")).await.expect("a login");
    assert_eq!(told.error_code, 0);
    assert!(is_served(&mut client).await);
}

#[tokio::test(start_paused = true)]
async fn a_broker_may_be_too_old_for_wrapped_tokens() {
    let cluster = start(|builder| {
        builder
            .sasl(sasl())
            .max_version(ApiKey::SASL_HANDSHAKE, 0)
            .max_version(ApiKey::SASL_AUTHENTICATE, -1)
    });
    let mut client = Client::new(&cluster, 1);
    handshake(&mut client, 1, "PLAIN").await.expect_err("a cut");
    let mut client = Client::new(&cluster, 1);
    handshake(&mut client, 0, "PLAIN").await.expect("an answer");
    client.send_frame(&plain("alice", "secret")).await.expect("sent");
    assert!(client.receive().await.expect("an empty token").is_empty());
}
