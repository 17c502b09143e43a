package ottla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// deadline ends waits that would otherwise hang; nothing is measured with it.
const deadline = 60 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func echoClient(t *testing.T) *Client {
	t.Helper()
	c, err := NewClient(Echo())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func newProducer(t *testing.T, c *Client, options ...ProducerOption) *Producer {
	t.Helper()
	p, err := c.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(deadline):
		t.Fatalf("%s: nothing within %v", what, deadline)
		panic("unreachable")
	}
}

// oddRecords has null, empty and present in every place, and header names that repeat.
func oddRecords(topic string) []Record {
	at := time.UnixMilli(1_700_000_000_123)
	return []Record{
		{Topic: topic, Value: []byte("plain")},
		{Topic: topic},
		{Topic: topic, Key: []byte{}, Value: []byte{}},
		{Topic: topic, Key: []byte("key"), Value: []byte("value"), Timestamp: at},
		{Topic: topic, Value: []byte("h"), Headers: []Header{
			{"a", []byte("1")}, {"a", nil}, {"", []byte{}}, {"ünï", []byte("2")},
		}},
		{Topic: topic, Value: bytes.Repeat([]byte{0xff, 0}, 50_000)},
	}
}

func equalRecord(got *Record, want Record) error {
	same := func(name string, a, b []byte) error {
		if (a == nil) != (b == nil) || !bytes.Equal(a, b) {
			return fmt.Errorf("%s is %q (nil: %v), want %q (nil: %v)", name, a, a == nil, b, b == nil)
		}
		return nil
	}
	errs := []error{same("key", got.Key, want.Key), same("value", got.Value, want.Value)}
	if len(got.Headers) != len(want.Headers) {
		return fmt.Errorf("%d headers, want %d", len(got.Headers), len(want.Headers))
	}
	for i, h := range got.Headers {
		if h.Name != want.Headers[i].Name {
			errs = append(errs, fmt.Errorf("header %d is %q", i, h.Name))
		}
		errs = append(errs, same("header "+h.Name, h.Value, want.Headers[i].Value))
	}
	if !want.Timestamp.IsZero() && !got.Timestamp.Equal(want.Timestamp) {
		errs = append(errs, fmt.Errorf("timestamp %v, want %v", got.Timestamp, want.Timestamp))
	}
	return errors.Join(errs...)
}

