package ottla_test

import (
	"errors"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// What matches a pattern is read by the group, and what does not is not.
func TestTopicsByAPattern(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	producer := producerOf(t, client)
	for _, topic := range []string{"pay", "pay-in", "pay-out"} {
		broker.CreateTopic(topic, 1)
		deliver(t, producer, ottla.Record{Topic: topic})
	}
	consumer, err := client.NewConsumer(ottla.Group("patterns"), ottla.Topics("^pay-.*"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = consumer.Close() })
	read := map[string]bool{}
	for range 2 {
		read[next(t, consumer).Topic] = true
	}
	if len(read) != 2 || read["pay"] {
		t.Errorf("%v", read)
	}
	if err := consumer.Subscribe("^pay"); err != nil {
		t.Fatal(err)
	}
	if record := next(t, consumer); record.Topic != "pay" {
		t.Errorf("%+v", record)
	}
	if err := consumer.Subscribe("^("); !errors.Is(err, ottla.ErrInvalidArgument) {
		t.Errorf("%v", err)
	}
}
