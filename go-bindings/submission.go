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
	who      listeners
	count    int
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

// listeners are who is to be told of which record, by its number.
type listeners struct {
	// done is shorter than there are records where the last have no callback.
	done []func(Delivery, error)
	// waits are those of ProduceSync, by number.
	waits []waiting
	// stamps are what the user gave, -1 for none; shorter than there are records where the last were given none.
	stamps []int64
}

// waiting is a ProduceSync that waits for record at.
type waiting struct {
	at int
	// It has room for one: the outcome, or a word of the caller that it waits no more.
	to chan<- synced
}

// add notes who is to be told of record at, which is the next one. likely: so many will probably have a callback.
func (l *listeners) add(at int, done func(Delivery, error), wait chan<- synced, stampMs int64, likely int) {
	if done != nil {
		if l.done == nil {
			l.done = make([]func(Delivery, error), 0, max(likely, at+1))
		}
		for len(l.done) < at {
			l.done = append(l.done, nil)
		}
		l.done = append(l.done, done)
	}
	if wait != nil {
		l.waits = append(l.waits, waiting{at, wait})
	}
	if stampMs >= 0 {
		for len(l.stamps) < at {
			l.stamps = append(l.stamps, -1)
		}
		l.stamps = append(l.stamps, stampMs)
	}
}

// from is who is to be told of the records from number n on, counted anew.
func (l listeners) from(n int) listeners {
	rest := listeners{done: l.done[min(n, len(l.done)):], stamps: l.stamps[min(n, len(l.stamps)):]}
	for _, w := range l.waits {
		if w.at >= n {
			rest.waits = append(rest.waits, waiting{w.at - n, w.to})
		}
	}
	return rest
}

// synced is what ProduceSync waits for.
type synced struct {
	delivery Delivery
	err      error
}

func (s *submission) callback(i int) func(Delivery, error) {
	if i < len(s.who.done) {
		return s.who.done[i]
	}
	return nil
}

// timestampMs is the stamp of record i of a run that starts at record first, whose stamp the
// broker or the producer said to be ms. A topic may stamp records itself on append; then the
// first record's own time was overruled, and that of the others with it.
func (s *submission) timestampMs(first, i int, ms int64) int64 {
	own := func(i int) int64 {
		if i < len(s.who.stamps) {
			return s.who.stamps[i]
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

// hasStamps tells whether any record from number first on was given a timestamp by the user.
func (s *submission) hasStamps(first int) bool { return first < len(s.who.stamps) }

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
	for _, w := range s.who.waits {
		if w.at < o.first || w.at >= o.first+o.count {
			continue
		}
		select {
		case w.to <- synced{o.delivery(w.at - o.first), o.err}:
			told++
		default:
			// Its context ended before: nobody is there to be told.
		}
	}
	callbacks := 0
	for _, done := range s.who.done[min(o.first, len(s.who.done)):min(o.first+o.count, len(s.who.done))] {
		if done != nil {
			callbacks++
		}
	}
	if o.err != nil {
		s.producer.unheard(o.count-told-callbacks, s.topic, o.err)
	}
	if callbacks > 0 {
		s.producer.calls.push(o)
	}
	s.producer.told.Add(int64(o.count))
}
