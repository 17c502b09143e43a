package ottla

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// ClientOption is a setting of NewClient.
type ClientOption interface{ client(*clientSettings) error }

// ProducerOption is a setting of Client.NewProducer.
type ProducerOption interface{ producer(*producerSettings) error }

// ConsumerOption is a setting of Client.NewConsumer.
type ConsumerOption interface{ consumer(*consumerSettings) error }

type clientSettings struct {
	capi.ClientOptions
	connectTimeout time.Duration
	echo           bool
	// logger is nil for slog.Default, from warnings on; quiet: none.
	logger *slog.Logger
	quiet  bool
	// tokens is what the client keeps of its token provider.
	tokens any
}

type producerSettings struct {
	capi.ProducerOptions
	deliveryTimeout, maxBlock time.Duration
}

type consumerSettings struct {
	capi.ConsumerOptions
	topicsStart bool

	committing    committing
	committingSet bool
}

type (
	clientOption   func(*clientSettings) error
	producerOption func(*producerSettings) error
	consumerOption func(*consumerSettings) error
)

func (o clientOption) client(s *clientSettings) error       { return o(s) }
func (o producerOption) producer(s *producerSettings) error { return o(s) }
func (o consumerOption) consumer(s *consumerSettings) error { return o(s) }

// Defaults that this package has to know; the others are the engine's.
const (
	defaultConnectTimeout  = 10 * time.Second
	defaultDeliveryTimeout = 2 * time.Minute
	defaultMaxBlock        = time.Minute
	defaultBufferMemory    = 64 << 20
	defaultMaxRecordSize   = 1 << 20
)

// maxMaxBlock is the engine's bound of a max_block.
const maxMaxBlock = 24 * time.Hour

// milliseconds rounds a duration up to what the engine counts in, so that a short one does not
// become 0, which would be the default.
func milliseconds(name string, d time.Duration) (int64, error) {
	if d < 0 {
		return 0, misconfigured("%s is %v; it can not be negative", name, d)
	}
	ms := d / time.Millisecond
	if d%time.Millisecond != 0 {
		ms++
	}
	return int64(ms), nil
}

func positive(name string, d time.Duration) (int64, error) {
	if d <= 0 {
		return 0, misconfigured("%s is %v; it has to be positive", name, d)
	}
	return milliseconds(name, d)
}

func size(name string, bytes int) (int, error) {
	if bytes <= 0 {
		return 0, misconfigured("%s is %d; it has to be positive", name, bytes)
	}
	return bytes, nil
}

func word(name, s string) (string, error) {
	if s == "" || hasNUL(s) {
		return "", misconfigured("%s is %q: it needs a name, without NUL", name, s)
	}
	return s, nil
}

// Brokers are the brokers to ask first, each "host:port"; a few of the cluster are enough.
func Brokers(addresses ...string) ClientOption {
	return clientOption(func(s *clientSettings) error {
		list, err := word("Brokers", strings.Join(addresses, ","))
		s.Bootstrap = list
		return err
	})
}

// ClientID is the client's name in the brokers' logs and quotas. Default "ottla".
func ClientID(id string) ClientOption {
	return clientOption(func(s *clientSettings) (err error) {
		s.ClientOptions.ClientID, err = word("ClientID", id)
		return err
	})
}

// ConnectTimeout is how long NewClient tries to reach a broker. 1 ms to 1 h, default 10 s.
func ConnectTimeout(d time.Duration) ClientOption {
	return clientOption(func(s *clientSettings) (err error) {
		s.connectTimeout = d
		s.ConnectTimeoutMs, err = positive("ConnectTimeout", d)
		return err
	})
}

// RequestTimeout is how long a broker may take to answer. 100 ms to 1 h, default 30 s.
func RequestTimeout(d time.Duration) ClientOption {
	return clientOption(func(s *clientSettings) (err error) {
		s.RequestTimeoutMs, err = positive("RequestTimeout", d)
		return err
	})
}

// IdleTimeout closes a connection that nothing was asked on for so long, or up to a fifth sooner. 1 s
// to one day, default 9 minutes: brokers close theirs after 10.
func IdleTimeout(d time.Duration) ClientOption {
	return clientOption(func(s *clientSettings) (err error) {
		s.IdleTimeoutMs, err = positive("IdleTimeout", d)
		return err
	})
}

// Rack is the rack (availability zone) this process runs in, by the name that brokers have in
// broker.rack. A client that does not need all brokers then uses those of its own rack first.
// Default: none, then it takes its brokers from all racks alike.
func Rack(name string) ClientOption {
	return clientOption(func(s *clientSettings) (err error) {
		s.ClientOptions.Rack, err = word("Rack", name)
		return err
	})
}

