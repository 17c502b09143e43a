//! The experiments. Each starts clients of its own, so that none meets what another has learned.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;
use ottla::{Environment, NewTopic, Record};
use ottla_relay::What;
use ottla_relay::load::quantile;
use tokio::runtime::Handle;

use crate::fleet::{Fleet, Library};
use crate::lab::{Lab, over_1s, p99};

/// The broker whose path breaks.
const VICTIM: u32 = 1;

/// How long a broker cannot be reached.
const OUTAGE: Duration = Duration::from_secs(30);

/// How long a broker asks for silence.
const SILENCE: Duration = Duration::from_secs(5);

/// After all connections were reset.
const AFTERMATH: Duration = Duration::from_secs(2);

/// What a response may take from the relay's socket into the client.
const GRACE: Duration = Duration::from_millis(20);

/// Topics that get one record each.
const TOPICS: usize = 1_000;

/// Responses that get lost, and between two of them.
const LOSSES: usize = 20;
const BETWEEN_LOSSES: Duration = Duration::from_millis(250);

/// How long the clients of one process are looked at.
const PROCESS: Duration = Duration::from_secs(10);

/// Connections close when their last handle is dropped; this is for a busy machine.
const CLOSING: Duration = Duration::from_secs(30);

pub(crate) async fn steady(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("steady").await?;
    let (from, to) = run.steady;
    let clients = run.fleet.len();
    let log = lab.relay().log();
    let start = log.between(run.born, to);
    lab.found.put("start_connects", start.connects() as f64 / clients);
    lab.found.put("start_metadata", start.requests(ApiKey::Metadata) as f64 / clients);
    lab.found.put("start_peak", start.peak_connects(Duration::from_millis(100)) as f64);
    let open = log.open_at_most_by_client(from, to);
    let open: Vec<_> = open.into_iter().filter(|(c, _)| c.starts_with("steady-")).collect();
    lab.found.put("steady_open", open.iter().map(|(_, n)| *n as f64).sum::<f64>() / clients);
    lab.found.put("steady_open_most", open.iter().map(|(_, n)| *n as f64).fold(0.0, f64::max));
    let steady = run.steady;
    let outcomes = lab.end(run).await;
    lab.found.put("steady_ack_p99", p99(&outcomes, steady));
    Ok(())
}

pub(crate) async fn reset(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("reset").await?;
    let from = Instant::now();
    lab.found.put("reset_dropped", lab.relay().reset_all() as f64);
    tokio::time::sleep(AFTERMATH).await;
    let to = Instant::now();
    // What comes back late counts too.
    tokio::time::sleep(AFTERMATH).await;
    let log = lab.log(from, Instant::now());
    lab.found.put("reset_connects", log.connects() as f64);
    lab.found.put("reset_peak", log.peak_connects(Duration::from_millis(10)) as f64);
    let outcomes = lab.end(run).await;
    lab.found.put("reset_ack_p99", p99(&outcomes, (from, to)));
    Ok(())
}

pub(crate) async fn unreachable(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("unreachable").await?;
    let attempts = run.fleet.count_attempts(lab.relay().address(VICTIM).port());
    let from = Instant::now();
    lab.relay().refuse(VICTIM);
    tokio::time::sleep(OUTAGE).await;
    let to = Instant::now();
    let clients = run.fleet.len();
    lab.found.put("unreachable_attempts", attempts() as f64 / clients);
    let metadata = lab.log(from, to).requests(ApiKey::Metadata);
    lab.found.put("unreachable_metadata", metadata as f64 / clients);
    lab.relay().heal(VICTIM);
    let steady = run.steady;
    let outcomes = lab.end(run).await;
    let before = p99(&outcomes, steady);
    lab.found.put("unreachable_steady_ack_p99", before);
    lab.found.put("unreachable_before", lab.share_of(VICTIM, &outcomes, steady)?);
    lab.found.put_beside("unreachable_ack_p99", p99(&outcomes, (from, to)), before);
    let (over, all) = over_1s(&outcomes, (from, to));
    lab.found.put("unreachable_over_1s", 100.0 * over as f64 / all as f64);
    Ok(())
}

