package ottla

import (
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

func TestCallbacksRunInOrderOnOneGoroutine(t *testing.T) {
	Limit(t)
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
	Limit(t)
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
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c)
	done := make(chan [3]error, 1)
	p.Produce(ctx, Record{Topic: "in", Value: []byte("v")}, func(Delivery, error) {
		_, err := p.ProduceSync(ctx, Record{Topic: "in", Value: []byte("sync")})
		done <- [3]error{err, p.Flush(ctx), c.Close()}
	})
	// However deep in the callback it is.
	deep := make(chan error, 1)
	var down func(levels int) error
	down = func(levels int) error {
		if levels == 0 {
			return p.Flush(endsWhenWaited())
		}
		return down(levels - 1)
	}
	p.Produce(ctx, Record{Topic: "in"}, func(Delivery, error) { deep <- down(300) })
	if err := receive(t, deep, "the deep callback"); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("Flush deep in a callback: %v", err)
	}
	got := receive(t, done, "the callback")
	if got[0] != nil {
		t.Errorf("ProduceSync in a callback: %v", got[0])
	}
	if !errors.Is(got[1], ErrInvalidArgument) || !errors.Is(got[2], ErrInvalidArgument) {
		t.Errorf("Flush and Close in a callback: %v, %v", got[1], got[2])
	}
}

func TestACallbackThatEndsItsGoroutineDoesNotStopTheOthers(t *testing.T) {
	Limit(t)
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
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, DeliveryTimeout(time.Hour))
	release, reached, inCallback := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var once sync.Once
	callback := func(Delivery, error) {
		once.Do(func() {
			close(reached)
			<-release
			// Whom should it wait for, if not for itself?
			p.Produce(endsWhenWaited(), Record{Topic: "slow"}, func(_ Delivery, err error) { inCallback <- err })
		})
	}
	p.Produce(ctx, Record{Topic: "slow"}, callback)
	receive(t, reached, "the callback that blocks")
	// As if nearly as many outcomes waited as may.
	const feigned = maxBacklog - 100
	p.calls.backlog.Add(feigned)
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
	for p.calls.backlog.Load() <= maxBacklog {
		if ctx.Err() != nil {
			t.Fatal("the backlog never filled")
		}
		runtime.Gosched()
	}
	cancel()
	receive(t, finished, "the end of a held Produce")
	// Beyond the backlog only what was packed and under way at that moment.
	if most := int64(maxBacklog - feigned + defaultBufferMemory/headLen); produced.Load() > most {
		t.Errorf("%d records while the callback was stuck", produced.Load())
	}
	// Who is held goes on once the callbacks have caught up.
	held, told := watch(ctx, 0), make(chan error, 1)
	go p.Produce(held, Record{Topic: "slow"}, func(_ Delivery, err error) { told <- err })
	receive(t, held.waits, "a held Produce")
	p.calls.backlog.Add(-maxBacklog / 2) // The others go over the half.
	close(release)
	if err := receive(t, told, "the record that was held"); err != nil {
		t.Error(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, inCallback, "what the callback produced"); err != nil {
		t.Errorf("produced in a callback: %v", err)
	}
	if left := p.calls.backlog.Add(maxBacklog/2 - feigned); left != 0 {
		t.Errorf("backlog is %d after a flush", left)
	}
}

func TestRefusalsComeThroughTheCallback(t *testing.T) {
	Limit(t)
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
			if d, err := p.ProduceSync(tt.ctx, tt.record); !errors.Is(err, tt.want) || MaybeWritten(err) || d.Partition != -1 || d.Offset != -1 {
				t.Errorf("ProduceSync: %+v, %v", d, err)
			}
		})
	}
	// None of them held on to anything.
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
	if n := p.unresolved(); n != 0 || p.packer.packed != 0 {
		t.Errorf("%d unresolved, %d bytes packed", n, p.packer.packed)
	}
}

func TestFailuresNobodyWasToldOfComeWithTheFlush(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, MaxRecordSize(10))
	for range 3 {
		p.Produce(ctx, Record{Topic: "t", Value: make([]byte, 11)}, nil)
	}
	err := p.Flush(ctx)
	if !errors.Is(err, ErrRecordTooLarge) || !strings.Contains(err.Error(), "3 records failed and nobody was told") {
		t.Fatalf("flush: %v", err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatalf("told twice: %v", err)
	}
}
