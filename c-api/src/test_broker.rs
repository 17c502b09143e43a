//! The embedded broker. The calls are exported by every build, so that the interface does not
//! depend on how it was built; without the feature `test-broker` making one fails.

use std::ffi::{CString, c_char};

use ottla::Result;

use crate::boundary::{Out, boundary, c_string, free, lent, many, optional_text, text};
use crate::error::ottla_error;
use crate::options::{Options, read};
use crate::properties::{ottla_property, pairs};
use crate::status::ottla_status;

/// A Kafka cluster inside this process, for tests: real protocol on ports of 127.0.0.1, records in
/// memory, gone when freed. Its calls answer `OTTLA_STATUS_INVALID_ARGUMENT` for brokers, topics and
/// partitions that it does not have.
pub struct ottla_test_broker {
    pub(crate) cluster: imp::Cluster,
    bootstrap: CString,
    ca: CString,
}

/// Settings of a cluster for tests: start from `OTTLA_TEST_BROKER_OPTIONS_INIT`. Null and 0 are
/// always the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_test_broker_options {
    /// Set by the macro.
    pub size: usize,
    /// Racks (`broker.rack`), given to the brokers in turn, `rack_count` of them. Default: none.
    pub racks: *const *const c_char,
    /// See `racks`.
    pub rack_count: usize,
    /// How many brokers; their ids are 1 to n. 1 to 1000, default 1.
    pub brokers: i32,
    /// 0: anything else is refused.
    pub reserved: i32,
    /// Users who log in by PLAIN or SCRAM: names and passwords, `user_count` of them. With any, clients have to.
    pub users: *const ottla_property,
    /// See `users`.
    pub user_count: usize,
    /// Principals (users; "*": everybody) and what each may do: "write orders", "read log-*", "everything";
    /// `acl_count` of them. With any, nobody may do anything else.
    pub acls: *const ottla_property,
    /// See `acls`.
    pub acl_count: usize,
    /// The mechanisms that are taken, "PLAIN,SCRAM-SHA-256". Default: PLAIN, and SCRAM with both hashes.
    pub mechanisms: *const c_char,
    /// Other than 0: brokers speak TLS, and `ottla_test_broker_ca` is what clients are to trust.
    pub tls: i32,
    /// Other than 0: nobody is served without a certificate, as `ottla_test_broker_client_identity` makes them.
    pub client_certificates: i32,
}

/// What a cluster is to be like.
#[derive(Default)]
#[cfg_attr(not(feature = "test-broker"), expect(dead_code, reason = "there is nothing to make"))]
struct Wanted {
    brokers: i32,
    racks: Vec<String>,
    tls: bool,
    client_certificates: bool,
    users: Vec<(String, String)>,
    acls: Vec<(String, String)>,
    mechanisms: Vec<String>,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_test_broker_options {
    fn reserved(&self) -> i64 {
        self.reserved.into()
    }
}

#[cfg(not(feature = "test-broker"))]
pub(crate) use imp::Cluster;

#[cfg(feature = "test-broker")]
mod imp {
    use std::io;
    use std::time::Duration;

    use ottla::Result;
    use ottla::bindings::argument_error;
    pub(super) use ottla_test_broker::Cluster;
    use ottla_test_broker::{Codec, Leaders, Secured};

    use super::Wanted;
    use crate::producer_options::ottla_compression;

    /// Of groups of the next generation.
    const SESSION: Duration = Duration::from_secs(45);
    const HEARTBEAT: Duration = Duration::from_millis(250);

    fn done<T>(outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|e| argument_error(e.to_string()))
    }

    pub(super) fn start(wanted: Wanted) -> Result<Cluster> {
        let Wanted { brokers, racks, tls, client_certificates, users, acls, mechanisms } = wanted;
        let secured = Secured { tls, client_certificates, users, mechanisms, acls };
        let builder = Cluster::builder().brokers(brokers).racks(racks);
        // Tests do not wait for members that hear of a change every 5 s, as Kafka has it.
        let builder = builder.consumer_group_timing(SESSION, HEARTBEAT);
        secured
            .apply(builder)
            .and_then(|builder| builder.start())
            .map_err(|e| argument_error(format!("the test broker did not start: {e}")))
    }

    pub(super) fn ca(cluster: &Cluster) -> String {
        cluster.ca_pem().unwrap_or_default()
    }

    pub(super) fn client_identity(cluster: &Cluster, name: &str) -> Result<(String, String)> {
        done(cluster.client_identity(name)).map(|made| (made.certificates, made.key))
    }

    pub(super) fn set_user(cluster: &Cluster, name: &str, password: &str) -> Result<()> {
        done(cluster.set_user(name, password))
    }

    pub(super) fn logins(cluster: &Cluster) -> (u64, u64) {
        cluster.stats().logins()
    }

    pub(super) fn create(
        cluster: &Cluster,
        topic: &str,
        partitions: i32,
        replicas: i32,
    ) -> Result<()> {
        done(cluster.create_topic(topic, partitions, replicas).map(drop))
    }

    pub(super) fn set_replica_delay(cluster: &Cluster, delay: Option<Duration>) {
        cluster.set_replica_delay(delay.unwrap_or(Duration::MAX));
    }

