// Package ottlatest has an embedded Kafka cluster for tests: no Docker, no network, started in
// milliseconds.
package ottlatest

import (
	"testing"

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

// NewCluster starts a cluster of so many brokers for the test; a failure ends the test.
func NewCluster(t testing.TB, brokers int) *Broker {
	t.Helper()
	embedded, err := ottla.StartEmbeddedBroker(brokers)
	if err != nil {
		t.Fatalf("starting the embedded broker: %v", err)
	}
	t.Cleanup(embedded.Close)
	return &Broker{t, embedded}
}

// Bootstrap is where to reach it, for ottla.Brokers or any other Kafka client.
func (b *Broker) Bootstrap() string { return b.embedded.Bootstrap() }

// CreateTopic creates a topic with one replica of each partition; a failure ends the test.
func (b *Broker) CreateTopic(name string, partitions int) {
	b.t.Helper()
	if err := b.embedded.CreateTopic(name, partitions, 1); err != nil {
		b.t.Fatalf("creating topic %s: %v", name, err)
	}
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
