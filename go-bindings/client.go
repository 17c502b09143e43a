package ottla

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// closeTimeout is what Close waits for records to be delivered and callbacks to return.
const closeTimeout = 30 * time.Second

// connectGrace is added to the connect timeout before the wait is given up here: the engine's
// answer, which says what went wrong, comes first.
const connectGrace = 5 * time.Second

// connectTag is the first that a client gives out.
const connectTag = 1

// Client is the connection to a cluster. Clients of one process and cluster with equal settings
// share their connections.
//
// Close it: a client that nobody refers to any more is ended with a warning in the log, and what it had then fails.
type Client struct {
	api  *capi.Client
	wake *os.File
	tags atomic.Uint64
	// unlog ends the use of the logger.
	unlog func()
	// tokens is the token provider: who asks it keeps nothing of it.
	tokens any
	// abandoned is what happens when nobody refers to it any more, and it was not closed.
	abandoned runtime.Cleanup

	mu          sync.Mutex
	submissions map[uint64]*submission
	operations  map[uint64]*operation
	producers   map[uint64]*Producer
	consumers   map[uint64]*Consumer
	closed      bool

	// drained is closed when nothing comes from the engine any more, gone when nothing is told any more either.
	drained, gone chan struct{}
	// finished is closed when Shutdown is over, shutdownErr its result.
	finished    chan struct{}
	shutdownErr error
}

// operation is what a goroutine waits for.
type operation struct {
	done chan error
	// behind: told after the callbacks of everything that these were told of before; nil: at once.
	behind *callbacks
}

// NewClient connects to a cluster; Brokers is needed. It returns when a broker was reached, or
// with an error after the connect timeout at the latest.
func NewClient(options ...ClientOption) (*Client, error) {
	return NewClientContext(context.Background(), options...)
}

// NewClientContext is NewClient with a context that bounds the wait for a broker further.
func NewClientContext(ctx context.Context, options ...ClientOption) (*Client, error) {
	settings := clientSettings{connectTimeout: defaultConnectTimeout}
	settings.SoftwareName, settings.SoftwareVersion = "ottla-go", version()
	for _, o := range options {
		if err := o.client(&settings); err != nil {
			return nil, err
		}
	}
	if settings.echo {
		api, failure := capi.NewEcho()
		if failure != nil {
			return nil, failed(failure)
		}
		c, _, err := start(api, func() {}, slog.Default())
		return c, err
	}
	if settings.Bootstrap == "" {
		return nil, misconfigured("no brokers are given: ottla.Brokers(\"host:9092\")")
	}
	unlog := func() {}
	if !settings.quiet {
		var err error
		if unlog, err = processLogs.join(settings.logger); err != nil {
			return nil, err
		}
	}
	settings.Tag = connectTag
	api, failure := capi.NewClient(settings.ClientOptions)
	if failure != nil {
		unlog()
		return nil, failed(failure)
	}
	logger := settings.logger
	if logger == nil && !settings.quiet {
		logger = slog.Default()
	}
	c, connected, err := start(api, unlog, logger)
	if err != nil {
		unlog()
		return nil, err
	}
	c.tokens = settings.tokens
	limit := settings.connectTimeout + connectGrace
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no broker was reached in %v", limit))
	defer cancel()
	select {
	case err = <-connected.done:
	case <-ctx.Done():
		err = c.ended(ctx, "connecting to "+settings.Bootstrap, false)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// start has the engine drained, by the client's one goroutine.
func start(api *capi.Client, unlog func(), logger *slog.Logger) (*Client, *operation, error) {
	wake, err := api.WakeFile()
	if err != nil {
		api.Free()
		return nil, nil, noDescriptor(err)
	}
	c := &Client{
		api: api, wake: wake, unlog: unlog,
		submissions: map[uint64]*submission{},
		operations:  map[uint64]*operation{},
		producers:   map[uint64]*Producer{},
		consumers:   map[uint64]*Consumer{},
		drained:     make(chan struct{}),
		gone:        make(chan struct{}),
		finished:    make(chan struct{}),
	}
	// The first tag, before anything drains: the connection's completion may be there already.
	_, connected := c.operation(nil)
	left := leftovers{api, wake, unlog, logger}
	c.abandoned = runtime.AddCleanup(c, leftovers.end, left)
	go drain(weak.Make(c), api, wake, c.drained)
	return c, connected, nil
}

// leftovers are what has to be ended of a client that nobody refers to any more.
type leftovers struct {
	api   *capi.Client
	wake  *os.File
	unlog func()
	// logger is nil for silence.
	logger *slog.Logger
}

func (l leftovers) end() {
	if l.logger != nil {
		l.logger.Warn("ottla: a client was not closed: it is now, and what was left of it fails; call Close")
	}
	// Not on the goroutine that all cleanups share.
	go func() {
		l.api.Close()
		_ = l.wake.Close()
		l.api.Free()
		l.unlog()
	}()
}

// inUse are the clients with something outstanding, and how many submissions and operations that is: they are kept, as
// whoever waits may have nothing in hand but a channel.
var inUse = struct {
	sync.Mutex
	clients map[*Client]int
}{clients: map[*Client]int{}}

// begun says that one more is outstanding.
func (c *Client) begun() {
	inUse.Lock()
	inUse.clients[c]++
	inUse.Unlock()
}

// over says that n are not any more.
func (c *Client) over(n int) {
	inUse.Lock()
	defer inUse.Unlock()
	if left := inUse.clients[c] - n; left > 0 {
		inUse.clients[c] = left
	} else {
		delete(inUse.clients, c)
	}
}

func noDescriptor(err error) error {
	return &Error{
		Code: ErrOutOfResources, Message: err.Error(),
		Advice: "look at the process's limit of open files", Retriable: true, cause: err,
	}
}

// version is this module's, as the program that uses it was built with.
func version() string {
	const path = "github.com/ottla-rs/ottla/go-bindings"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path && m.Version != "" && m.Version[0] == 'v' {
				return m.Version[1:]
			}
		}
	}
	return "" // The library's.
}

