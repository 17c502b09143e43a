package ottla

import (
	"encoding/hex"
	"encoding/json"
	"time"
)

// command has the cluster do something; fields are what it is to know, a name and a value in turn.
func (b *EmbeddedBroker) command(into any, do string, fields ...any) error {
	command := map[string]any{"do": do}
	for i := 0; i+1 < len(fields); i += 2 {
		command[fields[i].(string)] = fields[i+1]
	}
	return b.do(into, command)
}

func (b *EmbeddedBroker) do(into, command any) error {
	text, err := json.Marshal(command)
	if err != nil {
		return invalid("the embedded broker is told what has no form in JSON: %v", err)
	}
	answer, failure := b.api.Do(string(text))
	if failure != nil || into == nil {
		return failed(failure)
	}
	return read(answer, into)
}

// Fault is something that goes wrong at an embedded broker: what, where, and how often.
type Fault struct {
	// Kind is what happens: FaultDelay, FaultError, ...
	Kind FaultKind
	// Code is Kafka's error code, of FaultError, FaultErrorAfterAppend and FaultSessionError.
	Code int16
	// Time is of FaultDelay, FaultDelayResponse and FaultThrottle, to the millisecond.
	Time time.Duration
	// Broker is where; 0: anywhere.
	Broker int32
	// API is Kafka's number of the request that it happens to; nil: to any.
	API *int16
	// Group, Topic and Partition narrow it further; the last two only errors.
	Group, Topic string
	Partition    *int32
	// After so many such requests, which go well.
	After int
	// Times it happens; 0: always, until ClearFaults.
	Times int
}

// FaultKind is what goes wrong.
type FaultKind string

const (
	// FaultRefuse closes a connection as soon as it is accepted.
	FaultRefuse FaultKind = "refuse"
	// FaultCutBeforeAppend cuts the connection; the request has no effect.
	FaultCutBeforeAppend FaultKind = "cut_before_append"
	// FaultCutAfterAppend lets the request take effect, and cuts the connection instead of a response.
	FaultCutAfterAppend FaultKind = "cut_after_append"
	// FaultDelay has the request wait before it takes effect.
	FaultDelay FaultKind = "delay"
	// FaultDelayResponse has its response wait.
	FaultDelayResponse FaultKind = "delay_response"
	// FaultBlackHole never answers anything again on the connection; the request has no effect.
	FaultBlackHole FaultKind = "black_hole"
	// FaultBlackHoleAfterAppend is the same, after the request took effect.
	FaultBlackHoleAfterAppend FaultKind = "black_hole_after_append"
	// FaultError answers with an error; the request has no effect.
	FaultError FaultKind = "error"
	// FaultErrorAfterAppend answers with an error although the request took effect.
	FaultErrorAfterAppend FaultKind = "error_after_append"
	// FaultThrottle answers with this throttle time.
	FaultThrottle FaultKind = "throttle"
	// FaultSessionError answers a Fetch with an error about its session (70, 71).
	FaultSessionError FaultKind = "session_error"
	// FaultTLSStall never answers a TLS handshake, FaultTLSCut cuts its connection.
	FaultTLSStall FaultKind = "tls_stall"
	FaultTLSCut   FaultKind = "tls_cut"
)

// MarshalJSON writes what the embedded broker reads.
func (f Fault) MarshalJSON() ([]byte, error) {
	rule := map[string]any{"do": "inject", "fault": f.Kind, "after": f.After}
	for name, value := range map[string]any{"code": f.Code, "ms": f.Time.Milliseconds()} {
		rule[name] = value
	}
	if f.Broker != 0 {
		rule["broker"] = f.Broker
	}
	if f.API != nil {
		rule["api"] = *f.API
	}
	if f.Group != "" {
		rule["group"] = f.Group
	}
	if f.Topic != "" {
		rule["topic"] = f.Topic
	}
	if f.Partition != nil {
		rule["partition"] = *f.Partition
	}
	if f.Times > 0 {
		rule["times"] = f.Times
	}
	return json.Marshal(rule)
}

