package ottla_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// member reads "t" in group "g"; it is closed with the test.
func member(t *testing.T, client *ottla.Client, options ...ottla.ConsumerOption) *ottla.Consumer {
	t.Helper()
	consumer, err := client.NewConsumer(append([]ottla.ConsumerOption{ottla.Group("g"), ottla.Topics("t")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = consumer.Close() })
	return consumer
}

// inGroup is a broker with a topic "t" of so many partitions, and a client.
func inGroup(t *testing.T, partitions int) (*ottlatest.Broker, *ottla.Client) {
	t.Helper()
	broker := ottlatest.NewCluster(t, 2)
	broker.CreateReplicatedTopic("t", partitions, 2)
	return broker, broker.Client()
}

// fill writes so many records into a partition.
func fill(t *testing.T, client *ottla.Client, partition int32, records int) {
	t.Helper()
	producer := producerOf(t, client)
	for range records {
		producer.Produce(within(t), ottla.Record{Topic: "t", To: ottla.ToPartition(partition)}, nil)
	}
	if err := producer.Close(); err != nil {
		t.Fatal(err)
	}
}

// begin writes so many records into partition 0, which holds nothing yet, all but the first in one batch: as long as none of
// a partition was ever acknowledged, no second one is sent.
func begin(t *testing.T, broker *ottlatest.Broker, client *ottla.Client, records int) {
	t.Helper()
	broker.SetReplicaDelay(-1)
	producer := producerOf(t, client)
	for i := range records {
		producer.Produce(within(t), ottla.Record{Topic: "t", To: ottla.ToPartition(0)}, nil)
		if i == 0 {
			eventually(t, "the first is written", func() bool { return broker.LogEnd("t", 0) == 1 })
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- producer.Flush(within(t)) }()
	broker.SetReplicaDelay(0)
	if err := receive(t, closed, "the flush"); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what a broker knows; nothing tells of it.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for ctx := within(t); !is(); time.Sleep(5 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

func hasMembers(broker *ottlatest.Broker, want int) func() bool {
	return func() bool {
		state, members := broker.Group("g")
		stable := state == ottla.GroupStable || want == 0 && state == ottla.GroupEmpty
		return stable && members == want
	}
}

// read is the offsets of so many records; the loop is left with the last one in hand.
func read(t *testing.T, consumer *ottla.Consumer, records int) (offsets []int64) {
	t.Helper()
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if offsets = append(offsets, record.Offset); len(offsets) == records {
			break
		}
	}
	return offsets
}

func closes(t *testing.T, consumer *ottla.Consumer) {
	t.Helper()
	if err := consumer.Close(); err != nil {
		t.Fatal(err)
	}
}

func commits(t *testing.T, broker *ottlatest.Broker, consumer *ottla.Consumer, want int64) {
	t.Helper()
	if err := consumer.Commit(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := broker.Committed("g", "t", 0); max(0, got) != want {
		t.Errorf("%d is committed, not %d", got, want)
	}
}

func TestAMemberReadsAllAndItsSuccessorGoesOn(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 3)
	for partition := range int32(3) {
		fill(t, client, partition, 4)
	}
	consumer := member(t, client)
	if got := len(read(t, consumer, 12)); got != 12 {
		t.Fatalf("%d records", got)
	}
	closes(t, consumer)
	closes(t, consumer)
	if !hasMembers(broker, 0)() {
		t.Error("it has not left")
	}
	sum := int64(0)
	for partition := range int32(3) {
		sum += max(0, broker.Committed("g", "t", partition))
	}
	if sum != 11 {
		t.Errorf("%d records are committed: all but the one in hand are 11", sum)
	}
	// Its successor has the one that was in hand, and nothing else; asking beyond it says that it is done.
	consumer = member(t, client)
	if offsets := read(t, consumer, 1); offsets[0] != 3 {
		t.Errorf("it goes on at %v", offsets)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for record, err := range consumer.Records(ctx) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(record, err)
		}
	}
	if err := consumer.Commit(within(t)); err != nil {
		t.Fatal(err)
	}
	for partition := range int32(3) {
		if at := broker.Committed("g", "t", partition); at != 4 {
			t.Errorf("partition %d is committed at %d", partition, at)
		}
	}
}

// Whatever ends a loop, the record in hand is not done, and those before it are.
func TestWhatALoopHadInHandIsNotDone(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 10)
	consumer := member(t, client)
	if offsets := read(t, consumer, 3); !slices.Equal(offsets, []int64{0, 1, 2}) {
		t.Fatal(offsets)
	}
	commits(t, broker, consumer, 2)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		for record := range consumer.Records(within(t)) {
			// A new loop says that the one before is done.
			if record.Offset == 3 {
				commits(t, broker, consumer, 3)
			}
			if record.Offset == 5 {
				panic("by the test")
			}
		}
	}()
	commits(t, broker, consumer, 5)
	// Batch by batch it is the batch that is in hand; what is left of one counts as one.
	for batch, err := range consumer.Batches(within(t)) {
		if err != nil || len(batch.Records) != 4 {
			t.Fatal(batch, err)
		}
		commits(t, broker, consumer, 6)
		break
	}
	commits(t, broker, consumer, 6)
	fill(t, client, 0, 2)
	if batch, err := consumer.Next(within(t)); err != nil || batch.Records[0].Offset != 10 {
		t.Fatal(batch, err)
	}
	commits(t, broker, consumer, 10)
	closes(t, consumer)
	if at := broker.Committed("g", "t", 0); at != 10 {
		t.Errorf("%d is committed by the close", at)
	}
}

