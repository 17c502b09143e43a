package ottla

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Consumer reads topics or partitions. It may be used from many goroutines: each batch goes to
// one of them.
type Consumer struct {
	client *Client
	api    *capi.Consumer
	tag    uint64
	ready  chan struct{}
	closed chan struct{}

	// seeks counts them, for loops with a batch in hand; changed under mu.
	seeks atomic.Uint64

	// mu orders what is left of batches whose loop was left early, and seeks.
	mu   sync.Mutex
	left []*Batch
	// sought is which of the seeks was a partition's last.
	sought  map[place]uint64
	closing sync.Once
}

// place is a partition.
type place struct {
	topic     string
	partition int32
}

// Batch is records of one partition, in offset order.
type Batch struct {
	Topic     string
	Partition int32
	// Records share one piece of memory, which lives as long as one of them does.
	Records []Record
	// seeks of the consumer when it was taken.
	seeks uint64
}

// NewConsumer makes a consumer of Topics or of Assign.
func (c *Client) NewConsumer(options ...ConsumerOption) (*Consumer, error) {
	var settings consumerSettings
	for _, o := range options {
		if err := o.consumer(&settings); err != nil {
			return nil, err
		}
	}
	switch topics, assigned := len(settings.ConsumerOptions.Topics) > 0, len(settings.Assignments) > 0; {
	case !topics && !assigned:
		return nil, misconfigured("nothing to read is given: ottla.Topics or ottla.Assign")
	case topics && assigned:
		return nil, misconfigured("Topics and Assign are given; a consumer has one of them")
	case assigned && settings.topicsStart:
		return nil, misconfigured("Start is for Topics; with Assign each partition has its own")
	}
	tag := c.tags.Add(1)
	settings.Tag = tag
	consumer := &Consumer{client: c, tag: tag, ready: make(chan struct{}, 1), closed: make(chan struct{})}
	api, failure := c.api.NewConsumer(settings.ConsumerOptions)
	if failure != nil {
		return nil, failed(failure)
	}
	consumer.api = api
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		api.Free()
		return nil, closed("client")
	}
	c.consumers[tag] = consumer
	c.mu.Unlock()
	return consumer, nil
}

// wakeUp says that it is worth asking again. One token is enough: who takes it asks, and hands it
// on unless nothing was there.
func (c *Consumer) wakeUp() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// Records reads on, record by record. An error that is not fatal is yielded and reading goes on;
// a fatal one, the end of ctx and a close are yielded and end it. A loop that is left early loses
// nothing: the next one goes on with the record behind the one in hand.
func (c *Consumer) Records(ctx context.Context) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		var batch *Batch
		at := 0
		// Deferred: the loop's body may panic, or end its goroutine.
		defer func() {
			if batch != nil {
				c.putBack(batch, at)
			}
		}()
		for next, err := range c.Batches(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			// The loop's body may seek: what is left in hand is not wanted then.
			for batch, at = next, 0; at < len(batch.Records) && !c.isLeft(batch); {
				record := &batch.Records[at]
				at++
				if !yield(record, nil) {
					return
				}
			}
			batch = nil
		}
	}
}

// Batches reads on, batch by batch, as they were fetched; otherwise like Records.
func (c *Consumer) Batches(ctx context.Context) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for {
			batch, err := c.Next(ctx)
			if !yield(batch, err) {
				return
			}
			if err != nil && (ctx.Err() != nil || over(err)) {
				return
			}
		}
	}
}

func over(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Fatal
}

// Next waits for the next batch. After an error that is not fatal, ask again.
func (c *Consumer) Next(ctx context.Context) (*Batch, error) {
	token := false
	for {
		if ctx.Err() != nil {
			if token {
				// It came for whoever sleeps, and this one will not look.
				c.wakeUp()
			}
			return nil, ended(ctx, "waiting for records", false)
		}
		batch, err := c.tryNext()
		if err != nil {
			return nil, err
		}
		if batch != nil {
			return batch, nil
		}
		select {
		case <-c.ready:
			token = true
		case <-c.closed:
			return nil, closed("consumer")
		case <-ctx.Done():
			return nil, ended(ctx, "waiting for records", false)
		}
	}
}