func TestWhatIsProducedComesBackByteForByte(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	want := oddRecords("odd")
	for _, r := range want {
		p.Produce(ctx, r, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Topics("odd"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for got, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if err := equalRecord(got, want[n]); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
		if got.Topic != "odd" || got.Offset != int64(n) {
			t.Fatalf("record %d is at %s/%d", n, got.Topic, got.Offset)
		}
		if n++; n == len(want) {
			break
		}
	}
	if n != len(want) {
		t.Fatalf("%d of %d records", n, len(want))
	}
}

func TestSlicesMayBeReusedWhenProduceReturns(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	buf := make([]byte, 8)
	const n = 2000
	for i := range n {
		copy(buf, fmt.Sprintf("%08d", i))
		p.Produce(ctx, Record{Topic: "reuse", Key: buf, Value: buf}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, _ := c.NewConsumer(Topics("reuse"))
	i := 0
	for r, err := range consumer.Records(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%08d", i); string(r.Value) != want || string(r.Key) != want {
			t.Fatalf("record %d is %q", i, r.Value)
		}
		if i++; i == n {
			break
		}
	}
}

func TestALoopLeftEarlyLosesNothing(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const n = 100
	for i := range n {
		p.Produce(ctx, Record{Topic: "left", Value: []byte{byte(i)}}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, _ := c.NewConsumer(Topics("left"))
	for i := 0; i < n; {
		for r, err := range consumer.Records(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Value[0] != byte(i) {
				t.Fatalf("record %d is %d", i, r.Value[0])
			}
			if i++; i%3 == 0 || i == n {
				break
			}
		}
	}
}

func TestCallbacksRunInOrderOnOneGoroutine(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const each, goroutines = 5000, 8
	var running atomic.Int32
	last := make(map[int]int64) // No lock: the race detector judges.
	count := 0
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			record := Record{Topic: fmt.Sprint("topic-", g%2), Value: []byte("v"), To: ToPartition(int32(g))}
			for i := range each {
				p.Produce(ctx, record, func(d Delivery, err error) {
					if running.Add(1) != 1 {
						t.Error("two callbacks at once")
					}
					if err != nil || d.Offset != int64(i) || d.Partition != int32(g) || d.Topic != record.Topic {
						t.Errorf("goroutine %d record %d: %+v, %v", g, i, d, err)
					}
					if prev, ok := last[g]; ok && d.Offset != prev+1 {
						t.Errorf("offset %d after %d", d.Offset, prev)
					}
					last[g] = d.Offset
					count++
					running.Add(-1)
				})
			}
		}()
	}
	wg.Wait()
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	// Flush came after the callbacks: no lock needed here either.
	if count != each*goroutines {
		t.Fatalf("%d callbacks, want %d", count, each*goroutines)
	}
}

func TestProducingInACallback(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	// Little memory, so that callbacks meet a full buffer.
	p := newProducer(t, c, BufferMemory(16<<10), MaxRecordSize(8<<10))
	value := make([]byte, 1500)
	const chains, length = 50, 40
	done := make(chan error, chains)
	var next func(left int) func(Delivery, error)
	next = func(left int) func(Delivery, error) {
		return func(_ Delivery, err error) {
			if err != nil || left == 0 {
				done <- err
				return
			}
			p.Produce(ctx, Record{Topic: "chain", Value: value}, next(left-1))
		}
	}
	for range chains {
		p.Produce(ctx, Record{Topic: "chain", Value: value}, next(length))
	}
	for range chains {
		if err := receive(t, done, "the end of a chain"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACallbackMayWaitForARecordButNotForItself(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	done := make(chan [3]error, 1)
	p.Produce(ctx, Record{Topic: "in", Value: []byte("v")}, func(Delivery, error) {
		_, err := p.ProduceSync(ctx, Record{Topic: "in", Value: []byte("sync")})
		done <- [3]error{err, p.Flush(ctx), c.Close()}
	})
	got := receive(t, done, "the callback")
	if got[0] != nil {
		t.Errorf("ProduceSync in a callback: %v", got[0])
	}
	if !errors.Is(got[1], ErrInvalidArgument) || !errors.Is(got[2], ErrInvalidArgument) {
		t.Errorf("Flush and Close in a callback: %v, %v", got[1], got[2])
	}
}

func TestACallbackThatEndsItsGoroutineDoesNotStopTheOthers(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	told := make(chan int, 3)
	for i := range 3 {
		p.Produce(ctx, Record{Topic: "exit", Value: []byte("v")}, func(Delivery, error) {
			told <- i
			if i == 1 {
				runtime.Goexit()
			}
		})
	}
	for i := range 3 {
		if got := receive(t, told, "a callback"); got != i {
			t.Fatalf("callback %d came instead of %d", got, i)
		}
	}
}

func TestASlowCallbackHoldsProducersBack(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, DeliveryTimeout(time.Hour))
	release, reached := make(chan struct{}), make(chan struct{})
	var once sync.Once
	callback := func(Delivery, error) {
		once.Do(func() { close(reached); <-release })
	}
	p.Produce(ctx, Record{Topic: "slow"}, callback)
	receive(t, reached, "the callback that blocks")
	var produced atomic.Int64
	stop, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for stop.Err() == nil {
			p.Produce(stop, Record{Topic: "slow"}, callback)
			produced.Add(1)
		}
	}()
	for c.calls.backlog.Load() <= maxBacklog {
		if ctx.Err() != nil {
			t.Fatal("the backlog never filled")
		}
		runtime.Gosched()
	}
	cancel()
	receive(t, finished, "the end of a held Produce")
	// Beyond the backlog only what was packed and under way at that moment.
	if most := int64(maxBacklog + defaultBufferMemory/headLen); produced.Load() > most {
		t.Errorf("%d records while the callback was stuck", produced.Load())
	}
	close(release)
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if left := c.calls.backlog.Load(); left != 0 {
		t.Errorf("backlog is %d after a flush", left)
	}
}

func TestProduceSyncFromManyGoroutines(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	const goroutines, each = 32, 200
	seen := make([]atomic.Bool, goroutines*each)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range each {
				d, err := p.ProduceSync(ctx, Record{Topic: "sync", Value: []byte("v")})
				if err != nil {
					t.Error(err)
					return
				}
				if seen[d.Offset].Swap(true) {
					t.Errorf("offset %d twice", d.Offset)
				}
				if d.Timestamp.IsZero() {
					t.Error("no timestamp")
				}
			}
		}()
	}
	wg.Wait()
	for i := range seen {
		if !seen[i].Load() {
			t.Fatalf("offset %d is missing", i)
		}
	}
}

func TestTimestampsInDeliveriesAreTheRecordsOwn(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	base := time.UnixMilli(1_600_000_000_000)
	var got []time.Time
	for i := range 100 {
		at := base.Add(time.Duration(i) * time.Minute)
		p.Produce(ctx, Record{Topic: "at", Timestamp: at}, func(d Delivery, _ error) { got = append(got, d.Timestamp) })
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for i, at := range got {
		if want := base.Add(time.Duration(i) * time.Minute); !at.Equal(want) {
			t.Fatalf("record %d: %v, want %v", i, at, want)
		}
	}
}

func TestRefusalsComeThroughTheCallback(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, MaxRecordSize(10))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		record Record
		want   error
	}{
		{"no topic", ctx, Record{}, ErrInvalidArgument},
		{"NUL in the topic", ctx, Record{Topic: "a\x00b"}, ErrInvalidArgument},
		{"negative partition", ctx, Record{Topic: "t", To: ToPartition(-3)}, ErrInvalidArgument},
		{"before 1970", ctx, Record{Topic: "t", Timestamp: time.UnixMilli(-5)}, ErrInvalidArgument},
		{"header name", ctx, Record{Topic: "t", Headers: []Header{{Name: "\xff"}}}, ErrInvalidArgument},
		{"too large", ctx, Record{Topic: "t", Value: make([]byte, 11)}, ErrRecordTooLarge},
		{"ended context", cancelled, Record{Topic: "t"}, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told := make(chan error, 1)
			p.Produce(tt.ctx, tt.record, func(_ Delivery, err error) { told <- err })
			if err := receive(t, told, "the callback"); !errors.Is(err, tt.want) || MaybeWritten(err) {
				t.Errorf("callback: %v", err)
			}
			if _, err := p.ProduceSync(tt.ctx, tt.record); !errors.Is(err, tt.want) || MaybeWritten(err) {
				t.Errorf("ProduceSync: %v", err)
			}
		})
	}
	// None of them held on to anything.
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
	if n := p.unresolved.Load(); n != 0 || p.packer.packed != 0 {
		t.Errorf("%d unresolved, %d bytes packed", n, p.packer.packed)
	}
}

