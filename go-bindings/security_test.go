package ottla_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

const canary = "hunter2-Zm9v"

var mechanisms = map[string]func(user, password string) ottla.ClientOption{
	"PLAIN":         ottla.Plain,
	"SCRAM-SHA-256": func(user, password string) ottla.ClientOption { return ottla.ScramSHA256(user, password) },
	"SCRAM-SHA-512": func(user, password string) ottla.ClientOption { return ottla.ScramSHA512(user, password) },
}

// secured is a cluster with a user, and with a topic.
func secured(t *testing.T, security ottla.BrokerSecurity) *ottlatest.Broker {
	t.Helper()
	security.Users = map[string]string{"alice": canary}
	broker := ottlatest.NewSecureCluster(t, security, 1)
	broker.CreateTopic("t", 1)
	return broker
}

// inAndOut sends a record and reads it back.
func inAndOut(t *testing.T, client *ottla.Client) {
	t.Helper()
	producer := producerOf(t, client)
	deliver(t, producer, ottla.Record{Topic: "t", Value: []byte("in")})
	consumer, err := client.NewConsumer(ottla.Topics("t"))
	if err != nil {
		t.Fatal(err)
	}
	if got := next(t, consumer); string(got.Value) != "in" {
		t.Errorf("%q came back", got.Value)
	}
}

// refused is the error of a client that must not come to be, without the secret.
func refused(t *testing.T, code ottla.Code, words string, options ...ottla.ClientOption) *ottla.Error {
	t.Helper()
	client, err := ottla.NewClient(options...)
	if err == nil {
		_ = client.Close()
		t.Fatalf("it is not refused (%s)", words)
	}
	var e *ottla.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, words) {
		t.Fatalf("%v is not %v with %q", err, code, words)
	}
	if shown := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(shown, canary) {
		t.Errorf("the secret is shown: %s", shown)
	}
	return e
}

func TestRecordsGoInAndOutByEveryMechanism(t *testing.T) {
	ottla.Limit(t)
	for _, security := range []ottla.BrokerSecurity{{TLS: true}, {}} {
		broker := secured(t, security)
		if with := strings.Contains(broker.CA(), "-----BEGIN CERTIFICATE"); with != security.TLS {
			t.Fatalf("%+v has the CA %q", security.TLS, broker.CA())
		}
		for name, login := range mechanisms {
			options := []ottla.ClientOption{login("alice", canary)}
			if security.TLS {
				options = append(options, ottla.TLS(ottla.CA(broker.CA())))
			}
			inAndOut(t, broker.Client(options...))
			if begun, succeeded := broker.Logins(); begun == 0 || begun != succeeded {
				t.Errorf("%s: %d logins, %d of them right", name, begun, succeeded)
			}
		}
	}
}

func TestTheMechanismIsTheOneThatIsNamed(t *testing.T) {
	ottla.Limit(t)
	for name := range mechanisms {
		broker := secured(t, ottla.BrokerSecurity{Mechanisms: []string{name}})
		for other, login := range mechanisms {
			if other == name {
				inAndOut(t, broker.Client(login("alice", canary)))
			} else {
				refused(t, ottla.ErrAuthentication, name, ottla.Brokers(broker.Bootstrap()), login("alice", canary))
			}
		}
	}
}

func TestAWrongPasswordIsOneLogin(t *testing.T) {
	ottla.Limit(t)
	broker := secured(t, ottla.BrokerSecurity{TLS: true})
	for name, login := range mechanisms {
		before, _ := broker.Logins()
		// Who tried it again until then would be stopped by the limit of tests.
		e := refused(t, ottla.ErrAuthentication, "Authentication failed", ottla.Brokers(broker.Bootstrap()),
			ottla.TLS(ottla.CA(broker.CA())), login("alice", canary+"-wrong"), ottla.ConnectTimeout(time.Hour))
		if e.BrokerCode != 58 || !e.Fatal || e.Retriable || e.Advice == "" {
			t.Errorf("%s: %+v", name, e)
		}
		if begun, _ := broker.Logins(); begun != before+1 {
			t.Errorf("%s: %d logins", name, begun-before)
		}
	}
	broker.SetUser("alice", "changed")
	inAndOut(t, broker.Client(ottla.TLS(ottla.CA(broker.CA())), ottla.ScramSHA512("alice", "changed")))
}

