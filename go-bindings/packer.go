package ottla

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

const (
	// packFull ends a pack: as much as a submission needs for the crossing to cost nothing, and
	// little enough that it is over in a fraction of a millisecond.
	packFull = 256 << 10
	// packedShare of the producer's buffer memory, at most packedMost bytes, hold records that
	// are packed and not submitted; the engine has the rest.
	packedShare = 8
	packedMost  = 4 << 20
	// leastMemory is the smallest buffer that the engine works with.
	leastMemory = 1 << 20
	// keepBuffer is the largest buffer that is kept for the next pack.
	keepBuffer = 2 * packFull
)

// packer collects the records of a producer while a submission is under way, and submits at once
// when none is: batches grow with the load, and nothing waits on a timer.
//
// One goroutine submits at a time (submitting), so records of a topic reach the engine in the
// order of Produce. It is the packer's own, or that of a ProduceSync that found nothing under way.
type packer struct {
	client *Client
	owner  *Producer
	api    *capi.Producer
	// limit of packed; maxRecord of a record's parts; patience is the delivery timeout; maxBlock
	// bounds the wait for space.
	limit, maxRecord   int
	patience, maxBlock time.Duration

	mu   sync.Mutex
	work *sync.Cond
	// topics keep their C names; open are the packs that records still join.
	topics map[string]capi.TopicName
	open   map[string]*pack
	// queue holds all packs, oldest first, the open ones too.
	queue []*pack
	// packed are bytes reserved: of the packs in queue, of the one being submitted, and of
	// granted waiters.
	packed     int
	waiters    []*spaceWaiter
	flushers   []flusher
	submitting bool
	// blocked: the engine has no space; the next Space completion ends it. spaces counts those,
	// because one may come before the refusal that it belongs to has returned.
	blocked bool
	spaces  uint64
	// current is the pack being submitted.
	current *pack
	// closed: no new records. stop: the goroutine goes, whatever is left.
	closed, stop bool
	spare        []byte
	// expiry is armed while blocked.
	expiry *time.Timer

	done chan struct{}
}

// pack is records of one topic.
type pack struct {
	topic string
	name  capi.TopicName
	// bytes are what is left of buffer, count records.
	bytes   []byte
	buffer  []byte
	count   int
	entries []entry
	waits   int
	since   time.Time
}

type spaceWaiter struct {
	size    int
	granted bool
	woken   chan struct{}
}

// flusher waits until the pack with this place in the queue's history is submitted.
type flusher struct {
	after *pack
	done  chan struct{}
}

func newPacker(c *Client, p *Producer, api *capi.Producer, limit, maxRecord int, patience, maxBlock time.Duration) *packer {
	k := &packer{
		client: c, owner: p, api: api,
		limit: limit, maxRecord: maxRecord, patience: patience, maxBlock: maxBlock,
		topics: map[string]capi.TopicName{},
		open:   map[string]*pack{},
		done:   make(chan struct{}),
	}
	k.work = sync.NewCond(&k.mu)
	go k.run()
	return k
}

// add takes a record, waiting for space if it has to. inline: the caller waits for the outcome
// and submits itself if nobody does.
func (k *packer) add(ctx context.Context, r *Record, e entry, inline bool) error {
	size, parts, err := r.packedSize()
	if err != nil {
		return err
	}
	if parts > k.maxRecord {
		return tooLarge(r.Topic, parts, k.maxRecord)
	}
	if ctx.Err() != nil {
		return ended(ctx, "the record was not accepted", false)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return closed("producer")
	}
	if len(k.waiters) > 0 || !k.fits(size) {
		if err := k.wait(ctx, size); err != nil {
			return err
		}
	} else {
		k.packed += size
	}
	p := k.open[r.Topic]
	if p == nil {
		if p, err = k.begin(r.Topic); err != nil {
			k.release(size)
			return err
		}
	}
	p.bytes = r.pack(p.bytes)
	if e.done != nil || e.wait != nil {
		for len(p.entries) < p.count {
			p.entries = append(p.entries, entry{timestampMs: -1})
		}
		e.timestampMs = -1
		if !r.Timestamp.IsZero() {
			e.timestampMs = r.Timestamp.UnixMilli()
		}
		p.entries = append(p.entries, e)
		if e.wait != nil {
			p.waits++
		}
	}
	p.count++
	k.owner.unresolved.Add(1)
	full := len(p.bytes) >= packFull
	if full {
		delete(k.open, r.Topic)
	}
	if k.submitting || k.blocked {
		return nil
	}
	// A full pack is not left to the packer's goroutine: on one processor it would wait until
	// this one is preempted.
	if full || (inline && len(k.queue) == 1) {
		k.submitting = true
		k.submitNext()
		k.idle()
		if len(k.queue) == 0 || k.blocked {
			return nil
		}
	}
	k.work.Signal()
	return nil
}