func TestARecordTheEngineRefusesDoesNotTakeOthersWithIt(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, MaxRecordSize(100))
	p.packer.maxRecord = 1 << 20 // The engine has to say it.
	var good, bad int
	for i := range 300 {
		n := 50
		if i%7 == 0 {
			n = 101
		}
		p.Produce(ctx, Record{Topic: "mixed", Value: make([]byte, n), Headers: []Header{}}, func(_ Delivery, err error) {
			switch {
			case err == nil && n == 50:
				good++
			case errors.Is(err, ErrRecordTooLarge) && n == 101:
				bad++
			default:
				t.Errorf("record %d of %d bytes: %v", i, n, err)
			}
		})
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if good != 257 || bad != 43 {
		t.Fatalf("%d good, %d bad", good, bad)
	}
}

func TestFailuresNobodyWasToldOfComeWithTheFlush(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, MaxRecordSize(10))
	for range 3 {
		p.Produce(ctx, Record{Topic: "t", Value: make([]byte, 11)}, nil)
	}
	err := p.Flush(ctx)
	if !errors.Is(err, ErrRecordTooLarge) || !strings.Contains(err.Error(), "3 records without a callback") {
		t.Fatalf("flush: %v", err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatalf("told twice: %v", err)
	}
}

func TestSpaceIsWaitedForAndACancelledWaitGivesItBack(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(packedShare*1000))
	k := p.packer
	k.mu.Lock()
	k.submitting = true // Nothing leaves.
	k.mu.Unlock()
	p.Produce(ctx, Record{Topic: "t", Value: make([]byte, 900)}, nil)
	waiting, cancel := context.WithCancel(ctx)
	results := make(chan error, 2)
	go func() {
		_, err := p.ProduceSync(waiting, Record{Topic: "t", Value: make([]byte, 500)})
		results <- err
	}()
	go func() {
		_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, 600)})
		results <- err
	}()
	waiters := func(n int) {
		t.Helper()
		for {
			k.mu.Lock()
			have := len(k.waiters)
			k.mu.Unlock()
			if have == n {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%d wait, not %d", have, n)
			}
			runtime.Gosched()
		}
	}
	waiters(2)
	cancel()
	if err := receive(t, results, "the cancelled wait"); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrCancelled) || MaybeWritten(err) {
		t.Fatalf("cancelled: %v", err)
	}
	waiters(1)
	k.mu.Lock()
	k.submitting = false
	k.work.Signal()
	k.mu.Unlock()
	if err := receive(t, results, "the patient wait"); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.packed != 0 || len(k.waiters) != 0 {
		t.Errorf("%d bytes packed, %d waiters", k.packed, len(k.waiters))
	}
}

func TestTheWaitForSpaceEndsWithMaxBlock(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(packedShare*1000), MaxBlock(time.Millisecond))
	k := p.packer
	k.mu.Lock()
	k.submitting = true // Nothing leaves.
	k.mu.Unlock()
	p.Produce(ctx, Record{Topic: "t", Value: make([]byte, 900)}, nil)
	_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, 500)})
	var e *Error
	if !errors.As(err, &e) || e.Code != ErrBufferFull || !e.Retriable || e.MaybeWritten() {
		t.Errorf("no space: %v", err)
	}
	k.mu.Lock()
	if len(k.waiters) != 0 {
		t.Errorf("%d waiters are left", len(k.waiters))
	}
	k.submitting = false
	k.work.Signal()
	k.mu.Unlock()
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
}

