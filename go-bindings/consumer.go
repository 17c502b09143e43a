package ottla

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
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

	// member of a group; and whether what it was given counts as done once it asks for more.
	member, marks bool
	// How many wait for the next.
	waiting int
	// gone is closed once it is closed, and has left its group.
	gone chan struct{}

	// mu is of who reads, while it looks for a batch and copies it; nobody who steers takes it.
	mu sync.Mutex
	// left are rests of batches: of loops that were left early, and of partitions that were paused in the middle of one.
	left []*Batch
	// held is what was handed out of a group's partitions, and is done when the consumer is asked anew: what Next and Poll
	// gave, and what loops that were left had in hand.
	held    []piece
	closing sync.Once
}

// Batch is records of one partition, in offset order.
type Batch struct {
	Topic     string
	Partition int32
	// Records share one piece of memory, which lives as long as one of them does: who keeps a few of many keeps their
	// Clones.
	Records []Record

	wanted *capi.Wanted
	// raw is set instead of Records where these are made as a loop comes to them.
	raw *capi.Batch
	// share is of a group's consumer; the first record of this one is number at of it.
	share *share
	at    int
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
	if err := settings.group(); err != nil {
		return nil, err
	}
	tag := c.tags.Add(1)
	settings.Tag = tag
	member := settings.GroupOptions.Group != ""
	consumer := &Consumer{
		client: c, tag: tag, ready: make(chan struct{}, 1), closed: make(chan struct{}), gone: make(chan struct{}),
		member: member, marks: member && settings.committing.byAsking(),
	}
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
// nothing: the next one goes on with the record behind the one in hand. Records may be kept; the bytes of one keep those of
// the batch that it was in.
func (c *Consumer) Records(ctx context.Context) iter.Seq2[Record, error] {
	return c.RecordsUntil(ctx, nil)
}

// RecordsUntil is Records up to an end, as NextUntil has it: there it is over, without an error.
func (c *Consumer) RecordsUntil(ctx context.Context, ends []PartitionOffset) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var batch *Batch
		at := 0
		// Deferred: the loop's body may panic, or end its goroutine.
		defer func() {
			if batch != nil {
				c.putBack(batch, at, true)
			}
		}()
		for fresh := true; ; fresh = false {
			next, err := c.nextOf(ctx, ends, fresh, true)
			if err == io.EOF {
				return
			}
			if err != nil {
				if !yield(Record{}, err) || ctx.Err() != nil || over(err) {
					return
				}
				continue
			}
			// What is committed is as exact as this, unless something before it is not done. Else to hand it on shows at
			// least that somebody is there.
			tells, shows := c.marks && next.share.isNext(next.at), c.member
			var headers []Header
			n := next.len()
			// Its partition may be paused meanwhile, or left for another place, by the loop's body or by the group.
			for batch, at = next, 0; at < n && batch.isCurrent(); {
				var record Record
				if batch.raw != nil {
					headers = unpackOne(&record, batch.raw, &batch.raw.Index[at], headers)
				} else {
					record = batch.Records[at]
				}
				if tells {
					batch.wanted.Reached(record.Offset)
				} else if shows {
					batch.wanted.HandsOn(record.Offset)
				}
				at++
				if !yield(record, nil) {
					return
				}
			}
			c.putBack(batch, at, false)
			batch = nil
		}
	}
}

// len is how many records it has, made or not.
func (b *Batch) len() int {
	if b.raw != nil {
		return len(b.raw.Index)
	}
	return len(b.Records)
}

// whole makes the records of a batch that has none yet, from number at on.
func (c *Consumer) whole(batch *Batch, at int) {
	if raw := batch.raw; raw != nil {
		batch.raw = nil
		if at < len(raw.Index) {
			batch.Records = unpack(raw, at, len(raw.Index))
		}
		c.api.GiveBack(raw)
	}
}

// Batches reads on, batch by batch, as they were fetched; otherwise like Records.
func (c *Consumer) Batches(ctx context.Context) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		var batch *Batch
		defer func() {
			if batch != nil {
				c.hold(batch.piece())
			}
		}()
		for fresh := true; ; fresh = false {
			next, err := c.next(ctx, nil, fresh)
			batch = next
			if !yield(next, err) || err != nil && (ctx.Err() != nil || over(err)) {
				return
			}
			if batch != nil && c.marks {
				batch.Ack()
			}
			batch = nil
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
	batch, err := c.next(ctx, ends, true)
	if batch != nil {
		c.hold(batch.piece())
	}
	return batch, err
}