func (c *Consumer) tryNext() (*Batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
		return nil, closed("consumer")
	default:
	}
	if n := len(c.left); n > 0 {
		batch := c.left[0]
		c.left = c.left[1:]
		c.wakeUp() // The next in line may be asleep with something left for it.
		return batch, nil
	}
	raw, failure := c.api.TryNext()
	if failure != nil {
		// Others may sleep, and there may be more to tell: they ask themselves.
		c.wakeUp()
		return nil, failed(failure)
	}
	if raw == nil {
		return nil, nil
	}
	c.wakeUp()
	batch := unpack(raw)
	batch.seeks = c.seeks.Load()
	if len(batch.Records) == 0 {
		return nil, nil
	}
	return batch, nil
}

// putBack keeps records from number i on for the next loop.
func (c *Consumer) putBack(batch *Batch, i int) {
	if i >= len(batch.Records) {
		return
	}
	rest := *batch
	rest.Records = batch.Records[i:]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.soughtSince(batch) {
		return
	}
	c.left = append(c.left, &rest)
	c.wakeUp()
}

// isLeft tells whether a seek went elsewhere in the batch's partition since it was taken.
func (c *Consumer) isLeft(batch *Batch) bool {
	if c.seeks.Load() == batch.seeks {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.soughtSince(batch) {
		return true
	}
	batch.seeks = c.seeks.Load()
	return false
}

func (c *Consumer) soughtSince(batch *Batch) bool {
	return c.sought[place{batch.Topic, batch.Partition}] > batch.seeks
}

// Seek goes on elsewhere in a partition that this consumer reads. What was fetched of it and not
// handed out is dropped, also what a loop over Records has in hand.
func (c *Consumer) Seek(topic string, partition int32, to Position) error {
	if topic == "" || hasNUL(topic) {
		return badTopic(topic)
	}
	if wrong := to.wrong(); wrong != "" {
		return invalid("%s", wrong)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if failure := c.api.Seek(topic, partition, to.kind, to.value); failure != nil {
		return failed(failure)
	}
	if c.sought == nil {
		c.sought = map[place]uint64{}
	}
	c.sought[place{topic, partition}] = c.seeks.Add(1)
	kept := c.left[:0]
	for _, b := range c.left {
		if b.Topic != topic || b.Partition != partition {
			kept = append(kept, b)
		}
	}
	c.left = kept
	c.wakeUp()
	return nil
}

// Close stops reading. Loops end with ErrClosed; records in hand stay usable. Closing again does
// nothing.
func (c *Consumer) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.api.Close()
		c.client.mu.Lock()
		delete(c.client.consumers, c.tag)
		c.client.mu.Unlock()
		c.api.Free()
	})
	return nil
}

// unpack makes records that sub-slice the arena: three allocations a batch, whatever its size
// (four with headers).
func unpack(raw *capi.Batch) *Batch {
	batch := &Batch{Topic: raw.Topic, Partition: raw.Partition, Records: make([]Record, len(raw.Index))}
	total := 0
	for i := range raw.Index {
		total += int(raw.Index[i].HeaderCount)
	}
	var headers []Header
	if total > 0 {
		headers = make([]Header, 0, total)
	}
	for i := range raw.Index {
		at := &raw.Index[i]
		r := &batch.Records[i]
		r.Topic, r.Partition, r.Offset = raw.Topic, raw.Partition, at.Offset
		if at.TimestampMs >= 0 {
			r.Timestamp = time.UnixMilli(at.TimestampMs)
		}
		r.Key = part(raw.Arena, at.KeyAt, at.KeyLen)
		r.Value = part(raw.Arena, at.ValueAt, at.ValueLen)
		if at.HeaderCount > 0 {
			from := len(headers)
			headers = unpackHeaders(headers, raw.Arena, at.HeadersAt, at.HeaderCount)
			r.Headers = headers[from:len(headers):len(headers)]
		}
	}
	return batch
}

// part is a piece of the arena; its capacity ends with it, so that appending to a value does not
// run into the next record.
func part(arena []byte, at uint32, length int32) []byte {
	if length < 0 {
		return nil
	}
	end := int(at) + int(length)
	return arena[at:end:end]
}

func unpackHeaders(out []Header, arena []byte, at, count uint32) []Header {
	for ; count > 0; count-- {
		n := binary.LittleEndian.Uint32(arena[at:])
		name := arena[at+4 : at+4+n]
		at += 4 + n
		length := int32(binary.LittleEndian.Uint32(arena[at:]))
		at += 4
		// The arena is not written to any more, which a string needs; users who write into a
		// value do not reach the names.
		out = append(out, Header{
			Name:  unsafe.String(unsafe.SliceData(name), len(name)),
			Value: part(arena, at, length),
		})
		at += uint32(max(0, length))
	}
	return out
}
