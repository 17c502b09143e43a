// confluent-kafka-go in the benchmark of the bindings: see package measure.
package main

import (
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/ottla-rs/ottla/tests/bench/go/measure"
)

func main() { measure.Main(begin) }

var total uint64

func begin(job measure.Job) (measure.Client, func() error, error) {
	switch job.Figure {
	case "consume", "consume_lz4":
		consumer, err := kafka.NewConsumer(&kafka.ConfigMap{
			"bootstrap.servers": job.Bootstrap, "group.id": "bench", "enable.auto.commit": false,
			"queued.max.messages.kbytes": 65536, "fetch.message.max.bytes": 1 << 20,
		})
		if err != nil {
			return nil, nil, err
		}
		metadata, err := consumer.GetMetadata(&[]string{measure.Topic}[0], false, 10_000)
		if err != nil {
			return nil, nil, err
		}
		var partitions []kafka.TopicPartition
		topic := measure.Topic
		for _, p := range metadata.Topics[topic].Partitions {
			partitions = append(partitions, kafka.TopicPartition{Topic: &topic, Partition: p.ID, Offset: 0})
		}
		if err := consumer.Assign(partitions); err != nil {
			return nil, nil, err
		}
		return func(records int) (int, error) { return consume(consumer, records) }, consumer.Close, nil
	case "produce":
		producer, err := kafka.NewProducer(&kafka.ConfigMap{
			"bootstrap.servers": job.Bootstrap, "linger.ms": 5, "batch.size": 1_000_000, "batch.num.messages": 100_000,
			"enable.idempotence": true, "compression.type": "none", "queue.buffering.max.messages": 500_000,
			"go.produce.channel.size": 100_000, "go.events.channel.size": 100_000,
		})
		if err != nil {
			return nil, nil, err
		}
		values := measure.MakeValues()
		end := func() error { producer.Close(); return nil }
		return func(records int) (int, error) { return records, produce(producer, values, records) }, end, nil
	}
	return nil, nil, fmt.Errorf("nothing is called %q", job.Figure)
}

func produce(producer *kafka.Producer, values [][]byte, records int) error {
	topic := measure.Topic
	ended := make(chan error, 1)
	go func() {
		told := 0
		var failed error
		for event := range producer.Events() {
			switch m := event.(type) {
			case *kafka.Message:
				if m.TopicPartition.Error != nil {
					failed = m.TopicPartition.Error
				}
				total += uint64(m.TopicPartition.Offset)
				if told++; told == records {
					ended <- failed
					return
				}
			case kafka.Error:
				if m.IsFatal() {
					ended <- m
					return
				}
			}
		}
	}()
	for i := range records {
		message := &kafka.Message{
			TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: kafka.PartitionAny},
			Value:          values[i%measure.Values],
		}
		for {
			err := producer.Produce(message, nil)
			if err == nil {
				break
			}
			if e, full := err.(kafka.Error); !full || e.Code() != kafka.ErrQueueFull {
				return err
			}
			producer.Flush(1)
		}
	}
	for producer.Flush(1000) > 0 && len(ended) == 0 {
	}
	return <-ended
}

func consume(consumer *kafka.Consumer, records int) (int, error) {
	read := 0
	for read < records {
		switch m := consumer.Poll(1000).(type) {
		case *kafka.Message:
			total += measure.Sum(m.Value)
			read++
		case kafka.Error:
			if m.IsFatal() {
				return read, m
			}
		}
	}
	return read, nil
}
