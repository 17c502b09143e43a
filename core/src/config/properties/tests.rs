use super::*;
use crate::{Client, ErrorKind};

fn of(properties: &[(&str, &str)]) -> Properties {
    properties.iter().copied().collect()
}

fn refused(owner: Owner, name: &str, value: &str) -> String {
    read(owner, &of(&[(name, value)])).unwrap_err().message().to_owned()
}

/// A value that the other client takes.
fn example(row: &Foreign) -> &'static str {
    let Meaning::Setting { values, .. } = row.meaning else { return "x" };
    match values {
        Values::Text => "a",
        Values::Milliseconds | Values::Kibibytes => "2000",
        Values::Bytes => "2000000",
        Values::Flag => "false",
        Values::Acks => "1",
        Values::Codec => "none",
        Values::Level => "3",
        Values::Partitioner => "murmur2",
        Values::Start => "latest",
        Values::Isolation => "read_committed",
        Values::Commits => "false",
        Values::Assignors => "range",
        Values::GroupProtocol => "classic",
        // Only together are they a setting; config/secured/tests.rs has those.
        Values::Security => "PLAINTEXT",
    }
}

#[test]
fn every_setting_of_the_table_is_taken_by_its_builder() {
    for row in foreign_names() {
        let Meaning::Setting { name, values } = row.meaning else { continue };
        let mut properties = vec![(row.name, example(row)), ("bootstrap.servers", "a:1")];
        if values == Values::Security && row.name != "security.protocol" {
            properties.push(("security.protocol", "PLAINTEXT"));
        }
        let properties = of(&properties);
        let client = || Client::builder().bootstrap("a:1").build().unwrap();
        let outcome = match row.owner {
            // Two of its names are the bootstrap list.
            Owner::Client if name == "bootstrap" => {
                Client::builder().from_properties([(row.name, "a:1")]).build().map(drop)
            }
            Owner::Client => Client::builder().read_properties(&properties).build().map(drop),
            Owner::Producer => client().producer().read_properties(&properties).build().map(drop),
            Owner::Consumer => {
                let builder = client().consumer().topics(["t"]).group("g");
                let builder = builder.read_properties(&properties);
                builder.build().map(drop)
            }
        };
        assert!(outcome.is_ok(), "{}: {outcome:?}", row.name);
    }
}

#[test]
fn values_are_read_in_their_units() {
    let producer = of(&[
        ("acks", "-1"),
        ("linger.ms", "0.5"),
        ("queue.buffering.max.kbytes", "2048"),
        ("compression.type", "gzip"),
        ("compression.zstd.level", "9"),
        ("compression.gzip.level", "7"),
        ("partitioner.class", "org.apache.kafka.clients.producer.RoundRobinPartitioner"),
        ("client.id", "another's"),
    ]);
    let gzip = Compression::named("gzip", Some(7)).unwrap();
    assert_eq!(
        read(Owner::Producer, &producer).unwrap(),
        [
            ("acks", Value::Acks(Acks::All)),
            ("buffer_memory", Value::Size(2 << 20)),
            ("compression", Value::Compression(gzip)),
            ("linger", Value::Time(Duration::from_micros(500))),
            ("partitioner", Value::Partitioner(Partitioner::Spread)),
        ]
    );
    let consumer = of(&[("auto.offset.reset", "largest"), ("check_crcs", "False")]);
    assert_eq!(
        read(Owner::Consumer, &consumer).unwrap(),
        [("check_crc", Value::Flag(false)), ("start", Value::Start(Start::Latest))]
    );
}

