package ottla

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

// stuck is a producer whose engine has no memory left: nobody copies what it sends. release lets go.
func stuck(t *testing.T, options ...ProducerOption) (*Client, *Producer, func()) {
	t.Helper()
	broker, err := StartEmbeddedBroker(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	if err := errors.Join(broker.CreateTopic("t", 3, 2), broker.SetReplicaDelay(-1)); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	release := func() { _ = broker.SetReplicaDelay(0) }
	t.Cleanup(func() {
		release()
		_ = c.Close()
	})
	p := newProducer(t, c, append(options, BufferMemory(2<<20), BatchSize(64<<10), Compression(None))...)
	return c, p, release
}

// fill produces until the packer is blocked.
func fill(t *testing.T, p *Producer) {
	t.Helper()
	ctx := within(t)
	for blocked := false; !blocked && ctx.Err() == nil; {
		p.Produce(ctx, Record{Topic: "t", Value: make([]byte, 10_000)}, nil)
		p.packer.mu.Lock()
		blocked = p.packer.blocked
		p.packer.mu.Unlock()
	}
}

// What the packer holds is taken from what the engine may hold: what is too much for that by as much is taken.
func TestPackedAndSubmittedRecordsShareOneBudget(t *testing.T) {
	Limit(t)
	const most = 1<<40 + packedMost
	c, _, _ := stuck(t)
	if _, err := c.NewProducer(BufferMemory(most)); err != nil {
		t.Error(err)
	}
	if _, err := c.NewProducer(BufferMemory(most + 1)); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

func TestTheWaitOfPacksThatFoundNoSpaceHasAnEnd(t *testing.T) {
	Limit(t)
	_, p, _ := stuck(t, MaxBlock(time.Hour), DeliveryTimeout(time.Hour))
	fill(t, p)
	p.packer.mu.Lock()
	defer p.packer.mu.Unlock()
	if p.packer.blocked && p.packer.expiry == nil {
		t.Error("nothing ends it")
	}
}

// The engine announces space while the refusal that it belongs to is on its way: no other word comes.
func TestSpaceThatComesBeforeItsRefusalIsNotLost(t *testing.T) {
	Limit(t)
	c, p, _ := stuck(t, MaxBlock(time.Hour))
	fill(t, p)
	p.Produce(within(t), Record{Topic: "u"}, nil)
	k := p.packer
	k.mu.Lock()
	for k.submitting {
		k.mu.Unlock()
		runtime.Gosched()
		k.mu.Lock()
	}
	head := k.queue[0]
	k.submitting = true
	c.mu.Lock() // Between the packer's look and the call of the engine.
	blocked := make(chan bool, 1)
	go func() {
		k.submitNext()
		if k.queue[0] != head || len(k.queue) < 2 {
			t.Error("what is left of a pack is not the first")
		}
		blocked <- k.blocked
		k.submitting = false
		k.idle()
		k.work()
		k.mu.Unlock()
	}()
	k.mu.Lock()
	k.spaces++
	k.mu.Unlock()
	c.mu.Unlock()
	if receive(t, blocked, "the refusal") {
		t.Error("blocked, with no space to come")
	}
}

func TestYoungPacksOutliveTheOldOnes(t *testing.T) {
	Limit(t)
	p := newProducer(t, echoClient(t), DeliveryTimeout(time.Hour))
	k := p.packer
	if k.patience != time.Hour || newProducer(t, p.client).packer.patience != defaultDeliveryTimeout {
		t.Error("the packer has a patience of its own")
	}
	k.mu.Lock()
	k.blocked = true
	k.expireLater(&pack{since: time.Now().Add(-2 * time.Hour)})
	first := k.expiry
	k.mu.Unlock()
	p.Produce(within(t), Record{Topic: "t", Value: []byte("v")}, nil)
	k.mu.Lock()
	if k.expiry == first || k.expiry == nil { // Fired before the record came.
		k.expireLater(&pack{since: time.Now().Add(-2 * time.Hour)})
		first = k.expiry
	}
	for ctx := within(t); k.expiry == first && len(k.queue) == 1 && ctx.Err() == nil; {
		k.mu.Unlock()
		runtime.Gosched()
		k.mu.Lock()
	}
	if len(k.queue) != 1 || k.expiry == first {
		t.Errorf("%d packs are left of one that has an hour", len(k.queue))
	}
	k.mu.Unlock()
	k.space()
	if err := p.Flush(within(t)); err != nil {
		t.Error(err)
	}
}

// A partition that there is not takes no other record of its pack along.
func TestAnUnknownPartitionIsThatRecordsAlone(t *testing.T) {
	Limit(t)
	_, p, release := stuck(t)
	release()
	ctx := within(t)
	if _, err := p.ProduceSync(ctx, Record{Topic: "t"}); err != nil {
		t.Fatal(err) // From here on the partitions are known.
	}
	k := p.packer
	k.mu.Lock()
	k.blocked = true
	k.mu.Unlock()
	told := make(chan error, 3)
	for _, partition := range []int32{0, 7, 1} {
		p.Produce(ctx, Record{Topic: "t", To: ToPartition(partition)}, func(_ Delivery, err error) { told <- err })
	}
	k.space()
	refused := 0
	for range 3 {
		if err := receive(t, told, "a record"); errors.Is(err, ErrUnknownPartition) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused != 1 {
		t.Errorf("%d of three are refused", refused)
	}
}
