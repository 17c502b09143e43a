package ottla

import "github.com/ottla-rs/ottla/go-bindings/internal/capi"

// GroupState is where a group of an embedded cluster is.
type GroupState int32

const (
	// GroupNone: nobody has joined or committed.
	GroupNone = GroupState(capi.TestGroupNone)
	// GroupEmpty has no members.
	GroupEmpty = GroupState(capi.TestGroupEmpty)
	// GroupRebalancing: its members are changing.
	GroupRebalancing = GroupState(capi.TestGroupRebalancing)
	// GroupStable: all have what they are to have.
	GroupStable = GroupState(capi.TestGroupStable)
)

// Group is where a group is, and how many members it has.
func (b *EmbeddedBroker) Group(id string) (state GroupState, members int, err error) {
	if hasNUL(id) {
		return GroupNone, 0, invalid("the group %q has a NUL in it", id)
	}
	at, members, failure := b.api.Group(id)
	return GroupState(at), members, failed(failure)
}

// Committed is the offset that a group has committed for a partition; false: none.
func (b *EmbeddedBroker) Committed(group, topic string, partition int32) (int64, bool, error) {
	if hasNUL(group) || hasNUL(topic) {
		return 0, false, invalid("the group %q or the topic %q has a NUL in it", group, topic)
	}
	offset, failure := b.api.Committed(group, topic, partition)
	return max(0, offset), offset >= 0, failed(failure)
}

// SetCommitted commits an offset, whoever is in the group; makes the group if there is none.
func (b *EmbeddedBroker) SetCommitted(group, topic string, partition int32, offset int64) error {
	if hasNUL(group) || hasNUL(topic) {
		return invalid("the group %q or the topic %q has a NUL in it", group, topic)
	}
	return failed(b.api.SetCommitted(group, topic, partition, offset))
}
