package ottla_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// What a program says of its partitions, in a cluster.
func TestSteering(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewCluster(t, 2)
	broker.CreateTopic("t", 3)
	client, ctx := broker.Client(), within(t)
	producer := producerOf(t, client)
	write := func(partition int32, n int) {
		t.Helper()
		for range n {
			deliver(t, producer, ottla.Record{Topic: "t", To: ottla.ToPartition(partition)})
		}
	}
	at := func(partition int32) ottla.TopicPartition {
		return ottla.TopicPartition{Topic: "t", Partition: partition}
	}
	write(0, 2)
	write(1, 1)
	ends, err := client.Offsets(ctx, ottla.Latest(), at(1), at(0), at(9), at(0))
	if err != nil || len(ends) != 4 || ends[0].Offset != 1 || ends[1].Offset != 2 || ends[3] != ends[1] {
		t.Fatalf("%+v, %v", ends, err)
	}
	if !errors.Is(ends[2].Err, ottla.ErrUnknownPartition) {
		t.Errorf("%+v", ends[2])
	}
	if begin, err := client.Offsets(ctx, ottla.Earliest(), at(0)); err != nil || begin[0].Offset != 0 {
		t.Errorf("%+v, %v", begin, err)
	}
	consumer, err := client.NewConsumer(ottla.Assign(at(0)))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, err := range consumer.RecordsUntil(ctx, ends[1:2]) {
		if err != nil {
			t.Fatal(err)
		}
		read++
	}
	if read != 2 {
		t.Errorf("%d records up to the end", read)
	}
	if lag, known := consumer.Lag("t", 0); !known || lag != 0 {
		t.Errorf("lag %d, %v", lag, known)
	}
	// Paused, it hands out nothing; another one is read beside it.
	if err := errors.Join(consumer.Pause(at(0)), consumer.Assign(at(1))); err != nil {
		t.Fatal(err)
	}
	write(0, 1)
	next := func() *ottla.Record {
		t.Helper()
		for record, err := range consumer.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			return &record
		}
		return nil
	}
	if record := next(); record.Partition != 1 {
		t.Errorf("partition %d", record.Partition)
	}
	// A seek while it is paused counts when it is resumed.
	if err := errors.Join(consumer.Seek("t", 0, ottla.AtOffset(1)), consumer.Unassign(at(1))); err != nil {
		t.Fatal(err)
	}
	if position, known := consumer.Position("t", 0); !known || position != 1 {
		t.Errorf("position %d, %v", position, known)
	}
	write(1, 1)
	if err := consumer.Resume(at(0)); err != nil {
		t.Fatal(err)
	}
	for want := int64(1); want <= 2; want++ {
		if record := next(); record.Partition != 0 || record.Offset != want {
			t.Errorf("%d[%d]; want 0[%d]", record.Partition, record.Offset, want)
		}
	}
	if all := consumer.Assignment(); len(all) != 1 || all[0] != at(0) {
		t.Errorf("%v are read", all)
	}
}

// sleeper tells when somebody sleeps on it.
type sleeper struct {
	context.Context
	once   sync.Once
	sleeps chan struct{}
}

func (s *sleeper) Done() <-chan struct{} {
	s.once.Do(func() { close(s.sleeps) })
	return s.Context.Done()
}

// The engine has nothing of a partition that was paused in the middle of its last batch: nobody else wakes who waits for it.
func TestARestThatIsResumedWakesWhoWaits(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 3)
	consumer, err := client.NewConsumer(ottla.Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	read(t, consumer, 2)
	if err := consumer.Pause(ottla.TopicPartition{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	waits := &sleeper{Context: within(t), sleeps: make(chan struct{})}
	got := make(chan error, 1)
	go func() {
		batch, err := consumer.Next(waits)
		if err == nil && batch.Records[0].Offset != 2 {
			err = fmt.Errorf("%d comes", batch.Records[0].Offset)
		}
		got <- err
	}()
	receive(t, waits.sleeps, "the wait")
	if err := consumer.Resume(ottla.TopicPartition{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, got, "what was resumed"); err != nil {
		t.Error(err)
	}
}
