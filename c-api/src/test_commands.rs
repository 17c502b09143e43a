//! All that the embedded broker can do besides: one call that takes what is to be done as JSON, for the test tools of languages on top
//! of C, which have a method for each.

use std::ffi::c_char;

use ottla::Result;

use crate::boundary::{Out, boundary, c_string, lent, text};
use crate::error::ottla_error;
use crate::status::ottla_status;
use crate::test_broker::ottla_test_broker;

#[cfg(feature = "test-broker")]
mod imp {
    use std::fmt::Write as _;
    use std::io;
    use std::time::Duration;

    use ottla::Result;
    use ottla::bindings::argument_error;
    use ottla_test_broker::{
        ApiKey, BearerLogin, Cluster, Fault, FaultRule, LoginFault, Record, TlsFault,
    };
    use serde::Deserialize;
    use serde_json::{Value, json};

    /// What is to be done, by the name in `do`.
    #[derive(Debug, Deserialize)]
    #[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
    enum Command {
        Topics,
        DeleteTopic {
            topic: String,
        },
        CreatePartitions {
            topic: String,
            count: i32,
        },
        Compact {
            topic: String,
        },
        RefuseTimestampsAfter {
            topic: String,
            latest_ms: i64,
        },
        Partition {
            topic: String,
            partition: i32,
        },
        Records {
            topic: String,
            partition: i32,
            committed: bool,
        },
        DeleteRecords {
            topic: String,
            partition: i32,
            offset: i64,
        },
        ForgetProducers {
            topic: String,
            partition: i32,
        },
        MoveLeader {
            topic: String,
            partition: i32,
            broker: i32,
        },
        RemoveLeader {
            topic: String,
            partition: i32,
        },
        ElectUncleanly {
            topic: String,
            partition: i32,
            broker: i32,
            end: i64,
        },
        ElectPreferredLeaders,
        /// Without a delay: the cluster's again. Negative: for ever.
        SetPartitionReplicaDelay {
            topic: String,
            partition: i32,
            delay_ms: Option<i64>,
        },
        FenceBroker {
            broker: i32,
        },
        UnfenceBroker {
            broker: i32,
        },
        CutOffBroker {
            broker: i32,
        },
        ForgetCluster {
            broker: i32,
        },
        ReconnectBroker {
            broker: i32,
        },
        CutConnections {
            broker: i32,
        },
        ForgetFetchSessions {
            broker: i32,
        },
        RotateCertificates,
        ReplaceAuthority,
        RemoveUser {
            user: String,
        },
        /// Without a life: for ever.
        AddToken {
            token: String,
            principal: String,
            life_ms: Option<u64>,
        },
        RemoveToken {
            token: String,
        },
        Groups,
        Members {
            group: String,
        },
        Coordinator {
            group: String,
        },
        MoveCoordinator {
            group: String,
            broker: i32,
        },
        RemoveCoordinator {
            group: String,
        },
        ExpireMember {
            group: String,
            member: String,
        },
        Inject(Box<Rule>),
        ClearFaults,
        FaultsFired,
        Stats,
    }

