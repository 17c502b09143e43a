package ottla

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func statsClient(t *testing.T) (*Client, *Producer) {
	t.Helper()
	broker, err := StartEmbeddedBroker(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	if err := broker.CreateTopic("t", 6, 1); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(Brokers(broker.Bootstrap()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	producer, err := client.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	return client, producer
}

func TestStatsWhenAllIsWell(t *testing.T) {
	Limit(t)
	client, producer := statsClient(t)
	for range 10 {
		if _, err := producer.ProduceSync(t.Context(), Record{Topic: "t", Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := client.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if !stats.BadStuff.IsZero() || stats.BadStuff.String() != "none" {
		t.Errorf("bad stuff: %v", stats.BadStuff)
	}
	if stats.RecordsAcknowledged != 10 || stats.Connects == 0 || stats.ConnectionsOpen == 0 {
		t.Errorf("%+v", stats)
	}
	var sent, acknowledged uint64
	for id, broker := range stats.Brokers {
		produce := broker.Requests["Produce"]
		sent += produce.Sent
		acknowledged += stats.AcknowledgedByBroker[id]
		if produce.Sent > 0 && (produce.Latency.P50.Duration <= 0 || produce.Latency.Max.Duration > time.Hour) {
			t.Errorf("broker %d: %+v", id, produce.Latency)
		}
	}
	if sent != stats.ProduceRequests || acknowledged != 10 {
		t.Errorf("%d sent, %d acknowledged by broker: %+v", sent, acknowledged, stats)
	}
}

// The library's names and the struct's are the same ones.
func TestStatsNameEverything(t *testing.T) {
	Limit(t)
	client, producer := statsClient(t)
	if _, err := producer.ProduceSync(t.Context(), Record{Topic: "t", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	text, failure := client.api.StatsJSON()
	if failure != nil {
		t.Fatal(failed(failure))
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	var stats Stats
	if err := decoder.Decode(&stats); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(stats)
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours any
	if err := json.Unmarshal([]byte(text), &theirs); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(back, &ours); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(keys(theirs), keys(ours)) {
		t.Errorf("the library says\n%s\nthe struct\n%s", text, back)
	}
}

// keys is a JSON value with every leaf forgotten.
func keys(value any) any {
	object, ok := value.(map[string]any)
	if !ok {
		return nil
	}
	out := map[string]any{}
	for name, inner := range object {
		out[name] = keys(inner)
	}
	return out
}

func TestBadStuffInOneLine(t *testing.T) {
	Limit(t)
	for want, bad := range map[string]BadStuff{
		"none":                 {},
		"retries 1, errors 20": {Retries: 1, Errors: 20},
		"throttled 3, metadata per 1,000 messages 0.500": {Throttled: 3, MetadataPer1000Messages: 0.5},
		"errors 1, requests per 1,000 messages 900":      {Errors: 1, RequestsPer1000Messages: 899.7},
	} {
		if got := bad.String(); got != want || bad.IsZero() != (want == "none") {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStatsOfAClosedClient(t *testing.T) {
	Limit(t)
	client, _ := statsClient(t)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Stats(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestEveryKindOfBadStuffIsNamed(t *testing.T) {
	Limit(t)
	var bad BadStuff
	fields := reflect.ValueOf(&bad).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		bad = BadStuff{}
		switch field := fields.Field(i); field.Kind() {
		case reflect.Uint64:
			field.SetUint(71)
		default:
			field.SetFloat(71)
		}
		line := bad.String()
		if bad.IsZero() || !strings.Contains(line, "71") || strings.Contains(line, ",") && !strings.HasSuffix(name, "Per1000Messages") {
			t.Errorf("%s: %q", name, line)
		}
	}
}

func TestSeconds(t *testing.T) {
	Limit(t)
	var s Seconds
	if err := json.Unmarshal([]byte("1.5"), &s); err != nil || s.Duration != 1500*time.Millisecond {
		t.Errorf("%v, %v", s, err)
	}
	if text, err := json.Marshal(s); err != nil || string(text) != "1.5" {
		t.Errorf("%s, %v", text, err)
	}
	if err := json.Unmarshal([]byte(`"1"`), &s); err == nil {
		t.Error("text is a number of seconds")
	}
}
