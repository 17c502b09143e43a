package ottla

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Producer writes records. Without settings it is safe: acknowledged by all replicas in sync,
// idempotent, compressed, spread over partitions and brokers: those with equal keys too, which other clients keep
// together. For that there is Partitioner(KeyHash).
type Producer struct {
	client *Client
	api    *capi.Producer
	packer *packer
	calls  *callbacks
	tag    uint64
	// told counts records that have an outcome, of all that the packer took.
	told atomic.Int64

	mu sync.Mutex
	// silent are failures of records that had nobody to tell; the next Flush or Shutdown tells.
	silent Undelivered
	// mayBeThere and again: any of them may be written, or may be tried again.
	mayBeThere, again bool
	closed            bool

	finished    chan struct{}
	shutdownErr error
}

// NewProducer makes a producer. It costs little: all producers of a client share its connections.
func (c *Client) NewProducer(options ...ProducerOption) (*Producer, error) {
	settings := producerSettings{deliveryTimeout: defaultDeliveryTimeout, maxBlock: defaultMaxBlock}
	for _, o := range options {
		if err := o.producer(&settings); err != nil {
			return nil, err
		}
	}
	maxRecord := settings.MaxRecordSize
	if maxRecord == 0 {
		maxRecord = defaultMaxRecordSize
	}
	// One budget: what is packed here is taken from what the engine may hold.
	memory := settings.BufferMemory
	if memory == 0 {
		memory = defaultBufferMemory
	}
	limit := min(memory/packedShare, packedMost)
	// The engine takes no less than leastMemory; what the user gave below that, it refuses itself.
	settings.BufferMemory = max(memory-limit, min(memory, leastMemory))
	tag := c.tags.Add(1)
	settings.Tag = tag
	api, failure := c.api.NewProducer(settings.ProducerOptions)
	if failure != nil {
		return nil, failed(failure)
	}
	p := &Producer{client: c, api: api, calls: newCallbacks(c), tag: tag, finished: make(chan struct{})}
	p.packer = newPacker(c, p, api, limit, maxRecord, settings.deliveryTimeout, settings.maxBlock)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		p.packer.refuseNew()
		go func() { p.packer.abandon(closed("client")); api.Free() }()
		return nil, closed("client")
	}
	c.producers[tag] = p
	return p, nil
}

// Produce sends a record. It copies: the record's slices may be reused when it returns. It waits
// only for buffer space (MaxBlock at most), or for callbacks that are far behind; ctx bounds that
// wait. done, which may be nil, is called once with the outcome, also when the record was never
// accepted, and when the client is closed.
//
// Records that one goroutine produces one after the other stay in that order within a partition,
// whichever threads it runs on: always in a topic of one partition, for a partition named by To, and for
// equal keys with KeyHash; of records that are spread, a batch that had to move to another partition may
// come behind later ones.
//
// Callbacks run on one goroutine per producer, in the order of completion. They may produce; they
// should not block on other goroutines that produce. What happens to records without a callback
// is told by the next Flush, Shutdown or Close.
func (p *Producer) Produce(ctx context.Context, record Record, done func(Delivery, error)) {
	var err error
	if done != nil {
		err = p.calls.admit(ctx)
	}
	if err == nil {
		err = p.packer.add(ctx, &record, done, nil)
	}
	if err != nil {
		p.refused(record.Topic, done, err)
	}
}

// refused tells of a record that was never taken.
func (p *Producer) refused(topic string, done func(Delivery, error), err error) {
	s := &submission{producer: p, topic: topic, count: 1}
	s.who.add(0, done, nil, -1, 0)
	p.told.Add(-1)
	s.resolve(p.client, refusal(0, 1, err))
}

// unresolved is how many records were taken and have no outcome yet.
func (p *Producer) unresolved() int64 { return p.packer.takenSoFar() - p.told.Load() }

// ProduceMany sends values to a topic, each as a record without key, headers and callback: the way for many values at once,
// which costs a fraction of as many calls of Produce. It copies, waits and keeps the order as Produce does, and gives how
// many values were taken, from the first on: all, or an error says why the next one was not. What becomes of those that
// were taken is told by the next Flush, Shutdown or Close. A nil value is a tombstone.
func (p *Producer) ProduceMany(ctx context.Context, topic string, values [][]byte) (taken int, err error) {
	return p.packer.addMany(ctx, topic, values)
}

