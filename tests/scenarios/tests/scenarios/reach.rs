//! What a client says of a cluster that it cannot reach: whatever waits tells what stands in its way,
//! once while it lasts. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Consumer, Error, ErrorKind, NewTopic, OffsetSpec, Record, Start};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{acked, acks, cluster, connect, free, pinned, secs, seen, stored};
use ottla_scenarios::wait::{until, within};
use ottla_scenarios::warnings::{Warnings, listen};
use tokio::time::{Duration, Instant};

/// What `connect` gives a client by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Dials to a broker that is needed, in so many seconds: full jitter with ceilings of 0.1, 0.2, ...
/// 5 s, and a margin of five standard deviations.
fn most_dials(seconds: u64) -> usize {
    let steady = seconds as f64 / 2.5;
    (8.0 + steady + 5.0 * 0.58 * steady.sqrt()).ceil() as usize
}

/// One broker behind the name "front", which gives its own name, as brokers do.
fn behind_a_front() -> (Cluster, Network, String) {
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    let (host, port) = cluster.address(1).unwrap();
    network.alias("front", (host.clone(), port));
    (cluster, network, host)
}

async fn connect_to_front(network: &Network, cluster: &Cluster) -> Client {
    connect(network.client(cluster, 1).bootstrap("front:9092")).await
}

fn consumer(client: &Client) -> Consumer {
    client.consumer().topics(["t"]).build().unwrap()
}

/// The error that the consumer gives, and after how long.
async fn told(consumer: &mut Consumer) -> (Error, Duration) {
    let begun = Instant::now();
    let error = within("an error", consumer.next()).await.unwrap().unwrap_err();
    (error, begun.elapsed())
}

/// Nothing comes for so long.
async fn silent(consumer: &mut Consumer, time: Duration) {
    if let Ok(item) = tokio::time::timeout(time, consumer.next()).await {
        panic!("{item:?} within {time:?}");
    }
}