// drain takes completions until the client is closed. It never waits for anything but the wake
// file: callbacks run elsewhere, and channels it sends to have room. While it waits it does not keep the client.
func drain(client weak.Pointer[Client], api *capi.Client, wake *os.File, drained chan<- struct{}) {
	defer close(drained)
	var word [8]byte
	for {
		// All of it before the next read: the descriptor is signalled only when the queue was
		// empty.
		if !pollAll(client, api) {
			return
		}
		if _, err := wake.Read(word[:]); err != nil {
			// Shutdown closed the file, after it closed the engine: what was outstanding is in
			// the queue by now.
			pollAll(client, api)
			return
		}
	}
}

// pollAll takes what is there; false if nothing will come any more. Not inlined: what it refers to is not to stay on the stack of
// who waits.
//
//go:noinline
func pollAll(client weak.Pointer[Client], api *capi.Client) bool {
	c := client.Value()
	if c == nil {
		return false
	}
	for {
		n, ended := api.Poll(c.take)
		if ended {
			return false
		}
		if n == 0 {
			return true
		}
	}
}

// take tells one completion to whom it concerns.
func (c *Client) take(done *capi.Completion) {
	err := failed(done.Failure)
	switch done.Kind {
	case capi.Delivery:
		c.mu.Lock()
		s := c.submissions[done.Tag]
		c.mu.Unlock()
		if s == nil {
			return
		}
		s.resolve(c, outcome{
			first: int(done.First), count: int(done.Count), partition: done.Partition,
			offset: done.Offset, timestampMs: done.TimestampMs, err: err,
		})
		c.countDown(done.Tag, s, int(done.Count))
	case capi.Connected, capi.Flushed, capi.Closed, capi.TopicCreated, capi.OffsetsListed, capi.Committed:
		c.mu.Lock()
		op := c.operations[done.Tag]
		delete(c.operations, done.Tag)
		c.mu.Unlock()
		if op == nil {
			return
		}
		if op.behind != nil {
			op.behind.push(outcome{mark: op.done, err: err})
		} else {
			op.done <- err
		}
		c.over(1)
	case capi.Space:
		c.mu.Lock()
		p := c.producers[done.Tag]
		c.mu.Unlock()
		if p != nil {
			p.packer.space()
		}
	case capi.ConsumerReady:
		c.mu.Lock()
		consumer := c.consumers[done.Tag]
		c.mu.Unlock()
		if consumer != nil {
			consumer.wakeUp()
		}
	}
}

func (c *Client) addSubmission(s *submission) uint64 {
	tag := c.tags.Add(1)
	c.mu.Lock()
	c.submissions[tag] = s
	c.mu.Unlock()
	c.begun()
	return tag
}

func (c *Client) countDown(tag uint64, s *submission, n int) {
	if s.left.Add(-int64(n)) <= 0 {
		c.mu.Lock()
		_, there := c.submissions[tag]
		delete(c.submissions, tag)
		c.mu.Unlock()
		if there {
			c.over(1)
		}
	}
}

// operation registers a wait. The channel has room for its one result, so nobody has to listen.
func (c *Client) operation(behind *callbacks) (uint64, *operation) {
	op := &operation{done: make(chan error, 1), behind: behind}
	tag := c.tags.Add(1)
	c.mu.Lock()
	c.operations[tag] = op
	c.mu.Unlock()
	c.begun()
	return tag, op
}

func (c *Client) forgetOperation(tag uint64) {
	c.mu.Lock()
	_, there := c.operations[tag]
	delete(c.operations, tag)
	c.mu.Unlock()
	if there {
		c.over(1)
	}
}

