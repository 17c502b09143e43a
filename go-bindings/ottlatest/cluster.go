package ottlatest

import (
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// Topics are the names of those that there are. A failure ends the test.
func (b *Broker) Topics() []string {
	b.t.Helper()
	is, err := b.embedded.Topics()
	b.must("Topics", err)
	return is
}

// DeleteTopic deletes a topic with its records. A failure ends the test.
func (b *Broker) DeleteTopic(topic string) {
	b.t.Helper()
	b.must("DeleteTopic", b.embedded.DeleteTopic(topic))
}

// CreatePartitions gives a topic more partitions, count in all. A failure ends the test.
func (b *Broker) CreatePartitions(topic string, count int) {
	b.t.Helper()
	b.must("CreatePartitions", b.embedded.CreatePartitions(topic, count))
}

// Compact has a topic keep the last record of each key only. A failure ends the test.
func (b *Broker) Compact(topic string) {
	b.t.Helper()
	b.must("Compact", b.embedded.Compact(topic))
}

// RefuseTimestampsAfter has the topic refuse records that are stamped later. A failure ends the test.
func (b *Broker) RefuseTimestampsAfter(topic string, latest time.Time) {
	b.t.Helper()
	b.must("RefuseTimestampsAfter", b.embedded.RefuseTimestampsAfter(topic, latest))
}

// DeleteRecords deletes the records before an offset; the result is where the partition begins now. A failure ends the test.
func (b *Broker) DeleteRecords(topic string, partition int32, offset int64) int64 {
	b.t.Helper()
	is, err := b.embedded.DeleteRecords(topic, partition, offset)
	b.must("DeleteRecords", err)
	return is
}

// ForgetProducers has a partition forget what idempotent producers have written, as after a long time. A failure ends the test.
func (b *Broker) ForgetProducers(topic string, partition int32) {
	b.t.Helper()
	b.must("ForgetProducers", b.embedded.ForgetProducers(topic, partition))
}

// MoveLeader makes a broker the leader of a partition, under a new epoch. A failure ends the test.
func (b *Broker) MoveLeader(topic string, partition, broker int32) {
	b.t.Helper()
	b.must("MoveLeader", b.embedded.MoveLeader(topic, partition, broker))
}

// RemoveLeader takes the leader away from a partition, until MoveLeader. A failure ends the test.
func (b *Broker) RemoveLeader(topic string, partition int32) {
	b.t.Helper()
	b.must("RemoveLeader", b.embedded.RemoveLeader(topic, partition))
}

// ElectUncleanly makes a broker the leader although its log ends before the first batch that reaches end: what was behind is lost. The result is where the log ends now. A failure ends the test.
func (b *Broker) ElectUncleanly(topic string, partition, broker int32, end int64) int64 {
	b.t.Helper()
	is, err := b.embedded.ElectUncleanly(topic, partition, broker, end)
	b.must("ElectUncleanly", err)
	return is
}

// ElectPreferredLeaders gives partitions back to the first of their replicas; the result is how many. A failure ends the test.
func (b *Broker) ElectPreferredLeaders() int {
	b.t.Helper()
	is, err := b.embedded.ElectPreferredLeaders()
	b.must("ElectPreferredLeaders", err)
	return is
}

// FenceBroker has the cluster take a broker for dead, which goes on and knows nothing of it. A failure ends the test.
func (b *Broker) FenceBroker(broker int32) {
	b.t.Helper()
	b.must("FenceBroker", b.embedded.FenceBroker(broker))
}

// UnfenceBroker ends that. A failure ends the test.
func (b *Broker) UnfenceBroker(broker int32) {
	b.t.Helper()
	b.must("UnfenceBroker", b.embedded.UnfenceBroker(broker))
}

// CutOffBroker has a broker answer with what it knows of the cluster now, whatever happens elsewhere, until ReconnectBroker. A failure ends the test.
func (b *Broker) CutOffBroker(broker int32) {
	b.t.Helper()
	b.must("CutOffBroker", b.embedded.CutOffBroker(broker))
}

// ForgetCluster has a broker know nothing of the cluster, as after a start, until ReconnectBroker. A failure ends the test.
func (b *Broker) ForgetCluster(broker int32) {
	b.t.Helper()
	b.must("ForgetCluster", b.embedded.ForgetCluster(broker))
}

// ReconnectBroker ends CutOffBroker and ForgetCluster. A failure ends the test.
func (b *Broker) ReconnectBroker(broker int32) {
	b.t.Helper()
	b.must("ReconnectBroker", b.embedded.ReconnectBroker(broker))
}

// CutConnections cuts all connections of a broker, which goes on listening. A failure ends the test.
func (b *Broker) CutConnections(broker int32) {
	b.t.Helper()
	b.must("CutConnections", b.embedded.CutConnections(broker))
}

// ForgetFetchSessions has a broker forget what consumers have told it, as one that was started again. A failure ends the test.
func (b *Broker) ForgetFetchSessions(broker int32) {
	b.t.Helper()
	b.must("ForgetFetchSessions", b.embedded.ForgetFetchSessions(broker))
}

// RotateCertificates gives all brokers new certificates of the same authority. A failure ends the test.
func (b *Broker) RotateCertificates() {
	b.t.Helper()
	b.must("RotateCertificates", b.embedded.RotateCertificates())
}

// ReplaceAuthority gives the cluster another authority, and the brokers certificates of it: CA is another one. A failure ends the test.
func (b *Broker) ReplaceAuthority() {
	b.t.Helper()
	b.must("ReplaceAuthority", b.embedded.ReplaceAuthority())
}

// RemoveUser removes a user; false: there was none. A failure ends the test.
func (b *Broker) RemoveUser(user string) bool {
	b.t.Helper()
	is, err := b.embedded.RemoveUser(user)
	b.must("RemoveUser", err)
	return is
}

// AddToken adds a token of OAUTHBEARER and whose it is. With a life above 0 it is right for so long from now on, and the sessions that
// it begins end with it; else for ever. A failure ends the test.
func (b *Broker) AddToken(token, principal string, life time.Duration) {
	b.t.Helper()
	b.must("AddToken", b.embedded.AddToken(token, principal, life))
}

// RemoveToken takes a token away; false: there was none. Who is logged in stays. A failure ends the test.
func (b *Broker) RemoveToken(token string) bool {
	b.t.Helper()
	is, err := b.embedded.RemoveToken(token)
	b.must("RemoveToken", err)
	return is
}

// Groups are the ids of those that there are. A failure ends the test.
func (b *Broker) Groups() []string {
	b.t.Helper()
	is, err := b.embedded.Groups()
	b.must("Groups", err)
	return is
}

// Members are the ids of a group's members. A failure ends the test.
func (b *Broker) Members(group string) []string {
	b.t.Helper()
	is, err := b.embedded.Members(group)
	b.must("Members", err)
	return is
}

// MoveCoordinator has another broker coordinate a group. A failure ends the test.
func (b *Broker) MoveCoordinator(group string, broker int32) {
	b.t.Helper()
	b.must("MoveCoordinator", b.embedded.MoveCoordinator(group, broker))
}

// RemoveCoordinator leaves a group without a coordinator, until MoveCoordinator. A failure ends the test.
func (b *Broker) RemoveCoordinator(group string) {
	b.t.Helper()
	b.must("RemoveCoordinator", b.embedded.RemoveCoordinator(group))
}

// ExpireMember ends a member's session, as if its heartbeats had stayed away. A failure ends the test.
func (b *Broker) ExpireMember(group, member string) {
	b.t.Helper()
	b.must("ExpireMember", b.embedded.ExpireMember(group, member))
}

// Inject has something go wrong. A failure ends the test.
func (b *Broker) Inject(fault ottla.Fault) {
	b.t.Helper()
	b.must("Inject", b.embedded.Inject(fault))
}

// ClearFaults takes back all that was injected and has not happened. A failure ends the test.
func (b *Broker) ClearFaults() {
	b.t.Helper()
	b.must("ClearFaults", b.embedded.ClearFaults())
}

// FaultsFired is how often something has gone wrong. A failure ends the test.
func (b *Broker) FaultsFired() int {
	b.t.Helper()
	is, err := b.embedded.FaultsFired()
	b.must("FaultsFired", err)
	return is
}

// Partition is what the cluster has of a partition. A failure ends the test.
func (b *Broker) Partition(topic string, partition int32) ottla.EmbeddedPartition {
	b.t.Helper()
	is, err := b.embedded.Partition(topic, partition)
	b.must("Partition", err)
	return is
}

// Records are those that a partition has; committed: without those of transactions that are not committed. A failure ends the test.
func (b *Broker) Records(topic string, partition int32, committed bool) []ottla.Record {
	b.t.Helper()
	is, err := b.embedded.Records(topic, partition, committed)
	b.must("Records", err)
	return is
}

// Stats are what each broker has counted, by its id. A failure ends the test.
func (b *Broker) Stats() map[int32]ottla.EmbeddedStats {
	b.t.Helper()
	is, err := b.embedded.Stats()
	b.must("Stats", err)
	return is
}

// SetPartitionReplicaDelay is SetReplicaDelay for one partition. A failure ends the test.
func (b *Broker) SetPartitionReplicaDelay(topic string, partition int32, d time.Duration) {
	b.t.Helper()
	b.must("SetPartitionReplicaDelay", b.embedded.SetPartitionReplicaDelay(topic, partition, d))
}

// Coordinator is the broker that coordinates a group, 0: nobody does. A failure ends the test.
func (b *Broker) Coordinator(group string) int32 {
	b.t.Helper()
	id, _, err := b.embedded.Coordinator(group)
	b.must("Coordinator", err)
	return id
}

func (b *Broker) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}