fn says(error: &Error, words: &[&str]) {
    for word in words {
        assert!(error.message().contains(word), "no '{word}' in: {}", error.message());
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_tells_of_an_advertised_address_that_refuses_once_a_spell() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let (cluster, network, host) = behind_a_front();
    network.refuse(&host);
    let client = connect_to_front(&network, &cluster).await;
    let mut consumer = consumer(&client);
    let (error, after) = told(&mut consumer).await;
    assert!(after < CONNECT_TIMEOUT, "told after {after:?}");
    assert!(error.is_retriable() && !error.is_fatal(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Connect);
    let (_, port) = cluster.address(1).unwrap();
    says(&error, &[&format!("broker 1 at {host}:{port}"), "refused", "advertise", "bootstrap"]);
    assert!(error.advice().contains("advertised.listeners"), "{}", error.advice());

    let begun = Instant::now();
    silent(&mut consumer, secs(120)).await;
    let dials = network.dials(&host).iter().filter(|d| d.at >= begun).count();
    assert!(dials <= most_dials(120), "{dials} dials in two minutes");
    assert!(dials >= 20, "{dials}: it is looked for all the time");
    let said = warnings.with(&host);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("ottla::net: "), "{said:?}");

    // It comes back: the spell is over, and the next one is logged again.
    network.release(&host);
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    assert_eq!(within("a batch", consumer.next()).await.unwrap().unwrap().len(), 1);
    network.refuse(&host);
    cluster.cut_connections(1).unwrap();
    // It was good before: that is an outage, which a consumer waits out.
    silent(&mut consumer, secs(120)).await;
    assert_eq!(warnings.with(&host).len(), 2, "{}", warnings.text());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_tells_of_an_advertised_address_that_swallows_dials() {
    let (cluster, network, host) = behind_a_front();
    network.hang(&host);
    let client = connect_to_front(&network, &cluster).await;
    let mut consumer = consumer(&client);
    let (error, after) = told(&mut consumer).await;
    assert!(after < CONNECT_TIMEOUT, "told after {after:?}");
    assert!(error.is_retriable(), "{error:?}");
    says(&error, &[&host, "no connection", "advertise"]);
    silent(&mut consumer, secs(120)).await;
    network.release(&host);
    acked(&client.producer().build().unwrap(), free()).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
}

/// What a listener with SASL does to who comes without: it tells its versions, and hangs up on
/// whatever is asked then.
fn hang_up_after_versions(cluster: &Cluster) {
    for api in [ApiKey::METADATA, ApiKey::FETCH, ApiKey::PRODUCE, ApiKey::LIST_OFFSETS] {
        cluster.faults().inject(FaultRule::new(Fault::CutBeforeAppend).api(api).always());
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_before_a_sasl_listener_tells_so_and_dials_ever_slower() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster(1, 1);
    hang_up_after_versions(&cluster);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let mut consumer = consumer(&client);
    let (error, after) = told(&mut consumer).await;
    assert!(after < CONNECT_TIMEOUT, "told after {after:?}");
    assert!(error.is_retriable(), "{error:?}");
    says(&error, &["hung up after ApiVersions", "SASL"]);
    let begun = Instant::now();
    silent(&mut consumer, secs(120)).await;
    let dials = network.all_dials().iter().filter(|d| d.at >= begun).count();
    assert!(dials <= most_dials(120), "{dials} dials in two minutes");
    let said = warnings.with("SASL");
    assert_eq!(said.len(), 1, "{said:?}");
    cluster.faults().clear();
    acked(&client.producer().build().unwrap(), free()).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
}

/// The broker that leads the partition is of this kind, and not the one that metadata comes from.
#[tokio::test(start_paused = true)]
async fn so_does_one_whose_leader_hangs_up() {
    let cluster = cluster(2, 1);
    for api in [ApiKey::FETCH, ApiKey::PRODUCE, ApiKey::LIST_OFFSETS] {
        cluster.faults().inject(FaultRule::new(Fault::CutBeforeAppend).api(api).always());
    }
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let mut consumer = consumer(&client);
    let (error, after) = told(&mut consumer).await;
    assert!(after < CONNECT_TIMEOUT, "told after {after:?}");
    says(&error, &["hung up"]);
    let begun = Instant::now();
    silent(&mut consumer, secs(120)).await;
    let dials = network.all_dials().iter().filter(|d| d.at >= begun).count();
    assert!(dials <= 2 * most_dials(120), "{dials} dials in two minutes");
}

/// What a consumer is told and has logged of requests that nobody answers, of a broker that answers all
/// others.
#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_everything_but_fetch_is_told_of_once_a_spell() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let unanswered = || {
        let rule = FaultRule::new(Fault::BlackHole).api(ApiKey::FETCH).always();
        cluster.faults().inject(rule)
    };
    let rule = unanswered();
    let mut consumer = consumer(&client);
    let (error, after) = told(&mut consumer).await;
    // It has never answered a fetch: nobody waits for it to come back.
    assert!(after > secs(10) && after < secs(12), "told after {after:?}");
    assert!(error.is_retriable() && !error.is_fatal(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let (host, port) = cluster.address(1).unwrap();
    let address = format!("broker 1 at {host}:{port}");
    says(&error, &[&address, "Fetch", "no answer", "topic 't' partition 0"]);
    let fetches = seen(&cluster, 1, ApiKey::FETCH);
    silent(&mut consumer, secs(120)).await;
    assert!(seen(&cluster, 1, ApiKey::FETCH) > fetches, "it is asked again and again");
    let said = warnings.with("no answer");
    assert_eq!(said.len(), 1, "{}", warnings.text());
    assert!(said[0].starts_with("ottla::consumer: ") && said[0].contains(&address), "{said:?}");

    // A response is the end of the spell. What went well before is waited out, until it is seen that the
    // broker is there and responses everything else.
    cluster.faults().remove(rule);
    acked(&producer, free()).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
    unanswered();
    silent(&mut consumer, secs(30)).await;
    assert_eq!(warnings.with("no answer").len(), 2, "{}", warnings.text());
    let (error, after) = told(&mut consumer).await;
    assert!(after < secs(15), "told after 30 s and {after:?}");
    says(&error, &[&address, "Fetch", "no answer"]);
    silent(&mut consumer, secs(120)).await;
    assert_eq!(warnings.with("no answer").len(), 2, "{}", warnings.text());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_still_for_a_while_is_for_the_log() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster(1, 1);
    let client = connect(Network::new(&cluster).client(&cluster, 1)).await;
    let mut consumer = consumer(&client);
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
    let rule = FaultRule::new(Fault::Delay(secs(25))).api(ApiKey::FETCH);
    let rule = cluster.faults().inject(rule);
    until("a fetch is held", || !cluster.faults().is_pending(rule)).await;
    acked(&producer, free()).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(warnings.with("no answer").len(), 1, "{}", warnings.text());
    // A broker that holds fetches back as it was asked to is well.
    silent(&mut consumer, secs(120)).await;
    assert_eq!(warnings.with("no answer").len(), 1, "{}", warnings.text());
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_does_not_answer_where_to_start_and_one_that_hangs_up_on_fetches() {
    for (fault, api, name, within_secs) in [
        (Fault::BlackHole, ApiKey::LIST_OFFSETS, "ListOffsets", 32),
        (Fault::CutBeforeAppend, ApiKey::LIST_OFFSETS, "ListOffsets", 20),
        (Fault::CutBeforeAppend, ApiKey::FETCH, "Fetch", 20),
    ] {
        let cluster = cluster(1, 1);
        let client = connect(Network::new(&cluster).client(&cluster, 1)).await;
        // Answers metadata all the time, so that it is known to be there.
        let admin = client.admin();
        let rule = cluster.faults().inject(FaultRule::new(fault).api(api).always());
        let mut consumer = consumer(&client);
        let looking = tokio::spawn(async move {
            loop {
                let _ = admin.partitions("t").await;
                tokio::time::sleep(secs(1)).await;
            }
        });
        let (error, after) = told(&mut consumer).await;
        assert!(after < secs(within_secs), "{fault:?} {name}: told after {after:?}");
        assert!(error.is_retriable() && !error.is_fatal(), "{error:?}");
        says(&error, &["broker 1 at", name]);
        silent(&mut consumer, secs(120)).await;
        cluster.faults().remove(rule);
        acked(&client.producer().build().unwrap(), free()).await;
        within("a batch", consumer.next()).await.unwrap().unwrap();
        looking.abort();
    }
}

/// That it answers fetches of other partitions meanwhile does not end it.
#[tokio::test(start_paused = true)]
async fn so_is_one_that_answers_fetches_and_hangs_up_on_who_asks_where_to_start() {
    let cluster = cluster(1, 2);
    let client = connect(Network::new(&cluster).client(&cluster, 1)).await;
    let hangs_up = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::LIST_OFFSETS);
    cluster.faults().inject(hangs_up.always());
    let assigned = [("t", 0, Start::Offset(0)), ("t", 1, Start::Latest)];
    let mut consumer = client.consumer().assign(assigned).build().unwrap();
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    within("a batch", consumer.next()).await.unwrap().unwrap();
    let (error, after) = told(&mut consumer).await;
    assert!(after < secs(20), "told after {after:?}");
    says(&error, &["broker 1 at", "ListOffsets"]);
    silent(&mut consumer, secs(120)).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_waits_in_vain_says_what_was_in_its_way() {
    let (cluster, network, host) = behind_a_front();
    network.refuse(&host);
    let client = connect_to_front(&network, &cluster).await;
    let producer = client.producer().delivery_timeout(secs(8)).build().unwrap();
    let pinned = producer.send(Record::to("t").partition(0).value("x")).await.unwrap();
    let spread = producer.send(free()).await.unwrap();
    for delivery in [pinned, spread] {
        let error = within("the end", delivery).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        says(&error, &[&host, "refused", "advertise"]);
    }
    let left = producer.send(free()).await.unwrap();
    let error = producer.close(secs(6)).await.unwrap_err();
    says(&error, &[&host, "refused"]);
    drop(left);

    let admin = client.admin();
    let offsets = admin.list_offsets([("t", 0, OffsetSpec::Latest)]);
    let (_, offset) = within("offsets", offsets).await.unwrap().pop().unwrap();
    says(&offset.unwrap_err(), &[&host, "refused", "advertise"]);
    // The front is still there to be asked.
    within("a topic", admin.create_topic(NewTopic::new("u", 1, 1))).await.unwrap();
    assert_eq!(within("partitions", admin.partitions("u")).await.unwrap(), 1);
    network.refuse("front");
    cluster.cut_connections(1).unwrap();
    until("the cut is seen", || client.stats().connections_open == 0).await;
    let error = within("a topic", admin.create_topic(NewTopic::new("v", 1, 1))).await.unwrap_err();
    says(&error, &["front:9092", &host, "refused"]);
    let error = within("partitions", admin.partitions("v")).await.unwrap_err();
    says(&error, &["front:9092", &host, "refused"]);
}

#[tokio::test(start_paused = true)]
async fn connect_warns_after_a_second_and_lists_what_was_tried_in_the_end() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster(1, 1);
    let network = Network::new(&cluster);
    network.refuse("refuses");
    network.hang("swallows");
    let list = "refuses:1,nosuchhost:2,swallows:3";
    let connecting = network.client(&cluster, 1).bootstrap(list).connect();
    let connecting = tokio::spawn(connecting);
    tokio::time::sleep(secs(2)).await;
    let said = warnings.with("no broker reached yet");
    assert_eq!(said.len(), 1, "{}", warnings.text());
    for words in
        ["ottla::cluster: ", "refuses:1", "refused", "nosuchhost:2", "no broker at", "swallows:3"]
    {
        assert!(said[0].contains(words), "no '{words}' in {said:?}");
    }
    let error = within("connect", connecting).await.unwrap().err().unwrap();
    says(
        &error,
        &["within 10s", "refuses:1: ", "refused", "nosuchhost:2: no broker at", "swallows:3: "],
    );
    assert_eq!(warnings.with("no broker reached yet").len(), 1, "{}", warnings.text());
    assert!(error.is_retriable());
}

/// A flow that something in between has forgotten. The first record behind a long silence finds that out
/// before it is trusted to it.
#[tokio::test(start_paused = true)]
async fn a_record_after_a_long_silence_does_not_wait_for_a_dead_flow() {
    for brokers in [1, 3] {
        let cluster = cluster(brokers, brokers);
        let network = Network::new(&cluster);
        network.forget_quiet(secs(100));
        let client = connect(network.client(&cluster, 1)).await;
        let producer = client.producer().build().unwrap();
        for n in 1..=3 {
            acked(&producer, pinned(0)).await;
            acked(&producer, free()).await;
            // Less than what closes an idle connection.
            tokio::time::sleep(secs(300)).await;
            let begun = Instant::now();
            let (pinned, free) = (producer.send(pinned(0)), producer.send(free()));
            let deliveries = vec![pinned.await.unwrap(), free.await.unwrap()];
            acks(deliveries).await;
            assert!(begun.elapsed() < secs(2), "{brokers} brokers: {:?}", begun.elapsed());
            let stored: usize = (0..brokers).map(|p| stored(&cluster, p).len()).sum();
            assert_eq!(stored, 4 * n, "each once");
        }
        let admin = client.admin();
        tokio::time::sleep(secs(300)).await;
        let begun = Instant::now();
        let offsets = admin.list_offsets([("t", 0, OffsetSpec::Earliest)]);
        within("offsets", offsets).await.unwrap().pop().unwrap().1.unwrap();
        assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_was_quiet_for_long_is_asked_for_a_sign_of_life() {
    let cluster = cluster(3, 6);
    let network = Network::new(&cluster);
    let client = connect(network.client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for _ in 0..120 {
        acked(&producer, free()).await;
        tokio::time::sleep(secs(10)).await;
    }
    let (asked, dials) =
        (cluster.stats().requests_of(ApiKey::API_VERSIONS), network.all_dials().len());
    assert_eq!(asked, dials as u64, "none but those of the set-ups");
    tokio::time::sleep(secs(200)).await;
    assert_eq!(cluster.stats().requests_of(ApiKey::API_VERSIONS), asked, "not for its own sake");
    acked(&producer, free()).await;
    let more = cluster.stats().requests_of(ApiKey::API_VERSIONS) - asked;
    assert!((1..=3).contains(&more), "{more} signs of life");
    assert_eq!(network.all_dials().len(), dials, "the connections were good");
}

/// Answers as brokers do that are not the controller, or not any more.
fn no_controller(cluster: &Cluster, broker: i32) {
    let rule = FaultRule::new(Fault::Error(41)).api(ApiKey::CREATE_TOPICS).broker(broker);
    cluster.faults().inject(rule.always());
}

#[tokio::test(start_paused = true)]
async fn the_controller_is_asked_when_another_broker_says_it_is_not() {
    for seed in 0..5 {
        let cluster = cluster(3, 1);
        // The controller is broker 1.
        no_controller(&cluster, 2);
        no_controller(&cluster, 3);
        let network = Network::new(&cluster);
        let client = connect(network.client(&cluster, seed)).await;
        let admin = client.admin();
        for topic in ["u", "v"] {
            within("a topic", admin.create_topic(NewTopic::new(topic, 1, 1))).await.unwrap();
        }
        let again = within("a topic", admin.create_topic(NewTopic::new("u", 1, 1))).await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::TopicExists);

        no_controller(&cluster, 1);
        let before = cluster.stats().requests_of(ApiKey::CREATE_TOPICS);
        let paid = || client.stats().retry_budget.fetch.level.unwrap_or(f64::INFINITY);
        let had = paid();
        let error = within("a topic", admin.create_topic(NewTopic::new("w", 1, 1))).await;
        let error = error.unwrap_err();
        assert_eq!((error.broker_code(), error.is_retriable()), (Some(41), true), "{error:?}");
        assert!(paid() < had - 0.5, "{} after {had}: each time but the first is a retry", paid());
        let asked = cluster.stats().requests_of(ApiKey::CREATE_TOPICS) - before;
        assert!((3..=6).contains(&asked), "{asked} requests");
    }
}

/// What was made by then would be said to exist.
#[tokio::test(start_paused = true)]
async fn only_what_another_broker_is_to_make_is_asked_for_again() {
    let cluster = cluster(3, 1);
    let client = connect(Network::new(&cluster).client(&cluster, 1)).await;
    let elsewhere = FaultRule::new(Fault::Error(41)).api(ApiKey::CREATE_TOPICS).topic("v");
    cluster.faults().inject(elsewhere);
    let topics = ["u", "v", "w"].map(|name| NewTopic::new(name, 1, 1));
    let made = within("topics", client.admin().create_topics(topics.into())).await.unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    assert_eq!((made.len(), cluster.faults().fired()), (3, 1));
}

/// Nor does what is alone, and has nobody beside it for whose sake the connection is asked.
#[tokio::test(start_paused = true)]
async fn one_record_after_a_long_silence_does_not_wait_either() {
    for record in [pinned(0), free()] {
        let cluster = cluster(1, 1);
        let network = Network::new(&cluster);
        network.forget_quiet(secs(100));
        let client = connect(network.client(&cluster, 1)).await;
        let producer = client.producer().build().unwrap();
        for _ in 0..3 {
            acked(&producer, record).await;
            tokio::time::sleep(secs(300)).await;
            let begun = Instant::now();
            acked(&producer, record).await;
            assert!(begun.elapsed() < secs(2), "{:?}", begun.elapsed());
        }
    }
}
