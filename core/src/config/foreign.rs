//! The names that other clients of Kafka have for their settings, and what to write here instead: a
//! table, and how a name is looked up in it. One for all languages, so that nobody gets another response.

/// Whose setting it is, with other clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// Any handle's: how brokers are reached.
    Client,
    /// A producer's.
    Producer,
    /// A consumer's.
    Consumer,
}

/// How the values of another client's setting are read. Ours are time spans, bytes, and words of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Values {
    /// As they are.
    Text,
    /// Milliseconds of a time span.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Units of 1,024 bytes.
    Kibibytes,
    /// `true` or `false`.
    Flag,
    /// `all`, `-1`, `1` or `0`.
    Acks,
    /// The name of a codec.
    Codec,
    /// A codec's level.
    Level,
    /// librdkafka's word for a partitioner, or a class of Java's.
    Partitioner,
    /// Where to start without a committed offset.
    Start,
    /// `read_uncommitted` or `read_committed`.
    Isolation,
    /// A part of TLS or SASL; all parts are read together.
    Security,
    /// `true` or `false`: whether what was read is committed without being told to, or counts as done without.
    Commits,
    /// Names of assignors, or Java's classes, with commas between them.
    Assignors,
    /// `classic` or `consumer`.
    GroupProtocol,
}

/// What Ottla has in place of another client's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// A setting with a name of its own.
    Setting {
        /// The name: the same word in every language, in its own spelling.
        name: &'static str,
        /// How the other client writes its values.
        values: Values,
    },
    /// No setting.
    Nothing {
        /// Why it is not needed, or what there is instead.
        instead: &'static str,
        /// Values that ask for what is done here anyway.
        as_here: &'static [&'static str],
    },
}

/// A setting of another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Foreign {
    /// The name as it is written elsewhere. One that ends in `*` stands for all that begin so.
    pub name: &'static str,
    /// Whose it is.
    pub owner: Owner,
    /// What Ottla has in its place.
    pub meaning: Meaning,
}

/// The table's row for another client's setting `name`, however it is spelt: `linger.ms`, `linger_ms`
/// and `LINGER-MS` are one.
pub fn foreign(name: &str) -> Option<&'static Foreign> {
    let plain = plain(name);
    let exact = TABLE.iter().find(|row| !row.name.ends_with('*') && self::plain(row.name) == plain);
    exact.or_else(|| {
        let begins = |row: &&Foreign| {
            let begin = row.name.strip_suffix('*');
            begin.is_some_and(|begin| plain.starts_with(&self::plain(begin)))
        };
        TABLE.iter().find(begins)
    })
}

/// All of them.
pub fn foreign_names() -> &'static [Foreign] {
    TABLE
}

/// The word that somebody meant who wrote `name`: no more than a third of its letters is wrong.
pub fn nearest<'a>(name: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = plain(name);
    let distances = words.into_iter().map(|word| (distance(&name, &plain(word)), word));
    let (distance, word) = distances.min()?;
    (distance <= (word.len() / 3).max(1)).then_some(word)
}

/// Java and librdkafka write dots, clients in Python underscores.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['.', '-'], "_")
}

/// Edits (insert, delete, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

use Owner::{Client, Consumer, Producer};

const fn is(name: &'static str, owner: Owner, setting: &'static str, values: Values) -> Foreign {
    Foreign { name, owner, meaning: Meaning::Setting { name: setting, values } }
}

const fn no(name: &'static str, owner: Owner, instead: &'static str) -> Foreign {
    like(name, owner, instead, &[])
}

const fn like(
    name: &'static str,
    owner: Owner,
    instead: &'static str,
    as_here: &'static [&'static str],
) -> Foreign {
    Foreign { name, owner, meaning: Meaning::Nothing { instead, as_here } }
}

const TLS_REST: &str = "not offered: TLS is 1.2 or 1.3, with the suites that are safe today";
const PEM_ALONE: &str =
    "key stores are PEM here: convert it with openssl pkcs12 -in STORE -nodes -out STORE.pem";
const PLAIN_KEY: &str = "encrypted keys are not offered: decrypt it with openssl pkey, and let only this program read it";
const SASL_REST: &str = "of SASL, PLAIN, SCRAM and OAUTHBEARER are offered yet";
const OAUTH_REST: &str = "of OAUTHBEARER, properties set client credentials and the file of a token; other tokens are \
                          given by the program (OAuth)";
