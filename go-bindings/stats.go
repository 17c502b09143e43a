package ottla

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Stats are the counters of all clients of this process on one cluster, added up.
type Stats struct {
	// BadStuff is the part to look at first: zero when all is well.
	BadStuff BadStuff `json:"bad_stuff"`

	Connects         uint64 `json:"connects"`
	ConnectFailures  uint64 `json:"connect_failures"`
	ConnectionsOpen  uint64 `json:"connections_open"`
	MetadataRequests uint64 `json:"metadata_requests"`
	// MetadataReasons are the metadata requests by what made them necessary.
	MetadataReasons MetadataReasons `json:"metadata_reasons"`
	// HintsApplied counts leaders learnt from the answers of brokers, without asking.
	HintsApplied uint64 `json:"hints_applied"`
	// ReplicasChosen counts partitions that came to be read from a replica in this client's rack, and
	// ReplicasLeft how often such a replica was left for the leader because of trouble.
	ReplicasChosen      uint64 `json:"replicas_chosen"`
	ReplicasLeft        uint64 `json:"replicas_left"`
	ProduceRequests     uint64 `json:"produce_requests"`
	ProduceRetries      uint64 `json:"produce_retries"`
	ProduceBytes        uint64 `json:"produce_bytes"`
	ProduceBatches      uint64 `json:"produce_batches"`
	RecordsAcknowledged uint64 `json:"records_acknowledged"`
	RecordsFailed       uint64 `json:"records_failed"`
	// RecordsRerouted were bound to a partition and taken to another one, unsent.
	RecordsRerouted uint64 `json:"records_rerouted"`
	FetchRequests   uint64 `json:"fetch_requests"`
	FetchBytes      uint64 `json:"fetch_bytes"`
	RecordsConsumed uint64 `json:"records_consumed"`
	// AcknowledgedByBroker are records by broker id.
	AcknowledgedByBroker map[int32]uint64 `json:"acknowledged_by_broker"`
	// Requests are those sent, of all brokers, by name ("Produce", "Metadata", ...).
	Requests map[string]uint64 `json:"requests"`
	// RequestsPer1000Messages are all of these for each 1,000 records acknowledged or consumed.
	RequestsPer1000Messages float64 `json:"requests_per_1000_messages"`
	// OtherRequestsPerHour are those that move no records, all but Produce and Fetch; of a pool that is
	// younger than an hour, as many as there were.
	OtherRequestsPerHour map[string]float64 `json:"other_requests_per_hour"`
	RetryBudget          RetryBudgets       `json:"retry_budget"`
	// PanicEntries counts how often more than half of the brokers were bad at once, so that none
	// was avoided.
	PanicEntries uint64 `json:"panic_entries"`
	// Departed are brokers that the cluster had once and that are forgotten since, added up.
	Departed BrokerStats `json:"departed"`
	// Brokers are by id; a negative one is a bootstrap address whose broker is not known.
	Brokers map[int32]BrokerStats `json:"brokers"`
}

// BadStuff counts the things that should not happen, over all brokers.
type BadStuff struct {
	// Retries are requests that exist only because an earlier one failed.
	Retries uint64 `json:"retries"`
	// Refused are dials.
	Refused uint64 `json:"refused"`
	// Timeouts are dials and requests that took too long.
	Timeouts uint64 `json:"timeouts"`
	// DialFailures failed in another way: no such host, TLS, authentication.
	DialFailures uint64 `json:"dial_failures"`
	// Losses are connections that the broker closed, or that had to be given up.
	Losses uint64 `json:"losses"`
	// Reconnects are connections made in the place of a lost one.
	Reconnects uint64 `json:"reconnects"`
	// Errors are answers that say that the request, or a part of it, failed.
	Errors uint64 `json:"errors"`
	// Throttled are answers that asked for a pause.
	Throttled uint64 `json:"throttled"`
	// Ejections counts how often a broker was taken out of use for a while.
	Ejections uint64 `json:"ejections"`
	// MetadataPer1000Messages leaves out first contact, new topics and the periodic refresh.
	MetadataPer1000Messages float64 `json:"metadata_per_1000_messages"`
	RecordsFailed           uint64  `json:"records_failed"`
	// RequestsPer1000Messages are Produce requests, while nearly every one of many records makes a request
	// of its own (more than 500, at more than 200 records a second, for half a minute).
	RequestsPer1000Messages float64 `json:"requests_per_1000_messages"`
	// TLSUnverified is 1 if TLS does not verify the certificates of brokers.
	TLSUnverified uint64 `json:"tls_unverified"`
}

// IsZero says whether all is well.
func (b BadStuff) IsZero() bool { return b == BadStuff{} }