    pub(super) fn stop(cluster: &Cluster, broker: i32, move_leaders: bool) -> Result<()> {
        let leaders = if move_leaders { Leaders::Move } else { Leaders::Keep };
        done(cluster.stop_broker(broker, leaders))
    }

    pub(super) fn start_again(cluster: &Cluster, broker: i32) -> Result<()> {
        done(cluster.start_broker(broker))
    }

    pub(super) fn replace(cluster: &Cluster, cluster_id: &str) -> Result<()> {
        done(cluster.replace(cluster_id))
    }

    pub(super) fn log_end(cluster: &Cluster, topic: &str, partition: i32) -> Result<i64> {
        done(cluster.partition(topic, partition)).map(|info| info.log_end)
    }

    pub(super) fn codecs(cluster: &Cluster, topic: &str) -> Result<u32> {
        let codecs = done(cluster.codecs(topic))?;
        let member = |codec: &Codec| match codec {
            Codec::None => ottla_compression::OTTLA_COMPRESSION_NONE,
            Codec::Gzip => ottla_compression::OTTLA_COMPRESSION_GZIP,
            Codec::Snappy => ottla_compression::OTTLA_COMPRESSION_SNAPPY,
            Codec::Lz4 => ottla_compression::OTTLA_COMPRESSION_LZ4,
            Codec::Zstd => ottla_compression::OTTLA_COMPRESSION_ZSTD,
        };
        Ok(codecs.iter().fold(0, |bits, codec| bits | 1 << member(codec) as u32))
    }
}

#[cfg(not(feature = "test-broker"))]
mod imp {
    use std::time::Duration;

    use ottla::Result;
    use ottla::bindings::argument_error;

    use super::Wanted;

    /// Never made.
    pub(crate) enum Cluster {}

    impl Cluster {
        pub(super) fn bootstrap(&self) -> String {
            match *self {}
        }
    }

    pub(super) fn start(_: Wanted) -> Result<Cluster> {
        Err(argument_error(
            "this build has no test broker; build ottla-c with the feature test-broker",
        ))
    }

    pub(super) fn ca(cluster: &Cluster) -> String {
        match *cluster {}
    }

    pub(super) fn client_identity(cluster: &Cluster, _: &str) -> Result<(String, String)> {
        match *cluster {}
    }

    pub(super) fn set_user(cluster: &Cluster, _: &str, _: &str) -> Result<()> {
        match *cluster {}
    }

    pub(super) fn logins(cluster: &Cluster) -> (u64, u64) {
        match *cluster {}
    }

    pub(super) fn create(cluster: &Cluster, _: &str, _: i32, _: i32) -> Result<()> {
        match *cluster {}
    }

    pub(super) fn set_replica_delay(cluster: &Cluster, _: Option<Duration>) {
        match *cluster {}
    }

    pub(super) fn stop(cluster: &Cluster, _: i32, _: bool) -> Result<()> {
        match *cluster {}
    }

    pub(super) fn start_again(cluster: &Cluster, _: i32) -> Result<()> {
        match *cluster {}
    }

    pub(super) fn replace(cluster: &Cluster, _: &str) -> Result<()> {
        match *cluster {}
    }

    pub(super) fn log_end(cluster: &Cluster, _: &str, _: i32) -> Result<i64> {
        match *cluster {}
    }

    pub(super) fn codecs(cluster: &Cluster, _: &str) -> Result<u32> {
        match *cluster {}
    }
}

/// # Safety
/// The pointers in `o` are null or valid.
unsafe fn wanted(o: &ottla_test_broker_options) -> Result<Wanted> {
    let owned = |list: Vec<(&str, &str)>| -> Vec<(String, String)> {
        list.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    // SAFETY: promised by the caller.
    unsafe {
        let racks = many(o.racks, o.rack_count, "racks")?;
        let racks = racks.iter().map(|rack| text(*rack, "rack").map(str::to_owned));
        let mechanisms = optional_text(o.mechanisms, "mechanisms")?.unwrap_or_default();
        Ok(Wanted {
            brokers: if o.brokers == 0 { 1 } else { o.brokers },
            racks: racks.collect::<Result<_>>()?,
            tls: o.tls != 0,
            client_certificates: o.client_certificates != 0,
            users: owned(pairs(o.users, o.user_count, "users")?),
            acls: owned(pairs(o.acls, o.acl_count, "acls")?),
            mechanisms: mechanisms.split_terminator(',').map(str::to_owned).collect(),
        })
    }
}

/// Starts a cluster without topics. `options` may be null: one broker. Builds for distribution have
/// it; one without the feature `test-broker` answers `OTTLA_STATUS_INVALID_ARGUMENT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_new(
    options: *const ottla_test_broker_options,
    broker: *mut *mut ottla_test_broker,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(broker, "broker") }?;
        // SAFETY: promised by the caller.
        let wanted = match unsafe { read(options, "options") }? {
            None => Wanted { brokers: 1, ..Wanted::default() },
            // SAFETY: promised by the caller.
            Some(o) => unsafe { wanted(&o) }?,
        };
        let cluster = imp::start(wanted)?;
        let (bootstrap, ca) = (c_string(&cluster.bootstrap()), c_string(&imp::ca(&cluster)));
        out.give(ottla_test_broker { cluster, bootstrap, ca });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Where to reach it, "host:port,host:port"; "" for null. Lives as long as the broker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_bootstrap(
    broker: *const ottla_test_broker,
) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { broker.as_ref() }.map_or(c"".as_ptr(), |b| b.bootstrap.as_ptr())
}

