//! A process that has used up what the operating system gives it: descriptors, threads. That is an error
//! with a name and no panic, it is not tried again without a pause, and all works again when there are
//! some. Each in a process of its own, whose limits are its own.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use ottla::blocking::{Client, Producer};
use ottla::testing::Cluster;
use ottla::{Client as Settings, Compression, ErrorKind, Record};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const BOOTSTRAP: &str = "OTTLA_TEST_RESOURCES_BOOTSTRAP";
const SOON: Duration = Duration::from_secs(60);
/// Nobody in particular, with no other process.
const NOBODY: u32 = 65_432;

/// Runs `child` of this test in a process of its own, against a cluster in this one: there the same test
/// finds out by its environment which of the two it is.
fn in_child(test: &str, child: impl FnOnce(&str)) {
    if let Ok(bootstrap) = std::env::var(BOOTSTRAP) {
        return child(&bootstrap);
    }
    let cluster = Cluster::builder().brokers(1).topic("t", 1, 1).start().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg(format!("resources::{test}")).args(["--exact", "--nocapture", "--test-threads=1"]);
    child.env(BOOTSTRAP, cluster.bootstrap()).current_dir("/");
    // Limits on threads do not hold for root.
    if rustix::process::getuid().is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{test}: {}\n{printed}\n{said}", output.status);
    assert!(printed.contains("1 passed"), "{test} did not run: {printed}");
}

/// The limit as it was, for as long as this exists.
struct Limit(Resource, Rlimit);

impl Limit {
    fn to(resource: Resource, most: u64) -> Self {
        let before = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(most), ..before }).unwrap();
        Self(resource, before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(self.0, self.1).unwrap();
    }
}

/// None is left: those below the limit are in use.
fn no_descriptors() -> (Limit, Vec<File>) {
    let limit = Limit::to(Resource::Nofile, 256);
    let mut used = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        used.push(file);
    }
    (limit, used)
}

fn connect(bootstrap: &str) -> ottla::Result<Client> {
    Client::connect_with(
        Settings::builder().bootstrap(bootstrap).connect_timeout(Duration::from_millis(500)),
    )
}

fn send(producer: &Producer, size: usize) -> ottla::Result<i64> {
    let value = vec![7; size];
    let mut delivery = producer.send(Record::to("t").value(&value))?;
    delivery.wait(Some(SOON)).map(|at| at.offset)
}

#[test]
fn without_descriptors() {
    in_child("without_descriptors", child_without_descriptors);
}

fn child_without_descriptors(bootstrap: &str) {
    {
        let _limit = no_descriptors();
        for _ in 0..20 {
            let error = connect(bootstrap).err().expect("there is no descriptor for the engine");
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
            assert!(error.is_retriable(), "{error}");
        }
        let engine =
            ottla::bindings::HostClient::echo().err().expect("nor one to wake a host with");
        assert_eq!(engine.kind(), ErrorKind::OutOfResources, "{engine}");
    }
    let client = connect(bootstrap).unwrap();
    let producer = client.producer(|p| p).unwrap();
    assert_eq!(send(&producer, 10).unwrap(), 0);
    let mut read = 0;
    let mut consumer;
    {
        // What is connected works on; what is not says why, and pauses.
        let _limit = no_descriptors();
        assert_eq!(send(&producer, 10).unwrap(), 1);
        let other = Settings::builder().client_id("other").bootstrap(bootstrap);
        let other = Client::connect_with(other.connect_timeout(Duration::from_millis(500)));
        if let Err(error) = other {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
        }
        consumer = client.consumer(|c| c.topics(["t"])).unwrap();
        // An idle connection may have to go for it.
        read += consumer.next_timeout(Duration::from_secs(1)).unwrap().map_or(0, |b| b.len());
        let dials: u64 = client.stats().brokers.values().map(|b| b.dials).sum();
        assert!(dials < 30, "{dials} dials without a pause");
    }
    assert_eq!(send(&producer, 10).unwrap(), 2);
    while read < 3 {
        read += consumer.next_timeout(SOON).unwrap().expect("records").len();
    }
}

#[test]
fn without_threads() {
    in_child("without_threads", child_without_threads);
}

fn child_without_threads(bootstrap: &str) {
    {
        let _limit = Limit::to(Resource::Nproc, 0);
        for _ in 0..20 {
            let error = connect(bootstrap).err().expect("there is no thread for the engine");
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
        }
    }
    let client = connect(bootstrap).unwrap();
    let zstd = Compression::Zstd { level: 19 };
    let producer = client.producer(|p| p.compression(zstd)).unwrap();
    assert_eq!(send(&producer, 10).unwrap(), 0);
    {
        let _limit = Limit::to(Resource::Nproc, 0);
        // Compressed on whatever thread there is.
        assert_eq!(send(&producer, 300_000).unwrap(), 1);
        // Nobody can look the name up.
        let named = bootstrap.replace("127.0.0.1", "localhost");
        let error = connect(&named).err().expect("there is no thread to look it up with");
        assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
    }
    assert_eq!(send(&producer, 300_000).unwrap(), 2);
    connect(&bootstrap.replace("127.0.0.1", "localhost")).unwrap();
}