func TestWhatIsCheckedOfACertificate(t *testing.T) {
	ottla.Limit(t)
	broker := secured(t, ottla.BrokerSecurity{TLS: true})
	other := secured(t, ottla.BrokerSecurity{TLS: true})
	at, login := ottla.Brokers(broker.Bootstrap()), ottla.Plain("alice", canary)
	ours, theirs, name := ottla.CA(broker.CA()), ottla.CA(other.CA()), ottla.ServerName("somewhere.else")
	inAndOut(t, broker.Client(login, ottla.TLS(ours, ottla.Verify(ottla.VerifyFull))))
	refused(t, ottla.ErrTLS, "somewhere.else", at, login, ottla.TLS(ours, name))
	inAndOut(t, broker.Client(login, ottla.TLS(ours, name, ottla.Verify(ottla.VerifyChain))))
	refused(t, ottla.ErrTLS, "", at, login, ottla.TLS(theirs))
	refused(t, ottla.ErrTLS, "", at, login, ottla.TLS(theirs, ottla.Verify(ottla.VerifyChain)))
	client := broker.Client(login, ottla.TLS(theirs, ottla.Verify(ottla.VerifyNone)))
	inAndOut(t, client)
	if stats, err := client.Stats(); err != nil || stats.BadStuff.TLSUnverified != 1 {
		t.Errorf("%+v, %v", stats.BadStuff, err)
	}
}