pub(crate) async fn hole(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("hole").await?;
    let from = Instant::now();
    lab.relay().black_hole(VICTIM);
    tokio::time::sleep(OUTAGE).await;
    let to = Instant::now();
    let clients = run.fleet.len();
    let log = lab.log(from, to);
    let into = log.at_broker(VICTIM);
    lab.found.put("hole_requests", into.requests(ApiKey::Produce) as f64 / clients);
    lab.found.put("hole_connects", into.connects() as f64 / clients);
    lab.found.put("hole_metadata", log.requests(ApiKey::Metadata) as f64 / clients);
    lab.relay().heal(VICTIM);
    let steady = run.steady;
    let outcomes = lab.end(run).await;
    lab.found.put("hole_before", lab.share_of(VICTIM, &outcomes, steady)?);
    lab.found.put("hole_ack_p99", p99(&outcomes, (from, to)));
    let (over, all) = over_1s(&outcomes, (from, to));
    lab.found.put("hole_over_1s", 100.0 * over as f64 / all as f64);
    Ok(())
}

pub(crate) async fn throttled(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("throttled").await?;
    let from = Instant::now();
    lab.relay().throttle(VICTIM, SILENCE);
    tokio::time::sleep(SILENCE).await;
    let to = Instant::now();
    let (requests, clients) = lab.log(from, to).sent_while_throttled(GRACE);
    lab.found.put("throttled_requests", requests as f64);
    lab.found.put("throttled_clients", clients as f64);
    let steady = run.steady;
    let outcomes = lab.end(run).await;
    let before = p99(&outcomes, steady);
    lab.found.put("throttled_steady_ack_p99", before);
    lab.found.put("throttled_before", lab.share_of(VICTIM, &outcomes, steady)?);
    lab.found.put_beside("throttled_ack_p99", p99(&outcomes, (from, to)), before);
    lab.found.put("throttled_over_1s", over_1s(&outcomes, (from, to)).0 as f64);
    Ok(())
}

