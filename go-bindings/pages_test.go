package ottla

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What stands in docs/*.md as Ottla's is what stands here between "page: NAME" and "end page", and is compiled.

func pageClient(ctx context.Context) error {
	// page: client
	client, err := NewClientContext(ctx, Brokers("kafka-1:9092", "kafka-2:9092"), ClientID("billing"))
	if err != nil {
		return err // ErrConnect, ErrTLS, ErrAuthentication: nothing goes on in the background
	}
	defer client.Close()
	// end page
	_, err = client.Stats()
	return err
}

func pageProduce(ctx context.Context, client *Client, v []byte) error {
	// page: produce
	producer, err := client.NewProducer()
	if err != nil {
		return err
	}
	producer.Produce(ctx, Record{Topic: "events", Value: v}, func(at Delivery, err error) {
		if err != nil {
			fmt.Println(err, MaybeWritten(err))
		}
	})
	at, err := producer.ProduceSync(ctx, Record{Topic: "events", Value: v})
	if err != nil {
		return err
	}
	fmt.Println(at.Partition, at.Offset)
	err = producer.Flush(ctx) // ErrUndelivered if records failed and nobody was told
	// end page
	return err
}

func pageKeys(client *Client) error {
	// page: keys
	_, err := client.NewProducer(Partitioner(KeyHash)) // murmur2, as Java's client
	// end page
	return err
}

func pageGroup(ctx context.Context, client *Client, handle func(Record) error) error {
	// page: group
	consumer, err := client.NewConsumer(Group("billing"), Topics("events"))
	if err != nil {
		return err
	}
	defer consumer.Close() // commits what is done, and leaves
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			fmt.Println(err) // one that is not fatal: reading goes on
			continue
		}
		if err := handle(record); err != nil {
			return err // not done: read again by who has the partition next
		}
	}
	// end page
	return nil
}

func pageManual(ctx context.Context, client *Client, store func(*Batch) error) error {
	// page: manual
	consumer, err := client.NewConsumer(Group("billing"), Topics("events"), CommitManual())
	if err != nil {
		return err
	}
	for batch, err := range consumer.Batches(ctx) {
		if err != nil {
			return err
		}
		if err := store(batch); err != nil {
			return err
		}
		if err := consumer.Commit(ctx); err != nil {
			return err // ErrFenced: the partitions are somebody else's by now
		}
	}
	// end page
	return nil
}

func pageWorkers(ctx context.Context, client *Client, queue chan Record) error {
	// page: workers
	consumer, err := client.NewConsumer(Group("billing"), Topics("events"), CommitAcked())
	if err != nil {
		return err
	}
	for record, err := range consumer.Records(ctx) {
		if err != nil {
			return err
		}
		queue <- record // a worker calls record.Ack(), in any order
	}
	// end page
	return nil
}

func pageEvents(ctx context.Context, consumer *Consumer, open, flush func([]TopicPartition), handle func(*Batch)) error {
	// page: events
	for {
		event, err := consumer.Poll(ctx)
		if err != nil {
			return err
		}
		switch event := event.(type) {
		case *Batch:
			handle(event)
		case Assigned:
			open(event.Partitions)
		case GivingUp:
			flush(event.Partitions) // until event.Deadline; committed when Poll is called again
		case Lost:
			fmt.Println("others have", event.Partitions)
		}
	}
	// end page
}

func pageEnd(ctx context.Context, client *Client) error {
	// page: end
	hour := AtTime(time.Now().Add(-time.Hour))
	parts := []TopicPartition{{Topic: "events", Start: hour}, {Topic: "events", Partition: 1, Start: hour}}
	consumer, err := client.NewConsumer(Assign(parts...))
	if err != nil {
		return err
	}
	ends, err := client.Offsets(ctx, Latest(), parts...)
	if err != nil {
		return err
	}
	for {
		batch, err := consumer.NextUntil(ctx, ends)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println(len(batch.Records))
	}
	// end page
}

func pageSecurity() (*Client, error) {
	// page: security
	return NewClient(Brokers("broker:9094"), TLS(CA("ca.pem")), ScramSHA512("alice", os.Getenv("PASSWORD")))
	// end page
}

func pageProperties(settings map[string]string) (*Client, error) {
	// page: properties
	// What is not taken is an error that names what there is instead.
	return NewClient(Properties(settings))
	// end page
}

// Each block of Go in docs/*.md that is Ottla's begins with its name, and is what was compiled here.
func TestPagesSayWhatIsCompiled(t *testing.T) {
	Limit(t)
	_ = []any{pageClient, pageProduce, pageKeys, pageGroup, pageManual, pageWorkers, pageEvents, pageEnd, pageSecurity, pageProperties}
	source, err := os.ReadFile("pages_test.go")
	if err != nil {
		t.Fatal(err)
	}
	compiled := map[string]string{}
	for _, part := range strings.Split(string(source), "\n\t// page: ")[1:] {
		name, code, _ := strings.Cut(part, "\n")
		code, _, found := strings.Cut(code, "\t// end page")
		if !found {
			t.Fatalf("%s has no end", name)
		}
		var lines []string
		for line := range strings.Lines(code) {
			lines = append(lines, strings.TrimPrefix(line, "\t"))
		}
		compiled[name] = strings.TrimRight(strings.Join(lines, ""), "\n")
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	shown := map[string]bool{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "```go ottla ")[1:] {
			name, code, _ := strings.Cut(block, "\n")
			code, _, _ = strings.Cut(code, "\n```")
			// Outside of the package names have its name before them.
			if want, ok := compiled[name]; !ok || strings.ReplaceAll(code, "ottla.", "") != want {
				t.Errorf("%s: '%s' is not what is compiled:\n%s\n--- compiled:\n%s", page, name, code, want)
			}
			shown[name] = true
		}
	}
	for name := range compiled {
		if !shown[name] {
			t.Errorf("no page shows '%s'", name)
		}
	}
}
