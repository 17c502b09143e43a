package ottla

import (
	"errors"
	"testing"
)

func TestSettingsAreChecked(t *testing.T) {
	c := echoClient(t)
	producer := func(o ...ProducerOption) error { _, err := c.NewProducer(o...); return err }
	consumer := func(o ...ConsumerOption) error { _, err := c.NewConsumer(o...); return err }
	client := func(o ...ClientOption) error { _, err := NewClient(o...); return err }
	for name, err := range map[string]error{
		"no brokers":        client(),
		"empty brokers":     client(Brokers()),
		"no rack":           client(Rack("")),
		"ordinal of none":   client(Ordinal(0, 0)),
		"ordinal too large": client(Ordinal(2, 2)),
		"negative ordinal":  client(Ordinal(-1, 2)),
		"no idle timeout":   client(IdleTimeout(0)),
		"negative linger":   producer(Linger(-1)),
		"no buffer":         producer(BufferMemory(0)),
		"negative block":    producer(MaxBlock(-1)),
		"no codec":          producer(Compression(Codec{})),
		"topic's codec":     producer(TopicCompression("t", Codec{})),
		"no topic":          producer(TopicCompression("", Zstd)),
		"partitioner":       producer(Partitioner(7)),
		"acks":              producer(Acks(-1)),
		"doubt":             producer(InDoubt(0)),
		"nothing to read":   consumer(),
		"two things":        consumer(Topics("t"), Assign(TopicPartition{Topic: "t"})),
		"start with assign": consumer(Start(Latest()), Assign(TopicPartition{Topic: "t"})),
	} {
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
