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

// callbacks runs what users gave to Produce: on one goroutine per client, in the order of
// completion. That goroutine is not the one that drains the engine, so a callback may wait for
// buffer space, which the other one announces. It ends with the client; what is told after that,
// of records produced too late, starts another one, which ends when it has told it.
type callbacks struct {
	mu    sync.Mutex
	some  *sync.Cond
	queue []outcome
	// room is closed, and replaced, when the backlog has fallen to half.
	room chan struct{}
	// ended: the client is closed. running: the goroutine is there, or about to be.
	ended, running bool

	backlog atomic.Int64
	// done is closed when the client is closed and everything until then was told.
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

func newCallbacks() *callbacks {
	c := &callbacks{room: make(chan struct{}), running: true, done: make(chan struct{})}
	c.some = sync.NewCond(&c.mu)
	go c.run()
	return c
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
	} else {
		c.some.Signal()
	}
}

// end lets the goroutine go once it told everything.
func (c *callbacks) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.some.Signal()
}

// run is the goroutine. Not inlined: inCallback looks for it on the stack.
//
//go:noinline
func (c *callbacks) run() {
	finished := false
	defer func() {
		if finished {
			c.finish.Do(func() { close(c.done) })
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
		for len(c.queue) == 0 && !c.ended {
			c.some.Wait()
		}
		if len(c.queue) == 0 {
			c.running = false
			c.mu.Unlock()
			finished = true
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
	for c.next < o.count {
		i := c.next
		c.next++
		c.freed(c.backlog.Add(-1))
		done := o.of.callback(o.first + i)
		if done != nil {
			done(o.delivery(i), o.err)
		}
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

func (c *callbacks) freed(left int64) {
	if left != maxBacklog/2 {
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
			return ended(ctx, "waiting for callbacks to catch up", false)
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