// EmbeddedPartition is what an embedded cluster has of a partition.
type EmbeddedPartition struct {
	PartitionState
	// Replicas are brokers, InSync those of them that have all.
	Replicas, InSync []int32
	// LogStart is the first offset that is kept, HighWatermark the first that consumers can not read, LogEnd that of the next
	// record; LastStable the first that consumers of committed records can not read.
	LogStart, HighWatermark, LastStable, LogEnd int64
}

// UnmarshalJSON reads what the embedded broker writes.
func (p *EmbeddedPartition) UnmarshalJSON(text []byte) error {
	rest := struct {
		Replicas      []int32 `json:"replicas"`
		InSync        []int32 `json:"in_sync"`
		LogStart      int64   `json:"log_start"`
		HighWatermark int64   `json:"high_watermark"`
		LastStable    int64   `json:"last_stable_offset"`
		LogEnd        int64   `json:"log_end"`
	}{}
	if err := json.Unmarshal(text, &rest); err != nil {
		return err
	}
	p.Replicas, p.InSync = rest.Replicas, rest.InSync
	p.LogStart, p.HighWatermark, p.LastStable, p.LogEnd = rest.LogStart, rest.HighWatermark, rest.LastStable, rest.LogEnd
	return json.Unmarshal(text, &p.PartitionState)
}

// Partition is what the cluster has of a partition.
func (b *EmbeddedBroker) Partition(topic string, partition int32) (is EmbeddedPartition, err error) {
	err = b.command(&is, "partition", "topic", topic, "partition", partition)
	return is, err
}

// Records are those that a partition has, as no consumer has asked for them; committed: without those of transactions that are
// not committed.
func (b *EmbeddedBroker) Records(topic string, partition int32, committed bool) ([]Record, error) {
	var raw []struct {
		Offset      int64     `json:"offset"`
		TimestampMs int64     `json:"timestamp_ms"`
		Key         *hexBytes `json:"key"`
		Value       *hexBytes `json:"value"`
		Headers     []struct {
			Name  hexBytes  `json:"name"`
			Value *hexBytes `json:"value"`
		} `json:"headers"`
	}
	if err := b.command(&raw, "records", "topic", topic, "partition", partition, "committed", committed); err != nil {
		return nil, err
	}
	records := make([]Record, len(raw))
	for i, r := range raw {
		records[i] = Record{Topic: topic, Partition: partition, Offset: r.Offset, Key: r.Key.bytes(), Value: r.Value.bytes()}
		if r.TimestampMs >= 0 {
			records[i].Timestamp = time.UnixMilli(r.TimestampMs)
		}
		for _, h := range r.Headers {
			records[i].Headers = append(records[i].Headers, Header{Name: string(h.Name), Value: h.Value.bytes()})
		}
	}
	return records, nil
}

// hexBytes are bytes in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	*h = make([]byte, hex.DecodedLen(len(text)))
	_, err := hex.Decode(*h, text)
	return err
}

func (h *hexBytes) bytes() []byte {
	if h == nil {
		return nil
	}
	return *h
}

// SetPartitionReplicaDelay is SetReplicaDelay for one partition; negative: its followers never copy.
func (b *EmbeddedBroker) SetPartitionReplicaDelay(topic string, partition int32, d time.Duration) error {
	ms := int64(-1)
	if d >= 0 {
		ms = d.Milliseconds()
	}
	return b.command(nil, "set_partition_replica_delay", "topic", topic, "partition", partition, "delay_ms", ms)
}

// Coordinator is the broker that coordinates a group; false: nobody does.
func (b *EmbeddedBroker) Coordinator(group string) (broker int32, any bool, err error) {
	var id *int32
	if err := b.command(&id, "coordinator", "group", group); err != nil || id == nil {
		return 0, false, err
	}
	return *id, true, nil
}

