package ottla

import "github.com/ottla-rs/ottla/go-bindings/internal/capi"

// EmbeddedBroker is a Kafka cluster inside this process, for tests and for trying things out: the
// real protocol on ports of 127.0.0.1, records in memory, gone when closed. In tests,
// ottlatest.NewBroker is shorter.
type EmbeddedBroker struct{ api *capi.TestBroker }

// StartEmbeddedBroker starts a cluster of so many brokers, without topics.
func StartEmbeddedBroker(brokers int) (*EmbeddedBroker, error) {
	api, failure := capi.NewTestBroker(int32(min(brokers, 1<<20)))
	if failure != nil {
		return nil, failed(failure)
	}
	return &EmbeddedBroker{api}, nil
}

// Bootstrap is where to reach it: "host:port,host:port", for Brokers. "" once it is closed.
func (b *EmbeddedBroker) Bootstrap() string { return b.api.Bootstrap() }

// CreateTopic creates a topic at once.
func (b *EmbeddedBroker) CreateTopic(name string, partitions, replication int) error {
	if name == "" || hasNUL(name) {
		return invalid("topic name %q", name)
	}
	return failed(b.api.CreateTopic(name, int32(min(partitions, 1<<30)), int32(min(replication, 1<<30))))
}

// Close stops it; what it holds is gone. Closing again does nothing.
func (b *EmbeddedBroker) Close() { b.api.Free() }
