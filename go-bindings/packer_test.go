package ottla

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// hold keeps accepted records from leaving, until release.
func hold(k *packer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.submitting = true
}

func release(k *packer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.submitting = false
	k.work.Signal()
}

func TestSpaceIsWaitedForAndACancelledWaitGivesItBack(t *testing.T) {
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(packedShare*1000))
	k := p.packer
	hold(k)
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
	release(k)
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
	hold(k)
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
	k.mu.Unlock()
	release(k)
	if err := p.Flush(ctx); err != nil {
		t.Error(err)
	}
}

func TestAContextThatEndsAfterAcceptance(t *testing.T) {
	c := echoClient(t)
	p := newProducer(t, c)
	k := p.packer
	hold(k)
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
	release(k)
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