// A loop that still runs says nothing of what another one has left.
func TestALoopSpeaksForItselfAlone(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 6)
	consumer := member(t, client)
	handed := make(chan int64)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	done := make(chan struct{})
	loop := func() {
		defer close(done)
		for record, err := range consumer.Records(ctx) {
			if err != nil {
				return
			}
			handed <- record.Offset
		}
	}
	expect := func(from, to int64) {
		t.Helper()
		for want := from; want < to; want++ {
			if got := receive(t, handed, "a record"); got != want {
				t.Fatalf("%d comes, not %d", got, want)
			}
		}
	}
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Offset == 2 {
			go loop()
			fill(t, client, 0, 1)
			expect(6, 7)
			// It is under way, and goes on with what is left here.
			break
		}
	}
	expect(3, 6)
	fill(t, client, 0, 1)
	expect(7, 8)
	commits(t, broker, consumer, 2)
	cancel()
	<-done
	// Asked anew, the consumer takes it that the one that was left is done.
	ended, end := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer end()
	if _, err := consumer.Next(ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	commits(t, broker, consumer, 8)
}

func TestRecordsAreAckedInAnyOrder(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 70)
	fill(t, client, 0, 3)
	consumer := member(t, client, ottla.CommitAcked())
	records := make([]*ottla.Record, 0, 73)
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if records = append(records, &record); len(records) == 73 {
			break
		}
	}
	// Read, and not done.
	commits(t, broker, consumer, 0)
	for _, i := range []int{1, 69, 0, 0, 3, 72} {
		records[i].Ack()
	}
	commits(t, broker, consumer, 2)
	records[2].Ack()
	commits(t, broker, consumer, 4)
	var workers sync.WaitGroup
	for from := range 4 {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := 69 - from; i > 3; i -= 4 {
				records[i].Ack()
			}
		}()
	}
	workers.Wait()
	commits(t, broker, consumer, 70)
	records[71].Ack()
	commits(t, broker, consumer, 70)
	records[70].Ack()
	commits(t, broker, consumer, 73)
	closes(t, consumer)
	records[70].Ack() // Nor does it do anything when it is over.
	new(ottla.Record).Ack()
	consumer = member(t, client, ottla.CommitAcked())
	fill(t, client, 0, 2)
	for next := int64(73); next < 75; {
		batch, err := consumer.Next(within(t))
		if err != nil || batch.Records[0].Offset != next {
			t.Fatal(batch, err)
		}
		next += int64(len(batch.Records))
		batch.Ack()
	}
	closes(t, consumer)
	if at := broker.Committed("g", "t", 0); at != 75 {
		t.Errorf("%d is committed", at)
	}
}

// What a loop left in the middle of a batch is in nobody's hand, whether its partition is paused or not.
func TestWhatALoopLeftIsNotWaitedFor(t *testing.T) {
	ottla.Limit(t)
	for _, how := range []struct {
		name   string
		pause  bool
		commit []ottla.ConsumerOption
	}{{"marks", true, nil}, {"left", false, nil}, {"acked", true, []ottla.ConsumerOption{ottla.CommitAcked()}}} {
		t.Run(how.name, func(t *testing.T) {
			ottla.Limit(t)
			broker, client := inGroup(t, 1)
			begin(t, broker, client, 5)
			// All is given up in a rebalance.
			options := append(how.commit, ottla.MaxPollInterval(time.Hour), ottla.Assignors(ottla.Range))
			one := member(t, client, options...)
			seen := 0
			for record, err := range one.Records(within(t)) {
				if err != nil {
					t.Fatal(err)
				}
				record.Ack()
				if seen++; seen == 3 {
					break
				}
			}
			if how.pause {
				if err := one.Pause(ottla.TopicPartition{Topic: "t"}); err != nil {
					t.Fatal(err)
				}
				short, end := context.WithTimeout(within(t), 20*time.Millisecond)
				defer end()
				if _, err := one.Next(short); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			}
			two := member(t, client, options...)
			go func() {
				// Until it is closed.
				_, _ = two.Next(context.Background())
			}()
			eventually(t, "both are members", hasMembers(broker, 2))
		})
	}
}