#[test]
fn skins_get_plain_values() {
    let producer = of(&[
        ("acks", "0"),
        ("linger.ms", "0.5"),
        ("batch.size", "4096"),
        ("compression.type", "gzip"),
        ("compression.level", "7"),
        ("partitioner", "murmur2"),
    ]);
    let settings: Vec<_> =
        plain_settings(Owner::Producer, &producer).unwrap().into_iter().collect();
    let word = |word: &str| Plain::Text(word.to_owned());
    assert_eq!(
        settings,
        [
            ("acks", word("none")),
            ("batch_size", Plain::Number(4096)),
            ("compression", word("gzip:7")),
            ("linger", Plain::Number(500_000)),
            ("partitioner", word("key_hash")),
        ]
    );
    let consumer = of(&[("auto.offset.reset", "latest"), ("check.crcs", "false")]);
    let settings: Vec<_> =
        plain_settings(Owner::Consumer, &consumer).unwrap().into_iter().collect();
    assert_eq!(settings, [("check_crc", Plain::Flag(false)), ("start", word("latest"))]);
    let member = of(&[
        ("group.id", "g"),
        ("enable.auto.commit", "true"),
        ("session.timeout.ms", "6000"),
        ("partition.assignment.strategy", "[range,roundrobin]"),
    ]);
    let settings: Vec<_> = plain_settings(Owner::Consumer, &member).unwrap().into_iter().collect();
    assert_eq!(
        settings,
        [
            ("assignors", word("range,roundrobin")),
            ("commit", word("marks")),
            ("group", word("g")),
            ("session_timeout", Plain::Number(6_000_000_000)),
        ]
    );
    assert!(plain_settings(Owner::Client, &consumer).unwrap().is_empty());
    assert!(plain_settings(Owner::Client, &of(&[("zebra", "1")])).is_err());
}

#[test]
fn what_asks_for_what_is_done_here_anyway_is_taken() {
    let producer = of(&[
        ("enable.idempotence", "true"),
        ("retries", "2147483647"),
        ("max.in.flight.requests.per.connection", "5"),
        ("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer"),
        ("transactional.id", ""),
        ("compression.level", "-1"),
    ]);
    assert_eq!(read(Owner::Producer, &producer).unwrap(), []);
    let client = of(&[("security.protocol", "PLAINTEXT"), ("ssl.key.password", "")]);
    assert_eq!(read(Owner::Client, &client).unwrap(), []);
}

