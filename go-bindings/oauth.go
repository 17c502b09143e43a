package ottla

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// Token is what a client logs in with by OAUTHBEARER. fmt, slog and encoding/json show nothing of it (but fmt does of one in an
// unexported field of another type, where it calls no methods).
type Token struct {
	// Text is the token itself.
	Text string
	// Expires is when it ends. The zero time: as it says itself, if it is a JWT, else never.
	Expires time.Time
	// Extensions are SASL extensions that brokers are to have with it (KIP-342), by names of letters.
	Extensions map[string]string
}

// Format is for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "ottla.Token(***)") }

// LogValue is for slog.
func (t Token) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalJSON is for what writes whole values into logs.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// capi refuses what C can not carry, without repeating it.
func (t Token) capi() (*capi.Token, error) {
	made := capi.Token{Text: capi.NewSecret(t.Text), Extensions: properties(t.Extensions)}
	if t.Text == "" || hasNUL(t.Text) || anyNUL(t.Extensions) {
		return nil, misconfigured("a token is empty, or has a NUL in it or in its extensions")
	}
	if !t.Expires.IsZero() {
		// What ended long ago has ended.
		made.ExpiresAtMs = max(t.Expires.UnixMilli(), time.Date(1974, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	}
	return &made, nil
}

func anyNUL(pairs map[string]string) bool {
	for name, value := range pairs {
		if hasNUL(name) || hasNUL(value) {
			return true
		}
	}
	return false
}

func properties(pairs map[string]string) []capi.Property {
	var list []capi.Property
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		list = append(list, capi.Property{Name: name, Value: capi.NewSecret(pairs[name])})
	}
	return list
}

// TokenSource is where tokens come from: ClientCredentials, TokenFile, TokenProvider, or a Token that there is.
type TokenSource interface {
	source(*capi.OAuthOptions) error
}

func (t Token) source(o *capi.OAuthOptions) (err error) {
	o.Token, err = t.capi()
	return err
}

type tokenSource func(*capi.OAuthOptions) error

func (s tokenSource) source(o *capi.OAuthOptions) error { return s(o) }

// OAuthOption is a setting of OAuth.
type OAuthOption interface {
	oauth(*capi.OAuthOptions) error
}

type oauthOption func(*capi.OAuthOptions) error

func (o oauthOption) oauth(s *capi.OAuthOptions) error { return o(s) }

// OAuth logs in by OAUTHBEARER with tokens of a source. Use it with TLS: without, who listens has the token.
//
//	ottla.OAuth(ottla.ClientCredentials("https://login.example/oauth2/token", "my-service", secret, ottla.Scope("kafka")))
//
// One token is used for all connections, and another one is got before it ends. No token to be had is ErrCredentials, with the
// words of where it should have come from.
func OAuth(source TokenSource, options ...OAuthOption) ClientOption {
	return clientOption(func(s *clientSettings) error {
		if source == nil {
			return misconfigured("OAuth needs a source of tokens")
		}
		var made capi.OAuthOptions
		if err := source.source(&made); err != nil {
			return err
		}
		for _, o := range options {
			if err := o.oauth(&made); err != nil {
				return err
			}
		}
		s.ClientOptions.SASL = &capi.SASLOptions{Mechanism: capi.OAuthBearer, OAuth: &made}
		s.tokens = made.Kept
		return nil
	})
}

// Extension is a SASL extension that brokers are to have with each token (KIP-342), such as "logicalCluster": a name of letters,
// and a value.
func Extension(name, value string) OAuthOption {
	return oauthOption(func(o *capi.OAuthOptions) error {
		if hasNUL(name) || hasNUL(value) {
			return misconfigured("Extension has a NUL in it")
		}
		o.Extensions = append(o.Extensions, capi.Property{Name: name, Value: capi.NewSecret(value)})
		return nil
	})
}

// CredentialsOption is a setting of ClientCredentials.
type CredentialsOption interface {
	credentials(*capi.OAuthOptions) error
}

type credentialsOption func(*capi.OAuthOptions) error

func (o credentialsOption) credentials(s *capi.OAuthOptions) error { return o(s) }

// ClientCredentials gets tokens for the client's own id and secret from a token endpoint, as the grant client_credentials of RFC 6749 has
// it. The endpoint is reached without a proxy, and redirects are refused. With http:// who listens has the secret.
func ClientCredentials(url, clientID, clientSecret string, options ...CredentialsOption) TokenSource {
	secret := capi.NewSecret(clientSecret)
	usable := clientSecret != "" && !hasNUL(clientSecret)
	return credentials(url, clientID, options, func(o *capi.OAuthOptions) error {
		if !usable {
			return misconfigured("ClientCredentials needs a client secret, without NUL")
		}
		o.ClientSecret = secret
		return nil
	})
}

// ClientCredentialsFile is ClientCredentials with a secret that is in a file, which is read for each token.
func ClientCredentialsFile(url, clientID, path string, options ...CredentialsOption) TokenSource {
	return credentials(url, clientID, options, func(o *capi.OAuthOptions) (err error) {
		o.ClientSecretFile, err = secretPath("ClientCredentialsFile", path)
		return err
	})
}

func credentials(url, clientID string, options []CredentialsOption, secret credentialsOption) TokenSource {
	where := capi.NewSecret(url)
	usable := url != "" && !hasNUL(url)
	return tokenSource(func(o *capi.OAuthOptions) (err error) {
		if !usable {
			return misconfigured("ClientCredentials needs the URL of a token endpoint, without NUL")
		}
		o.TokenEndpoint = where
		if o.ClientID, err = word("the client id of ClientCredentials", clientID); err != nil {
			return err
		}
		for _, option := range append([]CredentialsOption{secret}, options...) {
			if err := option.credentials(o); err != nil {
				return err
			}
		}
		return nil
	})
}

// secretPath is a path, which is not repeated: it may be the secret itself.
func secretPath(option, path string) (capi.Secret, error) {
	if path == "" || hasNUL(path) {
		return capi.Secret{}, misconfigured("%s needs a path, without NUL", option)
	}
	return capi.NewSecret(path), nil
}

// Scope is what tokens are to be good for; several are separated by spaces. Default: as the endpoint has it.
func Scope(scope string) CredentialsOption {
	return credentialsOption(func(o *capi.OAuthOptions) (err error) {
		o.Scope, err = word("Scope", scope)
		return err
	})
}

// Param is one more field of the request, such as "audience".
func Param(name, value string) CredentialsOption {
	return credentialsOption(func(o *capi.OAuthOptions) error {
		if hasNUL(name) || hasNUL(value) {
			return misconfigured("Param has a NUL in it")
		}
		o.Params = append(o.Params, capi.Property{Name: name, Value: capi.NewSecret(value)})
		return nil
	})
}

// SecretInBody sends id and secret in the body, not in the header Authorization.
func SecretInBody() CredentialsOption {
	return credentialsOption(func(o *capi.OAuthOptions) error {
		o.SecretInBody = true
		return nil
	})
}

// EncodedHeader percent-encodes id and secret in the header, as RFC 6749 has it, and as other clients of Kafka do not.
func EncodedHeader() CredentialsOption {
	return credentialsOption(func(o *capi.OAuthOptions) error {
		o.EncodedHeader = true
		return nil
	})
}

// EndpointCA trusts the CAs in it at the token endpoint, and no others: a path or PEM text. Default: those that the system trusts.
// What is set for brokers does not count there.
func EndpointCA(text string) CredentialsOption {
	return credentialsOption(func(o *capi.OAuthOptions) (err error) {
		o.CA, err = pem("EndpointCA", text)
		return err
	})
}

// TokenFile is a file that has a token, and that somebody keeps fresh: it is read again before a login, at most every 10 s. Kubernetes
// projects the tokens of service accounts so.
func TokenFile(path string) TokenSource {
	return tokenSource(func(o *capi.OAuthOptions) (err error) {
		o.File, err = secretPath("TokenFile", path)
		return err
	})
}

// TokenProvider is a program's own way to get tokens. It is called on a goroutine of its own, by one caller at a time; the
// context ends after 10 s, and when nobody wants the token any more. Its error is told to who waits, as ErrCredentials, and so must
// not tell secrets; it is called again after a while. What it gives is used by all connections of all clients that are
// made with the same TokenProvider, and it is called again at 50 to 80 % of the token's life; at 10 to 80 % of that of the first
// one, and of one that came after a failure.
//
// It is kept by its clients and by what TokenProvider returns, and may itself keep these.
func TokenProvider(provider func(context.Context) (Token, error)) TokenSource {
	p := &tokenProvider{call: provider}
	return tokenSource(func(o *capi.OAuthOptions) (err error) {
		if provider == nil {
			return misconfigured("TokenProvider needs a function")
		}
		o.Kept = p
		o.Provider, err = p.open()
		return err
	})
}