// Its last wait was over without anything, and it never asks again.
func TestWhoHasStoppedWaitingLeaves(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	consumer := member(t, client, ottla.MaxPollInterval(time.Second))
	for joined := hasMembers(broker, 1); !joined(); {
		short, end := context.WithTimeout(within(t), 20*time.Millisecond)
		if _, err := consumer.Next(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		end()
	}
	eventually(t, "it leaves", hasMembers(broker, 0))
}

// Who acknowledges elsewhere, and takes longer over a batch than it may over a record.
func TestWhoHandsOnRecordsIsThere(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 9)
	consumer := member(t, client, ottla.CommitAcked(), ottla.MaxPollInterval(time.Second))
	seen := 0
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Offset > 0 {
			// As long as the work takes.
			time.Sleep(400 * time.Millisecond)
		}
		if !hasMembers(broker, 1)() {
			t.Fatalf("it is no member at record %d", record.Offset)
		}
		if seen++; seen == 9 {
			break
		}
	}
}

func TestWhatIsAckedIsCommittedByHandAlone(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	fill(t, client, 0, 4)
	interval := ottla.CommitInterval(10 * time.Millisecond)
	consumer := member(t, client, ottla.CommitManualAcked(), interval)
	for record, err := range consumer.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Offset == 0 {
			record.Ack()
		}
		if record.Offset == 3 {
			break
		}
	}
	if at := broker.Committed("g", "t", 0); at != -1 {
		t.Errorf("%d is committed", at)
	}
	commits(t, broker, consumer, 1)
}

func TestByHandNothingIsCommittedByItself(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	fill(t, client, 0, 4)
	consumer := member(t, client, ottla.CommitManual(), ottla.CommitInterval(10*time.Millisecond))
	read(t, consumer, 4)
	closes(t, consumer)
	if at := broker.Committed("g", "t", 0); at != -1 {
		t.Errorf("%d is committed", at)
	}
	consumer = member(t, client, ottla.CommitManual())
	read(t, consumer, 4)
	commits(t, broker, consumer, 3)
	at := func(offset int64) ottla.PartitionOffset { return ottla.PartitionOffset{Topic: "t", Offset: offset} }
	if err := consumer.CommitTo(within(t), at(1)); err != nil || broker.Committed("g", "t", 0) != 1 {
		t.Error(err)
	}
	if err := consumer.CommitTo(within(t), at(-1)); !errors.Is(err, ottla.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := consumer.CommitTo(within(t), ottla.PartitionOffset{}); !errors.Is(err, ottla.ErrInvalidArgument) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := consumer.Commit(ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	closes(t, consumer)
	if err := consumer.Commit(within(t)); !errors.Is(err, ottla.ErrClosed) {
		t.Error(err)
	}
}

func TestTwoMembersShare(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 4)
	type handed struct{ who, partition int }
	got := make(chan handed, 1000)
	var loops sync.WaitGroup
	start := func(who int) *ottla.Consumer {
		consumer := member(t, client)
		loops.Add(1)
		go func() {
			defer loops.Done()
			for record, err := range consumer.Records(context.Background()) {
				if err == nil {
					got <- handed{who, int(record.Partition)}
				}
			}
		}()
		return consumer
	}
	one, two := start(1), start(2)
	eventually(t, "both are members", hasMembers(broker, 2))
	shares := func() map[int]int {
		t.Helper()
		shares := map[int]int{}
		for partition := range int32(4) {
			fill(t, client, partition, 1)
		}
		for range 4 {
			shares[receive(t, got, "a record").who]++
		}
		return shares
	}
	if each := shares(); each[1] != 2 || each[2] != 2 {
		t.Errorf("they share like %v", each)
	}
	closes(t, one)
	eventually(t, "the other is alone", hasMembers(broker, 1))
	if each := shares(); each[2] != 4 {
		t.Errorf("the one that stays has %v", each)
	}
	closes(t, two)
	loops.Wait()
}

// receive waits for what another goroutine says.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-within(t).Done():
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

func TestEventsComeBetweenBatches(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 2)
	fill(t, client, 0, 1)
	one := member(t, client, ottla.Assignors(ottla.CooperativeSticky))
	event, err := one.Poll(within(t))
	if assigned, is := event.(ottla.Assigned); err != nil || !is || len(assigned.Partitions) != 2 {
		t.Fatal(event, err)
	}
	event, err = one.Poll(within(t))
	if batch, is := event.(*ottla.Batch); err != nil || !is || len(batch.Records) != 1 {
		t.Fatal(event, err)
	}
	commits(t, broker, one, 0)
	two := member(t, client, ottla.Assignors(ottla.CooperativeSticky))
	gone := make(chan error, 1)
	go func() {
		var told []string
		for len(told) < 2 {
			event, err := two.Poll(context.Background())
			assigned, is := event.(ottla.Assigned)
			if err != nil || !is {
				gone <- fmt.Errorf("%v, %w", event, err)
				return
			}
			for _, p := range assigned.Partitions {
				told = append(told, "", p.Topic)
			}
		}
		gone <- nil
	}()
	for given := false; !given; {
		// The batch in hand is done with the first.
		event, err = one.Poll(within(t))
		switch event := event.(type) {
		case ottla.Assigned:
			if len(event.Partitions) != 0 {
				t.Errorf("%v come", event.Partitions)
			}
		case ottla.GivingUp:
			given = true
			if len(event.Partitions) != 1 || time.Until(event.Deadline) < 0 {
				t.Errorf("%+v", event)
			}
		default:
			t.Fatal(event, err)
		}
	}
	if at := broker.Committed("g", "t", 0); at > 1 {
		t.Error(at)
	}
	// It is given up when the next is asked for, and not before.
	ctx, cancel := context.WithCancel(within(t))
	asks := make(chan struct{})
	go func() {
		defer close(asks)
		for ctx.Err() == nil {
			_, _ = one.Poll(ctx)
		}
	}()
	if err := receive(t, gone, "the other's partition"); err != nil {
		t.Error(err)
	}
	cancel()
	<-asks
}

