// Command sarama is a member of a group through sarama that says what it does, with the arguments and the lines of Kafka's
// VerifiableConsumer; but for the end of commits, which sarama does not tell.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

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

type handler struct{}

func (handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim runs for one partition, from when it has come until it goes.
func (handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	own := []map[string]any{{"topic": claim.Topic(), "partition": claim.Partition()}}
	say("partitions_assigned", map[string]any{"partitions": own})
	for message := range claim.Messages() {
		say("records_consumed", map[string]any{"count": 1, "partitions": []map[string]any{{
			"topic": message.Topic, "partition": message.Partition, "count": 1,
			"minOffset": message.Offset, "maxOffset": message.Offset,
		}}})
		session.MarkMessage(message, "")
	}
	session.Commit()
	say("partitions_revoked", map[string]any{"partitions": own})
	return nil
}

func main() {
	bootstrap := flag.String("bootstrap-server", "", "HOST:PORT, with commas")
	topic := flag.String("topic", "", "the topic")
	group := flag.String("group-id", "", "the group")
	protocol := flag.String("group-protocol", "classic", "classic, which is all that it has")
	instance := flag.String("group-instance-id", "", "makes it a static member")
	session := flag.Int("session-timeout", 30_000, "milliseconds")
	reset := flag.String("reset-policy", "earliest", "earliest or latest")
	strategy := flag.String("assignment-strategy", "range", "range, roundrobin, sticky or cooperative-sticky")
	flag.Parse()
	strategies := map[string]sarama.BalanceStrategy{
		"range":              sarama.NewBalanceStrategyRange(),
		"roundrobin":         sarama.NewBalanceStrategyRoundRobin(),
		"sticky":             sarama.NewBalanceStrategySticky(),
		"cooperative-sticky": sarama.NewBalanceStrategyCooperativeSticky(),
	}
	chosen, known := strategies[*strategy]
	if !known || *protocol != "classic" {
		fmt.Fprintf(os.Stderr, "sarama has no assignor %q, or no protocol %q\n", *strategy, *protocol)
		os.Exit(2)
	}
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	timeout := time.Duration(*session) * time.Millisecond
	config.Consumer.Group.Session.Timeout = timeout
	config.Consumer.Group.Heartbeat.Interval = min(3*time.Second, timeout/3)
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{chosen}
	config.Consumer.Group.InstanceId = *instance
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	if *reset == "latest" {
		config.Consumer.Offsets.Initial = sarama.OffsetNewest
	}
	member, err := sarama.NewConsumerGroup(strings.Split(*bootstrap, ","), *group, config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sarama:", err)
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	say("startup_complete", nil)
	for ctx.Err() == nil {
		// It ends with each eager rebalance.
		err := member.Consume(ctx, []string{*topic}, handler{})
		if err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "sarama:", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	if err := member.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "sarama:", err)
	}
	say("shutdown_complete", nil)
}
