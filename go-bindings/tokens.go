package ottla

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/ottla-rs/ottla/go-bindings/internal/capi"
)

// tokens has the functions of the process's token providers called. One goroutine takes requests out, and each has one of its own;
// a provider has one request at a time.
type tokens struct {
	mu       sync.Mutex
	requests *capi.TokenRequests
	last     uint64
	// providers are kept by their clients and sources, not here: a function may be of something that keeps these, and all of it
	// would be kept for ever.
	providers map[uint64]weak.Pointer[tokenProvider]
	// working are the requests that functions are at work on, by their ids.
	working map[uint64]context.CancelCauseFunc
}

var processTokens = tokens{
	providers: map[uint64]weak.Pointer[tokenProvider]{},
	working:   map[uint64]context.CancelCauseFunc{},
}

// tokenProvider is one that the library knows once a client is made with it. It stays the same for all of them, so that
// they share their connections, and each of them keeps it.
type tokenProvider struct {
	call func(context.Context) (Token, error)
	mu   sync.Mutex
	api  *capi.TokenProvider
}

func (p *tokenProvider) open() (*capi.TokenProvider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.api == nil {
		api, err := processTokens.provider(p)
		if err != nil {
			return nil, err
		}
		p.api = api
	}
	return p.api, nil
}

func (t *tokens) provider(p *tokenProvider) (*capi.TokenProvider, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests == nil {
		requests, failure := capi.OpenTokenRequests()
		if failure != nil {
			return nil, failed(failure)
		}
		wake, err := requests.WakeFile()
		if err != nil {
			requests.Free()
			return nil, noDescriptor(err)
		}
		t.requests = requests
		go t.run(requests, wake)
	}
	t.last++
	api, failure := t.requests.Provider(t.last)
	if failure != nil {
		return nil, failed(failure)
	}
	// It is forgotten when the library says that nobody uses it.
	t.providers[t.last] = weak.Make(p)
	return api, nil
}

// run is the goroutine that takes requests out, as long as the process lives.
func (t *tokens) run(requests *capi.TokenRequests, wake *os.File) {
	var word [8]byte
	for {
		request := requests.Next()
		if request != nil {
			t.take(request)
			continue
		}
		if _, err := wake.Read(word[:]); err != nil {
			return
		}
	}
}

func (t *tokens) take(request *capi.TokenRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch request.Kind {
	case capi.TokenReleased:
		delete(t.providers, request.Tag)
	case capi.TokenGivenUp:
		if cancel := t.working[request.ID]; cancel != nil {
			cancel(errors.New("nobody waits for the token any more"))
		}
	case capi.TokenWanted:
		limit := time.Duration(request.TimeoutMs) * time.Millisecond
		ctx, cancel := context.WithCancelCause(context.Background())
		ctx, stop := context.WithTimeoutCause(ctx, limit, errors.New("the token is wanted no longer"))
		t.working[request.ID] = cancel
		go t.answer(ctx, func() { stop(); cancel(nil) }, request, t.providers[request.Tag].Value())
	}
}

// answer has the program's code run, without a lock.
func (t *tokens) answer(
	ctx context.Context, done func(), request *capi.TokenRequest, provider *tokenProvider,
) {
	defer func() {
		t.mu.Lock()
		delete(t.working, request.ID)
		t.mu.Unlock()
		done()
	}()
	// The zero value is that of a function that ended its goroutine.
	words := "the token provider ended its goroutine"
	var token *capi.Token
	defer func() {
		if token != nil {
			request.Give(token)
		} else {
			// What C can not carry would take the rest of the words with it.
			request.Fail(strings.ReplaceAll(strings.ToValidUTF8(words, "?"), "\x00", " "))
		}
	}()
	token, words = call(ctx, provider)
}

// call gives a token, or words on why there is none. A panic is one of them: it would end the program, and with it all that works.
func call(ctx context.Context, provider *tokenProvider) (token *capi.Token, words string) {
	words = "the token provider ended its goroutine"
	defer func() {
		if panicked := recover(); panicked != nil {
			token, words = nil, fmt.Sprintf("the token provider panicked: %v", panicked)
		}
	}()
	if provider == nil {
		return nil, "the token provider is gone"
	}
	given, err := provider.call(ctx)
	if err == nil {
		token, err = given.capi()
	}
	if err != nil {
		return nil, err.Error()
	}
	return token, ""
}
