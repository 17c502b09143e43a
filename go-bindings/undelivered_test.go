package ottla_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// undelivered checks that err tells of n records for a topic that there is not.
func undelivered(t *testing.T, err error, n int, topic string) {
	t.Helper()
	if !errors.Is(err, ottla.ErrUndelivered) || !errors.Is(err, ottla.ErrUnknownTopic) {
		t.Fatalf("want %v of %v, got %v", ottla.ErrUndelivered, ottla.ErrUnknownTopic, err)
	}
	var e *ottla.Error
	if !errors.As(err, &e) || e.Undelivered == nil {
		t.Fatalf("%v tells of no records", err)
	}
	lost := e.Undelivered
	if lost.Records != n || !slices.Equal(lost.Topics, []string{topic}) || lost.MoreTopics {
		t.Errorf("%+v, want %d for %s", lost, n, topic)
	}
	if !errors.Is(lost.First, ottla.ErrUnknownTopic) || e.MaybeWritten() {
		t.Errorf("the first: %v; maybe written: %v", lost.First, e.MaybeWritten())
	}
	if text := err.Error(); !strings.Contains(text, "nobody was told") || !strings.Contains(text, "'"+topic+"'") {
		t.Errorf("unclear: %s", text)
	}
}

func lossy(t *testing.T) (*ottla.Client, *ottla.Producer) {
	t.Helper()
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	return client, producer
}

func TestFlushTellsOfFailuresWithoutACallback(t *testing.T) {
	ottla.Limit(t)
	_, producer := lossy(t)
	ctx := within(t)
	for range 3 {
		producer.Produce(ctx, ottla.Record{Topic: "nowhere", Value: []byte("v")}, nil)
	}
	producer.Produce(ctx, ottla.Record{Topic: "t", Value: []byte("v")}, nil)
	undelivered(t, producer.Flush(ctx), 3, "nowhere")
	if err := producer.Flush(ctx); err != nil {
		t.Errorf("told twice: %v", err)
	}
	if err := producer.Close(); err != nil {
		t.Errorf("told again by Close: %v", err)
	}
}

func TestCloseTellsOfFailuresWithoutACallback(t *testing.T) {
	ottla.Limit(t)
	client, producer := lossy(t)
	ctx := within(t)
	producer.Produce(ctx, ottla.Record{Topic: "nowhere"}, nil)
	undelivered(t, producer.Close(), 1, "nowhere")

	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	producer.Produce(ctx, ottla.Record{Topic: "neither"}, nil)
	producer.Produce(ctx, ottla.Record{Topic: "neither"}, nil)
	undelivered(t, client.Close(), 2, "neither")
}

func TestRecordsThatWereRefusedAreToldToo(t *testing.T) {
	ottla.Limit(t)
	_, producer := lossy(t)
	ctx := within(t)
	producer.Produce(ctx, ottla.Record{Topic: ""}, nil)
	err := producer.Flush(ctx)
	var e *ottla.Error
	if !errors.Is(err, ottla.ErrUndelivered) || !errors.As(err, &e) || e.Undelivered.Records != 1 {
		t.Fatalf("a record without a topic: %v", err)
	}
	if !errors.Is(err, ottla.ErrInvalidArgument) {
		t.Errorf("the first error is not found: %v", err)
	}
}

func TestWhoGotAnErrorIsNotToldAgain(t *testing.T) {
	ottla.Limit(t)
	_, producer := lossy(t)
	ctx := within(t)
	var told atomic.Int32
	for range 3 {
		producer.Produce(ctx, ottla.Record{Topic: "nowhere"}, func(_ ottla.Delivery, err error) {
			if errors.Is(err, ottla.ErrUnknownTopic) {
				told.Add(1)
			}
		})
	}
	if _, err := producer.ProduceSync(ctx, ottla.Record{Topic: "nowhere"}); !errors.Is(err, ottla.ErrUnknownTopic) {
		t.Fatal(err)
	}
	if err := producer.Flush(ctx); err != nil {
		t.Errorf("told again: %v", err)
	}
	if n := told.Load(); n != 3 {
		t.Errorf("%d callbacks have their error", n)
	}
	if err := producer.Close(); err != nil {
		t.Errorf("told again: %v", err)
	}
}

// endsInTheWait is a context that ends when somebody asks for the channel of its end: a record is
// accepted before, and its outcome waited for after.
type endsInTheWait struct {
	context.Context
	ended atomic.Bool
}

func (c *endsInTheWait) Done() <-chan struct{} {
	c.ended.Store(true)
	over := make(chan struct{})
	close(over)
	return over
}

func (c *endsInTheWait) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

func TestAProduceSyncThatDidNotWaitForItsOutcomeIsUntold(t *testing.T) {
	ottla.Limit(t)
	_, producer := lossy(t)
	ctx := &endsInTheWait{Context: context.Background()}
	_, err := producer.ProduceSync(ctx, ottla.Record{Topic: "nowhere"})
	if !errors.Is(err, context.Canceled) || !ottla.MaybeWritten(err) {
		t.Fatalf("the context ended: %v", err)
	}
	undelivered(t, producer.Flush(within(t)), 1, "nowhere")
}
