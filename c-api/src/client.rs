//! The client: connections, the queue of completions, topics.

use std::ffi::{CString, c_char};

use ottla::bindings::{ClientOptions, HostClient, argument_error, closed_error, in_child};
use ottla::{ClusterChange, Result};

use crate::boundary::{
    Out, boundary, c_string, free, guard, lent, optional_text, setting_ms, text, timeout,
};
use crate::completion::ottla_completion;
use crate::error::ottla_error;
use crate::options::{Options, read};
use crate::properties::{ottla_property, pairs};
use crate::security::{ottla_sasl_options, ottla_tls_options, sasl, tls};
use crate::status::ottla_status;

/// A client: one queue of completions and whatever fills it. Clients of one cluster share their
/// connections.
pub struct ottla_client {
    pub(crate) engine: HostClient,
}

/// Settings of a client: start from `OTTLA_CLIENT_OPTIONS_INIT`, then set `bootstrap`. Null and 0
/// are always the default. A value out of its range is `OTTLA_STATUS_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ottla_client_options {
    /// Set by the macro.
    pub size: usize,
    /// "host:port,host:port"; null: what `properties` say.
    pub bootstrap: *const c_char,
    /// The client's name in the brokers' logs and quotas. Default "ottla".
    pub client_id: *const c_char,
    /// Name of the software, as brokers count it. Default "ottla-c".
    pub software_name: *const c_char,
    /// Version of the software. Default: the library's.
    pub software_version: *const c_char,
    /// How long to try to reach a broker, in ms. 1 to 3,600,000 (an hour), default 10,000.
    pub connect_timeout_ms: i64,
    /// How long a broker may take to answer, in ms. 100 to 3,600,000, default 30,000.
    pub request_timeout_ms: i64,
    /// The tag of the `OTTLA_COMPLETION_CONNECTED`.
    pub tag: u64,
    /// The rack (availability zone) this process runs in, by the name brokers have in `broker.rack`:
    /// a client that does not need all brokers then uses those of its own rack first. Default:
    /// none, then it takes its brokers from all racks alike.
    pub rack: *const c_char,
    /// A connection that nothing was asked on for so long is closed, up to a fifth sooner, in ms.
    /// 1,000 to 86,400,000 (a day), default 540,000: brokers close theirs after 600,000.
    pub idle_timeout_ms: i64,
    /// This process's number among `ordinal_count` equal ones, from 0 (a StatefulSet's ordinal):
    /// which brokers each uses is then shared out exactly instead of by chance.
    pub ordinal_index: u32,
    /// How many there are. Default 0: not known, by chance.
    pub ordinal_count: u32,
    /// One of `ottla_cluster_change`.
    pub on_cluster_change: i32,
    /// 0: anything else is refused.
    pub reserved: u32,
    /// How brokers are reached by TLS. Null: as `properties` say, else in plaintext.
    pub tls: *const ottla_tls_options,
    /// How the client logs in. Null: as `properties` say, else not at all.
    pub sasl: *const ottla_sasl_options,
    /// Settings by the names that Java's client and librdkafka have for them, TLS and SASL among them
    /// (`security.protocol`, `ssl.*`, `sasl.*`); `property_count` of them. What is given above too goes before
    /// them, those of producers and consumers are passed over, and what is not taken is `OTTLA_STATUS_CONFIG`.
    pub properties: *const ottla_property,
    /// See `properties`.
    pub property_count: usize,
}

/// Whether a client fails or goes on once another cluster, with another id, answers at its addresses.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_cluster_change {
    /// `OTTLA_CLUSTER_CHANGE_FAIL`.
    OTTLA_CLUSTER_CHANGE_DEFAULT = 0,
    /// Nothing more: all ends with `OTTLA_STATUS_CLUSTER_CHANGED`, which names both clusters.
    OTTLA_CLUSTER_CHANGE_FAIL = 1,
    /// It goes on with the new one. Records that may be in the old cluster's log fail as perhaps
    /// written, what was never sent goes to the new one; consumers begin there by their start.
    OTTLA_CLUSTER_CHANGE_ACCEPT = 2,
}

// SAFETY: repr(C), starts with a usize, numbers and raw pointers only.
unsafe impl Options for ottla_client_options {
    fn reserved(&self) -> i64 {
        self.reserved.into()
    }
}