// EmbeddedStats is what an embedded broker has counted.
type EmbeddedStats struct {
	ConnectionsAccepted uint64 `json:"connections_accepted"`
	ConnectionsRefused  uint64 `json:"connections_refused"`
	ConnectionsOpen     uint64 `json:"connections_open"`
	ProduceBatches      uint64 `json:"produce_batches"`
	ProduceDuplicates   uint64 `json:"produce_duplicates"`
	ProduceRecords      uint64 `json:"produce_records"`
	ProduceBytes        uint64 `json:"produce_bytes"`
	FetchBytes          uint64 `json:"fetch_bytes"`
	OffsetsCommitted    uint64 `json:"offsets_committed"`
	// Requests are by Kafka's number of their kind.
	Requests map[int16]uint64 `json:"requests"`
}

// Stats are what each broker has counted, by its id.
func (b *EmbeddedBroker) Stats() (stats map[int32]EmbeddedStats, err error) {
	err = b.command(&stats, "stats")
	return stats, err
}

// Topics are the names of those that there are.
func (b *EmbeddedBroker) Topics() (is []string, err error) {
	err = b.command(&is, "topics")
	return is, err
}

// DeleteTopic deletes a topic with its records.
func (b *EmbeddedBroker) DeleteTopic(topic string) error {
	return b.command(nil, "delete_topic", "topic", topic)
}

// CreatePartitions gives a topic more partitions, count in all.
func (b *EmbeddedBroker) CreatePartitions(topic string, count int) error {
	return b.command(nil, "create_partitions", "topic", topic, "count", count)
}

// Compact has a topic keep the last record of each key only.
func (b *EmbeddedBroker) Compact(topic string) error {
	return b.command(nil, "compact", "topic", topic)
}

// RefuseTimestampsAfter has the topic refuse records that are stamped later.
func (b *EmbeddedBroker) RefuseTimestampsAfter(topic string, latest time.Time) error {
	return b.command(nil, "refuse_timestamps_after", "topic", topic, "latest_ms", latest.UnixMilli())
}

// DeleteRecords deletes the records before an offset; the result is where the partition begins now.
func (b *EmbeddedBroker) DeleteRecords(topic string, partition int32, offset int64) (is int64, err error) {
	err = b.command(&is, "delete_records", "topic", topic, "partition", partition, "offset", offset)
	return is, err
}

// ForgetProducers has a partition forget what idempotent producers have written, as after a long time.
func (b *EmbeddedBroker) ForgetProducers(topic string, partition int32) error {
	return b.command(nil, "forget_producers", "topic", topic, "partition", partition)
}

// MoveLeader makes a broker the leader of a partition, under a new epoch.
func (b *EmbeddedBroker) MoveLeader(topic string, partition, broker int32) error {
	return b.command(nil, "move_leader", "topic", topic, "partition", partition, "broker", broker)
}

// RemoveLeader takes the leader away from a partition, until MoveLeader.
func (b *EmbeddedBroker) RemoveLeader(topic string, partition int32) error {
	return b.command(nil, "remove_leader", "topic", topic, "partition", partition)
}

// ElectUncleanly makes a broker the leader although its log ends before the first batch that reaches end: what was behind is lost. The result is where the log ends now.
func (b *EmbeddedBroker) ElectUncleanly(topic string, partition, broker int32, end int64) (is int64, err error) {
	err = b.command(&is, "elect_uncleanly", "topic", topic, "partition", partition, "broker", broker, "end", end)
	return is, err
}

// ElectPreferredLeaders gives partitions back to the first of their replicas; the result is how many.
func (b *EmbeddedBroker) ElectPreferredLeaders() (is int, err error) {
	err = b.command(&is, "elect_preferred_leaders")
	return is, err
}

// FenceBroker has the cluster take a broker for dead, which goes on and knows nothing of it.
func (b *EmbeddedBroker) FenceBroker(broker int32) error {
	return b.command(nil, "fence_broker", "broker", broker)
}

// UnfenceBroker ends that.
func (b *EmbeddedBroker) UnfenceBroker(broker int32) error {
	return b.command(nil, "unfence_broker", "broker", broker)
}