func TestAContextThatEndsAfterAcceptance(t *testing.T) {
	c := echoClient(t)
	p := newProducer(t, c)
	k := p.packer
	k.mu.Lock()
	k.submitting = true // Accepted, and not on its way.
	k.mu.Unlock()
	ctx, cancel := context.WithCancel(within(t))
	result := make(chan error, 1)
	go func() {
		_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: []byte("v")})
		result <- err
	}()
	for p.unresolved.Load() == 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	cancel()
	err := receive(t, result, "ProduceSync")
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, context.Canceled) || !e.MaybeWritten() || !MaybeWritten(err) {
		t.Fatalf("after acceptance: %v", err)
	}
	k.mu.Lock()
	k.submitting = false
	k.work.Signal()
	k.mu.Unlock()
	// The record goes its way, and leaves nothing behind.
	if err := p.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.submissions) != 0 || len(c.operations) != 1 || p.unresolved.Load() != 0 {
		t.Errorf("left: %d submissions, %d operations, %d unresolved", len(c.submissions), len(c.operations), p.unresolved.Load())
	}
}

func TestRecordsEndWithTheContextAndWithClose(t *testing.T) {
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
	for name, err := range map[string]error{
		"ProduceSync": sync, "NewProducer": producer, "NewConsumer": reader, "Next": next,
		"Flush":       p.flush(ctx),
		"CreateTopic": c.CreateTopic(ctx, "t", 1, 1),
		"Seek":        consumer.Seek("t", 0, Earliest()),
	} {
		var e *Error
		if !errors.Is(err, ErrClosed) || !errors.As(err, &e) || !e.Fatal || e.MaybeWritten() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallbacksOfRecordsProducedAfterCloseAreCalled(t *testing.T) {
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
}

func TestCloseDeliversFirst(t *testing.T) {
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

func TestARecordThatFindsNoSpaceInTimeFails(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, DeliveryTimeout(time.Millisecond))
	k := p.packer
	k.mu.Lock()
	k.blocked = true
	head := &pack{since: time.Now()}
	k.mu.Unlock()
	told := make(chan error, 1)
	p.Produce(ctx, Record{Topic: "t", Value: []byte("v")}, func(_ Delivery, err error) { told <- err })
	k.mu.Lock()
	k.expireLater(head)
	k.mu.Unlock()
	if err := receive(t, told, "the callback"); !errors.Is(err, ErrTimeout) || MaybeWritten(err) {
		t.Errorf("the record: %v", err)
	}
	k.space()
	if _, err := p.ProduceSync(ctx, Record{Topic: "t"}); err != nil {
		t.Errorf("after space: %v", err)
	}
}

func TestTopicsAreCreated(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	if err := c.CreateTopic(ctx, "made", 3, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(ctx, "made", 3, 1); !errors.Is(err, ErrTopicExists) {
		t.Errorf("again: %v", err)
	}
	if err := c.CreateTopic(ctx, "", 3, 1); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no name: %v", err)
	}
}

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

func TestSeekAndAssign(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	for i := range 10 {
		p.Produce(ctx, Record{Topic: "seek", Value: []byte{byte(i)}, To: ToPartition(2)}, nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer, err := c.NewConsumer(Assign(TopicPartition{Topic: "seek", Partition: 2, Start: AtOffset(4)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []byte{4, 5} {
		for r, err := range consumer.Records(ctx) {
			if err != nil || r.Value[0] != want || r.Partition != 2 {
				t.Fatalf("%v, %v; want %d", r, err, want)
			}
			break
		}
	}
	if err := consumer.Seek("seek", 2, AtOffset(1)); err != nil {
		t.Fatal(err)
	}
	for r, err := range consumer.Records(ctx) {
		if err != nil || r.Value[0] != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		break
	}
}

func TestGoroutinesAndHandlesGo(t *testing.T) {
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

func TestEveryCodeHasItsName(t *testing.T) {
	seen := map[string]Code{}
	for code := ErrConfig; code <= ErrCancelled; code++ {
		name := code.String()
		if other, twice := seen[name]; twice || name == "" || name == ErrUnknown.String() {
			t.Errorf("code %d is %q, as is %d", code, name, other)
		}
		seen[name] = code
		if err := error(&Error{Code: code}); !errors.Is(err, code) || errors.Is(err, ErrUnknown) {
			t.Errorf("errors.Is does not find %v", code)
		}
	}
	if ErrUnknownTopic.String() != "unknown_topic" {
		t.Errorf("unknown_topic is %v", ErrUnknownTopic)
	}
}
