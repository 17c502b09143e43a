package ottla

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// PropertiesOption is a setting of clients, producers and consumers.
type PropertiesOption interface {
	ClientOption
	ProducerOption
	ConsumerOption
}

// propertiesOption hides what it holds, from fmt too where it looks into a struct of somebody else's: there may be
// secrets in it.
type propertiesOption struct{ all func() map[string]string }

// Properties are settings by the names that Java's client, librdkafka and their like have for them
// ("bootstrap.servers", "linger.ms"): one map for client, producers and consumers, each of which takes
// its own settings. A client's settings are passed over by the others, and theirs by it. Settings that
// are not taken, because nobody has them, or they are another handle's, or ask for what is not offered,
// give one error that names them all and says what there is instead; values are not repeated, they may be secrets.
//
// Of two options that say the same, the later one counts. The topics to read are named with Topics or
// Assign.
func Properties(properties map[string]string) PropertiesOption {
	return propertiesOption{func() map[string]string { return properties }}
}

// Format is for every verb.
func (p propertiesOption) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "ottla.Properties(%q)", slices.Sorted(maps.Keys(p.all())))
}

// list gives them by name.
func (p propertiesOption) list() ([]capi.Property, error) {
	var list []capi.Property
	properties := p.all()
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if hasNUL(name) || hasNUL(properties[name]) {
			return nil, misconfigured("the property %q has a NUL", name)
		}
		list = append(list, capi.Property{Name: name, Value: capi.NewSecret(properties[name])})
	}
	return list, nil
}

// read gives the settings of one owner, by our names.
func (p propertiesOption) read(owner int32) (map[string]json.RawMessage, error) {
	list, err := p.list()
	if err != nil {
		return nil, err
	}
	text, failure := capi.PropertiesJSON(owner, list)
	if failure != nil {
		return nil, failed(failure)
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		return nil, &Error{Code: ErrInternal, Message: "reading properties: " + err.Error(), Advice: "report this", cause: err}
	}
	return settings, nil
}

// as reads a value.
func as[T any](raw json.RawMessage) (value T, err error) {
	err = json.Unmarshal(raw, &value)
	return value, err
}

func span(raw json.RawMessage) (time.Duration, error) {
	ns, err := as[int64](raw)
	return time.Duration(ns), err
}