/// # Safety
/// `options` is null or as its `size` says, its strings null or valid.
unsafe fn settings(options: *const ottla_client_options) -> Result<ClientOptions> {
    // SAFETY: promised by the caller.
    let o =
        unsafe { read(options, "options") }?.ok_or_else(|| argument_error("options is null"))?;
    // SAFETY: promised by the caller.
    unsafe {
        let name = optional_text(o.software_name, "software_name")?.unwrap_or("ottla-c");
        let version = optional_text(o.software_version, "software_version")?;
        let properties = pairs(o.properties, o.property_count, "properties")?;
        let bootstrap = match optional_text(o.bootstrap, "bootstrap")? {
            None if properties.is_empty() => text(o.bootstrap, "bootstrap")?,
            list => list.unwrap_or_default(),
        };
        Ok(ClientOptions {
            bootstrap: bootstrap.to_owned(),
            properties: properties.into_iter().collect(),
            client_id: optional_text(o.client_id, "client_id")?.map(str::to_owned),
            software: Some((
                name.to_owned(),
                version.unwrap_or(env!("CARGO_PKG_VERSION")).to_owned(),
            )),
            connect_timeout: setting_ms(o.connect_timeout_ms),
            request_timeout: setting_ms(o.request_timeout_ms),
            idle_timeout: setting_ms(o.idle_timeout_ms),
            rack: optional_text(o.rack, "rack")?.map(str::to_owned),
            ordinal: ((o.ordinal_index, o.ordinal_count) != (0, 0))
                .then_some((o.ordinal_index, o.ordinal_count)),
            on_cluster_change: match o.on_cluster_change {
                0 => None,
                1 => Some(ClusterChange::Fail),
                2 => Some(ClusterChange::Accept),
                other => {
                    let words = format!("{other} is no member of ottla_cluster_change");
                    return Err(argument_error(words));
                }
            },
            tls: tls(o.tls)?,
            sasl: sasl(o.sasl)?,
            tag: o.tag,
        })
    }
}

/// Makes a client and returns at once: an `OTTLA_COMPLETION_CONNECTED` tells whether a broker was
/// reached. Producers and consumers may be made before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_new(
    options: *const ottla_client_options,
    client: *mut *mut ottla_client,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(client, "client") }?;
        ottla_atfork::watch(in_child);
        // SAFETY: promised by the caller.
        let engine = HostClient::connect(unsafe { settings(options) }?)?;
        out.give(ottla_client { engine });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Makes a client and waits until it has reached a broker, at most for the options' connect
/// timeout. Leaves no completion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_connect(
    options: *const ottla_client_options,
    client: *mut *mut ottla_client,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(client, "client") }?;
        ottla_atfork::watch(in_child);
        // SAFETY: promised by the caller.
        let engine = HostClient::connect_wait(unsafe { settings(options) }?)?;
        out.give(ottla_client { engine });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// A client without a broker, for tests of programs and bindings: every record is written at
/// once, to partition 0 unless it names another, topics exist when used, and consumers hand back
/// what was submitted (the last 16 MiB of a partition).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_new_echo(
    client: *mut *mut ottla_client,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(client, "client") }?;
        ottla_atfork::watch(in_child);
        out.give(ottla_client { engine: HostClient::echo()? });
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// The descriptor to poll for reading: readable while completions wait, cleared by `ottla_poll`. An
/// event loop that has to may read it (8 bytes), and then polls until nothing comes. It belongs to the client and is closed with it; duplicate it (`dup`) for a
/// runtime that closes what it is given. -1 where there is none, in a forked child, and for a null client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_fd(client: *const ottla_client) -> i32 {
    // SAFETY: promised by the caller.
    match unsafe { client.as_ref() } {
        #[cfg(unix)]
        Some(client) if client.engine.check_process().is_ok() => {
            std::os::fd::AsRawFd::as_raw_fd(&client.engine.queue().fd())
        }
        _ => -1,
    }
}

