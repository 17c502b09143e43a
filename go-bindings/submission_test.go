package ottla

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

func TestStretchesThatAreOpen(t *testing.T) {
	Limit(t)
	s := &submission{open: []stretch{{0, 10}}}
	for _, tt := range []struct {
		first, end int
		want       []stretch
	}{
		{3, 5, []stretch{{0, 3}, {5, 10}}},
		{7, 8, []stretch{{0, 3}, {5, 7}, {8, 10}}},
		{1, 2, []stretch{{0, 1}, {2, 3}, {5, 7}, {8, 10}}},
		{0, 6, []stretch{{6, 7}, {8, 10}}},
		{6, 9, []stretch{{9, 10}}},
		{9, 10, nil},
	} {
		if !s.ends(tt.first, tt.end) || !slices.Equal(s.open, tt.want) {
			t.Errorf("without %d to %d: %v, not %v", tt.first, tt.end, s.open, tt.want)
		}
	}
	s = &submission{open: []stretch{{4, 6}}}
	if open := s.orphan(); !slices.Equal(open, []stretch{{4, 6}}) || s.ends(4, 5) {
		t.Errorf("%v; what is told already ends once more", open)
	}
}

// A topic may stamp records itself: then what a record was given counts for nothing.
func TestStampsOfTheTopicAndOfTheRecord(t *testing.T) {
	Limit(t)
	s := &submission{who: listeners{stamps: []int64{100, 200, -1}}}
	for _, tt := range []struct {
		first, i  int
		told, own int64
	}{
		{0, 0, 100, 100}, {0, 1, 100, 200}, {0, 2, 100, 100}, {0, 5, 100, 100},
		{0, 0, 777, 777}, {0, 1, 777, 777}, {2, 2, 777, 777}, {1, 1, 200, 200},
	} {
		if got := s.timestampMs(tt.first, tt.i, tt.told); got != tt.own {
			t.Errorf("record %d of a run from %d that is told %d has %d, not %d", tt.i, tt.first, tt.told, got, tt.own)
		}
	}
}

func TestDeliveriesOfARun(t *testing.T) {
	Limit(t)
	s := &submission{topic: "t"}
	known := outcome{of: s, count: 3, partition: 2, offset: 40, timestampMs: 5}
	if d := known.delivery(2); d.Topic != "t" || d.Partition != 2 || d.Offset != 42 || d.Timestamp.UnixMilli() != 5 {
		t.Errorf("%+v", d)
	}
	unknown := outcome{of: s, count: 3, partition: 2, offset: -1, timestampMs: -1}
	if d := unknown.delivery(2); d.Offset != -1 || !d.Timestamp.IsZero() {
		t.Errorf("nothing is known, but %+v", d)
	}
	refused := outcome{of: s, count: 3, partition: -1, offset: 40, err: ErrClosed}
	if d := refused.delivery(1); d.Topic != "t" || d.Partition != -1 || d.Offset != -1 {
		t.Errorf("refused: %+v", d)
	}
}

// What is told of failures is what was since the last time: first error, topics, doubt.
func TestUndeliveredTellsOfTheTimeSinceTheLast(t *testing.T) {
	Limit(t)
	p := newProducer(t, echoClient(t))
	p.unheard(2, "t0", &Error{Code: ErrTimeout, Message: "late", Advice: "wait", BrokerCode: 7, Retriable: true, maybeWritten: true})
	for i := range mostTopics {
		p.unheard(1, fmt.Sprint("t", i), &Error{Code: ErrClosed})
	}
	p.unheard(0, "none", &Error{Code: ErrInternal})
	err := p.heard()
	var e *Error
	if !errors.As(err, &e) || e.Code != ErrUndelivered || !errors.Is(err, ErrTimeout) || errors.Is(err, ErrClosed) {
		t.Fatalf("not the first: %v", err)
	}
	if u := e.Undelivered; u.Records != 18 || len(u.Topics) != mostTopics || u.MoreTopics || !e.Retriable || !e.MaybeWritten() {
		t.Errorf("%+v, retriable: %v, maybe written: %v", u, e.Retriable, e.MaybeWritten())
	}
	if e.Advice != "wait" || e.BrokerCode != 7 || !strings.Contains(e.Message, "18 records failed") || !strings.HasSuffix(e.Message, "the first: late") {
		t.Errorf("%+v", e)
	}
	for i := range mostTopics + 1 {
		p.unheard(1, fmt.Sprint("u", i), &Error{Code: ErrInvalidRecord})
	}
	err = p.heard()
	if !errors.As(err, &e) || !errors.Is(err, ErrInvalidRecord) || errors.Is(err, ErrTimeout) || e.Retriable || e.MaybeWritten() {
		t.Errorf("of the second time: %v", err)
	}
	if u := e.Undelivered; u.Records != 17 || len(u.Topics) != mostTopics || !u.MoreTopics || u.Topics[0] != "u0" || !strings.Contains(e.Message, "and others") {
		t.Errorf("%+v: %s", u, e.Message)
	}
	if err := p.heard(); err != nil {
		t.Errorf("told twice: %v", err)
	}
}