// ProduceSync sends a record and waits until it is acknowledged. If ctx ends after the record was
// accepted, the error is that of ctx with MaybeWritten true, and the record goes its way: should it
// fail, the next Flush, Shutdown or Close tells, as of a record without a callback.
// It may be called in a callback.
func (p *Producer) ProduceSync(ctx context.Context, record Record) (Delivery, error) {
	wait := make(chan synced, 1)
	if err := p.packer.add(ctx, &record, nil, wait); err != nil {
		return Delivery{Topic: record.Topic, Partition: -1, Offset: -1}, err
	}
	select {
	case out := <-wait:
		return out.delivery, out.err
	case <-ctx.Done():
		// It may have come at the same moment. If not, the room for it is taken, so that whoever brings
		// it knows that nobody was told.
		select {
		case out := <-wait:
			return out.delivery, out.err
		case wait <- synced{}:
			return Delivery{Topic: record.Topic, Partition: -1, Offset: -1},
				p.client.ended(ctx, "the record was accepted and its outcome is not known", true)
		}
	}
}

// Flush sends what waits and returns when every record produced before has its outcome and its
// callback has returned. It fails if ctx ends first, and with ErrUndelivered if records failed since
// the last Flush and nobody was told: those without a callback, and those of a ProduceSync whose
// context ended first. See Error.Undelivered. Not to be called in a callback.
func (p *Producer) Flush(ctx context.Context) error {
	if inCallback() {
		return invalid("Flush in a callback would wait for that callback")
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	return p.heard()
}

func (p *Producer) flush(ctx context.Context) error {
	if err := p.packer.handOver(ctx); err != nil {
		return err
	}
	tag, op := p.client.operation(p.calls)
	return p.client.await(ctx, tag, op, p.api.Flush(tag), "flush")
}

// Close is Shutdown with a deadline of 30 seconds.
func (p *Producer) Close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout,
		fmt.Errorf("the producer was not flushed within %v", closeTimeout))
	defer cancel()
	return p.Shutdown(ctx)
}

// Shutdown takes no more records, flushes, and closes the producer. If ctx ends first, the rest
// fails at once with ErrClosed, and the error says how much that was. ErrUndelivered is among its
// errors as Flush has it. Shutting down again waits for the first time's end. Not to be called in a callback.
func (p *Producer) Shutdown(ctx context.Context) error {
	if inCallback() {
		return invalid("a producer can not be closed in a callback, which the close would wait for")
	}
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if !first {
		select {
		case <-p.finished:
			// Records that came too late may have failed since.
			return errors.Join(p.shutdownErr, p.heard())
		case <-ctx.Done():
			return p.client.ended(ctx, "closing the producer", false)
		}
	}
	defer close(p.finished)
	p.packer.refuseNew()
	err := p.flush(ctx)
	left := p.unresolved()
	p.packer.abandon(closed("producer"))
	// No time left for anything: what the engine still has, fails. Its end comes soon and from
	// the engine itself; ctx may be over.
	tag, op := p.client.operation(nil)
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second*5)
	closeErr := p.client.await(short, tag, op, p.api.Close(0, tag), "closing the producer")
	cancel()
	p.api.Free()
	p.client.mu.Lock()
	delete(p.client.producers, p.tag)
	p.client.mu.Unlock()
	var late error
	p.calls.end()
	select {
	case <-p.calls.done:
	case <-ctx.Done():
		select {
		case <-p.calls.done:
		default:
			late = p.client.ended(ctx, "a callback has not returned", false)
		}
	}
	if err == nil && late == nil {
		err = closeErr
	}
	var e *Error
	if left > 0 && errors.As(err, &e) {
		told := *e
		told.Message = fmt.Sprintf("%d records were not delivered when the producer closed: %s", left, e.Message)
		err = &told
	}
	p.shutdownErr = errors.Join(err, late, p.heard())
	return p.shutdownErr
}

// mostTopics are named in an Undelivered.
const mostTopics = 16

// unheard counts failures that nobody was told of.
func (p *Producer) unheard(n int, topic string, err error) {
	if n <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent.Records == 0 {
		p.silent.First = err
	}
	p.silent.Records += n
	var e *Error
	if errors.As(err, &e) {
		p.mayBeThere = p.mayBeThere || e.maybeWritten
		p.again = p.again || e.Retriable
	}
	switch {
	case slices.Contains(p.silent.Topics, topic):
	case len(p.silent.Topics) < mostTopics:
		p.silent.Topics = append(p.silent.Topics, topic)
	default:
		p.silent.MoreTopics = true
	}
}

// heard tells of them once.
func (p *Producer) heard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.silent.Records == 0 {
		return nil
	}
	told := p.silent
	failed := &Error{
		Code:         ErrUndelivered,
		Message:      told.message(told.First.Error()),
		Retriable:    p.again,
		Undelivered:  &told,
		maybeWritten: p.mayBeThere,
		cause:        told.First,
	}
	var first *Error
	if errors.As(told.First, &first) {
		failed.Message = told.message(first.Message)
		failed.Advice, failed.BrokerCode = first.Advice, first.BrokerCode
	}
	p.silent, p.mayBeThere, p.again = Undelivered{}, false, false
	return failed
}