/// The certificate of its own authority, in PEM: what clients are to trust. "" without TLS, and for null. Lives as long as
/// the broker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_ca(broker: *const ottla_test_broker) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { broker.as_ref() }.map_or(c"".as_ptr(), |b| b.ca.as_ptr())
}

/// Makes a certificate and its key for a client, in PEM: yours, freed with `ottla_string_free`. Brokers know its owner as
/// "User:CN=name".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_client_identity(
    broker: *const ottla_test_broker,
    name: *const c_char,
    certificate: *mut *mut c_char,
    key: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (to_certificate, to_key) =
            unsafe { (Out::null(certificate, "certificate")?, Out::null(key, "key")?) };
        // SAFETY: promised by the caller.
        let (broker, name) = unsafe { (lent(broker, "broker")?, text(name, "name")?) };
        let (certificate, key) = imp::client_identity(&broker.cluster, name)?;
        to_certificate.set(c_string(&certificate).into_raw());
        to_key.set(c_string(&key).into_raw());
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Adds a user, or changes a password. Who is logged in stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_set_user(
    broker: *const ottla_test_broker,
    name: *const c_char,
    password: *const c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, name, password) =
            unsafe { (lent(broker, "broker")?, text(name, "name")?, text(password, "password")?) };
        imp::set_user(&broker.cluster, name, password)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Writes how many logins began to `*begun`, and how many of them were right to `*succeeded`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_logins(
    broker: *const ottla_test_broker,
    begun: *mut u64,
    succeeded: *mut u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (broker, to_begun, to_succeeded) = unsafe {
            (lent(broker, "broker")?, Out::new(begun, "begun")?, Out::new(succeeded, "succeeded")?)
        };
        let (begun, succeeded) = imp::logins(&broker.cluster);
        to_begun.set(begun);
        to_succeeded.set(succeeded);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Creates a topic in it at once; partition p is led by broker p mod n + 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_create_topic(
    broker: *const ottla_test_broker,
    topic: *const c_char,
    partitions: i32,
    replication: i32,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, topic) = unsafe { (lent(broker, "broker")?, text(topic, "topic")?) };
        imp::create(&broker.cluster, topic, partitions, replication)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// How long followers take to copy what is written: acknowledgements by all replicas and consumers
/// wait that long. Also for what waits now: 0 lets it go; -1: they never copy, until this is called
/// again. A topic with one replica has no followers and never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_set_replica_delay(
    broker: *const ottla_test_broker,
    delay_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let broker = unsafe { lent(broker, "broker") }?;
        imp::set_replica_delay(&broker.cluster, crate::boundary::timeout(delay_ms));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Stops the broker with this id: its port refuses, its connections are cut, its records stay.
/// `move_leaders` other than 0: the cluster notices, and others take over its partitions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_stop_broker(
    broker: *const ottla_test_broker,
    id: i32,
    move_leaders: i32,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        imp::stop(&unsafe { lent(broker, "broker") }?.cluster, id, move_leaders != 0)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Starts a stopped broker again, on its old port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_start_broker(
    broker: *const ottla_test_broker,
    id: i32,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        imp::start_again(&unsafe { lent(broker, "broker") }?.cluster, id)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Another cluster takes the place of this one, at the same addresses: it has this id, no topics and no
/// records, and gives its producer ids from the beginning again. All connections are cut.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_replace(
    broker: *const ottla_test_broker,
    cluster_id: *const c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, id) = unsafe { (lent(broker, "broker")?, text(cluster_id, "cluster_id")?) };
        imp::replace(&broker.cluster, id)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Writes the offset that the next record of a partition gets to `*offset`: how many were written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_log_end(
    broker: *const ottla_test_broker,
    topic: *const c_char,
    partition: i32,
    offset: *mut i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (broker, topic, out) = unsafe {
            (lent(broker, "broker")?, text(topic, "topic")?, Out::new(offset, "offset")?)
        };
        out.set(imp::log_end(&broker.cluster, topic, partition)?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Says how the batches kept in a topic are compressed: bit `1 << c` of `*codecs` is set for each
/// `ottla_compression` c that occurs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_codecs(
    broker: *const ottla_test_broker,
    topic: *const c_char,
    codecs: *mut u32,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (broker, topic, out) = unsafe {
            (lent(broker, "broker")?, text(topic, "topic")?, Out::new(codecs, "codecs")?)
        };
        out.set(imp::codecs(&broker.cluster, topic)?);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Stops and frees it, with all it holds. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_free(broker: *mut ottla_test_broker) {
    // SAFETY: promised by the caller.
    unsafe { free(broker) }
}
