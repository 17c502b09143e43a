package ottla_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	ottla "github.com/ottla-rs/ottla/go-bindings"
)

// What writes whole values into logs has nothing of a token.
func TestATokenIsInNoLog(t *testing.T) {
	ottla.Limit(t)
	token := ottla.Token{Text: "s3cr3t-token"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "token", token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", token)
	written, err := json.Marshal(map[string]any{"token": token, "pointer": &token})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(written) + fmt.Sprintf("%v %+v %#v %s", token, token, &token, token)
	if strings.Contains(all, "s3cr3t") {
		t.Error(all)
	}
}
