package ottla

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
)

// hold keeps accepted records from leaving, until release; also at the latest when the test ends, as a
// client can not close before.
func hold(t *testing.T, k *packer) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.submitting = true
	t.Cleanup(func() { release(k) })
}

func release(k *packer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.submitting = false
	k.idle()
	k.work()
}

func TestSpaceIsWaitedForAndACancelledWaitGivesItBack(t *testing.T) {
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(packedShare*1000))
	k := p.packer
	hold(t, k)
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
	Limit(t)
	c, ctx := echoClient(t), within(t)
	p := newProducer(t, c, BufferMemory(packedShare*1000), MaxBlock(time.Millisecond))
	k := p.packer
	hold(t, k)
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
	Limit(t)
	c := echoClient(t)
	p := newProducer(t, c)
	k := p.packer
	hold(t, k)
	ctx, cancel := context.WithCancel(within(t))
	result := make(chan error, 1)
	go func() {
		_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: []byte("v")})
		result <- err
	}()
	for p.unresolved() == 0 && ctx.Err() == nil {
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
	if len(c.submissions) != 0 || len(c.operations) != 1 || p.unresolved() != 0 {
		t.Errorf("left: %d submissions, %d operations, %d unresolved", len(c.submissions), len(c.operations), p.unresolved())
	}
}

func TestARecordThatFindsNoSpaceInTimeFails(t *testing.T) {
	Limit(t)
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
	if n := packed(k); n != 0 {
		t.Errorf("%d bytes are still packed", n)
	}
}

// endsInWait is a context that ends as soon as somebody waits for its end, and says so when it is asked
// why: what meets the end of a wait happens in meanwhile.
type endsInWait struct {
	context.Context
	waits     bool
	meanwhile func()
}

func (c *endsInWait) Done() <-chan struct{} {
	c.waits = true
	over := make(chan struct{})
	close(over)
	return over
}

func (c *endsInWait) Err() error {
	if !c.waits {
		return nil
	}
	if c.meanwhile != nil {
		c.meanwhile()
		c.meanwhile = nil
	}
	return context.Canceled
}

func endsWhenWaited() *endsInWait { return &endsInWait{Context: context.Background()} }

// fullPacker is one whose space is taken but for 76 bytes, and nothing leaves it.
func fullPacker(t *testing.T, options ...ProducerOption) (*Client, *Producer, *packer) {
	t.Helper()
	c := echoClient(t)
	p := newProducer(t, c, append(options, BufferMemory(packedShare*1000))...)
	hold(t, p.packer)
	p.Produce(within(t), Record{Topic: "t", Value: make([]byte, 900)}, nil)
	return c, p, p.packer
}

func packed(k *packer) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.packed
}

func TestNobodyOvertakesWhoWaitsForSpace(t *testing.T) {
	Limit(t)
	_, p, k := fullPacker(t)
	ctx, cancel := context.WithCancel(within(t))
	large, small := make(chan error, 1), make(chan error, 1)
	produce := func(ctx context.Context, size int, result chan<- error) {
		_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, size)})
		result <- err
	}
	first, second := watch(ctx, 0), watch(within(t), 0)
	go produce(first, 500, large)
	receive(t, first.waits, "the large record to wait")
	// It would fit.
	if _, err := p.ProduceSync(endsWhenWaited(), Record{Topic: "t", Value: []byte("v")}); !errors.Is(err, context.Canceled) || MaybeWritten(err) {
		t.Errorf("a small record overtakes: %v", err)
	}
	go produce(second, 1, small)
	receive(t, second.waits, "the small record to wait")
	cancel()
	if err := receive(t, large, "the cancelled wait"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Who stood behind has its space by now, though nothing was given back.
	k.mu.Lock()
	waiting, taken := len(k.waiters), k.packed
	k.mu.Unlock()
	if want := 2*headLen + 901; waiting != 0 || taken != want {
		t.Errorf("%d wait; %d bytes are taken, not %d", waiting, taken, want)
	}
	release(k)
	if err := receive(t, small, "the small record"); err != nil {
		t.Error(err)
	}
}

