package ottla

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// maxBacklog is how many outcomes may wait for a slow callback before Produce waits too. The
// producer's buffer bounds what is not resolved; this bounds what is resolved and not yet told
// (about 5 MiB).
const maxBacklog = 1 << 16

// freedAtOnce is after how many callbacks of a run the backlog is said to be shorter.
const freedAtOnce = 64

// callbacks runs what users gave to Produce: one goroutine per producer while there is something to tell, in the order of
// completion. That goroutine is not the one that drains the engine, so a callback may wait for buffer space, which the other
// one announces; and one that takes its time holds up those of its own producer alone.
type callbacks struct {
	client *Client

	mu    sync.Mutex
	queue []outcome
	// room is closed, and replaced, when the backlog has fallen to half.
	room chan struct{}
	// ended: the producer is closed. running: the goroutine is there, or about to be.
	ended, running bool

	backlog atomic.Int64
	// done is closed when the producer is closed and everything until then was told.
	done   chan struct{}
	finish sync.Once

	// Of the goroutine alone: what it took, and how far it got. Kept here and not on its stack
	// because a callback may end its goroutine (runtime.Goexit, as t.FailNow does); the next one
	// goes on behind it.
	taken    []outcome
	at, next int
}

// outcome is the end of a run of records of one submission, or a mark that tells its owner that
// everything before it was told.
type outcome struct {
	of                  *submission
	first, count        int
	partition           int32
	offset, timestampMs int64
	err                 error
	mark                chan<- error
}

func newCallbacks(c *Client) *callbacks {
	return &callbacks{client: c, room: make(chan struct{}), done: make(chan struct{})}
}

func (c *callbacks) push(o outcome) {
	c.mu.Lock()
	c.queue = append(c.queue, o)
	start := !c.running
	c.running = true
	c.mu.Unlock()
	c.backlog.Add(int64(o.count))
	if start {
		go c.run()
	}
}

// end says that nothing more comes, but for what is told of records that were produced too late.
func (c *callbacks) end() {
	c.mu.Lock()
	c.ended = true
	told := !c.running
	c.mu.Unlock()
	if told {
		c.finish.Do(func() { close(c.done) })
	}
}

// run is the goroutine. Not inlined: inCallback looks for it on the stack.
//
//go:noinline
func (c *callbacks) run() {
	finished := false
	defer func() {
		if finished {
			return
		} else if r := recover(); r != nil {
			panic(r) // A callback's panic is the program's.
		} else {
			go c.run()
		}
	}()
	for {
		for c.at < len(c.taken) {
			c.tell(&c.taken[c.at])
			c.taken[c.at] = outcome{}
			c.at++
			c.next = 0
		}
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.running = false
			ended := c.ended
			c.mu.Unlock()
			finished = true
			if ended {
				c.finish.Do(func() { close(c.done) })
			}
			return
		}
		c.taken, c.queue = c.queue, c.taken[:0]
		c.at = 0
		c.mu.Unlock()
	}
}

// tell goes on with one outcome where it was left.
func (c *callbacks) tell(o *outcome) {
	if o.mark != nil {
		o.mark <- o.err
		return
	}
	// All but the offset is the same for all of them, mostly.
	d, alike := o.delivery(0), !o.of.hasStamps(o.first)
	base := d.Offset
	for c.next < o.count {
		i := c.next
		c.next++
		if c.next%freedAtOnce == 0 || c.next == o.count {
			// It was said of those before the last multiple of freedAtOnce.
			n := int64(c.next - (c.next-1)/freedAtOnce*freedAtOnce)
			c.freed(c.backlog.Add(-n), n)
		}
		done := o.of.callback(o.first + i)
		switch {
		case done == nil:
			continue
		case !alike:
			d = o.delivery(i)
		case base >= 0:
			d.Offset = base + int64(i)
		}
		done(d, o.err)
	}
}

// delivery is what record i of the run is told.
func (o *outcome) delivery(i int) Delivery {
	if o.err != nil {
		return Delivery{Topic: o.of.topic, Partition: o.partition, Offset: -1}
	}
	d := Delivery{Topic: o.of.topic, Partition: o.partition, Offset: o.offset}
	if o.offset >= 0 {
		d.Offset += int64(i)
	}
	if ms := o.of.timestampMs(o.first, o.first+i, o.timestampMs); ms >= 0 {
		d.Timestamp = time.UnixMilli(ms)
	}
	return d
}

// freed is called after n outcomes have left the backlog, with what is left of it.
func (c *callbacks) freed(left, n int64) {
	if left > maxBacklog/2 || left+n <= maxBacklog/2 {
		return
	}
	c.mu.Lock()
	close(c.room)
	c.room = make(chan struct{})
	c.mu.Unlock()
}

// admit waits until callbacks have caught up, so that their backlog is bounded. The goroutine that
// runs them never waits here: it would wait for itself.
func (c *callbacks) admit(ctx context.Context) error {
	for c.backlog.Load() > maxBacklog {
		if inCallback() {
			return nil
		}
		c.mu.Lock()
		room := c.room
		c.mu.Unlock()
		// Between the look and the channel the backlog may have fallen to half: look again.
		if c.backlog.Load() <= maxBacklog/2 {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return c.client.ended(ctx, "waiting for callbacks to catch up", false)
		}
	}
	return nil
}

// inCallback tells whether the caller runs inside a callback, of this or another client. It walks
// the stack, so only calls that are about to wait ask.
func inCallback() bool {
	var pcs [64]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for {
			frame, more := frames.Next()
			if frame.Func != nil && frame.Function == callbacksRun {
				return true
			}
			if !more {
				break
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// callbacksRun is the full name of (*callbacks).run.
const callbacksRun = "github.com/ottla-rs/ottla/go-bindings.(*callbacks).run"