    /// A fault, where it happens and how often.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        fault: String,
        #[serde(default)]
        code: i16,
        #[serde(default)]
        ms: u64,
        broker: Option<i32>,
        api: Option<i16>,
        group: Option<String>,
        topic: Option<String>,
        partition: Option<i32>,
        #[serde(default)]
        after: usize,
        /// None: always.
        times: Option<usize>,
    }

    impl Rule {
        fn fault(&self) -> Result<Fault> {
            let time = Duration::from_millis(self.ms);
            Ok(match self.fault.as_str() {
                "refuse" => Fault::Refuse,
                "cut_before_append" => Fault::CutBeforeAppend,
                "cut_after_append" => Fault::CutAfterAppend,
                "delay" => Fault::Delay(time),
                "delay_response" => Fault::DelayResponse(time),
                "black_hole" => Fault::BlackHole,
                "black_hole_after_append" => Fault::BlackHoleAfterAppend,
                "error" => Fault::Error(self.code),
                "error_after_append" => Fault::ErrorAfterAppend(self.code),
                "throttle" => Fault::Throttle(time),
                "session_error" => Fault::SessionError(self.code),
                "tls_stall" => Fault::Tls(TlsFault::Stall),
                "tls_cut" => Fault::Tls(TlsFault::Cut),
                "refuse_reauthentication" => Fault::Login(LoginFault::RefuseReauthentication),
                "scram_foreign_nonce" => Fault::Login(LoginFault::ScramForeignNonce),
                "scram_wrong_signature" => Fault::Login(LoginFault::ScramWrongSignature),
                "scram_no_signature" => Fault::Login(LoginFault::ScramNoSignature),
                other => return Err(argument_error(format!("no fault is called '{other}'"))),
            })
        }

        fn inject(self, cluster: &Cluster) -> Result<()> {
            let fault = self.fault()?;
            // What the broker takes for a mistake in its own tests.
            let of_partitions = matches!(fault, Fault::Error(_) | Fault::ErrorAfterAppend(_));
            if (self.topic.is_some() || self.partition.is_some()) && !of_partitions {
                return Err(argument_error(format!(
                    "'{}' happens to connections, which carry many partitions: give it no topic",
                    self.fault
                )));
            }
            let apart = matches!(
                fault,
                Fault::Refuse | Fault::Tls(_) | Fault::Login(_) | Fault::SessionError(_)
            );
            if self.group.is_some() && apart {
                return Err(argument_error(format!(
                    "'{}' happens to no request of a group",
                    self.fault
                )));
            }
            let mut rule = FaultRule::new(fault).after(self.after);
            rule = match self.times {
                Some(times) => rule.times(times),
                None => rule.always(),
            };
            if let Some(broker) = self.broker {
                rule = rule.broker(broker);
            }
            if let Some(api) = self.api {
                rule = rule.api(ApiKey(api));
            }
            if let Some(group) = self.group {
                rule = rule.group(group);
            }
            if let Some(topic) = self.topic {
                rule = rule.topic(topic);
            }
            if let Some(partition) = self.partition {
                rule = rule.partition(partition);
            }
            cluster.faults().inject(rule);
            Ok(())
        }
    }

    pub(super) fn run(cluster: &Cluster, command: &str) -> Result<String> {
        let command: Command = serde_json::from_str(command).map_err(|e| {
            argument_error(format!("the test broker is to do what it can not: {e}"))
        })?;
        let answer = obey(cluster, command)?;
        Ok(answer.to_string())
    }

    fn told<T: Into<Value>>(outcome: io::Result<T>) -> Result<Value> {
        outcome.map(Into::into).map_err(|e| argument_error(e.to_string()))
    }

    fn done(outcome: io::Result<()>) -> Result<Value> {
        told(outcome.map(|()| Value::Null))
    }

    fn obey(cluster: &Cluster, command: Command) -> Result<Value> {
        use Command as C;
        match command {
            C::Topics => {
                let names: Vec<_> = cluster.topics().into_iter().map(|(name, _)| name).collect();
                Ok(json!(names))
            }
            C::DeleteTopic { topic } => done(cluster.delete_topic(&topic)),
            C::CreatePartitions { topic, count } => {
                done(cluster.create_partitions(&topic, count))
            }
            C::Compact { topic } => done(cluster.compact(&topic)),
            C::RefuseTimestampsAfter { topic, latest_ms } => {
                done(cluster.refuse_timestamps_after(&topic, latest_ms))
            }
            C::Partition { topic, partition } => told(cluster.partition(&topic, partition).map(
                |is| {
                    json!({
                        "leader": is.leader, "leader_epoch": is.leader_epoch, "replicas": is.replicas,
                        "in_sync": is.isr, "log_start": is.log_start, "log_end": is.log_end,
                        "high_watermark": is.high_watermark,
                        "last_stable_offset": is.last_stable_offset,
                    })
                },
            )),
            C::Records { topic, partition, committed } => {
                let records = if committed {
                    cluster.committed_records(&topic, partition)
                } else {
                    cluster.records(&topic, partition)
                };
                told(records.map(|list| list.iter().map(record).collect::<Vec<_>>()))
            }
            C::DeleteRecords { topic, partition, offset } => {
                told(cluster.delete_records(&topic, partition, offset))
            }
            C::ForgetProducers { topic, partition } => {
                done(cluster.forget_producers(&topic, partition))
            }
            C::MoveLeader { topic, partition, broker } => {
                done(cluster.move_leader(&topic, partition, broker))
            }
            C::RemoveLeader { topic, partition } => done(cluster.remove_leader(&topic, partition)),
            C::ElectUncleanly { topic, partition, broker, end } => {
                told(cluster.elect_uncleanly(&topic, partition, broker, end))
            }
            C::ElectPreferredLeaders => Ok(json!(cluster.elect_preferred_leaders())),
            C::SetPartitionReplicaDelay { topic, partition, delay_ms } => {
                let delay = delay_ms.map(|ms| {
                    u64::try_from(ms).map_or(Duration::MAX, Duration::from_millis)
                });
                done(cluster.set_partition_replica_delay(&topic, partition, delay))
            }
            C::FenceBroker { broker } => done(cluster.fence_broker(broker)),
            C::UnfenceBroker { broker } => done(cluster.unfence_broker(broker)),
            C::CutOffBroker { broker } => done(cluster.cut_off_broker(broker)),
            C::ForgetCluster { broker } => done(cluster.forget_cluster(broker)),
            C::ReconnectBroker { broker } => done(cluster.reconnect_broker(broker)),
            C::CutConnections { broker } => done(cluster.cut_connections(broker)),
            C::ForgetFetchSessions { broker } => done(cluster.forget_fetch_sessions(broker)),
            C::RotateCertificates => done(cluster.rotate_certificates()),
            C::ReplaceAuthority => done(cluster.replace_authority()),
            C::RemoveUser { user } => told(cluster.remove_user(&user)),
            C::AddToken { token, principal, life_ms } => {
                let lifetime = life_ms.map(Duration::from_millis);
                done(cluster.add_token(&token, BearerLogin { principal, lifetime }))
            }
            C::RemoveToken { token } => told(cluster.remove_token(&token)),
            C::Groups => Ok(json!(cluster.group_ids())),
            C::Members { group } => {
                let members = cluster.group(&group).map(|group| group.members).unwrap_or_default();
                Ok(json!(members.into_iter().map(|member| member.id).collect::<Vec<_>>()))
            }
            C::Coordinator { group } => Ok(json!(cluster.coordinator(&group))),
            C::MoveCoordinator { group, broker } => done(cluster.move_coordinator(&group, broker)),
            C::RemoveCoordinator { group } => {
                cluster.remove_coordinator(&group);
                Ok(Value::Null)
            }
            C::ExpireMember { group, member } => done(cluster.expire_member(&group, &member)),
            C::Inject(rule) => rule.inject(cluster).map(|()| Value::Null),
            C::ClearFaults => {
                cluster.faults().clear();
                Ok(Value::Null)
            }
            C::FaultsFired => Ok(json!(cluster.faults().fired())),
            C::Stats => Ok(stats(cluster)),
        }
    }

    fn hex(bytes: Option<&[u8]>) -> Value {
        let Some(bytes) = bytes else { return Value::Null };
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _never_fails = write!(text, "{byte:02x}");
        }
        text.into()
    }

    fn record(record: &Record) -> Value {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| json!({"name": hex(Some(name)), "value": hex(value.as_deref())}))
            .collect();
        json!({
            "offset": record.offset, "timestamp_ms": record.timestamp, "key": hex(record.key.as_deref()),
            "value": hex(record.value.as_deref()), "headers": headers,
        })
    }

    fn stats(cluster: &Cluster) -> Value {
        let stats = cluster.stats();
        let brokers = stats.brokers.iter().map(|broker| {
            let requests = broker.requests.iter();
            let requests: serde_json::Map<_, _> =
                requests.map(|(api, n)| (api.0.to_string(), json!(n))).collect();
            let is = json!({
                "connections_accepted": broker.connections_accepted,
                "connections_refused": broker.connections_refused,
                "connections_open": broker.connections_open,
                "produce_batches": broker.produce_batches,
                "produce_duplicates": broker.produce_duplicates,
                "produce_records": broker.produce_records,
                "produce_bytes": broker.produce_bytes,
                "fetch_bytes": broker.fetch_bytes,
                "offsets_committed": broker.offsets_committed,
                "requests": requests,
            });
            (broker.broker.to_string(), is)
        });
        Value::Object(brokers.collect())
    }
}