func TestOtherTopics(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	broker.CreateTopic("u", 1)
	broker.SetCommitted("g", "t", 0, 1)
	fill(t, client, 0, 2)
	deliver(t, producerOf(t, client), ottla.Record{Topic: "u"})
	consumer := member(t, client)
	if offsets := read(t, consumer, 1); offsets[0] != 1 {
		t.Errorf("it begins at %v", offsets)
	}
	if err := consumer.Subscribe("u"); err != nil {
		t.Fatal(err)
	}
	if record := next(t, consumer); record.Topic != "u" {
		t.Errorf("%+v", record)
	}
	for _, topics := range [][]string{nil, {""}, {"no topic"}} {
		if err := consumer.Subscribe(topics...); !errors.Is(err, ottla.ErrInvalidArgument) {
			t.Errorf("%q: %v", topics, err)
		}
	}
}

// Closing, committing and steering wait for no loop, and a loop with a record in hand for none of them.
func TestAReaderHoldsNobodyUp(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 5)
	consumer := member(t, client)
	inHand, goOn, over := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		for record, err := range consumer.Records(context.Background()) {
			if err != nil {
				over <- err
				return
			}
			if record.Offset == 2 {
				close(inHand)
				<-goOn
			}
		}
	}()
	receive(t, inHand, "the third record")
	commits(t, broker, consumer, 2)
	if position, known := consumer.Position("t", 0); !known || position != 5 {
		t.Error(position)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	// The limit is the caller's: the member leaves all the same.
	if err := consumer.Shutdown(ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	closes(t, consumer)
	if at := broker.Committed("g", "t", 0); at != 2 || !hasMembers(broker, 0)() {
		t.Errorf("%d is committed by the close", at)
	}
	close(goOn)
	if err := receive(t, over, "the end of the loop"); !errors.Is(err, ottla.ErrClosed) {
		t.Error(err)
	}
}

// The client takes its members along, and what is committed is as after their own close.
func TestAClientTakesItsMembersAlong(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewBroker(t)
	broker.CreateTopic("t", 1)
	client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, client, 0, 3)
	read(t, member(t, client), 3)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if at := broker.Committed("g", "t", 0); at != 2 || !hasMembers(broker, 0)() {
		t.Errorf("%d is committed", at)
	}
}