// next is NextUntil for who says by itself what is done of the batch. fresh: what others held is done.
func (c *Consumer) next(ctx context.Context, ends []PartitionOffset, fresh bool) (*Batch, error) {
	return c.nextOf(ctx, ends, fresh, false)
}

// nextOf is next; raw: the records may be left to be made.
func (c *Consumer) nextOf(ctx context.Context, ends []PartitionOffset, fresh, raw bool) (*Batch, error) {
	goal, err := newGoal(ends)
	if err != nil {
		return nil, err
	}
	defer goal.free()
	event, err := c.wait(ctx, func() (Event, error) {
		defer func() { fresh = false }()
		return c.look(goal, false, fresh, raw)
	})
	batch, _ := event.(*Batch)
	return batch, err
}

// wait looks until there is something.
func (c *Consumer) wait(ctx context.Context, look func() (Event, error)) (found Event, err error) {
	c.mu.Lock()
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.waiting--; c.waiting == 0 && ctx.Err() != nil {
			// Else it counts as waiting for ever, and a program that hangs keeps its partitions.
			c.api.WaitsNoMore()
		}
	}()
	token := false
	for {
		if ctx.Err() != nil {
			if token {
				// It came for whoever sleeps, and this one will not look.
				c.wakeUp()
			}
			return nil, c.client.ended(ctx, "waiting for records", false)
		}
		found, err := look()
		if err != nil {
			return nil, err
		}
		if found != nil {
			return found, nil
		}
		select {
		case <-c.ready:
			token = true
		case <-c.closed:
			return nil, closed("consumer")
		case <-ctx.Done():
			return nil, c.client.ended(ctx, "waiting for records", false)
		}
	}
}

// goal is where reading is to come to; nil: nowhere.
type goal struct {
	ends []PartitionOffset
	raw  *capi.Ends
}

func newGoal(ends []PartitionOffset) (*goal, error) {
	if ends == nil {
		return nil, nil
	}
	if len(ends) == 0 {
		// It would never end, and whoever looked ends up waits for one.
		return nil, invalid("no partition is named to read up to: Assignment is empty until a consumer knows its topics")
	}
	list, err := endsOf(ends)
	if err != nil {
		return nil, err
	}
	return &goal{ends: ends, raw: capi.NewEnds(list)}, nil
}

func endsOf(offsets []PartitionOffset) ([]capi.End, error) {
	list := make([]capi.End, len(offsets))
	for i, end := range offsets {
		if end.Err != nil {
			return nil, end.Err
		}
		if end.Topic == "" || hasNUL(end.Topic) {
			return nil, badTopic(end.Topic)
		}
		list[i] = capi.End{Partition: capi.Partition{Topic: end.Topic, Partition: end.Partition}, Offset: end.Offset}
	}
	return list, nil
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

// look gives a batch that is there, or io.EOF at the goal, or nothing; with events what the group says, too. fresh: the
// consumer is asked anew, and what it gave to those who have not said so is done. raw: see nextOf.
func (c *Consumer) look(goal *goal, events, fresh, asRaw bool) (Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh {
		for _, held := range c.held {
			held.done()
		}
		c.held = nil
	}
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
		raw, event, reached, failure := c.tryNext(ends, events)
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
		if event != nil {
			c.wakeUp()
			return eventOf(event), nil
		}
		if raw == nil {
			return nil, nil
		}
		c.wakeUp()
		batch := &Batch{Topic: raw.Topic, Partition: raw.Partition, wanted: raw.Wanted, raw: raw}
		current := batch.isCurrent()
		if !asRaw || c.member || !current {
			c.whole(batch, 0)
		}
		if c.member {
			batch.shared()
		}
		switch {
		case batch.len() == 0:
			return nil, nil
		case current:
			return batch, nil
		default:
			// It was paused, or left, as it came.
			batch.putAside(true)
			c.left = append(c.left, batch)
		}
	}
}

