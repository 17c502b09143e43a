package ottla_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ottla "github.com/ottla-rs/ottla/go-bindings"
	"github.com/ottla-rs/ottla/go-bindings/ottlatest"
)

// bearers is a cluster that takes the token "a.b.c", and has a topic.
func bearers(t *testing.T) *ottlatest.Broker {
	t.Helper()
	broker := ottlatest.NewSecureCluster(t, ottla.BrokerSecurity{Mechanisms: []string{"OAUTHBEARER"}}, 1)
	broker.AddToken("a.b.c", "alice", 0)
	broker.CreateTopic("t", 1)
	return broker
}

// tokenEndpoint gives "a.b.c" to the client "me" with the secret, in whatever way it comes, if it asks for the scope "kafka".
func tokenEndpoint(t *testing.T, secret string) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, password, basic := r.BasicAuth()
		if !basic {
			id, password = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
		}
		w.Header().Set("Content-Type", "application/json")
		if id != "me" || password != secret || r.PostFormValue("scope") != "kafka" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"not %s"}`, password)
			return
		}
		_, _ = fmt.Fprint(w, `{"access_token":"a.b.c","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(server.Close)
	return server
}

// authority signs a certificate for 127.0.0.1, and gives itself in PEM.
func authority(t *testing.T) (string, tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if by == nil {
			parent, by = template, key
		}
		made, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return made, key
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	ca, by := issue(root, nil, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "endpoint"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	made, key := issue(leaf, root, by)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}))
	return text, tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

