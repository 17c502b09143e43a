package ottla

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// watched is a context that tells when a wait begins, which is when its Done is asked for.
type watched struct {
	context.Context
	waits   chan struct{}
	waiting sync.Once
	// endsAfter so many looks at Err; 0: never.
	endsAfter, looks int32
}

func watch(ctx context.Context, endsAfter int32) *watched {
	return &watched{Context: ctx, waits: make(chan struct{}), endsAfter: endsAfter}
}

func (w *watched) Done() <-chan struct{} {
	w.waiting.Do(func() { close(w.waits) })
	return w.Context.Done()
}

func (w *watched) Err() error {
	if w.endsAfter > 0 && atomic.AddInt32(&w.looks, 1) > w.endsAfter {
		return context.Canceled
	}
	return w.Context.Err()
}

// Two goroutines sleep. The one that takes the token of a batch finds its context ended: it has to
// hand the token on, or the other sleeps beside the batch.
func TestATokenThatAnEndedWaitTookIsHandedOn(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		// The first look is before the sleep, the second behind the token.
		first, second := watch(ctx, 1), watch(ctx, 0)
		ended, got := make(chan error, 1), make(chan error, 1)
		next := func(ctx *watched, result chan<- error) {
			_, err := consumer.Next(ctx)
			result <- err
		}
		go next(first, ended)
		receive(t, first.waits, "the first to sleep")
		go next(second, got)
		receive(t, second.waits, "the second to sleep")
		if _, err := p.ProduceSync(ctx, Record{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		if err := receive(t, got, "the batch"); err != nil {
			t.Fatal(err)
		}
		// The second may have been quicker; then a token wakes the first, which ends.
		consumer.wakeUp()
		if err := receive(t, ended, "the ended wait"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

// A loop body that panics, or ends its goroutine, leaves the loop early like any other.
func TestALoopThatIsLeftByAPanicLosesNothing(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	for range 3 {
		p.Produce(ctx, Record{Topic: "t", Value: []byte("v")}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		for range consumer.Records(ctx) {
			panic("in the loop")
		}
	}()
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		for range consumer.Records(ctx) {
			runtime.Goexit()
		}
	}()
	receive(t, exited, "the goroutine's end")
	for record, err := range consumer.Records(ctx) {
		if err != nil || record.Offset != 2 {
			t.Errorf("%+v, %v", record, err)
		}
		break
	}
}

// The goroutine that runs callbacks ends with the client; what is produced later is told all the same.
func TestCallbacksOfRecordsProducedAfterTheClientsCloseAreCalled(t *testing.T) {
	Limit(t)
	ctx := within(t)
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	const each, goroutines = 1000, 4
	told := make(chan error, each*goroutines)
	var running atomic.Int32
	for range goroutines {
		go func() {
			for range each {
				p.Produce(ctx, Record{Topic: "t"}, func(_ Delivery, err error) {
					if running.Add(1) != 1 {
						t.Error("two callbacks at once")
					}
					told <- err
					running.Add(-1)
				})
			}
		}()
	}
	for range each * goroutines {
		if err := receive(t, told, "the callback"); !errors.Is(err, ErrClosed) || MaybeWritten(err) {
			t.Fatal(err)
		}
	}
}

// Records are produced while the client closes: each is told once.
func TestEveryCallbackIsCalledOnceWhateverTheCloseMeets(t *testing.T) {
	Limit(t)
	ctx := within(t)
	for range 50 {
		c, err := NewClient(Echo())
		if err != nil {
			t.Fatal(err)
		}
		p := newProducer(t, c)
		const each, goroutines = 200, 4
		told := make(chan struct{}, 2*each*goroutines)
		var all, started sync.WaitGroup
		for range goroutines {
			all.Add(1)
			started.Add(1)
			go func() {
				defer all.Done()
				started.Done()
				for range each {
					p.Produce(ctx, Record{Topic: "t"}, func(Delivery, error) { told <- struct{}{} })
				}
			}()
		}
		started.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		for range each * goroutines {
			receive(t, told, "a callback")
		}
		if len(told) != 0 {
			t.Fatalf("%d callbacks too many", len(told))
		}
	}
}

// Producers are made while the client closes: each is refused, or works and has its records told.
func TestProducersMadeDuringACloseEndWithIt(t *testing.T) {
	Limit(t)
	ctx := within(t)
	for range 50 {
		c, err := NewClient(Echo())
		if err != nil {
			t.Fatal(err)
		}
		const goroutines = 4
		var made, told atomic.Int64
		var all, started sync.WaitGroup
		for range goroutines {
			all.Add(1)
			started.Add(1)
			go func() {
				defer all.Done()
				started.Done()
				for {
					p, err := c.NewProducer()
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
					made.Add(1)
					p.Produce(ctx, Record{Topic: "t"}, func(Delivery, error) { told.Add(1) })
				}
			}()
		}
		started.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		for told.Load() < made.Load() {
			if ctx.Err() != nil {
				t.Fatalf("%d of %d records told", told.Load(), made.Load())
			}
			runtime.Gosched()
		}
	}
}

// One announcement is for all who sleep: whoever finds something, or fails, hands it on.
func TestWhoFindsSomethingWakesTheNext(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	for partition := range int32(2) {
		for range 2 {
			if _, err := p.ProduceSync(ctx, Record{Topic: "t", To: ToPartition(partition)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	consumer, err := c.NewConsumer(Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	woken := func(what string) {
		t.Helper()
		select {
		case <-consumer.ready:
		default:
			t.Errorf("%s wakes nobody", what)
		}
	}
	quiet := func() {
		select {
		case <-consumer.ready:
		default:
		}
	}
	var batch *Batch
	for batch == nil && ctx.Err() == nil {
		quiet()
		if batch, err = lookOnce(consumer); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	woken("a batch")
	consumer.putBack(batch, len(batch.Records)-1, true)
	woken("what is put back")
	if rest, err := lookOnce(consumer); err != nil || len(rest.Records) != 1 {
		t.Errorf("%+v, %v", rest, err)
	}
	woken("what was left")
	consumer.api.Free()
	quiet()
	if _, err := lookOnce(consumer); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	woken("an error")
}

// A seek is of one partition: what is left in hand of others stays.
func TestASeekIsOfOnePartition(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	consumer := twoInHand(t, c)
	if err := consumer.Seek("t", 0, AtOffset(2)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		partition int32
		offset    int64
	}{{1, 1}, {0, 2}} {
		batch, err := consumer.Next(ctx)
		if err != nil || batch.Partition != want.partition || batch.Records[0].Offset != want.offset {
			t.Errorf("%+v, %v; want %+v", batch, err, want)
		}
	}
}
