// Command franz-go produces and consumes through franz-go and compares, to the byte.
//
// It takes the bootstrap string as its argument or from BOOTSTRAP, creates a topic per codec with
// CreateTopics, and deletes it again.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	records    = 10_000
	partitions = 4
	deadline   = 60 * time.Second
)

func main() {
	bootstrap := os.Getenv("BOOTSTRAP")
	if len(os.Args) > 1 {
		bootstrap = os.Args[1]
	}
	if bootstrap == "" {
		fmt.Fprintln(os.Stderr, "usage: franz-go BOOTSTRAP")
		os.Exit(2)
	}
	codecs := []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()},
		{"gzip", kgo.GzipCompression()},
		{"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()},
		{"zstd", kgo.ZstdCompression()},
	}
	for _, c := range codecs {
		if err := check(strings.Split(bootstrap, ","), c.name, c.codec); err != nil {
			fmt.Fprintf(os.Stderr, "franz-go/%s: %v\n", c.name, err)
			os.Exit(1)
		}
		fmt.Printf("franz-go/%s: %d records equal\n", c.name, records)
	}
}

func check(seeds []string, name string, codec kgo.CompressionCodec) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	topic := fmt.Sprintf("franz-go-%s-%d", name, time.Now().UnixNano())
	// Idempotence and acks=all are franz-go's defaults; the partition is the record's.
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(seeds...),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := createTopic(ctx, producer, topic); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	if err := produce(ctx, producer, topic); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	if err := consume(ctx, seeds, topic); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return deleteTopic(ctx, producer, topic)
}

// expected is the record with this index: some without key, some tombstones, repeated headers.
func expected(topic string, index int) *kgo.Record {
	record := &kgo.Record{Topic: topic, Partition: int32(index % partitions)}
	if index%5 != 0 {
		record.Key = fmt.Appendf(nil, "key-%d", index)
	}
	if index%97 != 0 {
		record.Value = bytes.Repeat(fmt.Appendf(nil, "value-%d-", index), 1+index%20)
	}
	if index%3 == 0 {
		record.Headers = []kgo.RecordHeader{
			{Key: "h", Value: fmt.Appendf(nil, "%d", index)},
			{Key: "h", Value: []byte("again")},
		}
	}
	return record
}

func createTopic(ctx context.Context, client *kgo.Client, name string) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic = name
	topic.NumPartitions = partitions
	topic.ReplicationFactor = -1
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = int32(deadline.Milliseconds())
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(response.Topics) != 1 {
		return fmt.Errorf("%d answers for one topic", len(response.Topics))
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func deleteTopic(ctx context.Context, client *kgo.Client, name string) error {
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = int32(deadline.Milliseconds())
	request.TopicNames = []string{name}
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(response.Topics) != 1 {
		return fmt.Errorf("%d answers for one topic", len(response.Topics))
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func produce(ctx context.Context, client *kgo.Client, topic string) error {
	batch := make([]*kgo.Record, records)
	for index := range batch {
		batch[index] = expected(topic, index)
	}
	results := client.ProduceSync(ctx, batch...)
	if err := results.FirstErr(); err != nil {
		return err
	}
	next := make([]int64, partitions)
	for _, result := range results {
		record := result.Record
		if record.Offset != next[record.Partition] {
			return fmt.Errorf("partition %d: acknowledged at offset %d, %d is next",
				record.Partition, record.Offset, next[record.Partition])
		}
		next[record.Partition]++
	}
	return nil
}

func consume(ctx context.Context, seeds []string, topic string) error {
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(seeds...),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return err
	}
	defer consumer.Close()
	seen := 0
	next := make([]int64, partitions)
	for seen < records {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("after %d records: %w", seen, err)
		}
		var wrong error
		fetches.EachRecord(func(got *kgo.Record) {
			if got.Offset != next[got.Partition] {
				wrong = errors.Join(wrong, fmt.Errorf("partition %d: offset %d, %d is next",
					got.Partition, got.Offset, next[got.Partition]))
			}
			next[got.Partition]++
			wrong = errors.Join(wrong, compare(topic, got))
			seen++
		})
		if wrong != nil {
			return wrong
		}
	}
	if seen != records {
		return fmt.Errorf("%d records, %d were produced", seen, records)
	}
	return nil
}

// compare finds the record that belongs at this offset of this partition: records were spread in
// turn, and offsets follow their order.
func compare(topic string, got *kgo.Record) error {
	want := expected(topic, int(got.Offset)*partitions+int(got.Partition))
	same := equal(got.Key, want.Key) && equal(got.Value, want.Value) &&
		len(got.Headers) == len(want.Headers)
	for i := 0; same && i < len(want.Headers); i++ {
		same = got.Headers[i].Key == want.Headers[i].Key &&
			equal(got.Headers[i].Value, want.Headers[i].Value)
	}
	if !same {
		return fmt.Errorf("partition %d offset %d: got %v, expected %v",
			got.Partition, got.Offset, got, want)
	}
	return nil
}

// equal tells null from empty, which bytes.Equal does not.
func equal(a, b []byte) bool {
	return (a == nil) == (b == nil) && bytes.Equal(a, b)
}
