package ottla_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// realKafka gives the cluster that OTTLA_KAFKA_BOOTSTRAP names. Without it the test is about a
// broker that is not there.
func realKafka(t *testing.T) *ottla.Client {
	t.Helper()
	bootstrap := os.Getenv("OTTLA_KAFKA_BOOTSTRAP")
	if bootstrap == "" {
		t.Skip("OTTLA_KAFKA_BOOTSTRAP names no cluster")
	}
	client, err := ottla.NewClient(ottla.Brokers(bootstrap))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestRealRoundTrip(t *testing.T) {
	ottla.Limit(t)
	client := realKafka(t)
	for _, codec := range allCodecs {
		name := codec.String()
		t.Run(name, func(t *testing.T) {
			topic := fmt.Sprintf("go-%s-%d", name, time.Now().UnixNano())
			if err := client.CreateTopic(within(t), topic, 6, -1); err != nil {
				t.Fatal(err)
			}
			roundTrip(t, client, topic, 5000, ottla.Compression(codec))
		})
	}
}

func TestRealUnknownTopic(t *testing.T) {
	ottla.Limit(t)
	producer, err := realKafka(t).NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	topic := fmt.Sprintf("go-nowhere-%d", time.Now().UnixNano())
	_, err = producer.ProduceSync(within(t), ottla.Record{Topic: topic, Value: []byte("v")})
	readable(t, err, ottla.ErrUnknownTopic)
}
