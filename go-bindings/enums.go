package ottla

import (
	"fmt"
	"math"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Codec is how batches are compressed: one of None, LZ4, Snappy, Gzip and Zstd, at its usual level or
// at another. Batches that do not get smaller are sent as they are.
type Codec struct{ kind, level int32 }

var (
	// None: not at all.
	None = Codec{kind: capi.CompressionNone}
	// LZ4 is the default: little CPU.
	LZ4 = Codec{kind: capi.CompressionLz4}
	// Snappy is about as quick as LZ4 and as small.
	Snappy = Codec{kind: capi.CompressionSnappy}
	// Gzip is small and slow, for consumers that read nothing better. Levels 1 (quick) to 9
	// (small), usually 6.
	Gzip = Codec{kind: capi.CompressionGzip}
	// Zstd is smaller than Gzip at a fraction of its CPU. Levels -7 (quick) to 22 (small), usually
	// 3; from 20 on, readers need 128 MiB for a batch.
	Zstd = Codec{kind: capi.CompressionZstd}
)

var codecNames = map[int32]string{
	capi.CompressionNone: "none", capi.CompressionLz4: "lz4", capi.CompressionSnappy: "snappy",
	capi.CompressionGzip: "gzip", capi.CompressionZstd: "zstd",
}

// Level is the codec at a level of its own, 0 at its usual one. Whether the codec has the level is
// checked when the producer is made.
func (c Codec) Level(level int) Codec {
	c.level = int32(max(math.MinInt32, min(level, math.MaxInt32)))
	return c
}

// String is the codec's name, and its level if that is not the usual one: "zstd:9".
func (c Codec) String() string {
	name, known := codecNames[c.kind]
	switch {
	case !known:
		return fmt.Sprintf("Codec(%d)", c.kind)
	case c.level == 0:
		return name
	default:
		return fmt.Sprintf("%s:%d", name, c.level)
	}
}

func (c Codec) check(option string) error {
	if _, known := codecNames[c.kind]; !known {
		return misconfigured("%s is %v; it is one of None, LZ4, Snappy, Gzip and Zstd", option, c)
	}
	return nil
}

// Compression is how the producer compresses. Default LZ4.
func Compression(c Codec) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		s.Compression, s.CompressionLevel = c.kind, c.level
		return c.check("Compression")
	})
}

// TopicCompression is how the batches of one topic are compressed, instead of Compression. May be
// given for many topics.
func TopicCompression(topic string, c Codec) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		if _, err := word("TopicCompression", topic); err != nil {
			return err
		}
		s.TopicCompressions = append(s.TopicCompressions, capi.TopicCompression{
			Topic: topic, Compression: c.kind, Level: c.level,
		})
		return c.check("TopicCompression")
	})
}

// Partitioning is how a record that names no partition gets one.
type Partitioning int32

const (
	// Spread is by load, and the default: wherever a broker answers quickly, a batch at a time.
	// Keys are payload.
	Spread = Partitioning(capi.PartitionerSpread)
	// KeyHash is by key (murmur2), as Java's client does: records with the same key go to the
	// same partition, in order, for as long as the topic keeps its number of partitions. Such
	// records wait for the leader of their partition and share its fate; records without a key
	// are spread.
	KeyHash = Partitioning(capi.PartitionerKeyHash)
)

// Partitioner is how records that name no partition get one. Default Spread.
func Partitioner(p Partitioning) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		if p != Spread && p != KeyHash {
			return misconfigured("Partitioner is Partitioning(%d); it is Spread or KeyHash", p)
		}
		s.Partitioner = int32(p)
		return nil
	})
}

// Acknowledgement says who must have a record before it counts as written. The numbers are not Kafka's.
type Acknowledgement int32

const (
	// AcksAll is all in-sync replicas, and the default. Idempotent: what is sent again is written
	// once.
	AcksAll = Acknowledgement(capi.AcksAll)
	// AcksLeader is the leader alone: a record is lost if it dies before a follower has it. Not
	// idempotent: a batch whose answer is lost is sent again and may be written twice.
	AcksLeader = Acknowledgement(capi.AcksLeader)
	// AcksNone is nobody: a record counts as written, at offset -1, once it is handed to the
	// socket. What the broker refuses or loses is lost silently.
	AcksNone = Acknowledgement(capi.AcksNone)
)

// Acks sets who must have a record before it counts as written. Default AcksAll.
func Acks(a Acknowledgement) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		if a != AcksAll && a != AcksLeader && a != AcksNone {
			return misconfigured("Acks is Acknowledgement(%d); it is AcksAll, AcksLeader or AcksNone", a)
		}
		s.Acks = int32(a)
		return nil
	})
}

// ClusterChange says whether a client fails or goes on once another cluster, one with another id, answers at its
// addresses.
type ClusterChange int32

const (
	// ClusterChangeFail is the default: nothing more. All ends with ErrClusterChanged, whose message
	// names both clusters.
	ClusterChangeFail = ClusterChange(capi.ClusterChangeFail)
	// ClusterChangeAccept goes on with the new one. Records that may be in the old cluster's log fail
	// as perhaps written, what was never sent goes to the new one; consumers begin there by their
	// start.
	ClusterChangeAccept = ClusterChange(capi.ClusterChangeAccept)
)

// OnClusterChange sets whether the client fails or goes on once another cluster answers at its addresses. Default
// ClusterChangeFail.
func OnClusterChange(c ClusterChange) ClientOption {
	return clientOption(func(s *clientSettings) error {
		if c != ClusterChangeFail && c != ClusterChangeAccept {
			return misconfigured("OnClusterChange is ClusterChange(%d); it is ClusterChangeFail or ClusterChangeAccept", c)
		}
		s.ClientOptions.OnClusterChange = int32(c)
		return nil
	})
}

// Doubt says where a batch whose records named no partition goes once nobody can tell whether it was written: its
// connection was cut before the answer, or its broker is silent while others answer.
type Doubt int32

const (
	// InDoubtWait is the default: it waits for its partition and is sent again there, where the
	// broker recognises what it has. No duplicate, and the acknowledgement comes as late as the
	// broker does.
	InDoubtWait = Doubt(capi.InDoubtWait)
	// InDoubtReroute sends it to another partition at once: acknowledged soon, and perhaps
	// written twice. Records with a partition of their own wait all the same.
	InDoubtReroute = Doubt(capi.InDoubtReroute)
)

// InDoubt sets where a batch goes once nobody can tell whether it was written. Default InDoubtWait.
func InDoubt(d Doubt) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		if d != InDoubtWait && d != InDoubtReroute {
			return misconfigured("InDoubt is Doubt(%d); it is InDoubtWait or InDoubtReroute", d)
		}
		s.InDoubt = int32(d)
		return nil
	})
}
