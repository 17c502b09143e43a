package ottla

import (
	"math/rand/v2"
	"testing"
)

// Whatever is done in whatever order, what may be committed is the first that is not.
func TestSharesKnowTheFirstRecordThatIsNotDone(t *testing.T) {
	Limit(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		records := make([]int64, 1+rng.IntN(150))
		for i := range records {
			// With gaps, as compaction leaves them.
			records[i] = int64(i * 3)
		}
		s := &share{offsets: records}
		done := make([]bool, len(records))
		low := 0
		for range 100 {
			from := rng.IntN(len(records) + 1)
			to := min(len(records), from+rng.IntN(4))
			for i := from; i < to; i++ {
				done[i] = true
			}
			before := low
			for low < len(done) && done[low] {
				low++
			}
			at, moved := s.mark(from, to)
			if at != low || moved != (low > before) || !s.isNext(low) || s.isNext(low+1) {
				t.Fatalf("%d (%v), not %d, after %d to %d of %d", at, moved, low, from, to, len(records))
			}
		}
		for i := range records {
			if n, found := s.find(int64(i * 3)); !found || n != i {
				t.Fatal(i, n, found)
			}
		}
		if _, found := s.find(1); found {
			t.Fatal("a record that is not there")
		}
	}
}

// Settings of a member, by their names and in the units that properties are read to.
func TestPropertiesOfAMember(t *testing.T) {
	Limit(t)
	var s consumerSettings
	err := Properties(map[string]string{
		"group.id": "g", "group.instance.id": "i", "session.timeout.ms": "20000", "max.poll.interval.ms": "60000",
		"auto.commit.interval.ms": "2000", "partition.assignment.strategy": "sticky,range", "enable.auto.offset.store": "false",
	}).consumer(&s)
	if err != nil {
		t.Fatal(err)
	}
	o := s.GroupOptions
	if o.Group != "g" || o.InstanceID != "i" || o.SessionTimeoutMs != 20_000 || o.MaxPollIntervalMs != 60_000 ||
		o.CommitEveryMs != 2_000 || o.Assignors != "sticky,range" || s.committing != commitAcked {
		t.Errorf("%+v", s)
	}
	// Programs without a group say that nothing is to be committed, too.
	for value, needsGroup := range map[string]bool{"false": false, "true": true} {
		s := consumerSettings{}
		if err := Properties(map[string]string{"enable.auto.commit": value}).consumer(&s); err != nil {
			t.Fatal(err)
		}
		if err := s.group(); (err != nil) != needsGroup {
			t.Errorf("%s without a group: %v", value, err)
		}
	}
}