// Ordinal is this process's number among count equal ones, from 0 (a StatefulSet's ordinal): which
// brokers each uses is then shared out exactly instead of by chance. Default: by chance.
func Ordinal(index, count int) ClientOption {
	return clientOption(func(s *clientSettings) error {
		if index < 0 || index >= count || count > math.MaxInt32 {
			return misconfigured("Ordinal is %d of %d; ordinals count from 0 to one below the count", index, count)
		}
		s.OrdinalIndex, s.OrdinalCount = uint32(index), uint32(count)
		return nil
	})
}

// Logger is where the library says what it has to say: a broker that can not be reached, records that
// are lost. What lasts is said once. A line has its own level, the time it was said, a "target"
// ("ottla::net", "ottla::cluster", "ottla::producer", "ottla::consumer") and what it is about. From which
// level on is the handler's choice, asked once, when the client is made; nil: nothing is said.
//
// Without this option it is slog.Default, from warnings on. What is said concerns the process: with
// several clients, each logger gets the lines of all of them, once. Handlers run on a goroutine of
// their own, which lives while such a client does; a handler that is too slow loses lines, which the
// next one counts.
func Logger(logger *slog.Logger) ClientOption {
	return clientOption(func(s *clientSettings) error {
		s.logger, s.quiet = logger, logger == nil
		return nil
	})
}

// Echo makes a client without a broker, for tests of programs: every record is written at once,
// to partition 0 unless it names another; topics exist when used; consumers of the same client
// read back what was produced (the last 16 MiB of a partition).
func Echo() ClientOption {
	return clientOption(func(s *clientSettings) error {
		s.echo = true
		return nil
	})
}

// Linger is how long a record may wait for company. To 60 s, default 5 ms. None waits while its broker is idle
// and this process makes fewer than 180 requests a second. 0: none ever does, which costs brokers a request
// for nearly every record, as a flush after each record does.
func Linger(d time.Duration) ProducerOption {
	return producerOption(func(s *producerSettings) (err error) {
		s.LingerMs, err = milliseconds("Linger", d)
		if d == 0 {
			s.LingerMs = -1 // 0 is the default there.
		}
		return err
	})
}

// DeliveryTimeout is how long a record may take from acceptance to its outcome. 10 ms to one day,
// default 2 min.
func DeliveryTimeout(d time.Duration) ProducerOption {
	return producerOption(func(s *producerSettings) (err error) {
		s.deliveryTimeout = d
		s.DeliveryTimeoutMs, err = positive("DeliveryTimeout", d)
		return err
	})
}

// MaxBlock is how long producing a record may wait for buffer space; then it fails with
// ErrBufferFull. A context may end the wait sooner. To one day, default 60 s; 0: not at all.
func MaxBlock(d time.Duration) ProducerOption {
	return producerOption(func(s *producerSettings) error {
		if d < 0 || d > maxMaxBlock {
			return misconfigured("MaxBlock is %v; allowed is 0 to %v", d, maxMaxBlock)
		}
		s.maxBlock = d
		return nil
	})
}

// BatchSize is how many bytes a batch has at most. 1 KiB to 16 MiB, default 256 KiB.
func BatchSize(bytes int) ProducerOption {
	return producerOption(func(s *producerSettings) (err error) {
		s.BatchSize, err = size("BatchSize", bytes)
		return err
	})
}

// MaxRecordSize is how many bytes key, value and headers of a record have at most. To 100 MiB,
// default 1 MiB.
func MaxRecordSize(bytes int) ProducerOption {
	return producerOption(func(s *producerSettings) (err error) {
		s.MaxRecordSize, err = size("MaxRecordSize", bytes)
		return err
	})
}

// BufferOption is a setting of producers and consumers.
type BufferOption interface {
	ProducerOption
	ConsumerOption
}

type bufferMemory int

// BufferMemory bounds, for a producer, the bytes of records without an outcome, for a consumer
// the bytes fetched and not taken yet. Default 64 MiB, for a producer 1 MiB at least.
func BufferMemory(bytes int) BufferOption { return bufferMemory(bytes) }

func (b bufferMemory) producer(s *producerSettings) (err error) {
	s.BufferMemory, err = size("BufferMemory", int(b))
	return err
}

func (b bufferMemory) consumer(s *consumerSettings) (err error) {
	s.BufferBytes, err = size("BufferMemory", int(b))
	return err
}

// Position is where reading starts.
type Position struct {
	kind  int32
	value int64
}