func TestAClientShowsItsCertificate(t *testing.T) {
	ottla.Limit(t)
	broker := ottlatest.NewSecureCluster(t, ottla.BrokerSecurity{TLS: true, ClientCertificates: true}, 1)
	broker.CreateTopic("t", 1)
	certificate, key := broker.ClientIdentity("alice")
	refused(t, ottla.ErrTLS, "ertificate", ottla.Brokers(broker.Bootstrap()), ottla.TLS(ottla.CA(broker.CA())))
	inAndOut(t, broker.Client(ottla.TLS(ottla.CA(broker.CA()), ottla.Identity(certificate, key))))
	var paths []string
	for i, text := range []string{broker.CA(), certificate + key} {
		paths = append(paths, filepath.Join(t.TempDir(), fmt.Sprintf("%d.pem", i)))
		if err := os.WriteFile(paths[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inAndOut(t, broker.Client(ottla.TLS(ottla.CA(paths[0]), ottla.Identity(paths[1], paths[1]))))
}

func TestTheWrongListener(t *testing.T) {
	ottla.Limit(t)
	with, without := secured(t, ottla.BrokerSecurity{TLS: true}), secured(t, ottla.BrokerSecurity{})
	soon := ottla.ConnectTimeout(500 * time.Millisecond)
	refused(t, ottla.ErrNotKafka, "TLS", ottla.Brokers(with.Bootstrap()), soon)
	refused(t, ottla.ErrTLS, "without TLS", ottla.Brokers(without.Bootstrap()), ottla.TLS(ottla.CA(with.CA())), soon)
	open := ottlatest.NewBroker(t)
	refused(t, ottla.ErrAuthentication, "no SASL", ottla.Brokers(open.Bootstrap()), ottla.Plain("alice", canary))
}

func TestRights(t *testing.T) {
	ottla.Limit(t)
	broker := secured(t, ottla.BrokerSecurity{ACLs: map[string][]string{"alice": {"write t", "describe u"}}})
	broker.CreateTopic("u", 1)
	producer := producerOf(t, broker.Client(ottla.Plain("alice", canary)))
	deliver(t, producer, ottla.Record{Topic: "t"})
	if _, err := producer.ProduceSync(within(t), ottla.Record{Topic: "u"}); !errors.Is(err, ottla.ErrAuthorization) {
		t.Errorf("%v", err)
	}
}

func TestTLSAndSASLByProperties(t *testing.T) {
	ottla.Limit(t)
	broker := secured(t, ottla.BrokerSecurity{TLS: true})
	properties := func(name, password string) map[string]string {
		return map[string]string{
			"bootstrap.servers": broker.Bootstrap(), "security.protocol": "SASL_SSL", "ssl.ca.pem": broker.CA(),
			"sasl.mechanism": name, "sasl.username": "alice", "sasl.password": password, "linger.ms": "5",
		}
	}
	for name, login := range mechanisms {
		inAndOut(t, broker.Client(ottla.Properties(properties(name, canary))))
		refused(t, ottla.ErrAuthentication, "Authentication failed", ottla.Properties(properties(name, "wrong")))
		// Of two that say the same, the later one counts.
		inAndOut(t, broker.Client(ottla.Properties(properties(name, "wrong")), login("alice", canary)))
		inAndOut(t, broker.Client(login("alice", "wrong"), ottla.Properties(properties(name, canary))))
		inAndOut(t, broker.Client(ottla.TLS(), ottla.Properties(properties(name, canary))))
		inAndOut(t, broker.Client(ottla.Properties(properties(name, "wrong")), ottla.Properties(properties(name, canary))))
		inAndOut(t, broker.Client(ottla.Properties(properties(name, canary)), ottla.Properties(map[string]string{"client.id": "c"})))
	}
	jaas := properties("SCRAM-SHA-256", "")
	delete(jaas, "sasl.username")
	delete(jaas, "sasl.password")
	jaas["sasl.jaas.config"] = `ScramLoginModule required username="alice" password="` + canary + `";`
	inAndOut(t, broker.Client(ottla.Properties(jaas)))
	// Halves of two lists would be one that nobody wrote.
	plain := ottla.Properties(map[string]string{
		"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "alice", "sasl.password": canary,
	})
	refused(t, ottla.ErrConfig, "in one", ottla.Properties(properties("PLAIN", canary)), plain)
}

func TestWhatCanNotLogIn(t *testing.T) {
	ottla.Limit(t)
	at := ottla.Brokers("127.0.0.1:9")
	key := "-----BEGIN PRIVATE KEY-----\n" + canary
	for words, option := range map[string]ottla.ClientOption{
		"Plain needs a user":       ottla.Plain("", canary),
		"ScramSHA256 needs a user": ottla.ScramSHA256("alice", ""),
		"ScramSHA512 needs a user": ottla.ScramSHA512("alice", canary+"\x00"),
		"without NUL":              ottla.Plain("a\x00", canary),
		"printable ASCII":          ottla.ScramSHA256("älice", canary),
		"CA needs a path":          ottla.TLS(ottla.CA("")),
		"key of Identity needs":    ottla.TLS(ottla.Identity("client.pem", key+"\x00")),
		"certificate of Identity":  ottla.TLS(ottla.Identity("", key)),
		"ServerName":               ottla.TLS(ottla.ServerName("")),
		"server_name":              ottla.TLS(ottla.ServerName("no name")),
		"Verification(7)":          ottla.TLS(ottla.Verify(7)),
		"/no/such.pem":             ottla.TLS(ottla.CA("/no/such.pem")),
		"ca":                       ottla.TLS(ottla.CA(key)),
		"set security.protocol":    ottla.Properties(map[string]string{"sasl.password": canary}),
		"neither true nor false":   ottla.Properties(map[string]string{"security.protocol": "SSL", "ssl.check.hostname": canary}),
		"OAuth needs a source":     ottla.OAuth(nil),
		"needs a client secret":    ottla.OAuth(ottla.ClientCredentials("https://idp/t", "me", "")),
		"the client id of":         ottla.OAuth(ottla.ClientCredentials("https://idp/t", "", canary)),
		"needs the URL":            ottla.OAuth(ottla.ClientCredentials(canary+"\x00", "me", canary)),
		"endpoint's URL":           ottla.OAuth(ottla.ClientCredentials("https://me:"+canary+"@idp/t", "me", canary)),
		"ClientCredentialsFile":    ottla.OAuth(ottla.ClientCredentialsFile("https://idp/t", "me", "")),
		"TokenFile needs a path":   ottla.OAuth(ottla.TokenFile("")),
		"needs a function":         ottla.OAuth(ottla.TokenProvider(nil)),
		"a token is empty":         ottla.OAuth(ottla.Token{}),
		"EndpointCA needs":         ottla.OAuth(ottla.ClientCredentials("https://idp/t", "me", canary, ottla.EndpointCA(""))),
		"Scope":                    ottla.OAuth(ottla.ClientCredentials("https://idp/t", "me", canary, ottla.Scope(""))),
		"Param has a NUL":          ottla.OAuth(ottla.ClientCredentials("https://idp/t", "me", canary, ottla.Param("a", canary+"\x00"))),
		"Extension has a NUL":      ottla.OAuth(ottla.Token{Text: "t"}, ottla.Extension("a", canary+"\x00")),
		"an extension has a name":  ottla.OAuth(ottla.Token{Text: "t"}, ottla.Extension("auth", canary)),
		"has a NUL":                ottla.Properties(map[string]string{"sasl.password\x00": canary}),
	} {
		refused(t, ottla.ErrConfig, words, at, option)
	}
	for words, security := range map[string]ottla.BrokerSecurity{
		"need TLS": {ClientCertificates: true}, "GSSAPI": {Mechanisms: []string{"GSSAPI"}},
		"'sing'": {ACLs: map[string][]string{"alice": {"sing"}}}, "NUL": {Users: map[string]string{"a": "\x00"}},
	} {
		if _, err := ottla.StartSecureBroker(security, 1); !errors.Is(err, ottla.ErrInvalidArgument) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// lines keeps what is logged; a handler runs on a goroutine of its own.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestNothingShowsASecret(t *testing.T) {
	ottla.Limit(t)
	broker := secured(t, ottla.BrokerSecurity{TLS: true})
	key := "-----BEGIN PRIVATE KEY-----\n" + canary
	options := map[string]any{
		"plain": ottla.Plain("alice", canary), "scram": ottla.ScramSHA256("alice", canary, ottla.DelegationToken()),
		"tls": ottla.TLS(ottla.CA(key), ottla.Identity(key, key)), "part": ottla.Identity(key, key),
		"oauth":      ottla.OAuth(ottla.ClientCredentials("https://idp/?k="+canary, "me", canary, ottla.Param("a", canary))),
		"source":     ottla.ClientCredentials("https://idp/t", "me", canary),
		"token":      ottla.OAuth(ottla.Token{Text: canary, Extensions: map[string]string{"a": canary}}),
		"properties": ottla.Properties(map[string]string{"sasl.password": canary}),
	}
	var all []any
	for _, option := range options {
		all = append(all, option)
	}
	// As a field that fmt finds, and calls no methods of.
	hidden := struct{ options []any }{all}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for name, shown := range map[string]string{
			"each": fmt.Sprintf(verb, all), "hidden": fmt.Sprintf(verb, hidden), "pointer": fmt.Sprintf(verb, &hidden),
		} {
			if strings.Contains(shown, canary) || strings.Contains(shown, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s by %s: %s", name, verb, shown)
			}
		}
	}
	if shown := fmt.Sprint(options["properties"]); shown != `ottla.Properties(["sasl.password"])` {
		t.Error(shown)
	}
	token := ottla.Token{Text: canary, Extensions: map[string]string{"a": canary}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if shown := fmt.Sprintf(verb, token) + fmt.Sprintf(verb, &token); strings.Contains(shown, canary) {
			t.Error(shown)
		}
	}
	// And the most talkative log, of what goes well and of what does not.
	said := &lines{}
	logger := ottla.Logger(slog.New(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug - 4})))
	trusted := ottla.TLS(ottla.CA(broker.CA()))
	for _, login := range mechanisms {
		client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()), trusted, login("alice", canary), logger)
		if err != nil {
			t.Fatal(err)
		}
		inAndOut(t, client)
		if shown := fmt.Sprintf("%+v", client); strings.Contains(shown, canary) {
			t.Error(shown)
		}
		refused(t, ottla.ErrAuthentication, "", ottla.Brokers(broker.Bootstrap()), trusted, login("alice", canary+"-wrong"), logger)
		// The last client's close waits for its lines.
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if text := said.String(); text == "" || strings.Contains(text, canary) {
		t.Errorf("said: %q", text)
	}
}