// CutOffBroker has a broker answer with what it knows of the cluster now, whatever happens elsewhere, until ReconnectBroker.
func (b *EmbeddedBroker) CutOffBroker(broker int32) error {
	return b.command(nil, "cut_off_broker", "broker", broker)
}

// ForgetCluster has a broker know nothing of the cluster, as after a start, until ReconnectBroker.
func (b *EmbeddedBroker) ForgetCluster(broker int32) error {
	return b.command(nil, "forget_cluster", "broker", broker)
}

// ReconnectBroker ends CutOffBroker and ForgetCluster.
func (b *EmbeddedBroker) ReconnectBroker(broker int32) error {
	return b.command(nil, "reconnect_broker", "broker", broker)
}

// CutConnections cuts all connections of a broker, which goes on listening.
func (b *EmbeddedBroker) CutConnections(broker int32) error {
	return b.command(nil, "cut_connections", "broker", broker)
}

// ForgetFetchSessions has a broker forget what consumers have told it, as one that was started again.
func (b *EmbeddedBroker) ForgetFetchSessions(broker int32) error {
	return b.command(nil, "forget_fetch_sessions", "broker", broker)
}

// RotateCertificates gives all brokers new certificates of the same authority.
func (b *EmbeddedBroker) RotateCertificates() error {
	return b.command(nil, "rotate_certificates")
}

// ReplaceAuthority gives the cluster another authority, and the brokers certificates of it: CA is another one.
func (b *EmbeddedBroker) ReplaceAuthority() error {
	return b.command(nil, "replace_authority")
}

// RemoveUser removes a user; false: there was none.
func (b *EmbeddedBroker) RemoveUser(user string) (is bool, err error) {
	err = b.command(&is, "remove_user", "user", user)
	return is, err
}

// AddToken adds a token of OAUTHBEARER and whose it is. With a life above 0 it is right for so long from now on, and the sessions that
// it begins end with it; else for ever.
func (b *EmbeddedBroker) AddToken(token, principal string, life time.Duration) error {
	fields := []any{"token", token, "principal", principal}
	if life > 0 {
		fields = append(fields, "life_ms", life.Milliseconds())
	}
	return b.command(nil, "add_token", fields...)
}

// RemoveToken takes a token away; false: there was none. Who is logged in stays.
func (b *EmbeddedBroker) RemoveToken(token string) (is bool, err error) {
	err = b.command(&is, "remove_token", "token", token)
	return is, err
}

// Groups are the ids of those that there are.
func (b *EmbeddedBroker) Groups() (is []string, err error) {
	err = b.command(&is, "groups")
	return is, err
}

// Members are the ids of a group's members.
func (b *EmbeddedBroker) Members(group string) (is []string, err error) {
	err = b.command(&is, "members", "group", group)
	return is, err
}

// MoveCoordinator has another broker coordinate a group.
func (b *EmbeddedBroker) MoveCoordinator(group string, broker int32) error {
	return b.command(nil, "move_coordinator", "group", group, "broker", broker)
}

// RemoveCoordinator leaves a group without a coordinator, until MoveCoordinator.
func (b *EmbeddedBroker) RemoveCoordinator(group string) error {
	return b.command(nil, "remove_coordinator", "group", group)
}

// ExpireMember ends a member's session, as if its heartbeats had stayed away.
func (b *EmbeddedBroker) ExpireMember(group, member string) error {
	return b.command(nil, "expire_member", "group", group, "member", member)
}

// Inject has something go wrong.
func (b *EmbeddedBroker) Inject(fault Fault) error { return b.do(nil, fault) }

// ClearFaults takes back all that was injected and has not happened.
func (b *EmbeddedBroker) ClearFaults() error {
	return b.command(nil, "clear_faults")
}

// FaultsFired is how often something has gone wrong.
func (b *EmbeddedBroker) FaultsFired() (is int, err error) {
	err = b.command(&is, "faults_fired")
	return is, err
}
