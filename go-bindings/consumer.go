package ottla

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Consumer reads topics or partitions. It may be used from many goroutines: each batch goes to
// one of them. What asks and steers (Position, Lag, Seek, Pause, Resume, Assign, Unassign, Close) waits for none of them.
type Consumer struct {
	client *Client
	api    *capi.Consumer
	tag    uint64
	ready  chan struct{}
	closed chan struct{}

	// steered counts the calls that change what is wanted, for loops with a batch in hand.
	steered atomic.Uint64

	// mu is of who reads, while it looks for a batch and copies it; nobody who steers takes it.
	mu sync.Mutex
	// left are rests of batches: of loops that were left early, and of partitions that were paused in the middle of one.
	left    []*Batch
	closing sync.Once
}

// Batch is records of one partition, in offset order.
type Batch struct {
	Topic     string
	Partition int32
	// Records share one piece of memory, which lives as long as one of them does.
	Records []Record

	wanted *capi.Wanted
	// standing is what wanted told when the consumer was steered so often.
	standing capi.Standing
	steered  uint64
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
	return c.RecordsUntil(ctx, nil)
}

// RecordsUntil is Records up to an end, as NextUntil has it: there it is over, without an error.
func (c *Consumer) RecordsUntil(ctx context.Context, ends []PartitionOffset) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		var batch *Batch
		at := 0
		// Deferred: the loop's body may panic, or end its goroutine.
		defer func() {
			if batch != nil {
				c.putBack(batch, at)
			}
		}()
		for next, err := range c.batches(ctx, ends) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			// Its partition may be paused meanwhile, or left for another place, by the loop's body too.
			for batch, at = next, 0; at < len(batch.Records) && c.isCurrent(batch); {
				record := &batch.Records[at]
				at++
				if !yield(record, nil) {
					return
				}
			}
			c.putBack(batch, at)
			batch = nil
		}
	}
}

// Batches reads on, batch by batch, as they were fetched; otherwise like Records.
func (c *Consumer) Batches(ctx context.Context) iter.Seq2[*Batch, error] {
	return c.batches(ctx, nil)
}

func (c *Consumer) batches(ctx context.Context, ends []PartitionOffset) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for {
			batch, err := c.NextUntil(ctx, ends)
			if err == io.EOF || !yield(batch, err) {
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
	return c.NextUntil(ctx, nil)
}

// NextUntil waits for the next batch, of whatever partition, until each partition of ends has come to its offset: io.EOF
// then. That is how to read up to an end that was looked up before, with Client.Offsets: a loop of one's own over
// Position and Next would wait for ever where the last offsets hold nothing that is handed out (markers of
// transactions, what compaction has removed), since the position passes those without a batch. What was handed out to
// a loop that is still at it counts as read; what a loop left, or a pause holds back, does not. A partition that is
// not read, or not known yet, has come to nothing: ctx ends the wait. Without ends it is Next.
func (c *Consumer) NextUntil(ctx context.Context, ends []PartitionOffset) (*Batch, error) {
	goal, err := newGoal(ends)
	if err != nil {
		return nil, err
	}
	defer goal.free()
	token := false
	for {
		if ctx.Err() != nil {
			if token {
				// It came for whoever sleeps, and this one will not look.
				c.wakeUp()
			}
			return nil, ended(ctx, "waiting for records", false)
		}
		batch, err := c.tryNext(goal)
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

// goal is where reading is to come to; nil: nowhere.
type goal struct {
	ends []PartitionOffset
	raw  *capi.Ends
}

func newGoal(ends []PartitionOffset) (*goal, error) {
	if len(ends) == 0 {
		return nil, nil
	}
	list := make([]capi.End, len(ends))
	for i, end := range ends {
		if end.Err != nil {
			return nil, end.Err
		}
		if end.Topic == "" || hasNUL(end.Topic) {
			return nil, badTopic(end.Topic)
		}
		list[i] = capi.End{Partition: capi.Partition{Topic: end.Topic, Partition: end.Partition}, Offset: end.Offset}
	}
	return &goal{ends: ends, raw: capi.NewEnds(list)}, nil
}

func (g *goal) free() {
	if g != nil {
		g.raw.Free()
	}
}

// isShortOf tells whether what is left of a batch is before the goal. The engine has handed it out.
func (g *goal) isShortOf(left *Batch) bool {
	return slices.ContainsFunc(g.ends, func(end PartitionOffset) bool {
		return end.Topic == left.Topic && end.Partition == left.Partition && left.Records[0].Offset < end.Offset
	})
}

// tryNext gives a batch that is there, or io.EOF at the goal, or nothing.
func (c *Consumer) tryNext(goal *goal) (*Batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		select {
		case <-c.closed:
			return nil, closed("consumer")
		default:
		}
		if batch := c.takeLeft(); batch != nil {
			c.wakeUp() // The next in line may be asleep with something left for it.
			return batch, nil
		}
		var ends *capi.Ends
		if goal != nil && !slices.ContainsFunc(c.left, goal.isShortOf) {
			ends = goal.raw
		}
		// Read before the look: a pause or a seek that comes in between is seen then.
		steered := c.steered.Load()
		raw, reached, failure := c.api.TryNext(ends)
		if failure != nil {
			// Others may sleep, and there may be more to tell: they ask themselves.
			c.wakeUp()
			return nil, failed(failure)
		}
		if reached {
			// What woke this one may have been for others.
			c.wakeUp()
			return nil, io.EOF
		}
		if raw == nil {
			return nil, nil
		}
		c.wakeUp()
		batch := unpack(raw)
		batch.steered = steered
		switch {
		case len(batch.Records) == 0:
			return nil, nil
		case c.isCurrent(batch):
			return batch, nil
		default:
			// It was paused, or left, as it came.
			c.left = append(c.left, batch)
		}
	}
}

// takeLeft takes the first rest that may be handed out, and drops those that nobody wants any more.
func (c *Consumer) takeLeft() (found *Batch) {
	c.left = slices.DeleteFunc(c.left, func(batch *Batch) bool {
		current := c.isCurrent(batch)
		if current && found == nil {
			found = batch
			return true
		}
		return batch.standing == capi.Left
	})
	return found
}

// putBack keeps records from number i on for the next loop.
func (c *Consumer) putBack(batch *Batch, i int) {
	if i >= len(batch.Records) {
		return
	}
	rest := *batch
	rest.Records = batch.Records[i:]
	if !c.isCurrent(&rest) && rest.standing == capi.Left {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = append(c.left, &rest)
	c.wakeUp()
}

// isCurrent tells whether what is left of a batch is to be handed out now.
func (c *Consumer) isCurrent(batch *Batch) bool {
	// Asked again each time that the consumer was steered: a crossing into C is too much for each record. Read before it is
	// asked, so that what comes in between is seen the next time.
	if steered := c.steered.Load(); steered != batch.steered {
		batch.standing, batch.steered = batch.wanted.Standing(), steered
	}
	return batch.standing == capi.Current
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
	batch := &Batch{
		Topic: raw.Topic, Partition: raw.Partition, Records: make([]Record, len(raw.Index)), wanted: raw.Wanted,
	}
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