// freed tells whether a handle of the C library was given back.
func freed(handle any) bool {
	return reflect.ValueOf(handle).Elem().FieldByName("h").IsNil()
}

func TestClosedHandlesAreFreedAndForgotten(t *testing.T) {
	Limit(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p, left := newProducer(t, c), newProducer(t, c)
	reader, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	if freed(p.api) || freed(reader.api) || freed(c.api) {
		t.Error("free before the close")
	}
	if err := errors.Join(p.Close(), reader.Close()); err != nil {
		t.Error(err)
	}
	if !freed(p.api) || !freed(reader.api) || len(c.producers) != 1 || len(c.consumers) != 1 {
		t.Errorf("freed: %v, %v; %d producers and %d consumers are left of two each", freed(p.api), freed(reader.api), len(c.producers), len(c.consumers))
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if !freed(left.api) || !freed(other.api) || !freed(c.api) || len(c.producers) != 0 || len(c.consumers) != 0 || len(c.operations) > 1 {
		t.Errorf("left behind: %d producers, %d consumers, %d operations", len(c.producers), len(c.consumers), len(c.operations))
	}
	select {
	case <-other.closed:
	default:
		t.Error("a consumer outlives its client")
	}
}

func TestOperationsThatAreGivenUpAreForgotten(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	before := len(c.operations)
	tag, op := c.operation(nil)
	if err := c.await(endsWhenWaited(), tag, op, nil, "a wait"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_, refusal := c.api.NewConsumer(consumerSettings{}.ConsumerOptions)
	tag, op = c.operation(nil)
	if err := c.await(within(t), tag, op, refusal, "a refusal"); !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.operations) != before {
		t.Errorf("%d operations are left, %d were there", len(c.operations), before)
	}
}

// What an operation behind the callbacks failed with reaches who waits for it.
func TestAFlushThatFailsSaysSo(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	_, refusal := c.api.NewConsumer(consumerSettings{}.ConsumerOptions)
	for _, behind := range []*callbacks{newProducer(t, c).calls, nil} {
		tag, op := c.operation(behind)
		c.take(&capi.Completion{Kind: capi.Flushed, Tag: tag, Failure: refusal})
		if err := c.await(within(t), tag, op, nil, "flush"); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("behind callbacks: %v; %v", behind != nil, err)
		}
	}
}

func TestAFlushReturnsBehindItsCallbacks(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	reached, goes, flushed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	p.Produce(ctx, Record{Topic: "t"}, func(Delivery, error) {
		close(reached)
		<-goes
	})
	receive(t, reached, "the callback")
	go func() { flushed <- p.Flush(ctx) }()
	// The engine's word that all is flushed waits behind the callback, or the flush is over before it.
	for waits := false; !waits && len(flushed) == 0 && ctx.Err() == nil; runtime.Gosched() {
		p.calls.mu.Lock()
		waits = slices.ContainsFunc(p.calls.queue, func(o outcome) bool { return o.mark != nil })
		p.calls.mu.Unlock()
	}
	if len(flushed) > 0 {
		t.Error("the flush is over, and a callback is not")
	}
	close(goes)
	if err := receive(t, flushed, "the flush"); err != nil {
		t.Error(err)
	}
}
