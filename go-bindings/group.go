package ottla

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Group reads the Topics together with the other members of this group: each partition is one member's at a time, and
// read on where the group was. Where it never was, reading begins at Start. The consumer becomes a member when it is
// asked for the first record.
//
// A record of a loop over Records is done once the loop asks for the next, a batch of Batches, Next and Poll likewise:
// see CommitAcked for programs that finish in another order. A loop that is left by break, return or a panic leaves the
// record in hand undone: it is done once the consumer is asked for more by a new loop, or by Next or Poll. What is done
// is committed every 5 seconds (CommitInterval), when partitions are given up, and by Close; what is not is read again
// by who has the partition next.
//
// Several goroutines may loop over Records or Batches of one consumer: each loop says of its own what is done. Those that
// share it by Next or Poll need CommitAcked: who asks for the next says that what was given before is done.
func Group(id string) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.GroupOptions.Group, err = word("Group", id)
		return err
	})
}

// InstanceID makes the consumer a static member of its group (KIP-345): one that restarts within the session timeout
// under the same id has its partitions again, and the others notice nothing. It does not leave when it is closed. Each
// running consumer has its own.
func InstanceID(id string) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.GroupOptions.InstanceID, err = word("InstanceID", id)
		return err
	})
}

// SessionTimeout is after how long without a heartbeat the group gives the member's partitions to others. 1 s to a day,
// within what the brokers allow; default 45 s. Heartbeats go out by themselves, whatever the program does.
func SessionTimeout(d time.Duration) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.SessionTimeoutMs, err = positive("SessionTimeout", d)
		return err
	})
}

// MaxPollInterval is how long the program may take between being given a batch and asking for the next. After that the
// member leaves, so that others have its partitions; when it asks again it joins again. 1 s to a day, default 5 minutes.
func MaxPollInterval(d time.Duration) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.MaxPollIntervalMs, err = positive("MaxPollInterval", d)
		return err
	})
}

// Assignor decides who of a group reads what.
type Assignor string

const (
	// Range gives ranges of equal size of each topic; partitions of the same number meet in the same member. Eager.
	Range Assignor = "range"
	// RoundRobin gives partition by partition in turn. Eager.
	RoundRobin Assignor = "roundrobin"
	// Sticky is balanced over all topics, and moves as little as that allows. Eager.
	Sticky Assignor = "sticky"
	// CooperativeSticky is the same, and members go on reading what they keep.
	CooperativeSticky Assignor = "cooperative-sticky"
)

// GroupProtocol is which of Kafka's two protocols of groups a member speaks.
type GroupProtocol string

const (
	// GroupProtocolAuto is the next generation where the cluster has it (Kafka 4.0 or newer), unless the group has classic
	// members now, or Assignors or SessionTimeout are set, which only the classic protocol has. The default.
	GroupProtocolAuto GroupProtocol = "auto"
	// GroupProtocolClassic is that of every broker: one of the members assigns.
	GroupProtocolClassic GroupProtocol = "classic"
	// GroupProtocolNext is KIP-848: the coordinator assigns, and each member moves by itself. Joining so converts a classic
	// group for all of its members where the brokers allow it (group.consumer.migration.policy), which is their default.
	GroupProtocolNext GroupProtocol = "next"
)

// Protocol is which of Kafka's two protocols of groups it speaks. Default GroupProtocolAuto.
func Protocol(protocol GroupProtocol) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		switch protocol {
		case GroupProtocolAuto:
			s.GroupOptions.Protocol = 0
		case GroupProtocolClassic:
			s.GroupOptions.Protocol = capi.GroupProtocolClassic
		case GroupProtocolNext:
			s.GroupOptions.Protocol = capi.GroupProtocolNext
		default:
			return misconfigured("Protocol: %q is none of auto, classic and next", protocol)
		}
		return nil
	})
}

// RemoteAssignor is who assigns under the next generation of the protocol: "uniform" or "range" or an assignor that the
// brokers were given (group.consumer.assignors). The last member to join decides for the group. Default: the brokers' first.
func RemoteAssignor(name string) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		if name == "" {
			return misconfigured("RemoteAssignor: none; name one, or leave the default")
		}
		s.GroupOptions.RemoteAssignor = name
		return nil
	})
}

// Assignors are who may decide which member reads what, the preferred first; the members of a group have at least one in
// common. Default Range and CooperativeSticky, as Java's client has it. An eager one makes the member give up all
// partitions in each rebalance. Of the classic protocol.
func Assignors(assignors ...Assignor) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		names := make([]string, len(assignors))
		for i, assignor := range assignors {
			switch assignor {
			case Range, RoundRobin, Sticky, CooperativeSticky:
				names[i] = string(assignor)
			default:
				return misconfigured("Assignors: %q is none of Range, RoundRobin, Sticky and CooperativeSticky", assignor)
			}
		}
		if len(names) == 0 {
			return misconfigured("Assignors: none; name one, or leave the default")
		}
		s.GroupOptions.Assignors = strings.Join(names, ",")
		return nil
	})
}

// committing is when what was handed out counts as done.
type committing int

const (
	commitMarks committing = iota
	commitAcked
	commitManual
	commitManualAcked
)

// byAsking tells whether to ask for the next says that what was given before is done.
func (how committing) byAsking() bool { return how == commitMarks || how == commitManual }

func (how committing) option() ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		s.committing, s.committingSet = how, true
		return nil
	})
}

// CommitAcked has a record count as done once the program says so, in any order: by Record.Ack or Batch.Ack. What is
// committed of a partition is the end of what is done without a gap. For programs with many workers.
func CommitAcked() ConsumerOption { return commitAcked.option() }

