package ottla

import "encoding/json"

// Cluster is what a client knows of its cluster.
type Cluster struct {
	// ID is the cluster's own; "" until a broker has told it.
	ID string `json:"cluster_id"`
	// Brokers are by id.
	Brokers map[int32]BrokerState `json:"brokers"`
	// Topics are those that producers and consumers of this process use, by name.
	Topics map[string]TopicState `json:"topics"`
}

// BrokerState is a broker of a Cluster.
type BrokerState struct {
	// Address is "host:port".
	Address string `json:"address"`
	// Rack is "" if it has told none.
	Rack string `json:"rack"`
	// Connections that are open to it.
	Connections int `json:"connections"`
	// Health is "good", "unreachable" (the last dial failed) or "ejected" (it answered with errors too often).
	Health string `json:"health"`
}

// TopicState is a topic of a Cluster.
type TopicState struct {
	// ID is "" while it is not known, and where brokers are too old to tell.
	ID string `json:"id"`
	// Partitions are in order; there are none while they are not known.
	Partitions []PartitionState `json:"partitions"`
	// Error is why it can not be used; "" if nothing is known against it.
	Error string `json:"error"`
}

// PartitionState is a partition of a TopicState.
type PartitionState struct {
	// Leader is a broker's id; -1: nobody leads it now.
	Leader int32
	// LeaderEpoch is -1 while it is not known.
	LeaderEpoch int32
}

// UnmarshalJSON reads what the library writes: null is -1.
func (p *PartitionState) UnmarshalJSON(text []byte) error {
	raw := struct {
		Leader      *int32 `json:"leader"`
		LeaderEpoch *int32 `json:"leader_epoch"`
	}{}
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	p.Leader, p.LeaderEpoch = -1, -1
	if raw.Leader != nil {
		p.Leader = *raw.Leader
	}
	if raw.LeaderEpoch != nil {
		p.LeaderEpoch = *raw.LeaderEpoch
	}
	return nil
}

// Cluster is what the client knows of its cluster now: brokers, topics in use, who leads their partitions. No broker is asked.
// After a Close it fails with ErrClosed.
func (c *Client) Cluster() (Cluster, error) {
	text, failure := c.api.ClusterJSON()
	if failure != nil {
		return Cluster{}, failed(failure)
	}
	var cluster Cluster
	return cluster, read(text, &cluster)
}

// read reads JSON of the library.
func read(text string, into any) error {
	err := json.Unmarshal([]byte(text), into)
	if err == nil {
		return nil
	}
	return &Error{
		Code: ErrInternal, Message: "what the library tells can not be read: " + err.Error(),
		Advice: "use the library that belongs to this package", cause: err,
	}
}