// await waits for an operation that was asked for, or was refused with failure.
func (c *Client) await(ctx context.Context, tag uint64, op *operation, failure *capi.Failure, what string) error {
	if failure != nil {
		c.forgetOperation(tag)
		return failed(failure)
	}
	gone := c.gone
	if op.behind != nil {
		gone = op.behind.done
	}
	select {
	case err := <-op.done:
		return err
	case <-ctx.Done():
		c.forgetOperation(tag)
		return c.ended(ctx, what, false)
	case <-gone:
		// Whoever would have answered is gone; the answer may be there.
		select {
		case err := <-op.done:
			return err
		default:
			return closed("client")
		}
	}
}

// CreateTopic creates a topic and waits for it. -1 partitions or replicas leave the choice to the
// cluster. A topic that exists gives ErrTopicExists. A context without a deadline is bounded by
// the request timeout.
func (c *Client) CreateTopic(ctx context.Context, name string, partitions int, replication int) error {
	if name == "" || hasNUL(name) {
		return badTopic(name)
	}
	if partitions < -1 || partitions == 0 || partitions > math.MaxInt32 {
		return invalid("%d partitions for topic '%s': 1 or more, or -1 for the cluster's choice", partitions, name)
	}
	if replication < -1 || replication == 0 || replication > math.MaxInt16 {
		return invalid("%d replicas for topic '%s': 1 or more, or -1 for the cluster's choice", replication, name)
	}
	tag, op := c.operation(nil)
	failure := c.api.CreateTopic(name, int32(partitions), int16(replication), tag)
	return c.await(ctx, tag, op, failure, "creating topic '"+name+"'")
}

// Close is Shutdown with a deadline of 30 seconds.
func (c *Client) Close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout,
		fmt.Errorf("the client was not closed within %v", closeTimeout))
	defer cancel()
	return c.Shutdown(ctx)
}

// ended is the error of a wait that its context ended, with what was in its way.
func (c *Client) ended(ctx context.Context, what string, maybeWritten bool) error {
	if words := c.api.InTheWay(); words != "" {
		what += " (" + words + ")"
	}
	return ended(ctx, what, maybeWritten)
}

// Shutdown delivers what was produced, closes producers, consumers and the client, and returns
// when the last callback has returned. If ctx ends first, the rest fails at once with ErrClosed
// and the error says how much that was. Shutting down again waits for the first time's end.
// Not to be called in a callback.
func (c *Client) Shutdown(ctx context.Context) error {
	if inCallback() {
		return invalid("a client can not be closed in a callback, which the close would wait for")
	}
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	producers := make([]*Producer, 0, len(c.producers))
	for _, p := range c.producers {
		producers = append(producers, p)
	}
	consumers := make([]*Consumer, 0, len(c.consumers))
	for _, consumer := range c.consumers {
		consumers = append(consumers, consumer)
	}
	c.mu.Unlock()
	if !first {
		select {
		case <-c.finished:
			return c.shutdownErr
		case <-ctx.Done():
			return c.ended(ctx, "closing the client", false)
		}
	}
	defer close(c.finished)
	c.abandoned.Stop()
	// All at once: they share the deadline.
	results := make(chan error, len(consumers)+len(producers))
	for _, consumer := range consumers {
		go func() { results <- consumer.Shutdown(ctx) }()
	}
	for _, p := range producers {
		go func() { results <- p.Shutdown(ctx) }()
	}
	var errs []error
	for range len(consumers) + len(producers) {
		if err := <-results; err != nil {
			errs = append(errs, err)
		}
	}
	c.api.Close()
	_ = c.wake.Close()
	<-c.drained
	if err := c.orphans(); err != nil {
		errs = append(errs, err)
	}
	close(c.gone)
	c.api.Free()
	c.unlog()
	c.shutdownErr = errors.Join(errs...)
	return c.shutdownErr
}

// orphans ends what the engine gave no end to. It ends everything itself; this is for the day it
// does not, so that nobody waits for ever, and what failed untold is told.
func (c *Client) orphans() error {
	c.mu.Lock()
	submissions, operations := c.submissions, c.operations
	c.submissions, c.operations = map[uint64]*submission{}, map[uint64]*operation{}
	c.mu.Unlock()
	defer c.over(len(submissions) + len(operations))
	for _, op := range operations {
		op.done <- closed("client")
	}
	for _, s := range submissions {
		for _, o := range s.orphan() {
			// The engine had them.
			s.tell(c, refusal(o.first, o.end-o.first, &Error{
				Code:         ErrClosed,
				Message:      "the client is closed, and what became of the record is not known",
				Advice:       "read whether the record is there before it is sent again",
				Fatal:        true,
				maybeWritten: true,
			}))
		}
	}
	var errs []error
	for _, s := range submissions {
		// Its producer's own close is over.
		errs = append(errs, s.producer.heard())
	}
	return errors.Join(errs...)
}
