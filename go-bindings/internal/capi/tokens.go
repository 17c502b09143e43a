package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"os"
	"runtime"
)

// Kinds of token requests: ottla_token_request_kind.
const (
	TokenWanted   = int32(C.OTTLA_TOKEN_WANTED)
	TokenGivenUp  = int32(C.OTTLA_TOKEN_GIVEN_UP)
	TokenReleased = int32(C.OTTLA_TOKEN_RELEASED)
)

// TokenRequests are an ottla_token_requests, for one goroutine that takes them. It is never freed: a process has one.
type TokenRequests struct{ h *C.ottla_token_requests }

// OpenTokenRequests makes a queue.
func OpenTokenRequests() (*TokenRequests, *Failure) {
	var h *C.ottla_token_requests
	var e *C.ottla_error
	if f := outcome(C.ottla_token_requests_open(&h, &e), e); f != nil {
		return nil, f
	}
	return &TokenRequests{h}, nil
}

// Free is for a queue that nobody has seen.
func (r *TokenRequests) Free() {
	C.ottla_token_requests_free(r.h)
	r.h = nil
}

// WakeFile is readable while something is wanted; see Client.WakeFile.
func (r *TokenRequests) WakeFile() (*os.File, error) {
	return wakeFile(int(C.ottla_token_requests_fd(r.h)), "ottla-tokens")
}

// TokenProvider is an ottla_token_provider, freed when nobody refers to it any more.
type TokenProvider struct{ h *C.ottla_token_provider }

// Provider makes one whose requests have this tag.
func (r *TokenRequests) Provider(tag uint64) (*TokenProvider, *Failure) {
	var h *C.ottla_token_provider
	var e *C.ottla_error
	if f := outcome(C.ottla_token_provider_new(r.h, C.uint64_t(tag), &h, &e), e); f != nil {
		return nil, f
	}
	p := &TokenProvider{h}
	runtime.AddCleanup(p, func(h *C.ottla_token_provider) { C.ottla_token_provider_free(h) }, h)
	return p, nil
}

// TokenRequest is an ottla_token_request. One for a token is to be given or failed, once.
type TokenRequest struct {
	h         *C.ottla_token_request
	Kind      int32
	Tag, ID   uint64
	TimeoutMs int64
}

// Next takes the next one, without waiting; nil if there is none.
func (r *TokenRequests) Next() *TokenRequest {
	var h *C.ottla_token_request
	var e *C.ottla_error
	if f := outcome(C.ottla_token_requests_next(r.h, 0, &h, &e), e); f != nil || h == nil {
		return nil
	}
	var info C.ottla_token_request_info
	if f := outcome(C.ottla_token_request_describe(h, &info, &e), e); f != nil {
		C.ottla_token_request_free(h)
		return nil
	}
	out := &TokenRequest{
		Kind: int32(info.kind), Tag: uint64(info.tag), ID: uint64(info.id), TimeoutMs: int64(info.timeout_ms),
	}
	if out.Kind == TokenWanted {
		out.h = h
	} else {
		C.ottla_token_request_free(h)
	}
	return out
}

// Give answers with a token.
func (r *TokenRequest) Give(t *Token) {
	var m memory
	defer func() { m.free() }()
	var e *C.ottla_error
	if f := outcome(C.ottla_token_request_give(r.h, m.token(t), &e), e); f != nil {
		r.Fail(f.Message)
		return
	}
	r.free()
}

// Fail answers with words, without NUL.
func (r *TokenRequest) Fail(words string) {
	var m memory
	defer func() { m.free() }()
	var e *C.ottla_error
	_ = outcome(C.ottla_token_request_fail(r.h, m.text(words), &e), e)
	r.free()
}

func (r *TokenRequest) free() {
	C.ottla_token_request_free(r.h)
	r.h = nil
}