/// Takes up to `max` completions, oldest first: writes them to `completions` and their number to
/// `*count`. If there are none, waits up to `timeout_ms` for one: 0 does not wait, -1 waits for
/// as long as it takes; nothing until then is OK with `*count` 0. Errors in completions are
/// yours. When fewer than `max` came, all were taken. After `ottla_client_close`, once all were
/// taken: `OTTLA_STATUS_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_poll(
    client: *const ottla_client,
    completions: *mut ottla_completion,
    max: usize,
    timeout_ms: i64,
    count: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (client, count) = unsafe { (lent(client, "client")?, Out::new(count, "count")?) };
        count.set(0);
        client.engine.check_process()?;
        if max == 0 {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        let first = unsafe { Out::new(completions, "completions") }?;
        let queue = client.engine.queue();
        if timeout_ms != 0 {
            queue.wait(timeout(timeout_ms));
        }
        let mut at = 0;
        let taken = queue.drain_with(max, |completion| {
            // SAFETY: the caller's array has room for `max`, and `at` stays below.
            unsafe { first.at(at) }.set(completion.into());
            at += 1;
        });
        count.set(taken);
        if taken == 0 && queue.ended() {
            return Err(closed_error("client"));
        }
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Creates a topic: the outcome is an `OTTLA_COMPLETION_TOPIC_CREATED` with this tag.
/// `partitions` and `replication` of -1 leave the choice to the cluster.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_create_topic(
    client: *const ottla_client,
    topic: *const c_char,
    partitions: i32,
    replication: i16,
    tag: u64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (client, topic) = unsafe { (lent(client, "client")?, text(topic, "topic")?) };
        client.engine.check_process()?;
        client.engine.create_topic(tag, topic, partitions, replication);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Creates a topic and waits for the outcome, for up to `timeout_ms` (-1: no limit).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_create_topic_wait(
    client: *const ottla_client,
    topic: *const c_char,
    partitions: i32,
    replication: i16,
    timeout_ms: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (client, topic) = unsafe { (lent(client, "client")?, text(topic, "topic")?) };
        client.engine.create_topic_wait(topic, partitions, replication, timeout(timeout_ms))
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Counters of the connections, producers and consumers of the client's cluster, as JSON:
/// an object whose `bad_stuff` is all zero when all is well; times are in seconds. It is yours,
/// freed with `ottla_string_free`. Names stay, and there may be more of them in later versions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_stats_json(
    client: *const ottla_client,
    json: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (client, out) = unsafe { (lent(client, "client")?, Out::null(json, "json")?) };
        let stats = client.engine.stats()?;
        let json = serde_json::to_string(&stats).expect("numbers and names are JSON");
        out.set(c_string(&json).into_raw());
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// What the client knows of the cluster now, as JSON: its id, brokers and how they do, topics in use and who leads their
/// partitions. No broker is asked. It is yours, freed with `ottla_string_free`. Names stay, and there may be more of them in
/// later versions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_cluster_json(
    client: *const ottla_client,
    json: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let out = unsafe { Out::null(json, "json") }?;
        // SAFETY: promised by the caller.
        let cluster = unsafe { lent(client, "client") }?.engine.cluster()?;
        let json = serde_json::to_string(&cluster).expect("numbers and names are JSON");
        out.set(c_string(&json).into_raw());
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// What is in the way of reaching brokers now, in words, for programs that give up a wait of their own and want to say why; null if
/// nothing is that is known. It is yours, freed with `ottla_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_in_the_way(
    client: *const ottla_client,
    words: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let (client, out) = unsafe { (lent(client, "client")?, Out::null(words, "words")?) };
        if let Some(words) = client.engine.in_the_way()? {
            out.set(c_string(&words).into_raw());
        }
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Frees a string that a call gave out through a pointer. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_string_free(string: *mut c_char) {
    guard(|| {
        if !string.is_null() {
            // SAFETY: made by `CString::into_raw`, and freed once by the caller's promise.
            drop(unsafe { CString::from_raw(string) });
        }
    });
}

/// Closes the client: what is still outstanding ends as `OTTLA_STATUS_CLOSED`, and when the call
/// returns all of it can be polled. To have records delivered first, close their producers first.
/// Later calls with the client, its producers and consumers give `OTTLA_STATUS_CLOSED`; closing
/// again is OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_close(
    client: *const ottla_client,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || {
        // SAFETY: promised by the caller.
        let client = unsafe { lent(client, "client") }?;
        client.engine.check_process()?;
        client.engine.close();
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Closes the client, if it is not closed, and frees it. Its producers and consumers are closed
/// by it and remain to be freed. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_client_free(client: *mut ottla_client) {
    // SAFETY: promised by the caller.
    unsafe { free(client) }
}

impl Drop for ottla_client {
    fn drop(&mut self) {
        self.engine.close();
    }
}
