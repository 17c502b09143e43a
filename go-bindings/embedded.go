package ottla

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// EmbeddedBroker is a Kafka cluster inside this process, for tests and for trying things out: the
// real protocol on ports of 127.0.0.1, records in memory, gone when closed. In tests,
// ottlatest.NewBroker is shorter.
type EmbeddedBroker struct{ api *capi.TestBroker }

// StartEmbeddedBroker starts a cluster of so many brokers, without topics. Their ids are 1 to n; racks
// are given to them in turn.
func StartEmbeddedBroker(brokers int, racks ...string) (*EmbeddedBroker, error) {
	return StartSecureBroker(BrokerSecurity{}, brokers, racks...)
}

// BrokerSecurity is how an embedded broker is secured. The zero value: not at all.
type BrokerSecurity struct {
	// TLS: brokers speak it, and CA is what clients are to trust.
	TLS bool
	// ClientCertificates: nobody is served without one, as ClientIdentity makes them.
	ClientCertificates bool
	// Users, and their passwords, log in by PLAIN or SCRAM. With any, clients have to.
	Users map[string]string
	// Mechanisms that are taken: "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" (default: all of these), and "OAUTHBEARER" with the
	// tokens of AddToken.
	Mechanisms []string
	// ACLs are what principals (users; "*": everybody) may do: "write orders", "read log-*", "everything". With any,
	// nobody may do anything else.
	ACLs map[string][]string
}

// StartSecureBroker is StartEmbeddedBroker with TLS, logins and rights.
func StartSecureBroker(security BrokerSecurity, brokers int, racks ...string) (*EmbeddedBroker, error) {
	if brokers < 1 {
		return nil, invalid("a cluster of %d brokers: 1 at least", brokers)
	}
	for _, rack := range racks {
		if hasNUL(rack) {
			return nil, invalid("the rack %q has a NUL in its name", rack)
		}
	}
	options := capi.TestBrokerOptions{
		Brokers: int32(min(brokers, 1<<20)), Racks: racks,
		TLS: security.TLS, ClientCertificates: security.ClientCertificates,
		Mechanisms: strings.Join(security.Mechanisms, ","),
	}
	all := options.Mechanisms
	for _, user := range slices.Sorted(maps.Keys(security.Users)) {
		password := security.Users[user]
		all += user + password
		options.Users = append(options.Users, capi.Property{Name: user, Value: capi.NewSecret(password)})
	}
	for _, principal := range slices.Sorted(maps.Keys(security.ACLs)) {
		for _, right := range security.ACLs[principal] {
			all += principal + right
			options.ACLs = append(options.ACLs, capi.Property{Name: principal, Value: capi.NewSecret(right)})
		}
	}
	if hasNUL(all) {
		return nil, invalid("BrokerSecurity has a NUL in it")
	}
	api, failure := capi.NewTestBroker(options)
	if failure != nil {
		return nil, failed(failure)
	}
	return &EmbeddedBroker{api}, nil
}

// Bootstrap is where to reach it: "host:port,host:port", for Brokers. "" once it is closed.
func (b *EmbeddedBroker) Bootstrap() string { return b.api.Bootstrap() }

// Addresses are the same one by one, for other Kafka clients. None once it is closed.
func (b *EmbeddedBroker) Addresses() []string {
	bootstrap := b.Bootstrap()
	if bootstrap == "" {
		return nil
	}
	return strings.Split(bootstrap, ",")
}

// CA is the certificate of the cluster's own authority, in PEM, for ottla.CA: what clients are to trust. "" without TLS, and
// once it is closed.
func (b *EmbeddedBroker) CA() string { return b.api.CA() }

// ClientIdentity makes a certificate and its key for a client, in PEM, for ottla.Identity. Brokers know its owner as
// "User:CN=name".
func (b *EmbeddedBroker) ClientIdentity(name string) (certificate, key string, err error) {
	if hasNUL(name) {
		return "", "", invalid("the name %q has a NUL in it", name)
	}
	certificate, key, failure := b.api.ClientIdentity(name)
	return certificate, key, failed(failure)
}

// SetUser adds a user, or changes a password. Who is logged in stays.
func (b *EmbeddedBroker) SetUser(name, password string) error {
	if hasNUL(name) || hasNUL(password) {
		return invalid("a user's name or password has a NUL in it")
	}
	return failed(b.api.SetUser(name, password))
}

// Logins are how many began, and how many of them were right.
func (b *EmbeddedBroker) Logins() (begun, succeeded int, err error) {
	all, right, failure := b.api.Logins()
	return int(all), int(right), failed(failure)
}

// CreateTopic creates a topic at once; partition p is led by broker p mod n + 1.
func (b *EmbeddedBroker) CreateTopic(name string, partitions, replication int) error {
	if name == "" || hasNUL(name) {
		return badTopic(name)
	}
	return failed(b.api.CreateTopic(name, int32(min(partitions, 1<<30)), int32(min(replication, 1<<30))))
}

// SetReplicaDelay is how long followers take to copy what is written: acknowledgements by all
// replicas and consumers wait that long. Also for what waits now: 0 lets it go; negative: they never
// copy, until this is called again. A topic with one replica has no followers and never waits.
func (b *EmbeddedBroker) SetReplicaDelay(d time.Duration) error {
	ms := int64(-1)
	if d >= 0 {
		ms, _ = milliseconds("SetReplicaDelay", d)
	}
	return failed(b.api.SetReplicaDelay(ms))
}

// StopBroker stops the broker with this id: its port refuses, its connections are cut, its records
// stay. moveLeaders: the cluster notices, and others take over its partitions.
func (b *EmbeddedBroker) StopBroker(id int, moveLeaders bool) error {
	return failed(b.api.StopBroker(int32(min(id, 1<<20)), moveLeaders))
}

// StartBroker starts a stopped broker again, on its old port.
func (b *EmbeddedBroker) StartBroker(id int) error {
	return failed(b.api.StartBroker(int32(min(id, 1<<20))))
}

// Replace puts another cluster in the place of this one, at the same addresses: it has this id, no
// topics and no records, and gives its producer ids from the beginning again. All connections are cut.
func (b *EmbeddedBroker) Replace(clusterID string) error {
	if hasNUL(clusterID) {
		return invalid("the cluster id %q has a NUL in it", clusterID)
	}
	return failed(b.api.Replace(clusterID))
}

// LogEnd is the offset that the next record of a partition gets: how many were written to it.
func (b *EmbeddedBroker) LogEnd(topic string, partition int32) (int64, error) {
	if hasNUL(topic) {
		return 0, badTopic(topic)
	}
	offset, failure := b.api.LogEnd(topic, partition)
	return offset, failed(failure)
}

// Codecs are those that the batches kept in a topic are compressed with, at whatever level.
func (b *EmbeddedBroker) Codecs(topic string) ([]Codec, error) {
	if hasNUL(topic) {
		return nil, badTopic(topic)
	}
	bits, failure := b.api.Codecs(topic)
	var codecs []Codec
	for _, codec := range []Codec{None, LZ4, Snappy, Gzip, Zstd} {
		if bits&(1<<codec.kind) != 0 {
			codecs = append(codecs, codec)
		}
	}
	return codecs, failed(failure)
}

// Close stops it; what it holds is gone. Closing again does nothing.
func (b *EmbeddedBroker) Close() { b.api.Free() }