// apply sets each setting by the option that it has here.
func apply[O any](p propertiesOption, owner int32, option func(name string, raw json.RawMessage) (O, error), set func(O) error) error {
	settings, err := p.read(owner)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		o, err := option(name, settings[name])
		if err == nil {
			err = set(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// option makes an option of a value that was read.
func option[T, O any](raw json.RawMessage, read func(json.RawMessage) (T, error), with func(T) O) (O, error) {
	value, err := read(raw)
	return with(value), err
}

func notTaken(name string) error {
	return misconfigured("'%s' can not be set by properties from Go", name)
}

func (p propertiesOption) client(s *clientSettings) error {
	return apply(p, capi.OwnerClient, func(name string, raw json.RawMessage) (ClientOption, error) {
		switch name {
		case "bootstrap":
			return option(raw, as[string], func(list string) ClientOption { return Brokers(list) })
		case "client_id":
			return option(raw, as[string], ClientID)
		case "rack":
			return option(raw, as[string], Rack)
		case "request_timeout":
			return option(raw, span, RequestTimeout)
		case "idle_timeout":
			return option(raw, span, IdleTimeout)
		case "tls", "sasl":
			return p.secured(name), nil
		}
		return nil, notTaken(name)
	}, func(o ClientOption) error { return o.client(s) })
}

// secured hands TLS or SASL on as they are: what they consist of is read where it is used.
func (p propertiesOption) secured(name string) ClientOption {
	return clientOption(func(s *clientSettings) error {
		list, err := p.list()
		if err != nil {
			return err
		}
		// All of one list are read together: one that says less must not take away what another said.
		if s.Properties != nil && !slices.Equal(names(s.Properties), names(list)) {
			return misconfigured("two Properties have TLS or SASL: give them in one")
		}
		s.Properties = list
		if name == "tls" {
			s.ClientOptions.TLS = nil
		} else {
			s.ClientOptions.SASL = nil
		}
		return nil
	})
}

func names(list []capi.Property) []string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Name
	}
	return names
}

func (p propertiesOption) producer(s *producerSettings) error {
	return apply(p, capi.OwnerProducer, func(name string, raw json.RawMessage) (ProducerOption, error) {
		switch name {
		case "acks":
			return option(raw, as[string], func(word string) ProducerOption {
				return Acks(map[string]Acknowledgement{"all": AcksAll, "leader": AcksLeader, "none": AcksNone}[word])
			})
		case "batch_size":
			return option(raw, as[int], BatchSize)
		case "buffer_memory":
			return option(raw, as[int], func(bytes int) ProducerOption { return BufferMemory(bytes) })
		case "compression":
			return option(raw, codecOf, Compression)
		case "delivery_timeout":
			return option(raw, span, DeliveryTimeout)
		case "linger":
			return option(raw, span, Linger)
		case "max_block":
			return option(raw, span, MaxBlock)
		case "max_record_size":
			return option(raw, as[int], MaxRecordSize)
		case "partitioner":
			return option(raw, as[string], func(word string) ProducerOption {
				return Partitioner(map[string]Partitioning{"spread": Spread, "key_hash": KeyHash}[word])
			})
		}
		return nil, notTaken(name)
	}, func(o ProducerOption) error { return o.producer(s) })
}

func (p propertiesOption) consumer(s *consumerSettings) error {
	return apply(p, capi.OwnerConsumer, func(name string, raw json.RawMessage) (ConsumerOption, error) {
		switch name {
		case "buffer_memory":
			return option(raw, as[int], func(bytes int) ConsumerOption { return BufferMemory(bytes) })
		case "check_crc":
			return option(raw, as[bool], func(check bool) ConsumerOption {
				return consumerOption(func(*consumerSettings) error {
					if !check {
						return misconfigured("'check.crcs' is false: checksums are always verified from Go")
					}
					return nil
				})
			})
		case "isolation":
			return option(raw, as[string], func(word string) ConsumerOption {
				return IsolationLevel(map[string]Isolation{"read_uncommitted": ReadUncommitted, "read_committed": ReadCommitted}[word])
			})
		case "max_bytes":
			return option(raw, as[int], MaxBytes)
		case "max_partition_bytes":
			return option(raw, as[int], MaxPartitionBytes)
		case "max_wait":
			return option(raw, span, MaxWait)
		case "min_bytes":
			return option(raw, as[int], MinBytes)
		case "start":
			return option(raw, as[string], func(word string) ConsumerOption {
				return consumerOption(func(s *consumerSettings) error {
					// Not Start itself: with Assign it is passed over, as a partition says its own.
					if !s.topicsStart {
						s.ConsumerOptions.Start = map[string]Position{"latest": Latest()}[word].kind
					}
					return nil
				})
			})
		}
		if o, err := groupProperty(name, raw); o != nil || err != nil {
			return o, err
		}
		return nil, notTaken(name)
	}, func(o ConsumerOption) error { return o.consumer(s) })
}

// codecOf reads "zstd:9".
func codecOf(raw json.RawMessage) (Codec, error) {
	text, err := as[string](raw)
	name, level, leveled := strings.Cut(text, ":")
	for kind, known := range codecNames {
		if err != nil || known != name {
			continue
		}
		codec := Codec{kind: kind}
		if leveled {
			var n int
			if n, err = strconv.Atoi(level); err == nil {
				codec = codec.Level(n)
			}
		}
		return codec, err
	}
	return Codec{}, fmt.Errorf("ottla: codec %q: %w", text, err)
}
