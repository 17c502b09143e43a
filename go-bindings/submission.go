package ottla

import (
	"slices"
	"sync"
	"sync/atomic"
)

// submission is what one call of the C library took, or will: who is to be told of which record.
type submission struct {
	producer *Producer
	topic    string
	// entries are shorter than count where the last records have nobody to tell.
	entries []entry
	count   int
	// waits is how many entries are of ProduceSync.
	waits int
	// left counts records without an outcome; whoever takes it to zero forgets the submission.
	left atomic.Int64

	mu sync.Mutex
	// open are the records that are with the engine, in order: what it should give no end to, the
	// client's close does. orphaned: it has, and nothing else may tell of any of them.
	open     []stretch
	orphaned bool
}

// stretch is records of a submission, from first to before end.
type stretch struct{ first, end int }

// entry is who is to be told of a record: a callback, or a waiting ProduceSync.
type entry struct {
	done func(Delivery, error)
	// It has room for one: the outcome, or a word of the caller that it waits no more.
	wait chan<- synced
	// timestampMs the user gave; -1 for none.
	timestampMs int64
}

// synced is what ProduceSync waits for.
type synced struct {
	delivery Delivery
	err      error
}

func (s *submission) callback(i int) func(Delivery, error) {
	if i < len(s.entries) {
		return s.entries[i].done
	}
	return nil
}

// timestampMs is the stamp of record i of a run that starts at record first, whose stamp the
// broker or the producer said to be ms. A topic may stamp records itself on append; then the
// first record's own time was overruled, and that of the others with it.
func (s *submission) timestampMs(first, i int, ms int64) int64 {
	own := func(i int) int64 {
		if i < len(s.entries) {
			return s.entries[i].timestampMs
		}
		return -1
	}
	if f := own(first); f >= 0 && f != ms {
		return ms
	}
	if t := own(i); t >= 0 {
		return t
	}
	return ms
}

// ends takes records out of those that are open. Outcomes come in few runs, mostly in order. False
// if the client's close has told of what was open: then they have their end.
func (s *submission) ends(first, end int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orphaned {
		return false
	}
	var split stretch
	kept := s.open[:0]
	for _, o := range s.open {
		before, behind := stretch{o.first, min(o.end, first)}, stretch{max(o.first, end), o.end}
		switch {
		case before.first < before.end && behind.first < behind.end:
			kept, split = append(kept, before), behind
		case before.first < before.end:
			kept = append(kept, before)
		case behind.first < behind.end:
			kept = append(kept, behind)
		}
	}
	if s.open = kept; split.first < split.end {
		i := 0
		for i < len(s.open) && s.open[i].first < split.first {
			i++
		}
		s.open = slices.Insert(s.open, i, split)
	}
	return true
}

// orphan takes all records without an outcome, to be told by the caller alone.
func (s *submission) orphan() []stretch {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.open
	s.open, s.orphaned = nil, true
	return open
}

// resolve tells an outcome to whom it concerns. Called by the goroutine that drains the engine,
// and for refusals by the one that submits; both keep the order of completion.
func (s *submission) resolve(c *Client, o outcome) {
	o.first = min(o.first, s.count)
	o.count = min(o.count, s.count-o.first)
	if s.ends(o.first, o.first+o.count) {
		s.tell(c, o)
	}
}

// tell is resolve for records that were taken out of those that are open.
func (s *submission) tell(c *Client, o outcome) {
	o.of = s
	told := 0
	// Straight to the waiting: one goroutine less on their way, and a callback that blocks can
	// not hold them up.
	for i := o.first; s.waits > 0 && i < min(o.first+o.count, len(s.entries)); i++ {
		if wait := s.entries[i].wait; wait != nil {
			select {
			case wait <- synced{o.delivery(i - o.first), o.err}:
				told++
			default:
				// Its context ended before: nobody is there to be told.
			}
		}
	}
	callbacks := 0
	for i := o.first; i < min(o.first+o.count, len(s.entries)); i++ {
		if s.entries[i].done != nil {
			callbacks++
		}
	}
	if o.err != nil {
		s.producer.unheard(o.count-told-callbacks, s.topic, o.err)
	}
	if callbacks > 0 {
		c.calls.push(o)
	}
	s.producer.unresolved.Add(-int64(o.count))
}