#[cfg(not(feature = "test-broker"))]
mod imp {
    use ottla::Result;

    use crate::test_broker::Cluster;

    pub(super) fn run(cluster: &Cluster, _: &str) -> Result<String> {
        match *cluster {}
    }
}

/// Has a cluster for tests do something: `command` is an object in JSON whose `do` names it (`move_leader`, `inject`,
/// `records`, ...); what it may be and what comes back, as JSON to `*answer`, follows the embedded broker and may change with any
/// version. For test tools of other languages: a name or a member that is not known is `OTTLA_STATUS_INVALID_ARGUMENT`. The answer
/// is yours, freed with `ottla_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_do(
    broker: *const ottla_test_broker,
    command: *const c_char,
    answer: *mut *mut c_char,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, command, out) = unsafe {
            (lent(broker, "broker")?, text(command, "command")?, Out::null(answer, "answer")?)
        };
        out.set(c_string(&imp::run(&broker.cluster, command)?).into_raw());
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

#[cfg(all(test, feature = "test-broker"))]
mod tests {
    use super::imp::run;
    use ottla_test_broker::Cluster;

    #[test]
    fn what_is_not_known_is_refused_and_what_is_happens() {
        let cluster = Cluster::builder().brokers(2).topic("t", 1, 2).start().unwrap();
        for wrong in [
            "",
            "[]",
            r#"{"do":"fly"}"#,
            r#"{"do":"move_leader","topic":"t"}"#,
            r#"{"do":"move_leader","topic":"t","partition":0,"broker":9}"#,
            r#"{"do":"inject","fault":"rain"}"#,
            r#"{"do":"inject","fault":"delay","topic":"t"}"#,
            r#"{"do":"inject","fault":"refuse","group":"g"}"#,
            r#"{"do":"records","topic":"nowhere","partition":0,"committed":false}"#,
        ] {
            assert!(run(&cluster, wrong).is_err(), "{wrong}");
        }
        run(&cluster, r#"{"do":"move_leader","topic":"t","partition":0,"broker":2}"#).unwrap();
        let told = run(&cluster, r#"{"do":"partition","topic":"t","partition":0}"#).unwrap();
        assert!(told.contains(r#""leader":2"#), "{told}");
        assert_eq!(run(&cluster, r#"{"do":"topics"}"#).unwrap(), r#"["t"]"#);
        run(&cluster, r#"{"do":"inject","fault":"error","code":6,"topic":"t"}"#).unwrap();
        assert_eq!(run(&cluster, r#"{"do":"faults_fired"}"#).unwrap(), "0");
    }
}
