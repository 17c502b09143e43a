// franz-go in the benchmark of the bindings: see package measure.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ottla-rs/ottla/tests/bench/go/measure"
)

func main() { measure.Main(begin) }

var total uint64

func begin(job measure.Job) (measure.Client, func() error, error) {
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(job.Bootstrap, ",")...)}
	consumes := job.Figure == "consume" || job.Figure == "consume_lz4"
	switch {
	case consumes:
		options = append(options, kgo.ConsumeTopics(measure.Topic),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	case job.Figure == "produce":
		options = append(options, kgo.ProducerBatchCompression(kgo.NoCompression()),
			kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchMaxBytes(1_000_000),
			kgo.MaxBufferedRecords(250_000))
	default:
		return nil, nil, fmt.Errorf("nothing is called %q", job.Figure)
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, nil, err
	}
	end := func() error { client.Close(); return nil }
	if consumes {
		return func(records int) (int, error) { return consume(client, records) }, end, nil
	}
	values := measure.MakeValues()
	return func(records int) (int, error) { return records, produce(client, values, records) }, end, nil
}

func produce(client *kgo.Client, values [][]byte, records int) error {
	ctx := context.Background()
	told := 0
	var failed error
	for i := range records {
		client.Produce(ctx, &kgo.Record{Topic: measure.Topic, Value: values[i%measure.Values]},
			func(r *kgo.Record, err error) {
				if err != nil {
					failed = fmt.Errorf("record %d: %w", i, err)
				}
				total += uint64(r.Offset)
				told++
			})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if told != records {
		return fmt.Errorf("%d of %d records were told of", told, records)
	}
	return failed
}

func consume(client *kgo.Client, records int) (int, error) {
	read := 0
	for read < records {
		fetches := client.PollFetches(context.Background())
		if errs := fetches.Errors(); len(errs) > 0 {
			return read, errs[0].Err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			total += measure.Sum(r.Value)
			read++
		})
	}
	return read, nil
}