func (c *Consumer) tryNext(ends *capi.Ends, events bool) (*capi.Batch, *capi.Event, bool, *capi.Failure) {
	if events {
		batch, event, failure := c.api.TryNextEvent()
		return batch, event, false, failure
	}
	batch, reached, failure := c.api.TryNext(ends)
	return batch, nil, reached, failure
}

// takeLeft takes the first rest that may be handed out, and drops those that nobody wants any more.
func (c *Consumer) takeLeft() (found *Batch) {
	c.left = slices.DeleteFunc(c.left, func(batch *Batch) bool {
		standing := batch.wanted.Standing()
		if standing == capi.Current && found == nil {
			found = batch
			return true
		}
		return standing == capi.Left
	})
	if found != nil {
		found.putAside(false)
	}
	return found
}

// putBack keeps records from number i on for the next loop. Those before are done, if asking says so, but for the last
// one of a loop that was left: it was in hand.
func (c *Consumer) putBack(batch *Batch, i int, inHand bool) {
	if c.marks {
		done := batch.piece()
		done.to = done.from + i
		if inHand && i > 0 {
			done.to--
			c.hold(piece{done.of, done.to, done.to + 1})
		}
		done.done()
	}
	rest := *batch
	if batch.raw != nil {
		c.whole(&rest, i)
	} else {
		rest.Records = batch.Records[i:]
	}
	if len(rest.Records) == 0 || batch.wanted.Standing() == capi.Left {
		return
	}
	rest.at = batch.at + i
	c.mu.Lock()
	defer c.mu.Unlock()
	rest.putAside(true)
	c.left = append(c.left, &rest)
	c.wakeUp()
}

// hold keeps what is done when the consumer is asked anew.
func (c *Consumer) hold(p piece) {
	if p.of == nil || !c.marks {
		return
	}
	c.mu.Lock()
	c.held = append(c.held, p)
	c.mu.Unlock()
}

// isCurrent tells whether what is left of the batch is to be handed out now.
func (b *Batch) isCurrent() bool { return b.wanted.IsCurrent() }

// putAside says that nobody has the batch in hand, or somebody has again: when the group takes its partition away, what
// nobody has is not waited for.
func (b *Batch) putAside(aside bool) {
	if b.share != nil && len(b.Records) > 0 {
		b.wanted.PutAside(b.Records[0].Offset, aside)
	}
}

// shared makes it one of which is kept what is done.
func (b *Batch) shared() {
	b.share = &share{wanted: b.wanted, offsets: make([]int64, len(b.Records))}
	for i := range b.Records {
		b.share.offsets[i] = b.Records[i].Offset
		b.Records[i].of = b.share
	}
}

// unpack makes the records from number first to before end, which sub-slice the arena: one allocation, two with headers.
func unpack(raw *capi.Batch, first, end int) []Record {
	index := raw.Index[first:end]
	records := make([]Record, len(index))
	total := 0
	for i := range index {
		total += int(index[i].HeaderCount)
	}
	var headers []Header
	if total > 0 {
		headers = make([]Header, 0, total)
	}
	for i := range index {
		headers = unpackOne(&records[i], raw, &index[i], headers)
	}
	return records
}

// unpackOne makes a record whose parts are at a place of the batch. Its headers go behind those that there are, as long as
// there is room; the result is with them.
func unpackOne(r *Record, raw *capi.Batch, at *capi.Index, headers []Header) []Header {
	r.Topic, r.Partition, r.Offset = raw.Topic, raw.Partition, at.Offset
	if at.TimestampMs >= 0 {
		r.Timestamp = time.UnixMilli(at.TimestampMs)
	}
	r.Key = part(raw.Arena, at.KeyAt, at.KeyLen)
	r.Value = part(raw.Arena, at.ValueAt, at.ValueLen)
	if n := int(at.HeaderCount); n > 0 {
		if cap(headers)-len(headers) < n {
			headers = make([]Header, 0, max(n, someHeaders))
		}
		from := len(headers)
		headers = unpackHeaders(headers, raw.Arena, at.HeadersAt, at.HeaderCount)
		r.Headers = headers[from:len(headers):len(headers)]
	}
	return headers
}

// someHeaders are allocated at once for records that are made one by one.
const someHeaders = 64

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
