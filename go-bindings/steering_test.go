package ottla

import (
	"errors"
	"io"
	"slices"
	"testing"
)

// twoInHand is a consumer of two partitions with three records each, of which two loops have taken the first.
func twoInHand(t *testing.T, c *Client) *Consumer {
	t.Helper()
	ctx, p := within(t), newProducer(t, c)
	for partition := range int32(2) {
		for range 3 {
			p.Produce(ctx, Record{Topic: "t", To: ToPartition(partition)}, nil)
		}
		if err := p.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	consumer, err := c.NewConsumer(Assign(TopicPartition{Topic: "t"}, TopicPartition{Topic: "t", Partition: 1}))
	if err != nil {
		t.Fatal(err)
	}
	var inHand [2]*Batch
	for read := 0; read < 6; {
		batch, err := consumer.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		read += len(batch.Records)
		// They come as they were submitted: in one or more batches.
		if first := inHand[batch.Partition]; first != nil {
			first.Records = append(first.Records, batch.Records...)
		} else {
			inHand[batch.Partition] = batch
		}
	}
	consumer.putBack(inHand[1], 1, true)
	consumer.putBack(inHand[0], 1, true)
	return consumer
}

func at(partition int32) TopicPartition { return TopicPartition{Topic: "t", Partition: partition} }

// A loop that pauses the partition that it has in hand reads others; resumed, it goes on behind the last record.
func TestAPauseHoldsWhatALoopHasInHand(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	consumer := twoInHand(t, c)
	type place struct {
		partition int32
		offset    int64
	}
	var got []place
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, place{record.Partition, record.Offset})
		switch len(got) {
		case 1:
			err = consumer.Pause(at(record.Partition))
		case 3:
			if paused := consumer.Paused(); !slices.Equal(paused, []TopicPartition{at(got[0].partition)}) {
				t.Errorf("%v are paused", paused)
			}
			if batch, err := lookOnce(consumer); batch != nil || err != nil {
				t.Errorf("%+v, %v of what is paused", batch, err)
			}
			err = consumer.Resume(at(got[0].partition))
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 4 {
			break
		}
	}
	first, other := got[0].partition, 1-got[0].partition
	if want := []place{{first, 1}, {other, 1}, {other, 2}, {first, 2}}; !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}

// What is held back in the middle of a batch was not read, though the engine has handed it out.
func TestAnEndIsNotReachedByWhatIsHeldBack(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	consumer := twoInHand(t, c)
	ends := []PartitionOffset{{Topic: "t", Offset: 3}, {Topic: "t", Partition: 1, Offset: 3}}
	if err := consumer.Pause(at(0)); err != nil {
		t.Fatal(err)
	}
	if batch, err := consumer.NextUntil(ctx, ends); err != nil || batch.Partition != 1 || len(batch.Records) != 2 {
		t.Fatalf("%+v, %v", batch, err)
	}
	waits := watch(ctx, 0)
	read := make(chan *Batch, 1)
	go func() {
		batch, _ := consumer.NextUntil(waits, ends)
		read <- batch
	}()
	receive(t, waits.waits, "the wait for what is paused")
	if err := consumer.Resume(at(0)); err != nil {
		t.Fatal(err)
	}
	if batch := receive(t, read, "what was held back"); batch == nil || batch.Partition != 0 || batch.Records[0].Offset != 1 {
		t.Errorf("%+v", batch)
	}
	if batch, err := consumer.NextUntil(ctx, ends); err != io.EOF {
		t.Errorf("%+v, %v at the end", batch, err)
	}
	for record, err := range consumer.RecordsUntil(ctx, ends) {
		t.Errorf("%+v, %v behind the end", record, err)
	}
	failed := []PartitionOffset{{Topic: "t", Err: ErrUnknownTopic}}
	if _, err := consumer.NextUntil(ctx, failed); !errors.Is(err, ErrUnknownTopic) {
		t.Errorf("up to an offset that was not found: %v", err)
	}
}

// Somebody is at a batch, which takes as long as it takes. Who steers goes by, and the handle goes with its last user.
func TestNobodyWhoSteersWaitsForWhoReads(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	consumer := twoInHand(t, c)
	consumer.mu.Lock()
	defer consumer.mu.Unlock()
	if !consumer.api.Use() {
		t.Fatal("it is closed")
	}
	steered := make(chan error, 1)
	go func() {
		errs := []error{
			consumer.Pause(at(0)), consumer.Seek("t", 0, AtOffset(2)), consumer.Resume(at(0)),
			consumer.Assign(TopicPartition{Topic: "t", Partition: 2, Start: AtOffset(5)}), consumer.Unassign(at(1)),
		}
		if all := consumer.Assignment(); !slices.Equal(all, []TopicPartition{at(0), at(2)}) {
			errs = append(errs, errors.New("another assignment"))
		}
		if position, known := consumer.Position("t", 2); !known || position != 5 {
			errs = append(errs, errors.New("another position"))
		}
		if lag, known := consumer.Lag("t", 0); !known || lag != 1 {
			errs = append(errs, errors.New("another lag"))
		}
		steered <- errors.Join(append(errs, consumer.Close())...)
	}()
	if err := receive(t, steered, "who steers"); err != nil {
		t.Error(err)
	}
	if freed(consumer.api) {
		t.Error("freed under its reader")
	}
	consumer.api.Done()
	if !freed(consumer.api) {
		t.Error("left behind by its last reader")
	}
	if _, known := consumer.Position("t", 2); known || consumer.Paused() == nil || len(consumer.Assignment()) != 0 {
		t.Error("a closed consumer reads")
	}
}

func TestWhatCanNotBeSteered(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	consumer := twoInHand(t, c)
	for _, wrong := range []TopicPartition{{Topic: ""}, {Topic: "t\x00"}} {
		_, lookup := c.Offsets(ctx, Latest(), wrong)
		for name, err := range map[string]error{
			"Pause": consumer.Pause(wrong), "Resume": consumer.Resume(wrong), "Unassign": consumer.Unassign(wrong),
			"Assign": consumer.Assign(wrong), "Offsets": lookup,
		} {
			if !errors.Is(err, ErrInvalidArgument) {
				t.Errorf("%s of %q: %v", name, wrong.Topic, err)
			}
		}
	}
	for _, wrong := range []TopicPartition{{Topic: "t", Partition: -1}, {Topic: "t", Start: AtOffset(-1)}} {
		if err := consumer.Assign(wrong); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("Assign of %+v: %v", wrong, err)
		}
	}
	if _, err := c.Offsets(ctx, AtOffset(1), at(0)); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("an offset is looked up: %v", err)
	}
	// All or none.
	if err := consumer.Pause(at(0), at(7)); !errors.Is(err, ErrUnknownPartition) || len(consumer.Paused()) != 0 {
		t.Errorf("%v; %v are paused", err, consumer.Paused())
	}
}