func (k *packer) fits(size int) bool {
	// A record larger than the limit has it for itself.
	return k.packed == 0 || k.packed+size <= k.limit
}

// begin opens a pack for a topic.
func (k *packer) begin(topic string) (*pack, error) {
	name := k.topics[topic]
	if name == nil {
		if hasNUL(topic) {
			return nil, badTopic(topic)
		}
		name = capi.NewTopicName(topic)
		k.topics[topic] = name
	}
	p := &pack{topic: topic, name: name, since: time.Now()}
	p.bytes, k.spare = k.spare[:0], nil
	k.open[topic] = p
	k.queue = append(k.queue, p)
	return p, nil
}

// wait queues for space: first come, first served, so that large records are not starved. What
// ends it: space, the context, maxBlock, a close.
func (k *packer) wait(ctx context.Context, size int) error {
	w := &spaceWaiter{size: size, woken: make(chan struct{})}
	k.waiters = append(k.waiters, w)
	k.mu.Unlock()
	timer := time.NewTimer(k.maxBlock)
	defer timer.Stop()
	var stopped error
	select {
	case <-w.woken:
	case <-ctx.Done():
		stopped = ended(ctx, "waiting for buffer space", false)
	case <-timer.C:
		stopped = bufferFull(k.maxBlock)
	}
	k.mu.Lock()
	switch {
	case k.closed:
		if w.granted {
			k.release(size)
		}
		return closed("producer")
	case w.granted && stopped != nil:
		k.release(size)
		return stopped
	case w.granted:
		return nil
	default:
		for i, other := range k.waiters {
			if other == w {
				k.waiters = append(k.waiters[:i], k.waiters[i+1:]...)
				break
			}
		}
		// Those behind may fit where this one did not.
		k.release(0)
		return stopped
	}
}

// release gives bytes back and grants them to those who wait.
func (k *packer) release(size int) {
	k.packed -= size
	for len(k.waiters) > 0 && k.fits(k.waiters[0].size) {
		w := k.waiters[0]
		k.waiters = k.waiters[1:]
		k.packed += w.size
		w.granted = true
		close(w.woken)
	}
}

// run is the packer's goroutine.
func (k *packer) run() {
	defer close(k.done)
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		for k.submitting || (!k.stop && (k.blocked || len(k.queue) == 0)) {
			k.work.Wait()
		}
		if k.stop {
			return
		}
		k.submitting = true
		for len(k.queue) > 0 && !k.blocked && !k.stop {
			k.submitNext()
		}
		k.idle()
	}
}

// idle ends a time of submitting. With the lock.
func (k *packer) idle() {
	k.submitting = false
	if k.stop {
		k.work.Broadcast()
	}
}

// submitNext submits the oldest pack; called with the lock, which it lets go meanwhile.
func (k *packer) submitNext() {
	p := k.queue[0]
	k.queue[0] = nil
	k.queue = k.queue[1:]
	if k.open[p.topic] == p {
		delete(k.open, p.topic)
	}
	k.current = p
	before := k.spaces
	k.mu.Unlock()
	size := len(p.bytes)
	full := k.send(p)
	k.mu.Lock()
	k.current = nil
	if full {
		size -= len(p.bytes)
		k.queue = append([]*pack{p}, k.queue...)
		k.blocked = k.spaces == before
		if k.blocked && k.expiry == nil {
			k.expireLater(p)
		}
	} else if cap(p.buffer) <= keepBuffer {
		k.spare = p.buffer[:0]
	}
	k.release(size)
	k.submitted()
}

