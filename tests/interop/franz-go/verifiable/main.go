// verifiable is a member of a group through franz-go that says what it does, with the arguments and the lines of Kafka's
// VerifiableConsumer.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

type consumed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Count     int    `json:"count"`
	MinOffset int64  `json:"minOffset"`
	MaxOffset int64  `json:"maxOffset"`
}

type committed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

var printing sync.Mutex

func say(name string, members map[string]any) {
	printing.Lock()
	defer printing.Unlock()
	line := map[string]any{"timestamp": time.Now().UnixMilli(), "name": name}
	for key, value := range members {
		line[key] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

// tell says nothing of no partitions: franz-go calls back for those, too.
func tell(name string) func(context.Context, *kgo.Client, map[string][]int32) {
	return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
		list := []partition{}
		for topic, numbers := range topics {
			for _, number := range numbers {
				list = append(list, partition{topic, number})
			}
		}
		if len(list) > 0 {
			say(name, map[string]any{"partitions": list})
		}
	}
}

func main() {
	bootstrap := flag.String("bootstrap-server", "", "HOST:PORT, with commas")
	topic := flag.String("topic", "", "the topic")
	group := flag.String("group-id", "", "the group")
	protocol := flag.String("group-protocol", "classic", "classic or consumer")
	instance := flag.String("group-instance-id", "", "makes it a static member")
	session := flag.Int("session-timeout", 30_000, "milliseconds")
	reset := flag.String("reset-policy", "earliest", "earliest or latest")
	strategy := flag.String("assignment-strategy", "range", "range, sticky or cooperative-sticky")
	flag.Parse()
	offset := kgo.NewOffset().AtStart()
	if *reset == "latest" {
		offset = kgo.NewOffset().AtEnd()
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(*bootstrap, ",")...),
		kgo.ConsumerGroup(*group),
		kgo.ConsumeTopics(*topic),
		kgo.ConsumeResetOffset(offset),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(tell("partitions_assigned")),
		kgo.OnPartitionsRevoked(tell("partitions_revoked")),
		kgo.OnPartitionsLost(tell("partitions_revoked")),
	}
	if *protocol == "consumer" {
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	} else {
		balancers := map[string]kgo.GroupBalancer{
			"range":              kgo.RangeBalancer(),
			"sticky":             kgo.StickyBalancer(),
			"cooperative-sticky": kgo.CooperativeStickyBalancer(),
		}
		balancer, known := balancers[*strategy]
		if !known {
			fmt.Fprintf(os.Stderr, "franz-go has no assignor %q\n", *strategy)
			os.Exit(2)
		}
		timeout := time.Duration(*session) * time.Millisecond
		options = append(options, kgo.Balancers(balancer), kgo.SessionTimeout(timeout),
			kgo.HeartbeatInterval(min(3*time.Second, timeout/3)))
	}
	if *instance != "" {
		options = append(options, kgo.InstanceID(*instance))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	say("startup_complete", nil)
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 500)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil {
				fmt.Fprintf(os.Stderr, "franz-go: %s/%d: %v\n", topic, partition, err)
			}
		})
		handle(client, fetches)
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance()
	say("shutdown_complete", nil)
}

func handle(client *kgo.Client, fetches kgo.Fetches) {
	records := fetches.Records()
	if len(records) == 0 {
		return
	}
	parts := []consumed{}
	places := []committed{}
	fetches.EachPartition(func(part kgo.FetchTopicPartition) {
		if len(part.Records) == 0 {
			return
		}
		first, last := part.Records[0].Offset, part.Records[len(part.Records)-1].Offset
		parts = append(parts, consumed{part.Topic, part.Partition, len(part.Records), first, last})
		places = append(places, committed{part.Topic, part.Partition, last + 1})
	})
	say("records_consumed", map[string]any{"count": len(records), "partitions": parts})
	// What was read is committed also when it was told to end meanwhile.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := client.CommitRecords(ctx, records...)
	members := map[string]any{"offsets": places, "success": err == nil}
	if err != nil {
		members["error"] = err.Error()
	}
	say("offsets_committed", members)
}
