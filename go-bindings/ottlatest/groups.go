package ottlatest

import ottla "github.com/ottla-rs/ottla/go-bindings"

// Group is where a group is, and how many members it has; a failure ends the test.
func (b *Broker) Group(id string) (state ottla.GroupState, members int) {
	b.t.Helper()
	state, members, err := b.embedded.Group(id)
	if err != nil {
		b.t.Fatalf("asking for group %s: %v", id, err)
	}
	return state, members
}

// Committed is the offset that a group has committed for a partition, -1 for none; a failure ends the test.
func (b *Broker) Committed(group, topic string, partition int32) int64 {
	b.t.Helper()
	offset, any, err := b.embedded.Committed(group, topic, partition)
	if err != nil {
		b.t.Fatalf("asking for %s[%d] of group %s: %v", topic, partition, group, err)
	}
	if !any {
		return -1
	}
	return offset
}

// SetCommitted commits an offset, whoever is in the group; a failure ends the test.
func (b *Broker) SetCommitted(group, topic string, partition int32, offset int64) {
	b.t.Helper()
	if err := b.embedded.SetCommitted(group, topic, partition, offset); err != nil {
		b.t.Fatalf("committing %s[%d] for group %s: %v", topic, partition, group, err)
	}
}