func TestRecordsGoInAndOutWithTokensFromEverywhere(t *testing.T) {
	ottla.Limit(t)
	broker, endpoint, secure := bearers(t), tokenEndpoint(t, canary), tokenEndpoint(t, canary)
	endpoint.Start()
	ca, certificate := authority(t)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	secure.StartTLS()
	file, secret := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "secret")
	for path, text := range map[string]string{file: "a.b.c\n", secret: canary + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kafka := ottla.Scope("kafka")
	for name, source := range map[string]ottla.TokenSource{
		"token":        ottla.Token{Text: "a.b.c", Expires: time.Now().Add(time.Hour)},
		"file":         ottla.TokenFile(file),
		"header":       ottla.ClientCredentials(endpoint.URL, "me", canary, kafka),
		"body":         ottla.ClientCredentials(endpoint.URL, "me", canary, kafka, ottla.SecretInBody(), ottla.Param("audience", "x")),
		"encoded":      ottla.ClientCredentials(endpoint.URL, "me", canary, kafka, ottla.EncodedHeader()),
		"secret file":  ottla.ClientCredentialsFile(endpoint.URL, "me", secret, kafka),
		"endpoint TLS": ottla.ClientCredentials(secure.URL, "me", canary, kafka, ottla.EndpointCA(ca)),
		"provider": ottla.TokenProvider(func(context.Context) (ottla.Token, error) {
			return ottla.Token{Text: "a.b.c", Extensions: map[string]string{"logicalCluster": "lkc-1"}}, nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			client, err := ottla.NewClient(
				ottla.Brokers(broker.Bootstrap()), ottla.OAuth(source, ottla.Extension("identityPoolId", "p")))
			if err != nil {
				t.Fatal(err)
			}
			inAndOut(t, client)
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	refused(t, ottla.ErrCredentials, "401: invalid_client (not ***)", ottla.Brokers(broker.Bootstrap()),
		ottla.OAuth(ottla.ClientCredentials(endpoint.URL, "me", canary+"-wrong", kafka)))
	refused(t, ottla.ErrCredentials, "certificate", ottla.Brokers(broker.Bootstrap()), ottla.ConnectTimeout(time.Second),
		ottla.OAuth(ottla.ClientCredentials(secure.URL, "me", canary, kafka)))
	broker.RemoveToken("a.b.c")
	refused(t, ottla.ErrAuthentication, "invalid_token", ottla.Brokers(broker.Bootstrap()), ottla.OAuth(ottla.TokenFile(file)))
}

func TestTokensByProperties(t *testing.T) {
	ottla.Limit(t)
	broker, endpoint := bearers(t), tokenEndpoint(t, canary)
	endpoint.Start()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(more map[string]string) ottla.ClientOption {
		more["bootstrap.servers"], more["security.protocol"], more["sasl.mechanism"] =
			broker.Bootstrap(), "SASL_PLAINTEXT", "OAUTHBEARER"
		return ottla.Properties(more)
	}
	jaas := `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId="me" clientSecret="` +
		canary + `" scope="kafka" extension_logicalCluster="lkc-1";`
	for name, properties := range map[string]map[string]string{
		"librdkafka": {
			"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.token.endpoint.url": endpoint.URL,
			"sasl.oauthbearer.client.id": "me", "sasl.oauthbearer.client.secret": canary,
			"sasl.oauthbearer.scope": "kafka", "sasl.oauthbearer.extensions": "logicalCluster=lkc-1",
		},
		"java": {"sasl.oauthbearer.token.endpoint.url": endpoint.URL, "sasl.jaas.config": jaas},
		"file": {"sasl.oauthbearer.token.endpoint.url": "file://" + file},
	} {
		t.Run(name, func(t *testing.T) { inAndOut(t, broker.Client(with(properties))) })
	}
	refused(t, ottla.ErrConfig, "token.endpoint.url is missing", with(map[string]string{"sasl.oauthbearer.client.secret": canary}))
}

func TestTokensAreRenewedWhileRecordsGoOut(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	const life = 3 * time.Second
	var asked atomic.Int64
	source := ottla.TokenProvider(func(ctx context.Context) (ottla.Token, error) {
		token := fmt.Sprintf("t.%d", asked.Add(1))
		broker.AddToken(token, "alice", life)
		return ottla.Token{Text: token, Expires: time.Now().Add(life)}, nil
	})
	producer := producerOf(t, broker.Client(ottla.OAuth(source)))
	// Sessions end with their tokens: the records of the third have gone by two that have ended.
	for sent := 0; asked.Load() < 4 || sent < 10; sent++ {
		deliver(t, producer, ottla.Record{Topic: "t", Value: []byte("x")})
	}
}

func TestATokenProviderThatFails(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	give := func(token ottla.Token) func() (ottla.Token, error) {
		return func() (ottla.Token, error) { return token, nil }
	}
	for words, provider := range map[string]func() (ottla.Token, error){
		"the vault is sealed":      func() (ottla.Token, error) { return ottla.Token{}, errors.New("the vault is sealed\x00") },
		"panicked: on purpose":     func() (ottla.Token, error) { panic("on purpose") },
		"ended its goroutine":      func() (ottla.Token, error) { runtime.Goexit(); return ottla.Token{}, nil },
		"a token is empty":         give(ottla.Token{}),
		"a NUL in it":              give(ottla.Token{Text: canary + "\x00"}),
		"that none can have":       give(ottla.Token{Text: canary + "ü"}),
		"has expired":              give(ottla.Token{Text: canary, Expires: time.Now().Add(-time.Hour)}),
		"has expired (long ago)":   give(ottla.Token{Text: canary, Expires: time.Unix(1, 0)}),
		"an extension has a name":  give(ottla.Token{Text: "a.b.c", Extensions: map[string]string{"auth": canary}}),
		"the token is refused":     give(ottla.Token{Text: "no.such.token"}),
		"the token provider: oops": func() (ottla.Token, error) { return ottla.Token{}, errors.New("oops") },
	} {
		words, _, _ = strings.Cut(words, " (")
		t.Run(words, func(t *testing.T) {
			code := ottla.ErrCredentials
			if words == "the token is refused" {
				code = ottla.ErrAuthentication
			}
			refused(t, code, words, ottla.Brokers(broker.Bootstrap()), ottla.ConnectTimeout(500*time.Millisecond),
				ottla.OAuth(ottla.TokenProvider(func(context.Context) (ottla.Token, error) { return provider() })))
		})
	}
}

func TestATokenProviderThatNeverAnswersIsToldOfTheEnd(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	ended := make(chan error, 1)
	var asked atomic.Int64
	goOn := make(chan struct{})
	source := ottla.TokenProvider(func(ctx context.Context) (ottla.Token, error) {
		if asked.Add(1) > 1 {
			return ottla.Token{Text: "a.b.c"}, nil
		}
		if _, limited := ctx.Deadline(); !limited {
			t.Error("it has all the time there is")
		}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		<-goOn
		// The client that wanted it has been closed.
		return ottla.Token{Text: "late"}, nil
	})
	refused(t, ottla.ErrConnect, "", ottla.Brokers(broker.Bootstrap()), ottla.OAuth(source), ottla.ConnectTimeout(500*time.Millisecond))
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "nobody waits") {
		t.Errorf("it ends with %v", err)
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	// Late is of no use to anybody; the next one is.
	close(goOn)
	inAndOut(t, broker.Client(ottla.OAuth(source)))
}

func TestClientsWithOneTokenProviderShareATokenAndTheirConnections(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	var asked atomic.Int64
	provider := func(context.Context) (ottla.Token, error) {
		asked.Add(1)
		return ottla.Token{Text: "a.b.c"}, nil
	}
	one := ottla.OAuth(ottla.TokenProvider(provider))
	inAndOut(t, broker.Client(one))
	before, _ := broker.Logins()
	inAndOut(t, broker.Client(one))
	// Consumers have a connection of their own.
	if after, _ := broker.Logins(); asked.Load() != 1 || after > before+1 {
		t.Errorf("asked %d times, %d logins and then %d", asked.Load(), before, after)
	}
	inAndOut(t, broker.Client(ottla.OAuth(ottla.TokenProvider(provider))))
	if asked.Load() != 2 {
		t.Errorf("another one is another: asked %d times", asked.Load())
	}
}

func TestATokenProviderIsForgottenWithItsClients(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	before := ottla.TokenProviders()
	func() {
		source := ottla.TokenProvider(func(context.Context) (ottla.Token, error) { return ottla.Token{Text: "a.b.c"}, nil })
		client, err := ottla.NewClient(ottla.Brokers(broker.Bootstrap()), ottla.OAuth(source))
		if err != nil {
			t.Fatal(err)
		}
		// Those of tests before this one may go meanwhile.
		if ottla.TokenProviders() == 0 {
			t.Error("nobody knows it")
		}
		inAndOut(t, client)
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}()
	for ottla.TokenProviders() > before {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

// vault gives tokens, and keeps what asks it.
type vault struct {
	source ottla.TokenSource
	client *ottla.Client
}

func (v *vault) token(context.Context) (ottla.Token, error) {
	if v.source == nil {
		return ottla.Token{}, errors.New("it is not ready")
	}
	return ottla.Token{Text: "a.b.c"}, nil
}

func TestATokenProviderThatKeepsItsClientIsForgotten(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	for _, closes := range []bool{true, false} {
		gone := make(chan struct{})
		func() {
			v := &vault{}
			runtime.AddCleanup(v, func(gone chan struct{}) { close(gone) }, gone)
			v.source = ottla.TokenProvider(v.token)
			var err error
			v.client, err = ottla.NewClient(ottla.Brokers(broker.Bootstrap()), ottla.OAuth(v.source), ottla.Logger(nil))
			if err != nil {
				t.Fatal(err)
			}
			inAndOut(t, v.client)
			if closes {
				if err := v.client.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
		for isGone := false; !isGone; {
			runtime.GC()
			select {
			case <-gone:
				isGone = true
			case <-time.After(time.Millisecond):
			}
		}
	}
}

func TestATokenProviderIsKeptByItsClient(t *testing.T) {
	ottla.Limit(t)
	broker := bearers(t)
	const life = 2 * time.Second
	var asked atomic.Int64
	client := func() *ottla.Client {
		return broker.Client(ottla.OAuth(ottla.TokenProvider(func(context.Context) (ottla.Token, error) {
			token := fmt.Sprintf("t.%d", asked.Add(1))
			broker.AddToken(token, "alice", life)
			return ottla.Token{Text: token, Expires: time.Now().Add(life)}, nil
		})))
	}()
	producer := producerOf(t, client)
	for asked.Load() < 3 {
		runtime.GC()
		deliver(t, producer, ottla.Record{Topic: "t", Value: []byte("x")})
	}
}
