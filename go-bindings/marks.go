package ottla

import (
	"slices"
	"sync"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// share is what the application has of a batch of a group's consumer, and which of its records are done: in any order,
// while what is committed may lie behind those only that are done without a gap.
type share struct {
	wanted *capi.Wanted
	// Where the records of the batch are. Not the records: who keeps one of them would keep all.
	offsets []int64

	mu sync.Mutex
	// Records before low are done, and those behind it whose bit is set; there are no bits before one is.
	low  int
	bits []uint64
}

// done says that records number from to below to are done. Twice does nothing.
func (s *share) done(from, to int) {
	switch low, moved := s.mark(from, to); {
	case !moved:
	case low == len(s.offsets):
		s.wanted.AckBefore(capi.EndOfBatch)
	default:
		s.wanted.AckBefore(s.offsets[low])
	}
}

// mark notes it, and gives the first record that is not done, and whether that is another one now.
func (s *share) mark(from, to int) (low int, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.low
	if from <= s.low {
		s.low = max(s.low, to)
	} else if from < to {
		if s.bits == nil {
			s.bits = make([]uint64, (len(s.offsets)+63)/64)
		}
		for i := from; i < to; i++ {
			s.bits[i/64] |= 1 << (i % 64)
		}
	}
	for s.bits != nil && s.low < len(s.offsets) && s.bits[s.low/64]&(1<<(s.low%64)) != 0 {
		s.low++
	}
	return s.low, s.low > before
}

// isNext tells whether all records before number i are done.
func (s *share) isNext(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.low == i
}

// find is the number of the record at an offset.
func (s *share) find(offset int64) (int, bool) {
	return slices.BinarySearch(s.offsets, offset)
}

// piece is records of a share, from one number to below another.
type piece struct {
	of       *share
	from, to int
}

func (p piece) done() {
	if p.of != nil {
		p.of.done(p.from, p.to)
	}
}

// Ack says that the record is done, in any order: what the group commits of a partition is the end of what is done
// without a gap. For CommitAcked; otherwise asking for the next record says it. Does nothing for a record that was not read as a
// member of a group, and once its partition is somebody else's.
func (r *Record) Ack() {
	if r.of == nil {
		return
	}
	if i, found := r.of.find(r.Offset); found {
		r.of.done(i, i+1)
	}
}

// Ack says that all records of the batch are done, as Record.Ack does of one.
func (b *Batch) Ack() { b.piece().done() }

// piece is what the batch is of the one that was fetched; of no share without a group.
func (b *Batch) piece() piece {
	if b.share == nil {
		return piece{}
	}
	return piece{b.share, b.at, b.at + len(b.Records)}
}