const TOKENS: &str = "not needed: another token is asked for at 50 to 80 % of a token's life, the first time at 10 to 80 %";
const LOGIN: &[&str] = &[
    "org.apache.kafka.common.security.oauthbearer.oauthbearerlogincallbackhandler",
    "org.apache.kafka.common.security.oauthbearer.secured.oauthbearerlogincallbackhandler",
];
const BACKOFF: &str =
    "not needed: pauses after a failure grow from 100 ms to 5 s, spread at random";
const SETUP: &str = "not needed: 10 s, up to 30 s after failures; connect_timeout is how long a new \
                     client tries";
const SYSTEM: &str = "not needed: sockets are as the system has them, without Nagle's delay";
const VERSIONS: &str = "not needed: versions are agreed on with each broker";
const STATS: &str = "not needed: stats tell what is done, by broker and request";
const LOGS: &str = "not needed: a call that fails says so, the rest is logged";
const METADATA: &str = "not needed: metadata is refreshed every 5 minutes, and when a leader moves";
const OWN_THREAD: &str = "not needed: the client works on a thread of its own";
const BYTES: &str = "not needed: keys and values are bytes, which the program makes and reads";
const DELIVERY: &str = "not needed: every send gives a delivery, which tells what became of it";
const TRANSACTIONS: &str = "transactions are not offered yet";
const EVENTS: &str = "not needed: who wants to hear of partitions that come and go takes events";
const TO_GROUPS: &str = "offsets are committed to the group, at its broker";
const OUTCOMES: &str =
    "not needed: a call that commits says what became of it, and trouble is told by what reads";
const BY_LOAD: &str = "not needed: what names no partition goes where a broker answers quickly";
const RETRIES: &str = "not needed: a record is sent again until its delivery_timeout";
const ONLY_NAMED: &str = "not needed: only topics that are named are read";

