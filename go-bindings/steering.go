package ottla

import (
	"context"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// PartitionOffset is an offset of a partition: what Client.Offsets found, and what Consumer.NextUntil reads up to.
type PartitionOffset struct {
	Topic     string
	Partition int32
	Offset    int64
	// Err says why there is none.
	Err error
}

// Offsets looks up offsets of partitions, in as few requests as there are leaders: of the oldest records that are kept
// (Earliest), of the ends (Latest: one past the newest record), or of the first records of a time (AtTime; the end if
// there is none). The Start of the partitions does not count. The results are in the order of the partitions, each with
// an error of its own; the error of the call says that nobody could be asked. What may be otherwise in a moment is asked
// again, for as long as a request may take, and ctx allows.
func (c *Client) Offsets(ctx context.Context, at Position, partitions ...TopicPartition) ([]PartitionOffset, error) {
	if at.kind == capi.StartOffset {
		return nil, invalid("AtOffset(%d) is an offset already: look up Earliest, Latest or AtTime", at.value)
	}
	placed := make([]TopicPartition, len(partitions))
	for i, p := range partitions {
		placed[i] = TopicPartition{Topic: p.Topic, Partition: p.Partition, Start: at}
	}
	wanted, err := placesOf(placed)
	if err != nil {
		return nil, err
	}
	tag, op := c.operation(nil)
	found, failure := c.api.ListOffsets(wanted, tag)
	if found != nil {
		defer found.Free()
	}
	if err := c.await(ctx, tag, op, failure, "looking up offsets"); err != nil {
		return nil, err
	}
	results := make([]PartitionOffset, len(partitions))
	for i, p := range partitions {
		offset, failure := found.At(i)
		results[i] = PartitionOffset{Topic: p.Topic, Partition: p.Partition, Offset: offset, Err: failed(failure)}
	}
	return results, nil
}

// Pause hands out nothing of these partitions, from when it returns, until they are resumed; their Start does not count.
// What was fetched of them is kept, within BufferMemory, and nothing more is fetched; what a loop over Records has in
// hand waits as well. All of them are paused or, after an error, none: ErrUnknownPartition if one is not read. Pausing
// again does nothing.
func (c *Consumer) Pause(partitions ...TopicPartition) error {
	return c.steer(c.api.Pause, partitions)
}

// Resume hands these partitions out again, from where they were. Errors are those of Pause.
func (c *Consumer) Resume(partitions ...TopicPartition) error {
	return c.steer(c.api.Resume, partitions)
}

// Paused are the partitions that are paused; none once the consumer is closed.
func (c *Consumer) Paused() []TopicPartition {
	list, _ := c.api.Paused()
	return named(list)
}

// Assign reads these partitions, too. One that is read already goes on at its Start, as after a Seek. One that does not
// exist is told once, by what reads, and read when it does.
func (c *Consumer) Assign(partitions ...TopicPartition) error {
	wanted, err := placesOf(partitions)
	if err != nil {
		return err
	}
	return c.was(c.api.Assign(wanted))
}

// Unassign reads these partitions no more: nothing of them is handed out from when it returns, and what was fetched is
// dropped, also what a loop over Records has in hand. Those of a whole topic stay out until they are assigned. All of
// them are left or, after an error, none: ErrUnknownPartition if one is not read.
func (c *Consumer) Unassign(partitions ...TopicPartition) error {
	return c.steer(c.api.Unassign, partitions)
}

// Assignment are the partitions that are read: of Topics, those known so far; those of Assign, whether they are there
// or not. None once the consumer is closed.
func (c *Consumer) Assignment() []TopicPartition {
	list, _ := c.api.Assignment()
	return named(list)
}

// Position is the offset behind all that was taken of a partition, or passed over because it is not handed out (markers
// of transactions, what compaction has removed): the records of a batch in hand are before it. Before the first record
// where reading begins, once that is known. False until then, for a partition that is not read, and once the consumer
// is closed.
func (c *Consumer) Position(topic string, partition int32) (int64, bool) {
	return known(c.api.Position, topic, partition)
}

// Lag is how many offsets lie between the position of a partition and its end, as its leader told that with the last
// fetch: nobody is asked. Offsets without records count: 0 is the end, more is a bound. False until both are known, for a
// partition that is not read, and once the consumer is closed. The end of a paused partition is not heard of.
func (c *Consumer) Lag(topic string, partition int32) (int64, bool) {
	return known(c.api.Lag, topic, partition)
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
	return c.was(c.api.Seek(topic, partition, to.kind, to.value))
}

func (c *Consumer) steer(call func([]capi.Partition) *capi.Failure, partitions []TopicPartition) error {
	list := make([]capi.Partition, len(partitions))
	for i, p := range partitions {
		if p.Topic == "" || hasNUL(p.Topic) {
			return badTopic(p.Topic)
		}
		list[i] = capi.Partition{Topic: p.Topic, Partition: p.Partition}
	}
	return c.was(call(list))
}

// was ends a call that steers: loops look at what they have in hand, and whoever sleeps at what is left.
func (c *Consumer) was(failure *capi.Failure) error {
	if failure != nil {
		return failed(failure)
	}
	c.wakeUp()
	return nil
}

func known(ask func(string, int32) (int64, *capi.Failure), topic string, partition int32) (int64, bool) {
	if topic == "" || hasNUL(topic) {
		return 0, false
	}
	n, failure := ask(topic, partition)
	if failure != nil || n < 0 {
		return 0, false
	}
	return n, true
}

func placesOf(partitions []TopicPartition) ([]capi.Assignment, error) {
	list := make([]capi.Assignment, len(partitions))
	for i, p := range partitions {
		if p.Topic == "" || hasNUL(p.Topic) {
			return nil, badTopic(p.Topic)
		}
		if p.Partition < 0 {
			return nil, invalid("%s[%d]: partitions count from 0", p.Topic, p.Partition)
		}
		if wrong := p.Start.wrong(); wrong != "" {
			return nil, invalid("%s[%d]: %s", p.Topic, p.Partition, wrong)
		}
		list[i] = capi.Assignment{
			Topic: p.Topic, Partition: p.Partition, Start: p.Start.kind, StartValue: p.Start.value,
		}
	}
	return list, nil
}

func named(list []capi.Partition) []TopicPartition {
	out := make([]TopicPartition, len(list))
	for i, p := range list {
		out[i] = TopicPartition{Topic: p.Topic, Partition: p.Partition}
	}
	return out
}