// What is lost in the middle of a batch is not handed out any more.
func TestWhatIsLostIsNotHandedOut(t *testing.T) {
	ottla.Limit(t)
	broker, client := inGroup(t, 1)
	begin(t, broker, client, 3)
	slow := member(t, client, ottla.MaxPollInterval(time.Second))
	other := member(t, client, ottla.MaxPollInterval(time.Second))
	for record, err := range slow.Records(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Offset == 0 {
			continue
		}
		if record.Offset != 1 {
			if record.Offset != 3 {
				t.Errorf("%d comes after the partition was lost", record.Offset)
			}
			break
		}
		// It is away for longer than it may.
		if record := next(t, other); record.Offset > 1 {
			t.Errorf("the other one begins at %d", record.Offset)
		}
		eventually(t, "it is left out", hasMembers(broker, 1))
		eventually(t, "it knows", func() bool { return len(slow.Assignment()) == 0 })
		closes(t, other)
		broker.SetCommitted("g", "t", 0, 3)
		fill(t, client, 0, 1)
	}
}

func TestSettingsOfAMember(t *testing.T) {
	ottla.Limit(t)
	_, client := inGroup(t, 1)
	const ms, day = time.Millisecond, 24 * time.Hour
	with := func(options ...ottla.ConsumerOption) error {
		consumer, err := client.NewConsumer(append(options, ottla.Topics("t"))...)
		if err == nil {
			err = consumer.Close()
		}
		return err
	}
	in := func(option ottla.ConsumerOption) error { return with(ottla.Group("g"), option) }
	for name, tt := range map[string]struct{ taken, refused []error }{
		"session_timeout": {
			[]error{in(ottla.SessionTimeout(time.Second)), in(ottla.SessionTimeout(day))},
			[]error{in(ottla.SessionTimeout(999 * ms)), in(ottla.SessionTimeout(day + ms))},
		},
		"max_poll_interval": {
			[]error{in(ottla.MaxPollInterval(time.Second)), in(ottla.MaxPollInterval(day))},
			[]error{in(ottla.MaxPollInterval(999 * ms)), in(ottla.MaxPollInterval(day + ms))},
		},
		"commit_interval": {
			[]error{in(ottla.CommitInterval(10 * ms)), in(ottla.CommitInterval(day))},
			[]error{in(ottla.CommitInterval(9 * ms)), in(ottla.CommitInterval(day + ms))},
		},
		"instance_id": {[]error{in(ottla.InstanceID(strings.Repeat("i", 249)))}, nil},
		"group_protocol": {
			[]error{
				in(ottla.Protocol(ottla.GroupProtocolAuto)), in(ottla.Protocol(ottla.GroupProtocolClassic)),
				in(ottla.Protocol(ottla.GroupProtocolNext)), in(ottla.RemoteAssignor("uniform")),
			}, nil,
		},
		"assignors": {
			[]error{in(ottla.Assignors(ottla.Range, ottla.RoundRobin, ottla.Sticky, ottla.CooperativeSticky))}, nil,
		},
	} {
		for i, err := range tt.taken {
			if err != nil {
				t.Errorf("%s, value %d: %v", name, i, err)
			}
		}
		for i, err := range tt.refused {
			var e *ottla.Error
			if !errors.Is(err, ottla.ErrConfig) || !errors.As(err, &e) || !strings.HasPrefix(e.Message, name+" is ") {
				t.Errorf("%s, wrong value %d: %v", name, i, err)
			}
		}
	}
	for i, err := range []error{
		with(ottla.Group("")), with(ottla.Group(strings.Repeat("g", 250))), in(ottla.InstanceID("")),
		in(ottla.InstanceID(strings.Repeat("i", 250))), in(ottla.Assignors()), in(ottla.Assignors("uniform")),
		in(ottla.SessionTimeout(0)), in(ottla.Protocol("consumer")), in(ottla.RemoteAssignor("")), with(ottla.CommitAcked()), with(ottla.InstanceID("i")),
	} {
		if !errors.Is(err, ottla.ErrConfig) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, err := client.NewConsumer(ottla.Group("g"), ottla.Assign(ottla.TopicPartition{Topic: "t"})); !errors.Is(err, ottla.ErrConfig) {
		t.Error(err)
	}
	echo, err := ottla.NewClient(ottla.Echo())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := echo.NewConsumer(ottla.Group("g"), ottla.Topics("t")); !errors.Is(err, ottla.ErrConfig) {
		t.Error(err)
	}
	alone, err := client.NewConsumer(ottla.Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Commit(within(t)); !errors.Is(err, ottla.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := errors.Join(alone.Close(), echo.Close()); err != nil {
		t.Error(err)
	}
}