func TestSpaceThatIsGrantedAtTheEndOfAWaitIsGivenBack(t *testing.T) {
	Limit(t)
	_, p, k := fullPacker(t)
	before := packed(k)
	ctx := endsWhenWaited()
	ctx.meanwhile = func() {
		k.mu.Lock()
		k.release(before) // As if all of it had left.
		k.mu.Unlock()
	}
	if _, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, 500)}); !errors.Is(err, context.Canceled) {
		t.Errorf("the wait: %v", err)
	}
	if left := packed(k); left != 0 {
		t.Errorf("%d bytes are taken by a record that was not", left)
	}
	k.mu.Lock()
	k.packed = before
	k.mu.Unlock()
	ctx = endsWhenWaited()
	ctx.meanwhile = func() {
		k.mu.Lock()
		k.release(before)
		k.mu.Unlock()
		k.refuseNew()
	}
	if _, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, 500)}); !errors.Is(err, ErrClosed) {
		t.Errorf("granted, and then closed: %v", err)
	}
	if left := packed(k); left != 0 {
		t.Errorf("%d bytes are taken by a record that was refused", left)
	}
	k.mu.Lock()
	k.packed = before
	k.mu.Unlock()
}

func TestWhoWaitsForSpaceIsToldOfAClose(t *testing.T) {
	Limit(t)
	_, p, k := fullPacker(t, MaxBlock(time.Hour))
	ctx, told := watch(within(t), 0), make(chan error, 1)
	go func() {
		_, err := p.ProduceSync(ctx, Record{Topic: "t", Value: make([]byte, 500)})
		told <- err
	}()
	receive(t, ctx.waits, "the wait for space")
	k.refuseNew()
	if err := receive(t, told, "who waits"); !errors.Is(err, ErrClosed) || MaybeWritten(err) {
		t.Error(err)
	}
}

func TestARecordLargerThanTheShareHasItForItself(t *testing.T) {
	Limit(t)
	p := newProducer(t, echoClient(t), BufferMemory(packedShare*1000), MaxRecordSize(5000), MaxBlock(0))
	if _, err := p.ProduceSync(within(t), Record{Topic: "t", Value: make([]byte, 5000)}); err != nil {
		t.Error(err)
	}
	if _, err := p.ProduceSync(within(t), Record{Topic: "t", Value: make([]byte, 5001)}); !errors.Is(err, ErrRecordTooLarge) {
		t.Error(err)
	}
}

func TestAFlushWaitsForWhatWasThereAndNothingElse(t *testing.T) {
	Limit(t)
	_, p, k := fullPacker(t)
	// Nothing leaves: it waits, and its context ends it.
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush(endsWhenWaited()) }()
	if err := receive(t, flushed, "the flush"); !errors.Is(err, context.Canceled) || !MaybeWritten(err) {
		t.Errorf("flush: %v", err)
	}
	p.Produce(within(t), Record{Topic: "t", Value: []byte("v")}, nil)
	k.mu.Lock()
	packs := len(k.queue)
	k.mu.Unlock()
	if packs != 2 {
		t.Errorf("%d packs: what comes later must not join what a flush waits for", packs)
	}
}

func TestAFlushWaitsForThePackUnderWay(t *testing.T) {
	Limit(t)
	p := newProducer(t, echoClient(t))
	hold(t, p.packer) // As if the last one were with the engine.
	if err := p.packer.handOver(endsWhenWaited()); !errors.Is(err, context.Canceled) {
		t.Errorf("handed over: %v", err)
	}
}

func TestWhereARecordOfAPackBegins(t *testing.T) {
	Limit(t)
	var all []byte
	begins := []int{0}
	for _, r := range append(oddRecords("t"), oddRecords("t")...) {
		size, _, err := r.packedSize()
		if err != nil {
			t.Fatal(err)
		}
		all = r.pack(all, size)
		begins = append(begins, begins[len(begins)-1]+size)
	}
	for n, want := range begins {
		if got := skipPacked(all, n); got != want {
			t.Errorf("record %d begins at %d, not %d", n, got, want)
		}
	}
}
