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
	// keepBuffer is the largest buffer that is kept for the next packs, and keepAll what all of them hold at most: a producer that
	// is faster than its brokers fills packs while the engine has no space.
	keepBuffer = 2 * packFull
	keepAll    = packedMost
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

	mu sync.Mutex
	// rests tells whoever abandons it that nobody submits any more.
	rests *sync.Cond
	// topics keep their C names; open are the packs that records still join.
	topics map[string]capi.TopicName
	open   map[string]*pack
	// last is the open pack that took the last record; nil if it takes no more.
	last *pack
	// taken counts records, of all time.
	taken int64
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
	// spare are buffers of packs that are gone, spareBytes what they hold; likely is how many records the last pack had that
	// somebody was to be told of.
	spare      [][]byte
	spareBytes int
	likely     int
	// working: the packer's goroutine is there, or about to be. It ends when there is nothing to do, so that a producer that
	// nobody refers to any more is not kept by it.
	working bool
	// expiry is armed while blocked.
	expiry *time.Timer
}

// pack is records of one topic.
type pack struct {
	topic string
	name  capi.TopicName
	// bytes are what is left of buffer, count records.
	bytes  []byte
	buffer []byte
	count  int
	who    listeners
	since  time.Time
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
	}
	k.rests = sync.NewCond(&k.mu)
	return k
}

// add takes a record, waiting for space if it has to. Who is to be told: done or wait, or nobody; wait: the caller waits for the
// outcome and submits itself if nobody does.
func (k *packer) add(ctx context.Context, r *Record, done func(Delivery, error), wait chan<- synced) error {
	size, parts, err := r.packedSize()
	if err != nil {
		return err
	}
	if parts > k.maxRecord {
		return tooLarge(r.Topic, parts, k.maxRecord)
	}
	if ctx.Err() != nil {
		return k.client.ended(ctx, "the record was not accepted", false)
	}
	k.mu.Lock()
	p, err := k.place(ctx, r.Topic, size)
	if err == nil {
		p.bytes = r.pack(p.bytes, size)
		p.who.add(p.count, done, wait, r.stampMs(), k.likely)
		p.count++
		k.taken++
		k.took(p, wait != nil)
	}
	// Not deferred: this is most of what a record costs here.
	k.mu.Unlock()
	return err
}

