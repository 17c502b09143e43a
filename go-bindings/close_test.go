package ottla

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

func TestRecordsEndWithTheContextAndWithClose(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	consumer, err := c.NewConsumer(Topics("silent"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	loop := func(ctx context.Context) <-chan error {
		out := make(chan error, 1)
		go func() {
			var last error
			n := 0
			for _, err := range consumer.Records(ctx) {
				last = err
				n++
			}
			if n != 1 {
				last = fmt.Errorf("%d yields, the last %w", n, last)
			}
			out <- last
		}()
		return out
	}
	first := loop(ctx)
	cancel()
	if err := receive(t, first, "the loop"); !errors.Is(err, context.Canceled) {
		t.Errorf("context: %v", err)
	}
	second := loop(within(t))
	if err := consumer.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(t, second, "the loop"); !errors.Is(err, ErrClosed) {
		t.Errorf("close: %v", err)
	}
}

func TestUseAfterClose(t *testing.T) {
	Limit(t)
	ctx := within(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closing the producer after its client: %v", err)
	}
	if err := consumer.Close(); err != nil {
		t.Errorf("closing the consumer after its client: %v", err)
	}
	_, sync := p.ProduceSync(ctx, Record{Topic: "t"})
	_, producer := c.NewProducer()
	_, reader := c.NewConsumer(Topics("t"))
	_, next := consumer.Next(ctx)
	_, lookedUp := c.Offsets(ctx, Latest(), TopicPartition{Topic: "t"})
	for name, err := range map[string]error{
		"ProduceSync": sync, "NewProducer": producer, "NewConsumer": reader, "Next": next,
		"Flush":       p.flush(ctx),
		"CreateTopic": c.CreateTopic(ctx, "t", 1, 1),
		"Seek":        consumer.Seek("t", 0, Earliest()),
		"Pause":       consumer.Pause(TopicPartition{Topic: "t"}),
		"Resume":      consumer.Resume(TopicPartition{Topic: "t"}),
		"Assign":      consumer.Assign(TopicPartition{Topic: "t"}),
		"Unassign":    consumer.Unassign(TopicPartition{Topic: "t"}),
		"Offsets":     lookedUp,
	} {
		var e *Error
		if !errors.Is(err, ErrClosed) || !errors.As(err, &e) || !e.Fatal || e.MaybeWritten() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallbacksOfRecordsProducedAfterCloseAreCalled(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	p.Produce(ctx, Record{Topic: "t"}, func(_ Delivery, err error) { told <- err })
	if err := receive(t, told, "the callback"); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	// Without one it is told by whoever closes again.
	p.Produce(ctx, Record{Topic: "t"}, nil)
	if err := p.Close(); !errors.Is(err, ErrUndelivered) || !errors.Is(err, ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("told twice: %v", err)
	}
}

func TestCloseDeliversFirst(t *testing.T) {
	Limit(t)
	ctx := within(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	told := 0
	for range 10_000 {
		p.Produce(ctx, Record{Topic: "t", Value: []byte("v")}, func(_ Delivery, err error) {
			if err != nil {
				t.Error(err)
			}
			told++
		})
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if told != 10_000 {
		t.Fatalf("%d callbacks", told)
	}
}

func TestShutdownThatRunsOutOfTimeSaysWhatIsLeft(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	p := newProducer(t, c)
	k := p.packer
	k.mu.Lock()
	k.blocked = true // As if the brokers did not keep up.
	k.mu.Unlock()
	told := make(chan error, 1)
	p.Produce(within(t), Record{Topic: "t", Value: []byte("v")}, func(_ Delivery, err error) { told <- err })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.Shutdown(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 records were not delivered") {
		t.Errorf("shutdown: %v", err)
	}
	if err := receive(t, told, "the callback"); !errors.Is(err, ErrClosed) || MaybeWritten(err) {
		t.Errorf("the record: %v", err)
	}
}

// Should the engine ever leave records without an end, the client's close gives them one: whoever waits
// is told, and what nobody waits for is in the close's error.
func TestRecordsThatTheEngineGaveNoEndAreToldByTheClose(t *testing.T) {
	Limit(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	wait, told := make(chan synced, 1), make(chan error, 3)
	done := func(_ Delivery, err error) { told <- err }
	s := &submission{producer: p, topic: "t", count: 10, open: []stretch{{0, 10}}}
	// The others of ten have nobody.
	s.who.add(0, done, nil, -1, 0)
	s.who.add(2, done, nil, -1, 0)
	s.who.add(3, nil, wait, -1, 0)
	s.who.add(5, done, nil, -1, 0)
	s.left.Store(10)
	p.packer.taken = 10
	tag := c.addSubmission(s)
	// Two of them had theirs: with a callback, and without.
	for _, first := range []uint32{0, 8} {
		c.take(&capi.Completion{Kind: capi.Delivery, Tag: tag, First: first, Count: 1})
	}
	if err := receive(t, told, "the first callback"); err != nil {
		t.Error(err)
	}
	err = c.Close()
	var e *Error
	if !errors.Is(err, ErrUndelivered) || !errors.Is(err, ErrClosed) || !errors.As(err, &e) || e.Undelivered == nil {
		t.Fatalf("close: %v", err)
	}
	if e.Undelivered.Records != 5 || !e.MaybeWritten() {
		t.Errorf("%d records, maybe written: %v; the engine had 1, 4, 6, 7 and 9", e.Undelivered.Records, e.MaybeWritten())
	}
	out := receive(t, wait, "who waits")
	for _, err := range []error{out.err, receive(t, told, "a callback"), receive(t, told, "a callback")} {
		if !errors.Is(err, ErrClosed) || !MaybeWritten(err) {
			t.Errorf("of a record without an end: %v", err)
		}
	}
	if n := p.unresolved(); n != 0 || len(told) != 0 {
		t.Errorf("%d unresolved, %d callbacks too many", n, len(told))
	}
}

func TestGoroutinesAndHandlesGo(t *testing.T) {
	Limit(t)
	ctx := within(t)
	before := runtime.NumGoroutine()
	for range 20 {
		c, err := NewClient(Echo())
		if err != nil {
			t.Fatal(err)
		}
		p := newProducer(t, c)
		consumer, err := c.NewConsumer(Topics("t"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ProduceSync(ctx, Record{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		if _, err := consumer.Next(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for runtime.NumGoroutine() > before {
		if ctx.Err() != nil {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

func TestClosingAgainWaitsForTheFirst(t *testing.T) {
	Limit(t)
	c := echoClient(t)
	p := newProducer(t, c)
	// As if others were closing them.
	p.closed = true
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for name, shutdown := range map[string]func(context.Context) error{"producer": p.Shutdown, "client": c.Shutdown} {
		if err := shutdown(endsWhenWaited()); !errors.Is(err, context.Canceled) {
			t.Errorf("closing the %s again: %v", name, err)
		}
	}
	p.closed = false
	c.mu.Lock()
	c.closed = false
	c.mu.Unlock()
}

func TestClosingAgainSaysWhatTheFirstSaid(t *testing.T) {
	Limit(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	k := p.packer
	k.mu.Lock()
	k.blocked = true
	k.mu.Unlock()
	p.Produce(within(t), Record{Topic: "t"}, func(Delivery, error) {})
	for _, shutdown := range []func(context.Context) error{p.Shutdown, p.Shutdown} {
		if err := shutdown(endsWhenWaited()); !errors.Is(err, context.Canceled) {
			t.Errorf("closing: %v", err)
		}
	}
	if err := p.Shutdown(within(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("closed before: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestACloseSaysThatACallbackIsInItsWay(t *testing.T) {
	Limit(t)
	for range 10 { // Of several things that end a wait one is drawn.
		c, err := NewClient(Echo())
		if err != nil {
			t.Fatal(err)
		}
		p := newProducer(t, c)
		reached, goes, told := make(chan struct{}), make(chan struct{}), make(chan struct{})
		p.Produce(within(t), Record{Topic: "t"}, func(Delivery, error) {
			close(reached)
			<-goes
			close(told)
		})
		receive(t, reached, "the callback")
		if err := c.Shutdown(endsWhenWaited()); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "a callback has not returned") {
			t.Errorf("closing: %v", err)
		}
		close(goes)
		receive(t, told, "the callback's end")
	}
}

// What came after the last look at the queue is told too when the wake file ends.
func TestWhatIsInTheQueueAtACloseIsTold(t *testing.T) {
	Limit(t)
	ctx := within(t)
	for range 10 { // What is sent may come to the look before.
		api, failure := capi.NewEcho()
		if failure != nil {
			t.Fatal(failed(failure))
		}
		c, _, err := start(api, func() {}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.abandoned.Stop()
		// A client whose wake file says nothing of what comes.
		_ = c.wake.Close()
		p := newProducer(t, c)
		receive(t, c.drained, "the end of draining")
		silent, say, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.wake, c.drained = silent, make(chan struct{})
		told := make(chan error, 2)
		produce := func() {
			p.Produce(ctx, Record{Topic: "t"}, func(_ Delivery, err error) { told <- err })
			if err := p.packer.handOver(ctx); err != nil {
				t.Error(err)
			}
		}
		produce()
		go drain(weak.Make(c), api, c.wake, c.drained)
		if err := receive(t, told, "the first record"); err != nil {
			t.Error(err)
		}
		produce()
		_ = say.Close()
		receive(t, c.drained, "the end of draining")
		if err := p.packer.handOver(ctx); err != nil {
			t.Error(err)
		}
		if p.unresolved() != 0 {
			t.Error("a record that was in the queue has no outcome")
		}
		p.packer.refuseNew()
		p.packer.abandon(closed("client"))
		api.Close()
		_ = c.orphans()
		p.calls.end()
		receive(t, p.calls.done, "the callbacks")
		p.api.Free()
		api.Free()
		_ = silent.Close()
	}
}
