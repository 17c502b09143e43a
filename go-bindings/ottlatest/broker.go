// Package ottlatest has an embedded Kafka cluster for tests: no Docker, no network, started in
// milliseconds.
package ottlatest

import (
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// Broker is a cluster that ends with its test.
type Broker struct {
	t        testing.TB
	embedded *ottla.EmbeddedBroker
}

// NewBroker starts a cluster of one broker for the test; a failure ends the test.
func NewBroker(t testing.TB) *Broker {
	t.Helper()
	return NewCluster(t, 1)
}

// NewCluster starts a cluster of so many brokers for the test, racks given to them in turn; a failure
// ends the test.
func NewCluster(t testing.TB, brokers int, racks ...string) *Broker {
	t.Helper()
	return NewSecureCluster(t, ottla.BrokerSecurity{}, brokers, racks...)
}

// NewSecureCluster is NewCluster with TLS, logins and rights.
func NewSecureCluster(t testing.TB, security ottla.BrokerSecurity, brokers int, racks ...string) *Broker {
	t.Helper()
	embedded, err := ottla.StartSecureBroker(security, brokers, racks...)
	if err != nil {
		t.Fatalf("starting the embedded broker: %v", err)
	}
	t.Cleanup(embedded.Close)
	return &Broker{t, embedded}
}

// Bootstrap is where to reach it, for ottla.Brokers or any other Kafka client.
func (b *Broker) Bootstrap() string { return b.embedded.Bootstrap() }

// Addresses are the same one by one.
func (b *Broker) Addresses() []string { return b.embedded.Addresses() }

// CA is what clients are to trust, in PEM: ottla.TLS(ottla.CA(broker.CA())). "" without TLS.
func (b *Broker) CA() string { return b.embedded.CA() }

// ClientIdentity makes a certificate and its key for a client, in PEM, for ottla.Identity; a failure ends the test.
func (b *Broker) ClientIdentity(name string) (certificate, key string) {
	b.t.Helper()
	certificate, key, err := b.embedded.ClientIdentity(name)
	if err != nil {
		b.t.Fatalf("making a certificate for %s: %v", name, err)
	}
	return certificate, key
}

// SetUser adds a user, or changes a password; a failure ends the test.
func (b *Broker) SetUser(name, password string) {
	b.t.Helper()
	if err := b.embedded.SetUser(name, password); err != nil {
		b.t.Fatalf("setting user %s: %v", name, err)
	}
}

// Logins are how many began, and how many of them were right; a failure ends the test.
func (b *Broker) Logins() (begun, succeeded int) {
	b.t.Helper()
	begun, succeeded, err := b.embedded.Logins()
	if err != nil {
		b.t.Fatalf("counting logins: %v", err)
	}
	return begun, succeeded
}

// CreateTopic creates a topic with one replica of each partition; a failure ends the test.
func (b *Broker) CreateTopic(name string, partitions int) {
	b.t.Helper()
	b.CreateReplicatedTopic(name, partitions, 1)
}

// CreateReplicatedTopic creates a topic with so many replicas of each partition, of which partition
// p is led by broker p mod n + 1; a failure ends the test.
func (b *Broker) CreateReplicatedTopic(name string, partitions, replication int) {
	b.t.Helper()
	if err := b.embedded.CreateTopic(name, partitions, replication); err != nil {
		b.t.Fatalf("creating topic %s: %v", name, err)
	}
}

// SetReplicaDelay is how long followers take to copy what is written, negative for ever:
// acknowledgements by all replicas and consumers wait that long, also those that wait now.
func (b *Broker) SetReplicaDelay(d time.Duration) {
	b.t.Helper()
	if err := b.embedded.SetReplicaDelay(d); err != nil {
		b.t.Fatalf("setting the replica delay: %v", err)
	}
}

// StopBroker stops the broker with this id, 1 to n; moveLeaders: others take over its partitions. A
// failure ends the test.
func (b *Broker) StopBroker(id int, moveLeaders bool) {
	b.t.Helper()
	if err := b.embedded.StopBroker(id, moveLeaders); err != nil {
		b.t.Fatalf("stopping broker %d: %v", id, err)
	}
}

// StartBroker starts a stopped broker again, on its old port; a failure ends the test.
func (b *Broker) StartBroker(id int) {
	b.t.Helper()
	if err := b.embedded.StartBroker(id); err != nil {
		b.t.Fatalf("starting broker %d: %v", id, err)
	}
}

// Replace puts another cluster in the place of this one, at the same addresses: it has this id, no
// topics and no records, and gives its producer ids from the beginning again. All connections are cut.
// A failure ends the test.
func (b *Broker) Replace(clusterID string) {
	b.t.Helper()
	if err := b.embedded.Replace(clusterID); err != nil {
		b.t.Fatalf("replacing the cluster: %v", err)
	}
}

// LogEnd is how many records were written to a partition; a failure ends the test.
func (b *Broker) LogEnd(topic string, partition int32) int64 {
	b.t.Helper()
	end, err := b.embedded.LogEnd(topic, partition)
	if err != nil {
		b.t.Fatalf("asking for %s[%d]: %v", topic, partition, err)
	}
	return end
}

// Codecs are those that the batches of a topic are compressed with; a failure ends the test.
func (b *Broker) Codecs(topic string) []ottla.Codec {
	b.t.Helper()
	codecs, err := b.embedded.Codecs(topic)
	if err != nil {
		b.t.Fatalf("asking for %s: %v", topic, err)
	}
	return codecs
}

// Client connects to it; the client is closed with the test.
func (b *Broker) Client(options ...ottla.ClientOption) *ottla.Client {
	b.t.Helper()
	options = append([]ottla.ClientOption{ottla.Brokers(b.Bootstrap())}, options...)
	client, err := ottla.NewClient(options...)
	if err != nil {
		b.t.Fatalf("connecting to the embedded broker: %v", err)
	}
	b.t.Cleanup(func() {
		if err := client.Close(); err != nil {
			b.t.Errorf("closing the client: %v", err)
		}
	})
	return client
}