#[rustfmt::skip]
const TABLE: &[Foreign] = &[
    // How brokers are reached.
    is("bootstrap.servers", Client, "bootstrap", Values::Text),
    is("metadata.broker.list", Client, "bootstrap", Values::Text),
    is("client.id", Client, "client_id", Values::Text),
    is("client.rack", Client, "rack", Values::Text),
    is("request.timeout.ms", Client, "request_timeout", Values::Milliseconds),
    is("socket.timeout.ms", Client, "request_timeout", Values::Milliseconds),
    is("connections.max.idle.ms", Client, "idle_timeout", Values::Milliseconds),
    is("security.protocol", Client, "tls", Values::Security),
    is("ssl.ca.location", Client, "tls", Values::Security),
    is("ssl.ca.pem", Client, "tls", Values::Security),
    is("ssl.cafile", Client, "tls", Values::Security),
    is("ssl.certificate.location", Client, "tls", Values::Security),
    is("ssl.certificate.pem", Client, "tls", Values::Security),
    is("ssl.certfile", Client, "tls", Values::Security),
    is("ssl.key.location", Client, "tls", Values::Security),
    is("ssl.key.pem", Client, "tls", Values::Security),
    is("ssl.keyfile", Client, "tls", Values::Security),
    is("ssl.truststore.location", Client, "tls", Values::Security),
    is("ssl.truststore.certificates", Client, "tls", Values::Security),
    is("ssl.keystore.location", Client, "tls", Values::Security),
    is("ssl.keystore.certificate.chain", Client, "tls", Values::Security),
    is("ssl.keystore.key", Client, "tls", Values::Security),
    is("ssl.endpoint.identification.algorithm", Client, "tls", Values::Security),
    is("ssl.check.hostname", Client, "tls", Values::Security),
    is("enable.ssl.certificate.verification", Client, "tls", Values::Security),
    like("ssl.truststore.type", Client, PEM_ALONE, &["pem"]),
    like("ssl.keystore.type", Client, PEM_ALONE, &["pem"]),
    no("ssl.truststore.password", Client, "not needed: PEM files of certificates have none"),
    no("ssl.keystore.password", Client, PLAIN_KEY),
    no("ssl.key.password", Client, PLAIN_KEY),
    no("ssl.password", Client, PLAIN_KEY),
    no("ssl.crl.location", Client, "revocation lists are not offered"),
    no("ssl.*", Client, TLS_REST),
    no("enable.ssl.*", Client, TLS_REST),
    is("sasl.mechanism", Client, "sasl", Values::Security),
    is("sasl.mechanisms", Client, "sasl", Values::Security),
    is("sasl.username", Client, "sasl", Values::Security),
    is("sasl.plain.username", Client, "sasl", Values::Security),
    is("sasl.password", Client, "sasl", Values::Security),
    is("sasl.plain.password", Client, "sasl", Values::Security),
    is("sasl.jaas.config", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.token.endpoint.url", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.client.id", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.client.credentials.client.id", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.client.secret", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.client.credentials.client.secret", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.scope", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.extensions", Client, "sasl", Values::Security),
    is("sasl.oauthbearer.header.urlencode", Client, "sasl", Values::Security),
    is("https.ca.location", Client, "sasl", Values::Security),
    is("https.ca.pem", Client, "sasl", Values::Security),
    like("sasl.oauthbearer.method", Client, OAUTH_REST, &["oidc"]),
    like("sasl.oauthbearer.grant.type", Client, OAUTH_REST, &["client_credentials"]),
    like("sasl.login.callback.handler.class", Client, OAUTH_REST, LOGIN),
    no("sasl.oauthbearer.*", Client, OAUTH_REST),
    no("sasl.login.refresh.*", Client, TOKENS),
    no("sasl.*", Client, SASL_REST),
    no("enable.sasl.*", Client, SASL_REST),
    no("https.*", Client, SASL_REST),
    no("security.providers", Client, TLS_REST),
    no("oauth_cb", Client, SASL_REST),
    no("socks5_proxy", Client, "proxies are not offered"),
    no("proxy_url", Client, "proxies are not offered"),
    like("client.dns.lookup", Client, "not needed: every address of a host is tried", &["use_all_dns_ips"]),
    no("reconnect.backoff.*", Client, BACKOFF),
    no("retry.backoff.*", Client, BACKOFF),
    no("socket.connection.setup.timeout.*", Client, SETUP),
    no("default.api.timeout.ms", Client, "not needed: each call that waits takes its own timeout"),
    like("receive.buffer.bytes", Client, SYSTEM, &["-1"]),
    like("send.buffer.bytes", Client, SYSTEM, &["-1"]),
    no("socket.*", Client, SYSTEM),
    no("sock.chunk.*", Client, SYSTEM),
    no("broker.address.*", Client, SYSTEM),
    like("api.version.request", Client, VERSIONS, &["true"]),
    no("api.version.*", Client, VERSIONS),
    no("api_version", Client, VERSIONS),
    no("broker.version.fallback", Client, VERSIONS),
    no("metadata.max.age.ms", Client, METADATA),
    no("metadata.max.idle.ms", Client, METADATA),
    no("topic.metadata.*", Client, METADATA),
    like("metadata.recovery.strategy", Client, "not needed: a client that lost all its brokers asks bootstrap again", &["rebootstrap"]),
    no("metadata.recovery.*", Client, "not needed: a client that lost all its brokers asks bootstrap again"),
    like("allow.auto.create.topics", Client, "no topic is ever created by asking: create it", &["false"]),
    no("bootstrap_topics_filter", Client, ONLY_NAMED),
    no("metric.reporters", Client, STATS),
    no("metrics.*", Client, STATS),
    no("enable.metrics.push", Client, STATS),
    no("auto.include.jmx.reporter", Client, STATS),
    like("statistics.interval.ms", Client, STATS, &["0"]),
    no("stats_cb", Client, STATS),
    no("throttle_cb", Client, STATS),
    no("error_cb", Client, LOGS),
    no("log_cb", Client, LOGS),
    no("logger", Client, LOGS),
    no("debug", Client, LOGS),
    no("log.*", Client, LOGS),
    no("loop", Client, OWN_THREAD),
    no("selector", Client, OWN_THREAD),
    no("kafka_client", Client, "not needed: all handles of a process share their connections"),
    no("interceptor.classes", Client, "not offered: call what it does around send, or for each record"),
    no("plugin.library.paths", Client, "plugins are not offered"),
    no("config.providers", Client, "not offered: put the values in before they get here"),
    no("schema.registry.*", Client, "a schema registry is no part of this client: keys and values are bytes"),

    // How records go out.
    is("acks", Producer, "acks", Values::Acks),
    is("request.required.acks", Producer, "acks", Values::Acks),
    is("linger.ms", Producer, "linger", Values::Milliseconds),
    is("queue.buffering.max.ms", Producer, "linger", Values::Milliseconds),
    is("batch.size", Producer, "batch_size", Values::Bytes),
    is("max_batch_size", Producer, "batch_size", Values::Bytes),
    no("batch.num.messages", Producer, "a batch is bounded by its bytes: batch_size"),
    is("buffer.memory", Producer, "buffer_memory", Values::Bytes),
    is("queue.buffering.max.kbytes", Producer, "buffer_memory", Values::Kibibytes),
    no("queue.buffering.max.messages", Producer, "the buffer is bounded by its bytes: buffer_memory"),
    no("queue.buffering.backpressure.threshold", Producer, BY_LOAD),
    is("compression.type", Producer, "compression", Values::Codec),
    is("compression.codec", Producer, "compression", Values::Codec),
    is("compression.level", Producer, "compression_level", Values::Level),
    is("compression.gzip.level", Producer, "compression_level", Values::Level),
    is("compression.zstd.level", Producer, "compression_level", Values::Level),
    no("compression.lz4.level", Producer, "lz4 has no levels here"),
    is("delivery.timeout.ms", Producer, "delivery_timeout", Values::Milliseconds),
    is("message.timeout.ms", Producer, "delivery_timeout", Values::Milliseconds),
    is("max.block.ms", Producer, "max_block", Values::Milliseconds),
    is("max.request.size", Producer, "max_record_size", Values::Bytes),
    is("message.max.bytes", Producer, "max_record_size", Values::Bytes),
    like("enable.idempotence", Producer, "not needed: it is on with acks all, and off with the others", &["true"]),
    like("enable.gapless.guarantee", Producer, "not offered: a record that fails does not fail those behind it", &["false"]),
    like("retries", Producer, RETRIES, &["2147483647"]),
    like("message.send.max.retries", Producer, RETRIES, &["2147483647"]),
    like("max.in.flight.requests.per.connection", Producer, "not needed: five, in order", &["1", "2", "3", "4", "5"]),
    like("max.in.flight", Producer, "not needed: five, in order", &["1", "2", "3", "4", "5"]),
    is("partitioner", Producer, "partitioner", Values::Partitioner),
    is("partitioner.class", Producer, "partitioner", Values::Partitioner),
    like("partitioner.ignore.keys", Producer, "choose a partitioner: spread ignores keys, key_hash follows them", &["true"]),
    like("partitioner.adaptive.partitioning.enable", Producer, BY_LOAD, &["true"]),
    no("partitioner.availability.timeout.ms", Producer, BY_LOAD),
    no("sticky.partitioning.linger.ms", Producer, BY_LOAD),
    like("key.serializer", Producer, BYTES, &["org.apache.kafka.common.serialization.bytearrayserializer"]),
    like("value.serializer", Producer, BYTES, &["org.apache.kafka.common.serialization.bytearrayserializer"]),
    no("on_delivery", Producer, DELIVERY),
    no("callback", Producer, DELIVERY),
    no("dr_cb", Producer, DELIVERY),
    no("dr_msg_cb", Producer, DELIVERY),
    no("delivery.report.only.error", Producer, DELIVERY),
    no("transactional.id", Producer, TRANSACTIONS),
    no("transaction.timeout.ms", Producer, TRANSACTIONS),
    no("transaction.two.phase.commit.enable", Producer, TRANSACTIONS),

    // How records come in.
    is("auto.offset.reset", Consumer, "start", Values::Start),
    is("fetch.max.wait.ms", Consumer, "max_wait", Values::Milliseconds),
    is("fetch.wait.max.ms", Consumer, "max_wait", Values::Milliseconds),
    is("fetch.min.bytes", Consumer, "min_bytes", Values::Bytes),
    is("fetch.max.bytes", Consumer, "max_bytes", Values::Bytes),
    is("max.partition.fetch.bytes", Consumer, "max_partition_bytes", Values::Bytes),
    is("fetch.message.max.bytes", Consumer, "max_partition_bytes", Values::Bytes),
    is("queued.max.messages.kbytes", Consumer, "buffer_memory", Values::Kibibytes),
    no("queued.min.messages", Consumer, "the buffer is bounded by its bytes: buffer_memory"),
    no("receive.message.max.bytes", Consumer, "an answer is bounded by max_bytes"),
    is("check.crcs", Consumer, "check_crc", Values::Flag),
    no("fetch.error.backoff.ms", Consumer, BACKOFF),
    no("fetch.queue.backoff.ms", Consumer, BACKOFF),
    no("max.poll.records", Consumer, "not needed: records are taken one by one, or a batch at a time as it was written"),
    no("max_records", Consumer, "not needed: records are taken one by one, or a batch at a time as it was written"),
    no("consumer_timeout_ms", Consumer, "not needed: the calls that wait for records take a timeout"),
    like("enable.partition.eof", Consumer, "not offered: give the call that waits for records a timeout", &["false"]),
    is("isolation.level", Consumer, "isolation", Values::Isolation),
    like("exclude.internal.topics", Consumer, ONLY_NAMED, &["true"]),
    no("topic.blacklist", Consumer, ONLY_NAMED),
    like("key.deserializer", Consumer, BYTES, &["org.apache.kafka.common.serialization.bytearraydeserializer"]),
    like("value.deserializer", Consumer, BYTES, &["org.apache.kafka.common.serialization.bytearraydeserializer"]),
    is("group.id", Consumer, "group", Values::Text),
    is("group.instance.id", Consumer, "instance_id", Values::Text),
    is("session.timeout.ms", Consumer, "session_timeout", Values::Milliseconds),
    is("max.poll.interval.ms", Consumer, "max_poll_interval", Values::Milliseconds),
    is("partition.assignment.strategy", Consumer, "assignors", Values::Assignors),
    is("enable.auto.commit", Consumer, "commit", Values::Commits),
    is("auto.commit.enable", Consumer, "commit", Values::Commits),
    is("enable.auto.offset.store", Consumer, "commit", Values::Commits),
    is("auto.commit.interval.ms", Consumer, "commit_interval", Values::Milliseconds),
    no("heartbeat.interval.ms", Consumer, "not needed: a heartbeat goes out every 3 s, or three in a session_timeout if that is shorter"),
    no("rebalance_timeout_ms", Consumer, "a rebalance waits for as long as max_poll_interval"),
    no("coordinator.query.interval.ms", Consumer, "not needed: the group's broker is looked up when it moves"),
    is("group.protocol", Consumer, "group_protocol", Values::GroupProtocol),
    like("group.protocol.type", Consumer, "members of groups are consumers", &["consumer"]),
    is("group.remote.assignor", Consumer, "remote_assignor", Values::Text),
    no("group.*", Consumer, "no setting of a consumer: those of groups are set on the brokers"),
    like("internal.leave.group.on.close", Consumer, "not needed: a member with an instance_id stays, others leave", &["true"]),
    like("offset.store.method", Consumer, TO_GROUPS, &["broker"]),
    no("offset.store.*", Consumer, TO_GROUPS),
    no("offset_commit_cb", Consumer, OUTCOMES),
    no("default_offset_commit_callback", Consumer, OUTCOMES),
    no("on_commit", Consumer, OUTCOMES),
    no("rebalance_cb", Consumer, EVENTS),
    no("on_assign", Consumer, EVENTS),
    no("on_revoke", Consumer, EVENTS),
    no("on_lost", Consumer, EVENTS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_spelt() {
        for name in ["linger.ms", "linger_ms", "LINGER-MS", " linger.ms "] {
            let found = foreign(name).unwrap();
            assert_eq!((found.name, found.owner), ("linger.ms", Producer), "{name:?}");
        }
        assert_eq!(foreign("ssl_cafile").unwrap().name, "ssl.cafile");
        assert_eq!(foreign("ssl.protocol").unwrap().name, "ssl.*");
        assert_eq!(foreign("sasl.oauthbearer.scope").unwrap().name, "sasl.oauthbearer.scope");
        assert_eq!(foreign("sasl.oauthbearer.config").unwrap().name, "sasl.oauthbearer.*");
        assert_eq!(foreign("sasl.kerberos.keytab").unwrap().name, "sasl.*");
        // Exact names come before beginnings.
        assert_eq!(foreign("socket.timeout.ms").unwrap().name, "socket.timeout.ms");
        assert_eq!(foreign("socket.keepalive.enable").unwrap().name, "socket.*");
        assert_eq!(foreign("lingr.ms"), None);
        assert_eq!(foreign(""), None);
    }

    #[test]
    fn no_name_is_there_twice_and_every_sentence_goes_on_after_a_name() {
        let mut names: Vec<_> = TABLE.iter().map(|row| plain(row.name)).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        for row in TABLE {
            if let Meaning::Nothing { instead, as_here } = row.meaning {
                assert!(!instead.ends_with('.') && !instead.contains("  "), "{row:?}");
                assert!(as_here.iter().all(|value| *value == value.to_lowercase()), "{row:?}");
            }
        }
    }

    #[test]
    fn a_third_of_the_letters_may_be_wrong() {
        let words = ["linger", "batch_size", "acks"];
        assert_eq!(nearest("lingr", words), Some("linger"));
        assert_eq!(nearest("batch.sise", words), Some("batch_size"));
        assert_eq!(nearest("ack", words), Some("acks"));
        assert_eq!(nearest("zebra", words), None);
        assert_eq!(nearest("x", []), None);
    }
}