// CommitManual commits nothing except by Commit and CommitTo. What is done is what it is otherwise: asking for the next
// says it.
func CommitManual() ConsumerOption { return commitManual.option() }

// CommitManualAcked commits nothing except by Commit and CommitTo, and what is done is what the program says, as with
// CommitAcked.
func CommitManualAcked() ConsumerOption { return commitManualAcked.option() }

// CommitInterval is how often what is done is committed, +-20 %. 10 ms to a day, default 5 s.
func CommitInterval(d time.Duration) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.CommitEveryMs, err = positive("CommitInterval", d)
		return err
	})
}

// group checks what is said of the group, and has this package keep what is done.
func (s *consumerSettings) group() error {
	if s.GroupOptions.Group == "" {
		if s.GroupOptions != (capi.GroupOptions{}) || s.committingSet {
			return misconfigured("settings of a member of a group are given, and no group: ottla.Group")
		}
		return nil
	}
	if len(s.Assignments) > 0 {
		return misconfigured("Group and Assign are given; a group decides what its members read")
	}
	s.GroupOptions.Commit = capi.CommitAcked
	if s.committing == commitManual || s.committing == commitManualAcked {
		s.GroupOptions.Commit = capi.CommitManualAcked
	}
	return nil
}

// Event is what Poll gives: a *Batch, Assigned, GivingUp or Lost.
type Event interface{ event() }

// Assigned are partitions that the group has given to this member, besides those that it has. None: the group was
// decided anew, and nothing came.
type Assigned struct{ Partitions []TopicPartition }

// GivingUp are partitions that the group takes away. Nothing more of them is handed out. What is done of them when the
// next event is asked for is committed, and then they are given up; at the deadline at the latest.
type GivingUp struct {
	Partitions []TopicPartition
	Deadline   time.Time
}

// Lost are partitions that are somebody else's by now, perhaps: the membership was lost. What was not committed of them
// is read by others again.
type Lost struct{ Partitions []TopicPartition }

func (*Batch) event()   {}
func (Assigned) event() {}
func (GivingUp) event() {}
func (Lost) event()     {}

func eventOf(raw *capi.Event) Event {
	partitions := named(raw.Partitions)
	switch raw.Kind {
	case capi.EventAssigned:
		return Assigned{partitions}
	case capi.EventGivingUp:
		return GivingUp{partitions, time.Now().Add(raw.Left)}
	default:
		return Lost{partitions}
	}
}

// Poll waits for the next batch, or for what the group says: partitions that come and go. Programs that never call it
// leave that to the consumer. Asking says that what Poll gave before is done, and so does Next or a loop: those give
// nothing of what the group says, which waits for the next Poll. One goroutine reads. After an error that is not fatal, ask again.
func (c *Consumer) Poll(ctx context.Context) (Event, error) {
	fresh := true
	event, err := c.wait(ctx, func() (Event, error) {
		defer func() { fresh = false }()
		return c.look(nil, true, fresh, false)
	})
	if batch, is := event.(*Batch); is {
		c.hold(batch.piece())
	}
	return event, err
}

// Commit commits what is done, and waits until the group has it. ErrFenced once the membership is lost,
// ErrInvalidArgument without a group. A ctx that ends says nothing of the commit.
func (c *Consumer) Commit(ctx context.Context) error {
	tag, op := c.client.operation(nil)
	return c.client.await(ctx, tag, op, c.api.Commit(tag), "committing")
}

// CommitTo commits these offsets, of the next record to read in each partition, whatever is done, and waits until the
// group has them.
func (c *Consumer) CommitTo(ctx context.Context, offsets ...PartitionOffset) error {
	list, err := endsOf(offsets)
	if err != nil {
		return err
	}
	tag, op := c.client.operation(nil)
	return c.client.await(ctx, tag, op, c.api.CommitTo(list, tag), "committing")
}

// Subscribe reads these topics from now on, with the other members of the group; patterns as in Topics.
func (c *Consumer) Subscribe(topics ...string) error {
	for _, topic := range topics {
		if topic == "" || hasNUL(topic) {
			return badTopic(topic)
		}
	}
	return failed(c.api.Subscribe(topics))
}

// Close stops reading. Loops end with ErrClosed; records in hand stay usable. A member of a group commits what is done
// and leaves it, which takes 10 seconds at most; the record in hand is not done. Closing again waits for the first
// time's end.
func (c *Consumer) Close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout,
		fmt.Errorf("the consumer was not closed within %v", closeTimeout))
	defer cancel()
	return c.Shutdown(ctx)
}

// Shutdown is Close with a limit of the caller's: if ctx ends first, the member leaves its group in the background.
func (c *Consumer) Shutdown(ctx context.Context) error {
	c.stop()
	select {
	case <-c.gone:
		return nil
	default:
	}
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return c.client.ended(ctx, "leaving the group", false)
	}
}

// stop closes the consumer, and waits for nothing.
func (c *Consumer) stop() {
	c.closing.Do(func() {
		close(c.closed)
		if c.member {
			tag, op := c.client.operation(nil)
			failure := c.api.Leave(tag)
			go func() {
				// What it ends with is told by nobody but the end: the client may be gone first.
				_ = c.client.await(context.Background(), tag, op, failure, "leaving the group")
				close(c.gone)
			}()
		} else {
			c.api.Close()
			close(c.gone)
		}
		c.client.mu.Lock()
		delete(c.client.consumers, c.tag)
		c.client.mu.Unlock()
		c.api.Free()
	})
}