// addMany takes values as add does records without anything else, and without anybody to tell. It gives how many it took.
func (k *packer) addMany(ctx context.Context, topic string, values [][]byte) (taken int, err error) {
	if topic == "" {
		return 0, badTopic(topic)
	}
	for taken < len(values) {
		if ctx.Err() != nil {
			return taken, k.client.ended(ctx, "the values from here on were not accepted", false)
		}
		n, err := k.addSome(ctx, topic, values[taken:])
		if taken += n; err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// addSome takes the first value, for which it waits, and those behind it as long as there is room in its pack.
func (k *packer) addSome(ctx context.Context, topic string, values [][]byte) (taken int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var p *pack
	for _, value := range values {
		if len(value) > k.maxRecord || len(value) > maxPart-headLen {
			return taken, tooLarge(topic, len(value), min(k.maxRecord, maxPart))
		}
		size := headLen + len(value)
		switch {
		case p == nil:
			if p, err = k.place(ctx, topic, size); err != nil {
				return 0, err
			}
		case len(p.bytes) >= packFull || !k.fits(size):
			k.took(p, false)
			return taken, nil
		default:
			k.packed += size
		}
		p.bytes = packValue(p.bytes, value)
		p.count++
		k.taken++
		taken++
	}
	k.took(p, false)
	return taken, nil
}

// place reserves so many bytes, waiting for them if it has to, and gives the pack that they go to. With the lock.
func (k *packer) place(ctx context.Context, topic string, size int) (p *pack, err error) {
	if k.closed {
		return nil, closed("producer")
	}
	if len(k.waiters) > 0 || !k.fits(size) {
		if err := k.wait(ctx, size); err != nil {
			return nil, err
		}
	} else {
		k.packed += size
	}
	if p = k.last; p == nil || p.topic != topic {
		if p = k.open[topic]; p == nil {
			if p, err = k.begin(topic); err != nil {
				k.release(size)
				return nil, err
			}
		}
		k.last = p
	}
	return p, nil
}

// took has the packs submitted if nobody does, now that one has taken something. With the lock.
func (k *packer) took(p *pack, inline bool) {
	full := len(p.bytes) >= packFull
	if full {
		k.seal(p)
	}
	if k.submitting || k.blocked {
		return
	}
	// A full pack is not left to the packer's goroutine: on one processor it would wait until
	// this one is preempted.
	if full || (inline && len(k.queue) == 1) {
		k.submitting = true
		k.submitNext()
		k.submitting = false
		k.idle()
		if len(k.queue) == 0 || k.blocked {
			return
		}
	}
	k.work()
}

// seal has a pack take no more records. With the lock.
func (k *packer) seal(p *pack) {
	if k.open[p.topic] == p {
		delete(k.open, p.topic)
	}
	if k.last == p {
		k.last = nil
	}
}

// takenSoFar is how many records were taken, of all time.
func (k *packer) takenSoFar() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.taken
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
	if n := len(k.spare); n > 0 {
		p.bytes = k.spare[n-1]
		k.spare[n-1] = nil
		k.spare = k.spare[:n-1]
		k.spareBytes -= cap(p.bytes)
	}
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
		stopped = k.client.ended(ctx, "waiting for buffer space", false)
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

// work has the packer's goroutine submit what is there, unless somebody is at it. With the lock.
func (k *packer) work() {
	if len(k.queue) > 0 && !k.submitting && !k.blocked && !k.working && !k.stop {
		k.working = true
		go k.run()
	}
}

// run is the packer's goroutine.
func (k *packer) run() {
	k.mu.Lock()
	defer k.mu.Unlock()
	// Another one may have begun to submit since: it looks for what is left when it is through.
	if !k.submitting && !k.stop {
		k.submitting = true
		for len(k.queue) > 0 && !k.blocked && !k.stop {
			k.submitNext()
		}
		k.submitting = false
	}
	k.working = false
	k.idle()
}

// idle ends a time of submitting. With the lock.
func (k *packer) idle() {
	if k.stop {
		k.rests.Broadcast()
	}
}

// submitNext submits the oldest pack; called with the lock, which it lets go meanwhile.
func (k *packer) submitNext() {
	p := k.queue[0]
	k.queue[0] = nil
	k.queue = k.queue[1:]
	k.seal(p)
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
	} else if kept := cap(p.buffer); kept <= keepBuffer && k.spareBytes+kept <= keepAll {
		k.spare = append(k.spare, p.buffer[:0])
		k.spareBytes += kept
	}
	k.likely = len(p.who.done)
	k.release(size)
	k.submitted()
}

// send hands a pack to the engine. What is refused for good is told to its owners; true if there
// was no space for what is left in the pack.
func (k *packer) send(p *pack) (full bool) {
	if p.buffer == nil {
		p.buffer = p.bytes
	}
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
		producer: owner, topic: p.topic, who: p.who, count: p.count,
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
	p.who = p.who.from(n)
}

// space ends a blocked state.
func (k *packer) space() {
	k.mu.Lock()
	k.spaces++
	k.blocked = false
	k.work()
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
	k.seal(p)
	p.submission(k.owner).resolve(k.client, refusal(0, p.count, err))
	k.release(len(p.bytes))
	k.submitted()
}

// handOver waits until every record taken so far is with the engine (or refused).
func (k *packer) handOver(ctx context.Context) error {
	k.mu.Lock()
	for _, p := range k.open {
		// Records that come later would push the end of this wait away.
		k.seal(p)
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
	k.work()
	k.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return k.client.ended(ctx, "flush", true)
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
	k.mu.Unlock()
}

// abandon fails everything that was not handed over and ends the goroutine.
func (k *packer) abandon(err error) {
	k.mu.Lock()
	k.stop = true
	for k.submitting || k.working {
		k.rests.Wait()
	}
	for len(k.queue) > 0 {
		k.drop(err)
	}
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.mu.Unlock()
}