// Earliest starts at the oldest record that is kept. It is the default.
func Earliest() Position { return Position{kind: capi.StartEarliest} }

// Latest starts with what is written from now on: once the partition's leader was asked for its end,
// soon after the consumer is made.
func Latest() Position { return Position{kind: capi.StartLatest} }

// AtOffset starts at an offset, 0 or more.
func AtOffset(offset int64) Position { return Position{capi.StartOffset, offset} }

// AtTime starts at the first record that is as young as t, or younger. A t before 1970, like the zero
// time, is refused where the position is used: Earliest reads everything.
func AtTime(t time.Time) Position { return Position{capi.StartTimestamp, t.UnixMilli()} }

// wrong says what can not be a position; "" for those that can.
func (p Position) wrong() string {
	switch {
	case p.value >= 0:
		return ""
	case p.kind == capi.StartTimestamp:
		return fmt.Sprintf("AtTime(%v) is before 1970; Earliest reads everything", time.UnixMilli(p.value).UTC())
	default:
		return fmt.Sprintf("AtOffset(%d): offsets count from 0", p.value)
	}
}

// TopicPartition is a partition to read and where to start in it.
type TopicPartition struct {
	Topic     string
	Partition int32
	Start     Position
}

// Topics are read with all their partitions. Not together with Assign. With Group, a name that begins with ^ is a pattern (RE2)
// of whole names: "^orders-.*".
func Topics(names ...string) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		for _, name := range names {
			if _, err := word("Topics", name); err != nil {
				return err
			}
		}
		s.ConsumerOptions.Topics = append(s.ConsumerOptions.Topics, names...)
		return nil
	})
}

// Assign are partitions to read. Not together with Topics.
func Assign(partitions ...TopicPartition) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		for _, p := range partitions {
			if _, err := word("Assign", p.Topic); err != nil {
				return err
			}
			if wrong := p.Start.wrong(); wrong != "" {
				return misconfigured("Assign of %s[%d]: %s", p.Topic, p.Partition, wrong)
			}
			if p.Partition < 0 {
				return misconfigured("Assign of %s[%d]: partitions count from 0", p.Topic, p.Partition)
			}
			s.Assignments = append(s.Assignments, capi.Assignment{
				Topic: p.Topic, Partition: p.Partition, Start: p.Start.kind, StartValue: p.Start.value,
			})
		}
		return nil
	})
}

// Start is where reading of Topics starts. Default Earliest. Partitions found after the consumer was
// made (the topic grew, or was made then) are read from their first record, whatever Start says: all of
// it is new.
func Start(at Position) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		s.ConsumerOptions.Start, s.StartValue, s.topicsStart = at.kind, at.value, true
		if wrong := at.wrong(); wrong != "" {
			return misconfigured("Start: %s", wrong)
		}
		return nil
	})
}

// MaxWait is how long a broker may wait for MinBytes. Default 500 ms; 0: not at all.
func MaxWait(d time.Duration) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.MaxWaitMs, err = milliseconds("MaxWait", d)
		if d == 0 {
			s.MaxWaitMs = -1
		}
		return err
	})
}

// Isolation says which records of transactions are read.
type Isolation int32

const (
	// ReadUncommitted reads all that was written, also in transactions that were aborted or are still open.
	// The default, as that of Kafka's own consumer.
	ReadUncommitted Isolation = 1
	// ReadCommitted reads nothing of transactions that were aborted, and nothing beyond the first one that is
	// still open: that is the partition's end, for Lag and Latest, too.
	ReadCommitted Isolation = 2
)

// IsolationLevel says which records of transactions are read. Default ReadUncommitted.
func IsolationLevel(isolation Isolation) ConsumerOption {
	return consumerOption(func(s *consumerSettings) error {
		if isolation != ReadUncommitted && isolation != ReadCommitted {
			return misconfigured("IsolationLevel: %d is neither ReadUncommitted nor ReadCommitted", isolation)
		}
		s.Isolation = int32(isolation)
		return nil
	})
}

// MinBytes is how many bytes a broker waits for before it answers. Default 1.
func MinBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.MinBytes, err = size("MinBytes", bytes)
		return err
	})
}

// MaxBytes is how large a broker's answer may be. Default 8 MiB.
func MaxBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.MaxBytes, err = size("MaxBytes", bytes)
		return err
	})
}

// MaxPartitionBytes is the share of one partition in an answer. Default 1 MiB.
func MaxPartitionBytes(bytes int) ConsumerOption {
	return consumerOption(func(s *consumerSettings) (err error) {
		s.MaxPartitionBytes, err = size("MaxPartitionBytes", bytes)
		return err
	})
}