#[test]
fn what_is_not_taken_is_said_with_what_there_is_instead() {
    use Owner::{Client, Consumer, Producer};
    for (owner, name, value, said) in [
        (Producer, "retries", "5", "'retries' (not needed: a record is sent again"),
        (Producer, "enable.idempotence", "false", "it is on with acks all"),
        (Producer, "transactional.id", "t", "transactions are not offered yet"),
        (Producer, "group.id", "g", "'group.id' (it is a consumer's)"),
        (Producer, "acks", "2", "'2' is not all, -1, 1 or 0"),
        (Producer, "linger.ms", "-1", "'-1' is not a number of milliseconds"),
        (Producer, "batch.size", "1e6", "'1e6' is not a number of bytes"),
        (Producer, "batch.size", "-1", "0 or more"),
        (Producer, "queue.buffering.max.kbytes", "99999999999999999999", "not a number of bytes"),
        (Producer, "compression.type", "brotli", "compression is 'brotli'; this build has"),
        (Producer, "compression.level", "high", "'high' is not a level"),
        (Producer, "partitioner", "consistent_random", "murmur2_random"),
        (Producer, "partitioner.class", "com.acme.Own", "name it when sending"),
        (Producer, "lingr.ms", "5", "'lingr.ms' (there is linger.ms)"),
        (Producer, "linger", "5", "'linger' (as a property it is linger.ms)"),
        (Producer, "zebra", "5", "'zebra' (no client has it that is known here)"),
        (Consumer, "group.protocol", "share", "'share' is neither classic nor consumer"),
        (Consumer, "group.consumer.assignors", "range", "are set on the brokers"),
        (Consumer, "heartbeat.interval.ms", "3000", "a heartbeat goes out every 3 s"),
        (Consumer, "group", "g", "'group' (as a property it is group.id)"),
        (Consumer, "enable.auto.commit", "no", "'no' is neither true nor false"),
        (Consumer, "partition.assignment.strategy", "com.acme.Own", "no assignor 'Own'; there are"),
        (Consumer, "rebalance_cb", "f", "takes events"),
        (Consumer, "auto.offset.reset", "none", "'none' is not offered: earliest, latest"),
        (Consumer, "check.crcs", "yes", "'yes' is neither true nor false"),
        (Consumer, "acks", "all", "'acks' (it is a producer's)"),
        (Client, "security.protocol", "SASL_SSL", "sasl.mechanism is missing"),
        (Client, "api.version.request", "false", "versions are agreed on"),
        (Client, "boostrap.servers", "a:1", "there is bootstrap.servers"),
    ] {
        let message = refused(owner, name, value);
        assert!(message.contains(said), "{name}={value}: {message}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_secrets_never_are() {
    let properties = of(&[
        ("sasl.jaas.config", "password=\"hunter2\""),
        ("ssl.key.password", "hunter2"),
        ("sasl.pasword", "hunter2"),
        ("pasword", "hunter2"),
    ]);
    let error = read(Owner::Client, &properties).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for name in ["sasl.jaas.config", "ssl.key.password", "sasl.pasword", "pasword"] {
        assert!(error.message().contains(name), "{error}");
    }
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!format!("{properties:?}").contains("hunter2"), "{properties:?}");
}

#[test]
fn two_names_of_one_setting_agree() {
    let same = of(&[("delivery.timeout.ms", "1000"), ("message.timeout.ms", "1000")]);
    assert_eq!(read(Owner::Producer, &same).unwrap().len(), 1);
    let other = of(&[("delivery.timeout.ms", "1000"), ("message.timeout.ms", "2000")]);
    let error = read(Owner::Producer, &other).unwrap_err();
    assert!(error.message().contains("'delivery.timeout.ms' sets delivery_timeout to another"));
}

#[test]
fn what_is_committed_without_being_told_to_follows_from_two_properties() {
    for (auto, store, commit) in [
        ("true", "", Some(Commit::Marks)),
        ("", "true", Some(Commit::Marks)),
        ("true", "false", Some(Commit::Acked)),
        ("", "false", Some(Commit::Acked)),
        ("false", "true", Some(Commit::Manual)),
        ("false", "false", Some(Commit::ManualAcked)),
        ("", "", None),
    ] {
        let properties = of(&[("enable.auto.commit", auto), ("enable.auto.offset.store", store)]);
        let read = read(Owner::Consumer, &properties).unwrap();
        let commit = commit.map(|commit| ("commit", Value::Commit(commit)));
        assert_eq!(read, Vec::from_iter(commit), "{auto} {store}");
    }
    let both = of(&[("enable.auto.commit", "true"), ("auto.commit.enable", "false")]);
    let error = read(Owner::Consumer, &both).unwrap_err();
    assert!(error.message().contains("'auto.commit.enable' (another name of it says"), "{error}");
}

#[test]
fn a_builder_says_it_when_it_builds() {
    let error = Client::builder().from_properties([("zebra", "1")]).build().err().unwrap();
    assert!(error.message().contains("zebra"), "{error}");
    let client = Client::builder().from_properties([("bootstrap.servers", "a:1")]).build();
    let client = client.unwrap();
    let producer = client.producer().from_properties([("zebra", "1")]).build();
    assert_eq!(producer.err().unwrap().kind(), ErrorKind::Config);
    let consumer = client.consumer().topics(["t"]).from_properties([("zebra", "1")]).build();
    assert_eq!(consumer.err().unwrap().kind(), ErrorKind::Config);
}

#[test]
fn acks_are_read_as_others_write_them() {
    for (text, acks) in
        [("all", Acks::All), ("-1", Acks::All), ("1", Acks::Leader), ("0", Acks::None)]
    {
        let read = read(Owner::Producer, &of(&[("acks", text)])).unwrap();
        assert_eq!(read, [("acks", Value::Acks(acks))]);
    }
}

/// A level is that of the codec it names; one that names none is for any, and -1 is the usual one.
#[test]
fn a_level_is_its_codecs() {
    for (properties, codec) in [
        (&[("compression.gzip.level", "7"), ("compression.type", "gzip")][..], "gzip:7"),
        (&[("compression.gzip.level", "7"), ("compression.type", "zstd")], "zstd"),
        (&[("compression.level", "5"), ("compression.type", "zstd")], "zstd:5"),
        (&[("compression.level", "-1"), ("compression.codec", "gzip")], "gzip"),
        (&[("compression.level", "-1"), ("compression.codec", "lz4")], "lz4"),
    ] {
        let read = read(Owner::Producer, &of(properties)).unwrap();
        let codec = Value::Compression(codec.parse().unwrap());
        assert_eq!(read, [("compression", codec)], "{properties:?}");
    }
}
