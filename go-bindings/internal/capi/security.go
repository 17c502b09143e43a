package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"fmt"
	"io"
	"unsafe"
)

// Secret is a text that shows itself nowhere: not to fmt, whatever the verb is, and not where fmt looks into a
// struct of somebody else's and calls no methods. The zero value is "".
type Secret struct{ text func() string }

// NewSecret hides a text.
func NewSecret(text string) Secret {
	return Secret{func() string { return text }}
}

func (s Secret) reveal() string {
	if s.text == nil {
		return ""
	}
	return s.text()
}

// Format is for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// Property is an ottla_property.
type Property struct {
	Name  string
	Value Secret
}

// Values of Verify: ottla_verify.
const (
	VerifyFull  = int32(C.OTTLA_VERIFY_FULL)
	VerifyChain = int32(C.OTTLA_VERIFY_CHAIN)
	VerifyNone  = int32(C.OTTLA_VERIFY_NONE)
)

// Values of Mechanism: ottla_sasl_mechanism.
const (
	Plain       = int32(C.OTTLA_SASL_PLAIN)
	ScramSHA256 = int32(C.OTTLA_SASL_SCRAM_SHA_256)
	ScramSHA512 = int32(C.OTTLA_SASL_SCRAM_SHA_512)
	OAuthBearer = int32(C.OTTLA_SASL_OAUTHBEARER)
)

// TLSOptions are ottla_tls_options; what is zero is always the default.
type TLSOptions struct {
	CA, Certificate, Key Secret
	ServerName           string
	Verify               int32
}

// SASLOptions are ottla_sasl_options.
type SASLOptions struct {
	User            string
	Password        Secret
	Mechanism       int32
	DelegationToken bool
	// OAuth is of OAuthBearer alone.
	OAuth *OAuthOptions
}

// OAuthOptions are ottla_oauth_options; what is zero is not given.
type OAuthOptions struct {
	TokenEndpoint               Secret
	ClientID                    string
	ClientSecret                Secret
	ClientSecretFile            Secret
	Scope                       string
	CA                          Secret
	Params                      []Property
	SecretInBody, EncodedHeader bool
	File                        Secret
	Token                       *Token
	Provider                    *TokenProvider
	// Kept is what the client is to keep of the provider.
	Kept       any
	Extensions []Property
}

// Token is an ottla_token.
type Token struct {
	Text                     Secret
	ExpiresAtMs, ExpiresInMs int64
	Extensions               []Property
}

// tls and sasl are in C's memory, as what points to them is a struct that C reads.
func (m *memory) tls(o *TLSOptions) *C.ottla_tls_options {
	if o == nil {
		return nil
	}
	out := (*C.ottla_tls_options)(m.array(1, unsafe.Sizeof(C.ottla_tls_options{})))
	*out = C.ottla_tls_options{
		size:        C.size_t(unsafe.Sizeof(C.ottla_tls_options{})),
		ca:          m.secret(o.CA),
		certificate: m.secret(o.Certificate),
		key:         m.secret(o.Key),
		server_name: m.option(o.ServerName),
		verify:      C.int32_t(o.Verify),
	}
	return out
}

func (m *memory) sasl(o *SASLOptions) *C.ottla_sasl_options {
	if o == nil {
		return nil
	}
	out := (*C.ottla_sasl_options)(m.array(1, unsafe.Sizeof(C.ottla_sasl_options{})))
	*out = C.ottla_sasl_options{
		size:      C.size_t(unsafe.Sizeof(C.ottla_sasl_options{})),
		user:      m.option(o.User),
		password:  m.secret(o.Password),
		mechanism: C.int32_t(o.Mechanism),
	}
	if o.DelegationToken {
		out.delegation_token = 1
	}
	out.oauth = m.oauth(o.OAuth)
	return out
}

func (m *memory) oauth(o *OAuthOptions) *C.ottla_oauth_options {
	if o == nil {
		return nil
	}
	out := (*C.ottla_oauth_options)(m.array(1, unsafe.Sizeof(C.ottla_oauth_options{})))
	*out = C.ottla_oauth_options{
		size:               C.size_t(unsafe.Sizeof(C.ottla_oauth_options{})),
		token_endpoint:     m.secret(o.TokenEndpoint),
		client_id:          m.option(o.ClientID),
		client_secret:      m.secret(o.ClientSecret),
		client_secret_file: m.secret(o.ClientSecretFile),
		scope:              m.option(o.Scope),
		ca:                 m.secret(o.CA),
		params:             m.properties(o.Params),
		param_count:        C.size_t(len(o.Params)),
		secret_in_body:     flag(o.SecretInBody),
		encoded_header:     flag(o.EncodedHeader),
		file:               m.secret(o.File),
		extensions:         m.properties(o.Extensions),
		extension_count:    C.size_t(len(o.Extensions)),
	}
	if o.Token != nil {
		out.token = m.token(o.Token)
	}
	if o.Provider != nil {
		out.provider = o.Provider.h
	}
	return out
}

func (m *memory) token(t *Token) *C.ottla_token {
	out := (*C.ottla_token)(m.array(1, unsafe.Sizeof(C.ottla_token{})))
	text := m.secret(t.Text)
	if text == nil {
		text = m.text("")
	}
	*out = C.ottla_token{
		size:            C.size_t(unsafe.Sizeof(C.ottla_token{})),
		token:           text,
		expires_at_ms:   C.int64_t(t.ExpiresAtMs),
		expires_in_ms:   C.int64_t(t.ExpiresInMs),
		extensions:      m.properties(t.Extensions),
		extension_count: C.size_t(len(t.Extensions)),
	}
	return out
}
