package ottla

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
)

// Whatever is done in whatever order, what may be committed is the first that is not.
func TestSharesKnowTheFirstRecordThatIsNotDone(t *testing.T) {
	Limit(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		records := make([]Record, 1+rng.IntN(150))
		for i := range records {
			// With gaps, as compaction leaves them.
			records[i].Offset = int64(i * 3)
		}
		s := &share{records: records}
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
	for name, raw := range map[string]string{
		"group": `"g"`, "instance_id": `"i"`, "session_timeout": "20000000000", "max_poll_interval": "60000000000",
		"commit_interval": "2000000000", "assignors": `"sticky,range"`, "commit": `"acked"`,
	} {
		o, err := groupProperty(name, json.RawMessage(raw))
		if err != nil || o == nil || o.consumer(&s) != nil {
			t.Fatal(name, o, err)
		}
	}
	o := s.GroupOptions
	if o.Group != "g" || o.InstanceID != "i" || o.SessionTimeoutMs != 20_000 || o.MaxPollIntervalMs != 60_000 ||
		o.CommitEveryMs != 2_000 || o.Assignors != "sticky,range" || s.committing != commitAcked {
		t.Errorf("%+v", s)
	}
	if o, err := groupProperty("max_bytes", nil); o != nil || err != nil {
		t.Error(o, err)
	}
	for word, needsGroup := range map[string]bool{"manual": false, "marks": true, "acked": true} {
		s := consumerSettings{}
		o, err := groupProperty("commit", json.RawMessage(`"`+word+`"`))
		if err != nil || o.consumer(&s) != nil {
			t.Fatal(err)
		}
		if err := s.group(); (err != nil) != needsGroup {
			t.Errorf("%s without a group: %v", word, err)
		}
	}
}
