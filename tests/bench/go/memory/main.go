// A reader for tests/bench/memory.py: what a process in Go takes at most.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// pause is for how long nothing is read, once a third is.
const pause = 3 * time.Second

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: memory PARTITIONS RECORDS BOOTSTRAP")
	}
	if err := read(os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func read(count, bootstrap string) error {
	records, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	empty, err := memory("VmRSS:")
	if err != nil {
		return err
	}
	client, err := ottla.NewClient(ottla.Brokers(bootstrap))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	consumer, err := client.NewConsumer(ottla.Topics("bench"))
	if err != nil {
		return err
	}
	begun, number, paused := time.Now(), 0, false
	for batch, err := range consumer.Batches(context.Background()) {
		if err != nil {
			return err
		}
		number += len(batch.Records)
		if !paused && number > records/3 {
			paused = true
			time.Sleep(pause)
		}
		if number >= records {
			break
		}
	}
	took := (time.Since(begun) - pause).Seconds()
	peak, err := memory("VmHWM:")
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"peak_mb": peak, "empty_mb": empty, "per_second": float64(number) / took,
	})
}

// memory of this process, in MB.
func memory(field string) (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if words := bytes.Fields(line); len(words) > 1 && string(words[0]) == field {
			kb, err := strconv.Atoi(string(words[1]))
			return float64(kb) * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("the system does not tell %s", field)
}