pub(crate) async fn topics(lab: &mut Lab) -> Result<(), String> {
    let words = |e: ottla::Error| format!("making topics: {e}");
    let name = |i: usize| format!("many-{}-{i}", lab.library.name());
    let around = ottla::Client::connect(lab.around()).await.map_err(words)?;
    let all = (0..TOPICS).map(|i| NewTopic::new(name(i), 1, 3)).collect();
    for result in around.admin().create_topics(all).await.map_err(words)? {
        result.map_err(words)?;
    }
    // They are new to the client alone. Brokers hear of them one after the other, and begin to copy
    // them later still: what is measured begins when each has acknowledged a record of somebody else.
    let names: Vec<_> = (0..TOPICS).map(name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    lab.cluster.cluster.wait_in_sync(&names).map_err(|e| e.to_string())?;
    let producer = around.producer().build().map_err(words)?;
    let round = async || {
        let from = Instant::now();
        let mut sent = Vec::with_capacity(TOPICS);
        for name in &names {
            sent.push(producer.send(Record::to(name).value("around")).await.map_err(words)?);
        }
        let mut latencies = Vec::with_capacity(TOPICS);
        for delivery in sent {
            delivery.await.map_err(words)?;
            latencies.push(from.elapsed());
        }
        Ok::<_, String>(quantile(latencies, 0.99).as_secs_f64())
    };
    round().await?;
    // What the brokers need for a record in each from who knows them all, which depends on the machine.
    let known = round().await?;
    lab.found.put("topics_known_ack_p99", known);
    drop((producer, around));
    let bootstrap = lab.relay().bootstrap();
    let fleet = Fleet::start(lab.library, &bootstrap, "topics-", 1).await?;
    let from = Instant::now();
    let sent: Vec<_> = (0..TOPICS)
        .map(|i| {
            let fate = fleet.clients[0].send(&name(i), "one");
            tokio::spawn(async move { fate.await.map(|_| from.elapsed()) })
        })
        .collect();
    let mut latencies = Vec::with_capacity(TOPICS);
    for fate in sent {
        latencies.push(fate.await.map_err(|e| e.to_string())??);
    }
    let log = lab.log(from, Instant::now());
    lab.found.put("topics_produce", log.requests(ApiKey::Produce) as f64);
    lab.found.put("topics_metadata", log.requests(ApiKey::Metadata) as f64);
    let last = log.last_request(ApiKey::Produce).map_or(Duration::ZERO, |at| at - from);
    lab.found.put("topics_sent", last.as_secs_f64());
    let p99 = quantile(latencies, 0.99).as_secs_f64();
    lab.found.put_beside("topics_ack_p99", p99, known);
    let _ = tokio::task::spawn_blocking(move || drop(fleet)).await;
    Ok(())
}

/// Ottla alone: what shares connections is the process, and that needs no other library to show.
pub(crate) async fn process(lab: &mut Lab) -> Result<(), String> {
    if lab.library != Library::Ottla {
        return Ok(());
    }
    let words = |e: ottla::Error| format!("clients of one process: {e}");
    let environment = Environment::builder().runtime(Handle::current()).build();
    let client = || {
        ottla::Client::builder()
            .bootstrap(lab.relay().bootstrap())
            .client_id("process")
            .environment(environment.clone())
            .connect()
    };
    let from = Instant::now();
    let mut producing = Vec::new();
    for _ in 0..8 {
        let producer = client().await.map_err(words)?.producer().build().map_err(words)?;
        let topic = lab.topic();
        producing.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while from.elapsed() < PROCESS {
                ticks.tick().await;
                let sent = producer.send(Record::to(&topic).value("process")).await?;
                sent.await?;
            }
            Ok::<_, ottla::Error>(())
        }));
    }
    let mut consumer =
        client().await.map_err(words)?.consumer().topics([lab.topic()]).build().map_err(words)?;
    let consuming = tokio::spawn(async move {
        while let Some(batch) = consumer.next().await {
            batch?;
        }
        Ok::<_, ottla::Error>(())
    });
    for producer in producing {
        producer.await.map_err(|e| e.to_string())?.map_err(words)?;
    }
    let open = lab.relay().log().open_at_most(from, Instant::now());
    lab.found.put("process_open", open as f64);
    if lab.found.missed().contains(&"process_open") {
        // Broker, and requests by kind, of each.
        eprintln!("{open} connections: {:?}", lab.log(from, Instant::now()).uses().values());
    }
    consuming.abort();
    match consuming.await {
        // It had ended before: with an error, since nobody closes it.
        Ok(result) => result.map_err(words),
        Err(_) => Ok(()),
    }
}

pub(crate) async fn lost(lab: &mut Lab) -> Result<(), String> {
    let run = lab.run("lost").await?;
    let from = Instant::now();
    let brokers = lab.relay().brokers();
    for broker in brokers.iter().cycle().take(LOSSES) {
        lab.relay().lose_responses(*broker, 1);
        tokio::time::sleep(BETWEEN_LOSSES).await;
    }
    let losses = || {
        let log = lab.log(from, Instant::now());
        log.events().iter().filter(|event| event.what == What::ResponseLost).count()
    };
    while losses() < LOSSES {
        tokio::time::sleep(BETWEEN_LOSSES).await;
    }
    lab.end(run).await;
    Ok(())
}

/// Waits until the clients of an experiment have closed their connections: those would count in
/// the next.
pub(crate) async fn all_closed(lab: &Lab) -> Result<(), String> {
    let open = || {
        let now = Instant::now();
        lab.relay().log().open_at_most(now, now)
    };
    let dropped = Instant::now();
    while open() > 0 {
        if dropped.elapsed() > CLOSING {
            let now = Instant::now();
            let whose = lab.relay().log().open_at_most_by_client(now, now);
            let whose: Vec<_> = whose.iter().filter(|(_, open)| **open > 0).collect();
            return Err(format!(
                "{} connections outlive their clients by {CLOSING:?}: {whose:?}",
                open()
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
