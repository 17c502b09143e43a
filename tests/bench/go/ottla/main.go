// Ottla in the benchmark of the bindings: see package measure.
package main

import (
	"context"
	"fmt"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/tests/bench/go/measure"
)

func main() { measure.Main(begin) }

// many is how many values one ProduceMany gets.
const many = 1000

var total uint64

func begin(job measure.Job) (measure.Client, func() error, error) {
	client, err := ottla.NewClient(ottla.Brokers(job.Bootstrap))
	if err != nil {
		return nil, nil, err
	}
	if job.Figure == "consume" || job.Figure == "consume_lz4" {
		consumer, err := client.NewConsumer(ottla.Topics(measure.Topic), ottla.Start(ottla.Earliest()))
		if err != nil {
			return nil, nil, err
		}
		return func(records int) (int, error) { return consume(consumer, records) }, client.Close, nil
	}
	producer, err := client.NewProducer(ottla.Compression(ottla.None))
	if err != nil {
		return nil, nil, err
	}
	values := measure.MakeValues()
	ways := map[string]func(int) error{
		"produce":       func(n int) error { return produce(producer, values, n) },
		"produce_quiet": func(n int) error { return produceQuietly(producer, values, n) },
		"produce_many":  func(n int) error { return produceMany(producer, values, n) },
	}
	way := ways[job.Figure]
	if way == nil {
		return nil, nil, fmt.Errorf("nothing is called %q", job.Figure)
	}
	return func(records int) (int, error) { return records, way(records) }, client.Close, nil
}

// produce has a callback for each record, which captures what it needs.
func produce(producer *ottla.Producer, values [][]byte, records int) error {
	ctx := context.Background()
	told := 0
	var failed error
	for i := range records {
		producer.Produce(ctx, ottla.Record{Topic: measure.Topic, Value: values[i%measure.Values]},
			func(d ottla.Delivery, err error) {
				if err != nil {
					failed = fmt.Errorf("record %d: %w", i, err)
				}
				total += uint64(d.Offset)
				told++
			})
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	if told != records {
		return fmt.Errorf("%d of %d records were told of", told, records)
	}
	return failed
}

// produceQuietly leaves the outcome to Flush.
func produceQuietly(producer *ottla.Producer, values [][]byte, records int) error {
	ctx := context.Background()
	for i := range records {
		producer.Produce(ctx, ottla.Record{Topic: measure.Topic, Value: values[i%measure.Values]}, nil)
	}
	return producer.Flush(ctx)
}

func produceMany(producer *ottla.Producer, values [][]byte, records int) error {
	ctx := context.Background()
	for sent := 0; sent < records; {
		first := sent % (measure.Values - many)
		n := min(many, records-sent)
		if _, err := producer.ProduceMany(ctx, measure.Topic, values[first:first+n]); err != nil {
			return err
		}
		sent += n
	}
	return producer.Flush(ctx)
}

func consume(consumer *ottla.Consumer, records int) (int, error) {
	read := 0
	for record, err := range consumer.Records(context.Background()) {
		if err != nil {
			return read, err
		}
		total += measure.Sum(record.Value)
		if read++; read >= records {
			break
		}
	}
	return read, nil
}