// send hands a pack to the engine. What is refused for good is told to its owners; true if there
// was no space for what is left in the pack.
func (k *packer) send(p *pack) (full bool) {
	p.buffer = p.bytes
	for p.count > 0 {
		s := p.submission(k.owner)
		s.left.Store(int64(p.count))
		s.open = []stretch{{0, p.count}}
		// Known before the call: completions may come before it returns.
		tag := k.client.addSubmission(s)
		accepted, failure := k.api.Send(p.name, p.bytes, p.count, tag)
		if failure == nil {
			// Resolved by its completions, perhaps already.
			return false
		}
		err := failed(failure)
		refused := 0
		switch {
		case errors.Is(err, ErrBufferFull):
		case errors.Is(err, ErrRecordTooLarge), errors.Is(err, ErrInvalidArgument),
			errors.Is(err, ErrInvalidRecord), errors.Is(err, ErrUnknownPartition):
			// Of this record; those behind it are tried.
			refused = 1
		default:
			refused = p.count - accepted
		}
		// The engine has those before.
		s.ends(accepted, p.count)
		if refused > 0 {
			s.resolve(k.client, refusal(accepted, refused, err))
		}
		k.client.countDown(tag, s, p.count-accepted)
		p.forget(accepted + refused)
		if refused == 0 {
			return true
		}
	}
	return false
}

func (p *pack) submission(owner *Producer) *submission {
	return &submission{
		producer: owner, topic: p.topic, entries: p.entries, count: p.count, waits: p.waits,
	}
}

// refusal is the outcome of records that no engine had.
func refusal(first, count int, err error) outcome {
	return outcome{
		first: first, count: count, partition: -1, offset: -1, timestampMs: -1, err: err,
	}
}

// forget drops the pack's first n records. The pack stays the same pack: flushes wait for it.
func (p *pack) forget(n int) {
	p.bytes = p.bytes[skipPacked(p.bytes, n):]
	p.count -= n
	p.entries = p.entries[min(n, len(p.entries)):]
	p.waits = 0
	for i := range p.entries {
		if p.entries[i].wait != nil {
			p.waits++
		}
	}
}

// space ends a blocked state.
func (k *packer) space() {
	k.mu.Lock()
	k.spaces++
	k.blocked = false
	k.work.Signal()
	k.mu.Unlock()
}

// expireLater fails what waits here for space for longer than a record may take: the engine's
// own deadline starts only when it has a record.
func (k *packer) expireLater(head *pack) {
	k.expiry = time.AfterFunc(time.Until(head.since.Add(k.patience)), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.expiry = nil
		for k.blocked && !k.stop && len(k.queue) > 0 {
			p := k.queue[0]
			if time.Since(p.since) < k.patience {
				k.expireLater(p)
				return
			}
			k.drop(&Error{
				Code:      ErrTimeout,
				Message:   "a record for '" + p.topic + "' found no buffer space within its delivery timeout",
				Advice:    "send slower, raise BufferMemory, or find out why the brokers do not keep up",
				Retriable: true,
			})
		}
	})
}

// drop fails the oldest pack, which was never handed over. With the lock.
func (k *packer) drop(err error) {
	p := k.queue[0]
	k.queue = k.queue[1:]
	if k.open[p.topic] == p {
		delete(k.open, p.topic)
	}
	p.submission(k.owner).resolve(k.client, refusal(0, p.count, err))
	k.release(len(p.bytes))
	k.submitted()
}

// handOver waits until every record taken so far is with the engine (or refused).
func (k *packer) handOver(ctx context.Context) error {
	k.mu.Lock()
	for topic := range k.open {
		// Sealed: records that come later would push the end of this wait away.
		delete(k.open, topic)
	}
	done := make(chan struct{})
	if len(k.queue) == 0 && !k.submitting {
		close(done)
	} else {
		last := k.current
		if n := len(k.queue); n > 0 {
			last = k.queue[n-1]
		}
		k.flushers = append(k.flushers, flusher{last, done})
	}
	k.work.Signal()
	k.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ended(ctx, "flush", true)
	}
}

// submitted ends the waits of flushers whose last pack is gone. With the lock.
func (k *packer) submitted() {
	kept := k.flushers[:0]
	for _, f := range k.flushers {
		waiting := false
		for _, p := range k.queue {
			if p == f.after {
				waiting = true
			}
		}
		if waiting {
			kept = append(kept, f)
		} else {
			close(f.done)
		}
	}
	clear(k.flushers[len(kept):])
	k.flushers = kept
}

// refuseNew ends the taking of records; those who wait for space are refused.
func (k *packer) refuseNew() {
	k.mu.Lock()
	k.closed = true
	for _, w := range k.waiters {
		close(w.woken)
	}
	k.waiters = nil
	k.work.Broadcast()
	k.mu.Unlock()
}

// abandon fails everything that was not handed over and ends the goroutine.
func (k *packer) abandon(err error) {
	k.mu.Lock()
	k.stop = true
	k.work.Broadcast()
	for k.submitting {
		k.work.Wait()
	}
	for len(k.queue) > 0 {
		k.drop(err)
	}
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.mu.Unlock()
	<-k.done
}
