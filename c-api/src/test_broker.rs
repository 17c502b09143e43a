//! The embedded broker. The calls are exported by every build, so that the interface does not
//! depend on how it was built; without the feature `test-broker` making one fails.

use std::ffi::{CString, c_char};

use ottla::Result;

use crate::boundary::{Out, boundary, free, lent, text};
use crate::error::ottla_error;
use crate::status::ottla_status;

/// A Kafka cluster inside this process, for tests: real protocol on ports of 127.0.0.1, records in
/// memory, gone when freed.
pub struct ottla_test_broker {
    cluster: imp::Cluster,
    bootstrap: CString,
}

#[cfg(feature = "test-broker")]
mod imp {
    use ottla::Result;
    use ottla::engine::argument_error;

    pub(super) use ottla_test_broker::Cluster;

    pub(super) fn start(brokers: i32) -> Result<Cluster> {
        Cluster::builder()
            .brokers(brokers)
            .start()
            .map_err(|e| argument_error(format!("the test broker did not start: {e}")))
    }

    pub(super) fn create(
        cluster: &Cluster,
        topic: &str,
        partitions: i32,
        replicas: i32,
    ) -> Result<()> {
        cluster
            .create_topic(topic, partitions, replicas)
            .map(drop)
            .map_err(|e| argument_error(e.to_string()))
    }
}

#[cfg(not(feature = "test-broker"))]
mod imp {
    use ottla::Result;
    use ottla::engine::argument_error;

    /// Never made.
    pub(super) enum Cluster {}

    impl Cluster {
        pub(super) fn bootstrap(&self) -> String {
            match *self {}
        }
    }

    pub(super) fn start(_brokers: i32) -> Result<Cluster> {
        Err(argument_error(
            "this build has no test broker; build ottla-c with the feature test-broker",
        ))
    }

    pub(super) fn create(cluster: &Cluster, _: &str, _: i32, _: i32) -> Result<()> {
        match *cluster {}
    }
}

/// Starts a cluster of so many brokers, without topics. Builds for distribution have it; one
/// without the feature `test-broker` answers `OTTLA_STATUS_INVALID_ARGUMENT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_new(
    brokers: i32,
    broker: *mut *mut ottla_test_broker,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::new(broker, "broker") }?;
        out.set(std::ptr::null_mut());
        let cluster = imp::start(brokers)?;
        let bootstrap = crate::boundary::c_string(&cluster.bootstrap());
        out.set(Box::into_raw(Box::new(ottla_test_broker { cluster, bootstrap })));
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

/// Creates a topic in it at once.
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

/// Stops and frees it, with all it holds. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_free(broker: *mut ottla_test_broker) {
    // SAFETY: promised by the caller.
    unsafe { free(broker) }
}