// String is one line: what is not zero, or "none".
func (b BadStuff) String() string {
	var words []string
	for _, count := range []struct {
		name string
		n    uint64
	}{
		{"retries", b.Retries},
		{"refused", b.Refused},
		{"timeouts", b.Timeouts},
		{"dial failures", b.DialFailures},
		{"losses", b.Losses},
		{"reconnects", b.Reconnects},
		{"errors", b.Errors},
		{"throttled", b.Throttled},
		{"ejections", b.Ejections},
		{"records failed", b.RecordsFailed},
		{"TLS unverified", b.TLSUnverified},
	} {
		if count.n > 0 {
			words = append(words, fmt.Sprintf("%s %d", count.name, count.n))
		}
	}
	if b.MetadataPer1000Messages > 0 {
		words = append(words, fmt.Sprintf("metadata per 1,000 messages %.3f", b.MetadataPer1000Messages))
	}
	if b.RequestsPer1000Messages > 0 {
		words = append(words, fmt.Sprintf("requests per 1,000 messages %.0f", b.RequestsPer1000Messages))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// MetadataReasons are metadata requests by what made them necessary.
type MetadataReasons struct {
	FirstContact uint64 `json:"first_contact"`
	NewTopic     uint64 `json:"new_topic"`
	Periodic     uint64 `json:"periodic"`
	// Trouble: a leader is missing, or refused and named no other; a broker was lost or silent.
	Trouble     uint64 `json:"trouble"`
	Rebootstrap uint64 `json:"rebootstrap"`
}

// RetryBudgets hold what may be spent on retries.
type RetryBudgets struct {
	Produce RetryBudgetStats `json:"produce"`
	Fetch   RetryBudgetStats `json:"fetch"`
}

// RetryBudgetStats is one retry budget.
type RetryBudgetStats struct {
	// Level is the requests that may be retried at once now; nil before the first request.
	Level *float64 `json:"level"`
	// Delayed are requests that had to wait because it was empty.
	Delayed uint64 `json:"delayed"`
}

// BrokerStats is one broker.
type BrokerStats struct {
	Dials    uint64 `json:"dials"`
	Connects uint64 `json:"connects"`
	// Reconnects are the connects in the place of a connection that was lost.
	Reconnects   uint64 `json:"reconnects"`
	Refused      uint64 `json:"refused"`
	DialTimeouts uint64 `json:"dial_timeouts"`
	// DialFailures failed in another way: no such host, TLS, authentication.
	DialFailures    uint64 `json:"dial_failures"`
	Losses          uint64 `json:"losses"`
	IdleCloses      uint64 `json:"idle_closes"`
	ConnectionsOpen uint64 `json:"connections_open"`
	Ejections       uint64 `json:"ejections"`
	// Probes are attempts to use the broker again while it is ejected.
	Probes uint64 `json:"probes"`
	// Late counts how often a connection's oldest request was unanswered for unusually long.
	Late      uint64 `json:"late"`
	Throttled uint64 `json:"throttled"`
	// ThrottleTime is the pauses asked for, in total.
	ThrottleTime        Seconds `json:"throttle_time"`
	RecordsAcknowledged uint64  `json:"records_acknowledged"`
	// SetUp is from the dial to a connection that is ready.
	SetUp LatencyStats `json:"set_up"`
	// Requests are by name: "Produce", "Fetch" and so on.
	Requests map[string]RequestStats `json:"requests"`
}

// RequestStats are requests of one kind to one broker.
type RequestStats struct {
	Sent     uint64 `json:"sent"`
	Answered uint64 `json:"answered"`
	// Errors are the answers that say that the request, or a part of it, failed.
	Errors   uint64 `json:"errors"`
	Timeouts uint64 `json:"timeouts"`
	// Disconnected are requests whose connection ended before the answer.
	Disconnected uint64 `json:"disconnected"`
	// Retries are the requests that exist only because an earlier one failed.
	Retries  uint64 `json:"retries"`
	BytesOut uint64 `json:"bytes_out"`
	BytesIn  uint64 `json:"bytes_in"`
	InFlight uint64 `json:"in_flight"`
	// Latency is from the request to its answer; a Fetch waits at the broker for data.
	Latency LatencyStats `json:"latency"`
}

// LatencyStats says how long something took; quantiles are right within 12.5 %.
type LatencyStats struct {
	Count uint64  `json:"count"`
	Mean  Seconds `json:"mean"`
	P50   Seconds `json:"p50"`
	P90   Seconds `json:"p90"`
	P99   Seconds `json:"p99"`
	P999  Seconds `json:"p999"`
	Max   Seconds `json:"max"`
}

// Seconds is a duration that is a number of seconds in JSON.
type Seconds struct{ time.Duration }

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var seconds float64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return err
	}
	s.Duration = time.Duration(seconds * float64(time.Second))
	return nil
}

// MarshalJSON writes a number of seconds.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(s.Seconds()) }

// Stats gives the counters of all clients of this process on the cluster, added up.
func (c *Client) Stats() (Stats, error) {
	text, failure := c.api.StatsJSON()
	if failure != nil {
		return Stats{}, failed(failure)
	}
	var stats Stats
	if err := read(text, &stats); err != nil {
		return Stats{}, err
	}
	return stats, nil
}
