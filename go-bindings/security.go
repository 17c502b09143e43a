package ottla

import (
	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// TLSOption is one of what TLS is made of.
type TLSOption interface{ tls(*capi.TLSOptions) error }

type tlsOption func(*capi.TLSOptions) error

func (o tlsOption) tls(s *capi.TLSOptions) error { return o(s) }

// TLS reaches brokers by TLS (1.2 or 1.3): brokers whose certificates a CA has signed that the system trusts, unless CA
// says which ones.
//
//	ottla.TLS(ottla.CA("ca.pem"), ottla.Identity("client.pem", "client.key"))
//
// Certificates and keys are PEM: the path of a file, or the text itself, with its -----BEGIN line. Files are read when the
// client is made, and looked at again before a connection is made, at most every 10 s: certificates can be renewed
// while a program runs. A broker's certificate that is not good is ErrTLS, as is a listener without TLS.
func TLS(options ...TLSOption) ClientOption {
	return clientOption(func(s *clientSettings) error {
		var made capi.TLSOptions
		for _, o := range options {
			if err := o.tls(&made); err != nil {
				return err
			}
		}
		s.ClientOptions.TLS = &made
		return nil
	})
}

// pem is a path or a text, which is not repeated: it may be a key.
func pem(option, text string) (capi.Secret, error) {
	if text == "" || hasNUL(text) {
		return capi.Secret{}, misconfigured("%s needs a path or PEM text, without NUL", option)
	}
	return capi.NewSecret(text), nil
}

// CA trusts the CAs in it, and no others.
func CA(text string) TLSOption {
	return tlsOption(func(s *capi.TLSOptions) (err error) {
		s.CA, err = pem("CA", text)
		return err
	})
}

// Identity is the certificate (and those between it and its CA) and the private key by which brokers know this client.
// They may be in one file: name it twice. The key must not be encrypted.
func Identity(certificate, key string) TLSOption {
	return tlsOption(func(s *capi.TLSOptions) (err error) {
		if s.Certificate, err = pem("the certificate of Identity", certificate); err == nil {
			s.Key, err = pem("the key of Identity", key)
		}
		return err
	})
}

// ServerName is the name that certificates must have, and that is asked for (SNI), at every broker. Default: the host or
// address that was dialled. For brokers behind addresses that their certificates do not know.
func ServerName(name string) TLSOption {
	return tlsOption(func(s *capi.TLSOptions) (err error) {
		s.ServerName, err = word("ServerName", name)
		return err
	})
}

// Verification is how much of a broker's certificate is checked.
type Verification int32

const (
	// VerifyFull is the default: that it leads to a trusted CA, and that it is for the name or address that was dialled.
	VerifyFull = Verification(capi.VerifyFull)
	// VerifyChain is that it leads to a trusted CA. Whoever has any certificate of that CA can pass for any broker.
	VerifyChain = Verification(capi.VerifyChain)
	// VerifyNone is nothing: anybody on the way can read and change everything, passwords among it. Logged as a warning.
	VerifyNone = Verification(capi.VerifyNone)
)

// Verify sets how much of a broker's certificate is checked. Default VerifyFull.
func Verify(v Verification) TLSOption {
	return tlsOption(func(s *capi.TLSOptions) error {
		if v != VerifyFull && v != VerifyChain && v != VerifyNone {
			return misconfigured("Verify is Verification(%d); it is VerifyFull, VerifyChain or VerifyNone", v)
		}
		s.Verify = int32(v)
		return nil
	})
}

// Plain logs in by PLAIN: name and password as they are. Use it with TLS: without, who listens has the password.
func Plain(user, password string) ClientOption {
	return login("Plain", capi.Plain, user, password)
}

// ScramOption is a variant of SCRAM.
type ScramOption interface{ scram(*capi.SASLOptions) }

type scramOption func(*capi.SASLOptions)

func (o scramOption) scram(s *capi.SASLOptions) { o(s) }

// DelegationToken says that user and password are the id and the HMAC of a delegation token (KIP-48).
func DelegationToken() ScramOption {
	return scramOption(func(s *capi.SASLOptions) { s.DelegationToken = true })
}

// ScramSHA256 logs in by SCRAM-SHA-256: the password does not cross the network, and the broker has to show that it
// knows it. User names are printable ASCII.
func ScramSHA256(user, password string, options ...ScramOption) ClientOption {
	return login("ScramSHA256", capi.ScramSHA256, user, password, options...)
}

// ScramSHA512 is as ScramSHA256, with the longer hash.
func ScramSHA512(user, password string, options ...ScramOption) ClientOption {
	return login("ScramSHA512", capi.ScramSHA512, user, password, options...)
}

// login refuses what C can not carry, without repeating it.
func login(option string, mechanism int32, user, password string, options ...ScramOption) ClientOption {
	secret := capi.NewSecret(password)
	usable := user != "" && !hasNUL(user) && password != "" && !hasNUL(password)
	return clientOption(func(s *clientSettings) error {
		if !usable {
			return misconfigured("%s needs a user and a password, without NUL", option)
		}
		made := capi.SASLOptions{User: user, Password: secret, Mechanism: mechanism}
		for _, o := range options {
			o.scram(&made)
		}
		s.ClientOptions.SASL = &made
		return nil
	})
}
